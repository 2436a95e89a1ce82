"""Export a finished NB-CLIP run as a model folder that open_clip loads, with a model card."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from training.clip.load import load_clip, write_model_folder
from training.command import Work
from training.engine.checkpoint import CHECKPOINT
from training.errors import CheckpointError, ConfigError
from training.export.card import model_card, without_folders
from training.export.run import read_evaluation, read_run
from training.folders import check_writable, fresh_folder, replace_folder, write_json, writing

RECORD = "export.json"
"""Content of the card, for machines; its presence marks a folder as an export."""
CARD = "README.md"


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets export`."""
    parser.description = __doc__
    parser.add_argument("--run", required=True, help="finished run folder of training/run.py")
    parser.add_argument("--out", required=True, help="folder for the model; new, empty or an earlier export")
    parser.add_argument("--report", help="retrieval.json of an evaluation of this run, for the card")
    parser.add_argument(
        "--report-run", help="the run's name in that report (default: the name of its folder)"
    )
    return _export


def _export(options: argparse.Namespace) -> None:
    if options.report_run and not options.report:
        raise ConfigError("--report-run needs --report: it names the run in that report")
    run, out, report = Path(options.run), Path(options.out), Path(options.report) if options.report else None
    export(run, out, report, options.report_run)
    sys.stdout.write(f"wrote {options.out}: read {out / CARD} before you share it\n")


def export(run: Path, out: Path, report: Path | None = None, report_run: str | None = None) -> None:
    """Write the model folder with its card; nothing if anything is wrong.

    Args:
        run: finished run folder.
        out: folder to write; a former export is replaced.
        report: retrieval.json whose numbers the card shows.
        report_run: the run's name there.

    Raises:
        KGTargetsError: the run, the report or the folder is not usable.
    """
    check_out(out, run)
    record = read_run(run)
    evaluation = read_evaluation(report, record, report_run) if report is not None else None
    checkpoint = run / CHECKPOINT
    clip = load_clip(f"local-dir:{checkpoint}")
    for name, values in clip.model.state_dict().items():
        if not torch.isfinite(values).all():  # it could only give NaN
            raise CheckpointError(f"{checkpoint}: the weights {name} are not finite: train the run again")
    card = model_card(record, clip.config, evaluation)
    content = {"config": without_folders(record.config), "metrics": record.metrics, "data": record.data}
    place = out.resolve()
    fresh, old = (place.with_name(f".{place.name}.{suffix}") for suffix in ("partial", "old"))
    with writing(out, "--out"):
        place.parent.mkdir(parents=True, exist_ok=True)
        with fresh_folder(fresh):
            write_model_folder(fresh, clip.model, clip)
            (fresh / CARD).write_text(card, encoding="utf-8")
            write_json(fresh / RECORD, content | {"evaluation": asdict(evaluation) if evaluation else None})
            replace_folder(fresh, place, old)


def check_out(out: Path, run: Path) -> None:
    """Refuse a folder that holds something else, before the model is loaded.

    Raises:
        CheckpointError: it is not empty and no export, holds the run itself, or cannot be written.
    """
    check_writable(out, "--out")
    if run.resolve().is_relative_to(out.resolve()):
        raise CheckpointError(f"--out {out} holds the run itself: choose another folder")
    with writing(out, "--out"):
        if out.is_dir() and any(out.iterdir()) and not (out / RECORD).is_file():
            raise CheckpointError(f"--out {out} is not empty and no earlier export: choose another folder")
