"""Evaluate runs: ``python -m training.evaluate --store STORE --data-root DIR --run RUN [--run RUN …] --out DIR``."""

import argparse
import hashlib
import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from kg_targets.store import TargetStore
from training.clip.load import load_clip
from training.data.content import image_digest
from training.data.dataset import CaptionedImages
from training.engine.checkpoint import CHECKPOINT, FINISHED, write_json
from training.errors import CheckpointError, ConfigError, KGTargetsError
from training.evaluate.features import RetrievalSet, encode_images
from training.evaluate.metrics import label_codes
from training.evaluate.pictures import choose_queries, contact_sheet, target_block
from training.evaluate.report import (
    CUI_DEPTHS,
    Report,
    Run,
    as_json,
    as_markdown,
    as_text,
    label_sets,
    make_report,
    measure_chance,
    measure_run,
)
from training.evaluate.retrieval import rank_images
from training.folders import check_writable, writing

TABLE = "retrieval.txt"
RESULT = "retrieval.json"
OUTPUTS = (RESULT, "retrieval.md", TABLE, "contact_sheet.png", "target_block.png")
PROTOCOL = (
    "image to image; every image queries all others of the split, its own case excluded; chance is the expectation "
    "of a random order; P@K: labelled images only, a query without the label drops out of the mean"
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser("python -m training.evaluate", description=__doc__)
    command.add_argument("--store", required=True, help="target store of the split to evaluate")
    command.add_argument(
        "--data-root", required=True, help="folder that the store's image paths are relative to"
    )
    command.add_argument(
        "--run", action="append", required=True, help="run folder; repeat it, the first is the baseline"
    )
    command.add_argument(
        "--out", required=True, help="folder for retrieval.json, retrieval.md and two pictures"
    )
    command.add_argument(
        "--labels", help="comma-separated, a+b for a conjunction (default: each, and modality+region)"
    )
    command.add_argument(
        "--projected", action="store_true", help="features after the projection (default: before it)"
    )
    command.add_argument("--queries", type=int, default=8, help="queries on the contact sheet (default 8)")
    command.add_argument("--draws", type=int, default=2000, help="bootstrap samples (default 2000)")
    command.add_argument("--max-broken", type=int, default=0, help="unreadable images to skip (default 0)")
    command.add_argument(
        "--seed", type=int, default=0, help="of bootstrap, sign flips and shown queries (default 0)"
    )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, print the table, write the report; 2 for a user's error, 130 when interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    options = parser().parse_args(arguments)
    try:
        evaluate(options)
    except KGTargetsError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: run the same command again\n")
        return 130
    return 0


def evaluate(options: argparse.Namespace) -> None:
    """Everything that the command does.

    Raises:
        KGTargetsError: an option, a store, a run, an image or the output folder is not usable.
    """
    check_options(options)
    store, root, out = TargetStore.open(options.store), Path(options.data_root), Path(options.out)
    labels = label_sets(store.labels, options.labels.split(",") if options.labels else None)
    folders = _run_names(options.run)
    key = _key(store, folders, options, image_digest(root, store.image_paths))
    if _is_current(out, key):
        sys.stdout.write(f"{(out / TABLE).read_text(encoding='utf-8')}{out}: up to date\n")
        return
    for path in folders.values():
        check_finished(path)
    runs = []
    for name, path in folders.items():
        run, rows = encode_run(name, path, store=store, root=root, options=options)
        runs.append(run)
    data = RetrievalSet.of(store, rows)
    report = make_report(
        header=_header(store, data, runs, options),
        data=data,
        scores={run.name: measure_run(run.features, data, labels) for run in runs},
        chance=measure_chance(data, labels),
        draws=options.draws,
        seed=options.seed,
    )
    with writing(out, "--out"):
        write_outputs(out, report, data, runs, options, key)
    sys.stdout.write(as_text(report))
    for name in OUTPUTS:
        sys.stdout.write(f"wrote {out / name}\n")


def check_options(options: argparse.Namespace) -> None:
    """Refuse what would fail only after all images are encoded.

    Raises:
        ConfigError: a number is out of range.
        CheckpointError: ``--out`` cannot be written.
    """
    for name, low in (("queries", 1), ("draws", 1), ("max_broken", 0), ("seed", 0)):
        value = getattr(options, name)
        if value < low:
            raise ConfigError(f"--{name.replace('_', '-')}: {value} must be at least {low}")
    check_writable(Path(options.out), "--out")


def write_outputs(
    out: Path,
    report: Report,
    data: RetrievalSet,
    runs: Sequence[Run],
    options: argparse.Namespace,
    key: str,
) -> None:
    """All of OUTPUTS, or none: they are made in a folder beside ``out`` and moved in once all are there."""
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".retrieval-", dir=out.absolute().parent) as made_in:
        made = Path(made_in)
        (made / "retrieval.md").write_text(as_markdown(report), encoding="utf-8")
        (made / TABLE).write_text(as_text(report), encoding="utf-8")
        draw_pictures(made, data, runs, options)
        write_json(made / RESULT, {**as_json(report), "key": key})
        out.mkdir(exist_ok=True)
        # Away first and back last: its presence says that everything else is there and of the same evaluation.
        (out / RESULT).unlink(missing_ok=True)
        for name in sorted(OUTPUTS, key=lambda name: name == RESULT):
            shutil.move(made / name, out / name)


def draw_pictures(folder: Path, data: RetrievalSet, runs: Sequence[Run], options: argparse.Namespace) -> None:
    """contact_sheet.png and target_block.png."""
    store = data.store
    shown = _sheet_labels(store.labels)
    codes = label_codes(*(data.label(name) for name in shown)) if shown else data.cases
    if not (codes >= 0).any():  # no image has all of the labels
        codes = data.cases
    orders = {run.name: rank_images(run.features, data.cases, max(CUI_DEPTHS)) for run in runs}
    queries = choose_queries(codes, min(options.queries, len(codes)), options.seed)
    agreement = f"green: same {', '.join(shown)}; amber: some of them; red: none" if shown else "no labels"
    title = (
        f"{store.dataset}/{store.split}: random queries and the first 5 found, own case excluded; {agreement}"
    )
    contact_sheet(folder / "contact_sheet.png", data, Path(options.data_root), orders, queries, shown, title)
    order_by = next((name for name in ("region", "finding") if name in store.labels), None)
    target_block(
        folder / "target_block.png", store, order_by or next(iter(store.labels), None), seed=options.seed
    )


def encode_run(
    name: str, path: Path, *, store: TargetStore, root: Path, options: argparse.Namespace
) -> tuple[Run, Any]:
    """Features of a finished run on the store's images, and the store rows that could be read.

    Raises:
        CheckpointError: the folder's config or checkpoint is damaged.
    """
    started = time.monotonic()
    seed = _seed(path / "config.yaml")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clip = load_clip(f"local-dir:{path / CHECKPOINT}")
    clip.model.to(device)
    images = CaptionedImages(store, root, clip, max_broken=options.max_broken)
    features = encode_images(clip.model, clip, images, projected=options.projected, device=device)
    sys.stderr.write(f"{name}: {len(images):,} images encoded in {time.monotonic() - started:.1f} s\n")
    return Run(name, seed, features), images.rows


def check_finished(path: Path) -> None:
    """Refuse a folder without a finished run.

    Raises:
        CheckpointError: there is none.
    """
    if not (path / FINISHED).is_file():
        raise CheckpointError(
            f"{path} is not a finished training run (no {FINISHED}): train it with training/run.py"
        )


def _seed(config: Path) -> int:
    try:
        return int(yaml.safe_load(config.read_text(encoding="utf-8"))["seed"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{config} is missing or damaged: train the run again") from error


def _key(store: TargetStore, folders: dict[str, Path], options: argparse.Namespace, images: str) -> str:
    """Tells one evaluation from another: store, images, finished runs and options."""
    digest = hashlib.sha256(f"{store.fingerprint}\n{images}".encode())
    for name, path in folders.items():
        marker = path / FINISHED
        digest.update(f"\n{name}\n{marker.read_text() if marker.is_file() else ''}".encode())
    named_by_content = ("out", "run", "store", "data_root")
    chosen = {name: value for name, value in vars(options).items() if name not in named_by_content}
    digest.update(json.dumps(chosen, sort_keys=True).encode())
    return digest.hexdigest()


def _is_current(out: Path, key: str) -> bool:
    try:
        written = json.loads((out / RESULT).read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(written == key) and all((out / name).is_file() for name in OUTPUTS)


def _sheet_labels(available: Sequence[str]) -> tuple[str, ...]:
    """At most three labels to judge pictures by: the familiar ones where they exist."""
    familiar = tuple(name for name in ("modality", "region", "finding") if name in available)
    return familiar or tuple(available[:3])


def _run_names(paths: Sequence[str]) -> dict[str, Path]:
    """Run folders by their last path part.

    Raises:
        ConfigError: two folders have the same last part.
    """
    names = {Path(path).name: Path(path) for path in paths}
    if len(names) < len(paths):
        raise ConfigError(f"--run: two of {', '.join(paths)} have the same folder name; rename one")
    return names


def _header(
    store: TargetStore, data: RetrievalSet, runs: Sequence[Run], options: argparse.Namespace
) -> dict[str, Any]:
    return {
        "data": f"{store.dataset}, split {store.split}, {len(data.rows):,} images of {len(set(data.cases)):,} cases",
        "protocol": PROTOCOL,
        "features": "after the projection" if options.projected else "before the projection",
        "training seeds": ", ".join(f"{run.name} {run.seed}" for run in runs),
        "intervals": f"95 %, percentile bootstrap over cases, {options.draws} draws, seed {options.seed}; "
        "p: paired sign-flip test over cases, 10,000 flips; one trained model per run, so training noise is in neither",
    }


if __name__ == "__main__":
    sys.exit(main())
