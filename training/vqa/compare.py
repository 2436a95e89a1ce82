"""Models, question-only models, shuffled images and floors side by side: ``python -m training.vqa.compare --help``

Predictions of one configuration that differ in the training's seed only are one row. What is one configuration, and
what it is compared with, is read from the facts beside each CSV:

Each file is given as FILE, or with its configuration's name: NAME=FILE,FILE. A path that contains = or , is taken as
it is where the file is there.

role           facts                             compared with
model          trained_on real, images real
question_only  trained_on blank                  the model of the same name: what the image adds to learning
shuffled       trained_on real, images shuffled  the same trained model: what the right image adds to answers
blank          trained_on real, images blank     the same trained model
floor          mode floor                        every model; only the best floor of a table is tested against

With ``--pool-cuts`` the cuts of a cross-validation (``image_disjoint``, ``--split-seed 0``, ``1``, …) are put end to
end first, per configuration and seed. All tests of a report are one family, corrected by Holm. Two configurations with
two or more training seeds in common are compared by a t test that contains training noise; others by sign flips over
images, which say something about these trained models only.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checks import within
from training.errors import ConfigError, DataError
from training.folders import check_writable
from training.retrieval.arguments import ArgumentParser, answer
from training.statistics.bootstrap import flips_for, holm
from training.vqa.compare_report import as_json, as_markdown
from training.vqa.files import json_text, write_text
from training.vqa.pooling import pool
from training.vqa.predictions import Predictions, read_predictions
from training.vqa.scores import FLOOR, HEADLINES, OVERALL, Accuracy, Difference, accuracies, differences

MODEL, QUESTION_ONLY, SHUFFLED, BLANK = "model", "question_only", "shuffled", "blank"
CONTROLS = (QUESTION_ONLY, SHUFFLED, BLANK)
_IMAGES = {"real": MODEL, "shuffled": SHUFFLED, "blank": BLANK}


@dataclass(frozen=True)
class Row:
    """One configuration on one part: its predictions from every seed."""

    name: str
    role: str
    mode: str
    seeds: tuple[Any, ...]
    """Of the trainings, in order; ``None`` where a file names none."""
    predictions: tuple[Predictions, ...]
    accuracies: dict[str, Accuracy]

    @property
    def facts(self) -> dict[str, Any]:
        """Of its first predictions."""
        return self.predictions[0].facts


@dataclass(frozen=True)
class Test:
    """A model against another row, in one group of questions."""

    model: Row
    baseline: Row
    group: str
    difference: Difference
    """Of the accuracies; its interval, p, and what both rest on."""
    corrected: float
    """p after Holm over every test of the report."""


@dataclass(frozen=True)
class Table:
    """Everything on one part of one data set under one protocol and cut."""

    rows: tuple[Row, ...]
    tests: tuple[Test, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """Data set, protocol, part, cut, candidates and ceiling, which its rows share."""
        return self.rows[0].facts


def role_of(facts: dict[str, Any]) -> str:
    """What predictions are compared as.

    Raises:
        DataError: the facts do not say which images were seen.
    """
    if facts.get("mode") == FLOOR:
        return FLOOR
    trained_on = facts.get("trained_on", "unknown")
    if trained_on not in ("real", "blank"):
        raise DataError(
            f'predictions of a model that was trained on "{trained_on}" images: real and blank are known. Its folder '
            "has no record of the training: answer with its finished run, or train it again"
        )
    if trained_on == "blank":
        return QUESTION_ONLY
    images = facts.get("images", "real")
    if images not in _IMAGES:
        raise DataError(f'predictions answered from images "{images}": real, shuffled and blank are known')
    return _IMAGES[images]


def tables_of(
    given: Iterable[tuple[str, Predictions]], draws: int = 2000, seed: int = 0, pool_cuts: bool = False
) -> list[Table]:
    """Rows of predictions, one table for each data set, protocol, part and cut, in order of first appearance.

    Args:
        given: (name, predictions); an empty name stands for the ``name`` of the facts.
        draws: bootstrap samples of each interval.
        seed: of bootstrap and sign flips.
        pool_cuts: whether predictions that differ in the cut only become one.

    Raises:
        DataError: predictions do not fit together, or the same seed is given twice.
    """
    if pool_cuts:
        given = _pooled(given)
    found: dict[tuple[Any, ...], dict[tuple[str, str, str], list[Predictions]]] = {}
    for name, predictions in given:
        facts = predictions.facts
        place = tuple(facts.get(key) for key in ("dataset", "protocol", "split", "split_seed"))
        row = (name or str(facts.get("name", "model")), role_of(facts), str(facts.get("mode", "")))
        found.setdefault(place, {}).setdefault(row, []).append(predictions)
    tables = [
        tuple(_row(*key, predictions, draws, seed) for key, predictions in rows.items())
        for rows in found.values()
    ]
    pairs = [_pairs(rows) for rows in tables]
    for of_table in pairs:
        for model, other in of_table:
            _check_same_models(model, other)
    flips = flips_for(len(HEADLINES) * sum(map(len, pairs)))
    tested = [
        [
            (model, baseline, group, difference)
            for model, baseline in of_table
            for group, difference in differences(
                model.predictions, baseline.predictions, HEADLINES, draws, flips, seed
            ).items()
        ]
        for of_table in pairs
    ]
    corrected = iter(holm([difference.p_value for of_table in tested for *_, difference in of_table]))
    return [
        Table(rows, tuple(Test(*test, next(corrected)) for test in of_table))
        for rows, of_table in zip(tables, tested, strict=True)
    ]


def _pooled(given: Iterable[tuple[str, Predictions]]) -> list[tuple[str, Predictions]]:
    cuts: dict[tuple[Any, ...], list[Predictions]] = {}
    for name, predictions in given:
        facts = predictions.facts
        place = tuple(facts.get(key) for key in ("dataset", "protocol", "split", "name", "mode", "seed"))
        cuts.setdefault((name, *place, role_of(facts)), []).append(predictions)
    return [(str(key[0]), pool(parts)) for key, parts in cuts.items()]


def _row(name: str, role: str, mode: str, predictions: list[Predictions], draws: int, seed: int) -> Row:
    predictions.sort(key=lambda one: str(one.facts.get("seed", "")).zfill(12))
    seeds = tuple(one.facts.get("seed") for one in predictions)
    if len(set(seeds)) < len(seeds):
        raise DataError(
            f"{name} ({role}): predictions of one seed are given twice: remove one, or name them apart by NAME=FILE"
        )
    return Row(name, role, mode, seeds, tuple(predictions), accuracies(predictions, draws, seed))


def _pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Every model with what it is tested against: its own controls, answered in the same mode, and the best floor."""
    floors = sorted(
        (row for row in rows if row.role == FLOOR), key=lambda row: -row.accuracies[OVERALL].interval.mean
    )
    return [
        (model, other)
        for model in rows
        if model.role == MODEL
        for other in (
            *(
                row
                for row in rows
                if row.role in CONTROLS and (row.name, row.mode) == (model.name, model.mode)
            ),
            *floors[:1],
        )
    ]


def _check_same_models(model: Row, other: Row) -> None:
    """What other images do to answers is seen on the same weights only; pools of cuts name none."""
    if other.role not in (SHUFFLED, BLANK):
        return
    weights = {one.facts.get("seed"): one.facts.get("model") for one in model.predictions}
    for one in other.predictions:
        seed, digest = one.facts.get("seed"), one.facts.get("model")
        if digest and weights.get(seed) and weights[seed] != digest:
            raise DataError(
                f"{model.name}: the predictions from {other.role} images (seed {seed}) are of other weights than those "
                "from real images: answer both with one model"
            )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = ArgumentParser("python -m training.vqa.compare", description=__doc__)
    command.add_argument(
        "predictions", nargs="+", metavar="[NAME=]FILE[,FILE]", help="predictions.csv of models and floors"
    )
    command.add_argument("--out", required=True, help="Markdown file")
    command.add_argument("--json", help="JSON file with every number")
    command.add_argument(
        "--pool-cuts", action="store_true", help="put the cuts of a cross-validation by image end to end"
    )
    command.add_argument("--draws", type=int, default=2000, help="bootstrap samples; default 2000")
    command.add_argument("--seed", type=int, default=0, help="of bootstrap and sign flips; default 0")
    return command


def _named(argument: str) -> tuple[str, list[str]]:
    """The name, or an empty one, and the files of ``[NAME=]FILE[,FILE]``.

    Raises:
        ConfigError: a file has no name.
    """
    name, equals, rest = argument.partition("=")
    if os.path.isfile(argument) or not equals:
        name, rest = "", argument
    files = [rest] if os.path.isfile(rest) else rest.split(",")
    if not all(files):
        raise ConfigError(f"{argument!r} names no file: give [NAME=]FILE[,FILE]")
    return name, files


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; 2 for a user's error, 130 when interrupted."""
    return answer(parser(), work, arguments)


def work(options: argparse.Namespace) -> None:
    """Everything that the command does.

    Raises:
        KGTargetsError: an option, a file or an output is not usable.
    """
    within("--draws", options.draws, 100, 1_000_000)
    within("--seed", options.seed, 0, None)
    outputs = {"--out": Path(options.out)} | ({"--json": Path(options.json)} if options.json else {})
    for option, path in outputs.items():
        check_writable(path.parent, option)
    given = [
        (name, read_predictions(Path(file)))
        for name, files in map(_named, options.predictions)
        for file in files
    ]
    tables = tables_of(given, options.draws, options.seed, options.pool_cuts)
    texts = {"--out": as_markdown(tables, options.draws), "--json": json_text(as_json(tables))}
    for option, path in outputs.items():
        write_text(path, texts[option], option)
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    sys.exit(main())
