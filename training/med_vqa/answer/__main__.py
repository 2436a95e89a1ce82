"""``python -m training.med_vqa.answer --model RUN --dataset vqa_rad --out DIR``.

DIR/predictions.csv and .json hold every answer and what it rests on; training.vqa.compare puts several side by side.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kg_targets.manifest import PARTS, TEST
from training.checks import one_of
from training.command import ArgumentParser, run_command
from training.errors import DataError
from training.folders import check_writable
from training.med_vqa.answer.answerer import SHORTLIST, Saved
from training.med_vqa.answer.evaluation import BLANK, IMAGES, REAL, EvalOptions, check_fits, evaluate, key_of
from training.med_vqa.answer.modes import MODES
from training.med_vqa.model.history import FIELD, from_json, told
from training.vqa.predictions import Predictions, read_predictions, write_predictions
from training.vqa.protocols import PROTOCOLS, add_data, read_data, read_split
from training.vqa.scores import accuracies, as_text

PREDICTIONS = "predictions.csv"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = ArgumentParser("python -m training.med_vqa.answer", description=__doc__)
    add = command.add_argument
    add("--model", required=True, help="finished run of training/run.py, or a model folder")
    add_data(command)
    add("--protocol", help=f"of {', '.join(PROTOCOLS)}; by default the model's")
    add("--split-seed", type=int, help="of the cut by image; by default the training's, else 0")
    add(
        "--validation-share",
        type=float,
        help="of the training questions; by default the training's, else 0.1",
    )
    add("--split", default=TEST, help="part to answer: train, validation or test (default)")
    add("--mode", default="exact", help=f"of {', '.join(MODES)}; default exact")
    add("--k", type=int, default=SHORTLIST, help=f"candidates of a short-list; default {SHORTLIST}")
    add(
        "--images",
        help=f"of {', '.join(IMAGES)}: what is shown with each question; by default what the training showed",
    )
    add("--seed", type=int, default=0, help="of the shuffled images; default 0")
    add("--precision", help="fp32, bf16 or fp16; by default the training's, else fp32")
    add("--max-broken", type=int, default=0, help="images that may be missing or unreadable; default 0. Their "
        "questions count as answered wrongly")  # fmt: skip
    add("--name", help="of the model in comparisons, the same for all seeds; by default its preset")
    add("--out", required=True, help=f"folder for {PREDICTIONS} and its .json")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer, print the scores, write the predictions; 2 for a user's error, 130 when interrupted."""
    return run_command(parser(), work, arguments)


def work(options: argparse.Namespace) -> None:
    """Everything that the command does.

    Raises:
        KGTargetsError: an option, the model, the data or the output folder is not usable.
    """
    out = Path(options.out)
    check_writable(out, "--out")
    manifest, root = read_data(options)
    saved = Saved.of(Path(options.model))
    for field in ("split_seed", "validation_share"):
        if getattr(options, field) is None:
            setattr(options, field, getattr(saved.recorded, field))
    protocol = options.protocol or saved.answers.protocol
    one_of("--protocol", protocol, PROTOCOLS)
    one_of("--split", options.split, PARTS)
    how = EvalOptions(
        part=options.split,
        mode=options.mode,
        k=options.k,
        images=options.images or (BLANK if saved.recorded.images == BLANK else REAL),
        seed=options.seed,
        precision=options.precision or saved.recorded.precision,
        max_broken=options.max_broken,
        name=options.name or saved.recorded.preset,
    )
    split = read_split(options, manifest, root, protocol)
    check_fits(saved, split, how.part)
    if not split.part(how.part):
        raise DataError(
            f"the {how.part} part of {split.dataset} is empty under {protocol}: name another --split"
        )
    known = _current(out, key_of(saved, split, root, how))
    predictions = known or evaluate(saved, split, root, how, _say)
    if known is None:
        write_predictions(out / PREDICTIONS, predictions)
    sys.stdout.write(f"{_header(predictions)}\n{as_text(accuracies([predictions]))}")
    for line in _remarks(predictions.facts):
        _say(line)
    sys.stdout.write(f"{out}: up to date\n" if known else f"wrote {out / PREDICTIONS}\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _current(out: Path, key: str) -> Predictions | None:
    try:
        predictions = read_predictions(out / PREDICTIONS)
    except DataError:
        return None
    return predictions if predictions.facts.get("key") == key else None


def _header(predictions: Predictions) -> str:
    facts = predictions.facts
    ceiling = facts["ceiling"].get("overall", 0.0)
    before = told(from_json(facts.get(FIELD), PREDICTIONS))
    return (
        f"{facts['dataset']}, protocol {facts['protocol']}, {facts['split']} part: model {facts['name']}, mode "
        f"{facts['mode']}, images {facts['images']}; {f'{before}; ' if before else ''}"
        f"{facts['candidates']:,} candidates: {facts['candidate_source']}; ceiling {100 * ceiling:.1f}; "
        "per cent of right answers, 95 % intervals by image"
    )


def _remarks(facts: dict[str, Any]) -> list[str]:
    told = {
        "images_broken": "images are missing or unreadable",
        "questions_unanswered": "questions have no image and count as answered wrongly",
        "questions_cut": "questions were too long and lost their end",
        "questions_empty": "questions are empty and were answered as they are",
        "questions_trained_on": "of the questions, image and wording, were trained on",
        "images_trained_on": "of their images were trained on",
        "candidates_merged": "candidates have the tokens of an earlier one, which stands for them",
    }
    lines = [f"note: {facts[name]:,} {text}" for name, text in told.items() if facts.get(name)]
    if facts["questions_trained_on"] is None:
        lines.append("note: the model has no record of its training questions: these may be among them")
    return lines


if __name__ == "__main__":
    sys.exit(main())
