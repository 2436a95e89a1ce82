"""Baselines: what answers without an image, and without learning, get right.

global       the most frequent training answer, for every question
answer_type  … among the open, or among the closed training questions
kind         … among those of the question's kind (``closed PRES``)
question     … among those that ask the very same question, of whatever image

Each falls back on the one above it. Only answers of the train part count, and of these only candidates: under
``paper`` a model is told what can be right, and so is its baseline. Of equally frequent answers the first in the
alphabet.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import asdict
from pathlib import Path

from kg_targets.manifest import PARTS, TEST, Question
from training.checks import one_of
from training.command import Work, add_json, print_json
from training.folders import check_writable
from training.statistics.intervals import nan_to_null
from training.vqa.answers import accepted_answers, normalise_question
from training.vqa.predictions import MAJORITY, Predictions, predictions_of, write_predictions
from training.vqa.protocols import PROTOCOLS, Split, add_data, add_split, read_data, read_split
from training.vqa.scores import accuracies, as_text

BASELINES = ("global", "answer_type", "kind", "question")


def majority_baseline(split: Split, name: str, part: str = TEST) -> Predictions:
    """Answer a part by the baseline ``name`` of ``BASELINES``.

    Raises:
        ConfigError: no such baseline or part.
    """
    one_of("baseline", name, BASELINES)
    ladder = BASELINES[BASELINES.index(name) :: -1]
    known = set(split.candidates)
    counts: dict[tuple[str, Hashable], Counter[str]] = defaultdict(Counter)
    for question in split.train:
        given = [text for text in accepted_answers(question, split.language) if text in known][:1]
        for step in ladder:
            counts[step, _group(question, step)].update(given)
    # The most frequent, and of these the first in the alphabet.
    best = {
        group: max(sorted(counter), key=counter.__getitem__) for group, counter in counts.items() if counter
    }
    predicted = [
        next((best[step, group] for step in ladder if (step, group := _group(question, step)) in best), "")
        for question in split.part(part)
    ]
    return predictions_of(
        split, part, predicted, metadata={"name": f"majority by {name}", "mode": MAJORITY, "images": "none"}
    )


def _group(question: Question, step: str) -> Hashable:
    match step:
        case "answer_type":
            return question.closed
        case "kind":
            return question.kind
        case "question":
            return normalise_question(question.question)
    return None


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets evaluate baselines`."""
    parser.description = __doc__
    add_data(parser)
    add_split(parser, ",".join(PROTOCOLS))
    parser.add_argument("--part", default=TEST, help="train, validation or test")
    parser.add_argument("--out", help="folder for <protocol>-<baseline>.csv and .json")
    add_json(parser)
    return work


def work(options: argparse.Namespace) -> None:
    """Everything that the command does.

    Raises:
        KGTargetsError: an option, a file or the output folder is not usable.
    """
    one_of("--part", options.part, PARTS)
    manifest, root = read_data(options)
    if options.out:
        check_writable(Path(options.out), "--out")
    for name in options.protocol.split(","):
        one_of("--protocol", name, PROTOCOLS)
    splits = [read_split(options, manifest, root, name) for name in options.protocol.split(",")]
    found = {
        (split.protocol, name): majority_baseline(split, name, options.part)
        for split in splits
        for name in BASELINES
    }
    if options.out:
        for (protocol, name), predictions in found.items():
            write_predictions(Path(options.out) / f"{protocol}-{name}.csv", predictions)
    scores = {place: accuracies([predictions]) for place, predictions in found.items()}
    if options.json:
        listed = [
            {"protocol": protocol, "baseline": name, "accuracies": {k: asdict(v) for k, v in one.items()}}
            for (protocol, name), one in scores.items()
        ]
        print_json(nan_to_null(listed))
        return
    for (protocol, name), one in scores.items():
        sys.stdout.write(f"{protocol}: majority by {name}\n{as_text(one)}\n")
    if options.out:
        sys.stdout.write(f"wrote {len(found)} predictions to {options.out}\n")
