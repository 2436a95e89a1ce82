"""Models, question-only models, shuffled images and floors side by side: ``kg-targets compare-vqa``

Predictions of one configuration that differ in the training's seed only are one row. What is one configuration, and
what it is compared with, is read from the facts beside each CSV:

role           facts                             compared with
model          trained_on real, images real
question_only  trained_on blank                  the model of the same name: what the image adds to learning
shuffled       trained_on real, images shuffled  the same trained model: what the right image adds to answers
blank          trained_on real, images blank     the same trained model
floor          mode floor                        every model; only the best floor of a table is tested against

Each file is given as FILE, or with its configuration's name: NAME=FILE,FILE. A path that contains = or , is taken as
it is where the file is there.

With ``--pool-cuts`` the cuts of a cross-validation (``image_disjoint``, ``--split-seed 0``, ``1``, …) are put end to
end first, per configuration and seed. All tests of a report are one family, corrected by Holm. Two configurations with
two or more training seeds in common are compared by a t test that contains training noise; others by sign flips over
images, which say something about these trained models only.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.checks import within
from training.command import Work
from training.errors import ConfigError
from training.folders import check_writable, json_text, write_text
from training.statistics.intervals import nan_to_null, per_cent
from training.statistics.paired_tests import p_text
from training.vqa.comparison import (
    BLANK,
    CONTROLS,
    MODEL,
    PLACE,
    QUESTION_ONLY,
    SHUFFLED,
    Row,
    Table,
    Test,
    tables_of,
)
from training.vqa.predictions import read_predictions
from training.vqa.scores import FLOOR, HEADLINES, OVERALL, Accuracy, Difference

TITLES = {
    MODEL: "",
    QUESTION_ONLY: ", question only (blank images in training and test)",
    SHUFFLED: ", images shuffled at test",
    BLANK: ", blank images at test",
    FLOOR: " (floor)",
}
_SIGNIFICANT = 0.05
_MIN_QUESTIONS = 10
"""Of a category that is shown."""
_FEW = 2
"""Degrees of freedom of training noise up to which a difference can look surer than it is."""


def as_markdown(tables: Sequence[Table], draws: int) -> str:
    """A table for each protocol, what the image adds, the distance to the floors, and how to read it."""
    tests = [test for table in tables for test in table.tests]
    lines = ["# Med-VQA: accuracy, floors, and what the image adds", ""]
    for table in tables:
        lines += [f"## {_place(table)}", "", *_ground(table), "", *_rows(table), "", *_categories(table)]
    if tests:
        of_floors = [test for test in tests if test.baseline.role == FLOOR]
        lines += ["## What the image adds", "", *_adds(tables)]
        lines += ["## Above the best floor", "", *_differences(of_floors), ""]
    lines += ["## How to read this", "", *_reading(tests, draws)]
    return "\n".join(lines) + "\n"


def as_json(tables: Sequence[Table]) -> dict[str, Any]:
    """Every number, as shares of 1; ``null`` for what is not a number."""
    return {"tables": [nan_to_null(_numbers(table)) for table in tables]}


def _numbers(table: Table) -> dict[str, Any]:
    rows = [
        {
            **{key: getattr(row, key) for key in ("name", "role", "mode", "seeds")},
            "models": [one.facts.get("model") for one in row.predictions],
            "accuracies": {name: asdict(one) for name, one in row.accuracies.items()},
        }
        for row in table.rows
    ]
    tests = [
        {
            MODEL: test.model.name,
            "baseline": {"name": test.baseline.name, "role": test.baseline.role},
            "group": test.group,
            "test": "t" if test.difference.seeds else "sign flips",
            **asdict(test.difference),
            "p_corrected": test.corrected,
        }
        for test in table.tests
    ]
    given = {key: table.facts.get(key) for key in ("candidates", "candidate_source", "ceiling")}
    return {"place": {key: table.facts.get(key) for key in PLACE}, **given, "rows": rows, "tests": tests}


def _place(table: Table) -> str:
    return "{dataset}, {split}, protocol `{protocol}`, cut {split_seed}".format_map(table.facts)


def _ground(table: Table) -> list[str]:
    """What every number of the table rests on; a row with other candidates (a model of other data) is told apart."""
    overall = table.rows[0].accuracies[OVERALL].interval
    common = _candidates(table.facts)
    lines = [f"{overall.queries:,} questions about {overall.cases:,} images. {common}"]
    others = {_title(row): _candidates(row.facts) for row in table.rows if _candidates(row.facts) != common}
    return lines + [line for title, text in others.items() for line in ("", f"{title}: {text}")]


def _candidates(facts: dict[str, Any]) -> str:
    shares = facts["ceiling"]
    ceiling = ", ".join(f"{name} {100 * shares[name]:.1f} %" for name in HEADLINES if name in shares)
    several = "Up to " if "," in str(facts["split_seed"]) else ""  # cuts that are put end to end
    return (
        f"{several}{facts['candidates']:,} candidates: {facts['candidate_source']}. "
        f"Ceiling of an exact match with them: {ceiling}."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table whose first column may be without a name."""
    written = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [written[0].replace("|  |", "| |", 1), "|" + "---|" * len(head), *written[1:]]


def _rows(table: Table) -> list[str]:
    groups = [name for name in HEADLINES if name in table.rows[0].accuracies]
    counts = [f"{name} ({table.rows[0].accuracies[name].interval.queries:,})" for name in groups]
    rows = [
        (_title(row), _seeds(row), row.mode, *(_cell(row.accuracies[name]) for name in groups))
        for row in table.rows
    ]
    return _table(("", "seeds", "mode", *counts), rows)


def _categories(table: Table) -> list[str]:
    """Accuracy by category of the models and what they are tested against; nothing where no model is in the table."""
    tested = [row for test in table.tests for row in (test.model, test.baseline)]
    shown = [row for row in table.rows if any(row is other for other in tested)]
    counts = {
        name: accuracy.interval.queries
        for name, accuracy in table.rows[0].accuracies.items()
        if name not in HEADLINES and accuracy.interval.queries >= _MIN_QUESTIONS
    }
    if not shown or not counts:
        return []
    rows = [
        (name.removeprefix("category "), f"{count:,}", *(_cell(row.accuracies[name]) for row in shown))
        for name, count in counts.items()
    ]
    title = f"By category (of {_MIN_QUESTIONS} questions at least; described, not tested):"
    return [title, "", *_table(("", "questions", *map(_title, shown)), rows), ""]


def _adds(tables: Sequence[Table]) -> list[str]:
    lines: list[str] = []
    for table in tables:
        tests = [test for test in table.tests if test.baseline.role in CONTROLS]
        if tests:
            lines += [f"### {_place(table)}", "", *_differences(tests), ""]
            lines += [f"- {_sentence(test)}" for test in tests] + [""]
        else:
            none = "no question-only model and no answers to shuffled images are given."
            lines += [f"{_place(table)}: {none}", ""]
    return lines


_COLUMNS = (
    *("model", "minus", "protocol", "questions", "points [95 %]", "test", "degrees of freedom"),
    *("pairs of trainings agreeing", "p", "p corrected"),
)


def _differences(tests: Sequence[Test]) -> list[str]:
    """Points of accuracy by which a model is above its baseline."""
    rows = [
        (
            *(_title(test.model), _title(test.baseline)),
            "{dataset} `{protocol}`".format_map(test.model.facts),
            *(test.group, per_cent(test.difference.interval, signed=True), *_test(test.difference)),
            *(p_text(test.difference.p_value), p_text(test.corrected)),
        )
        for test in tests
    ]
    return _table(_COLUMNS, rows) if rows else ["None is given."]


def _agreement(difference: Difference) -> str:
    """How many pairs of training runs differ as their mean does."""
    if difference.noise is None:
        return "–"
    agreeing, pairs = difference.noise.agreeing(difference.interval.mean)
    return f"{agreeing} of {pairs}"


def _test(difference: Difference) -> tuple[str, str, str]:
    """Its name, its degrees of freedom, and the trainings that agree with the mean."""
    if not difference.seeds:
        return "sign flips, these trained models only", "–", "–"
    degrees = "–" if difference.noise is None else f"{difference.noise.degrees:.1f}"
    return "t", degrees, f"{_agreement(difference)} (seeds {', '.join(map(str, difference.seeds))})"


def _sentence(test: Test) -> str:
    difference = test.difference.interval
    what = {
        QUESTION_ONLY: "Training and answering with images instead of the question alone",
        SHUFFLED: "The right image instead of another one",
        BLANK: "The right image instead of a blank one",
    }[test.baseline.role]
    points = f"{per_cent(difference, signed=True)} points ({test.group}, {test.model.name})"
    ground = f"p {p_text(test.corrected)} corrected, {_rests_on(test.difference)}."
    if test.corrected < _SIGNIFICANT:
        return f"{what} {'adds' if difference.mean > 0 else 'costs'} {points}, {ground}"
    return f"{what} makes no difference that can be told from chance: {points}, {ground}"


def _rests_on(difference: Difference) -> str:
    if not difference.seeds:
        return "sign flips: a statement about these trained models only"
    if difference.noise is None:
        return "t test: no cut has two such images"
    degrees, agreeing = f"{difference.noise.degrees:.1f}", _agreement(difference)
    return f"t test, {degrees} degrees of freedom; {agreeing} pairs of trainings agree"


def _reading(tests: Sequence[Test], draws: int) -> list[str]:
    return [
        "- A question is right if the answer, normalised, is one of its normalised right answers "
        "(docs/vqa_data.md); one whose right answer normalises to nothing counts and is never right.",
        f"- Intervals of accuracies: 95 %, bootstrap over images ({draws:,} samples), for questions of one image are "
        "not independent; they are those of these trained models.",
        "- ± is the standard deviation of the trainings' accuracies; with several seeds, a question's score is its "
        "mean over the seeds.",
        "- Floors answer without an image; the best one of a table by overall accuracy is the one tested against.",
        *_reading_tests(tests),
        "- `paper` knows the test answers and keeps the last epoch; under `strict` test images also occur in "
        "training wherever the official split shares them; `image_disjoint` deals the questions out again by image.",
    ]


def _reading_tests(tests: Sequence[Test]) -> list[str]:
    lines = [f"- p: two-sided; Holm corrects all {len(tests)} tests of this report together."] * bool(tests)
    by_training = [test.difference for test in tests if test.difference.seeds]
    if by_training:
        lines.append(
            "- t: trainings of one seed are paired (each with the same floor; those without a partner are left out), "
            "and interval and p contain images and training noise (`training/statistics/seed_variance.py`). A pair of "
            "trainings, one for each seed and cut, agrees if its difference has the sign of the mean."
        )
    if any(one.noise and len(one.noise.by_training) * (len(one.seeds) - 1) <= _FEW for one in by_training):
        lines.append(
            "- One or two degrees of freedom of training noise, as with an official split and two or three seeds, are "
            "few, and with one the t test is below 0.05 by chance in up to 10 % of cases: train more seeds."
        )
    if len(by_training) < len(tests):
        lines.append(
            "- Sign flips, over images: where fewer than two pairs of trainings share a seed, interval and p are a "
            "statement about these trained models only; what other trainings would give is in neither."
        )
    return lines


def _title(row: Row) -> str:
    return row.name + TITLES[row.role]


def _seeds(row: Row) -> str:
    return "–" if row.role == FLOOR else ", ".join("?" if seed is None else str(seed) for seed in row.seeds)


def _cell(accuracy: Accuracy) -> str:
    spread = "" if accuracy.seed_sd is None else f" ± {100 * accuracy.seed_sd:.1f}"
    return per_cent(accuracy.interval) + spread


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets compare-vqa`."""
    parser.description = __doc__
    add, files = parser.add_argument, "predictions.csv of models and floors"
    add("predictions", nargs="+", metavar="[NAME=]FILE[,FILE]", help=files)
    add("--out", required=True, help="Markdown file")
    add("--json", help="JSON file with every number")
    add("--pool-cuts", action="store_true", help="put the cuts of a cross-validation by image end to end")
    add("--draws", type=int, default=2000, help="bootstrap samples; default 2000")
    add("--seed", type=int, default=0, help="of bootstrap and sign flips; default 0")
    return work


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
