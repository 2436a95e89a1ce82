"""Models, question-only models, shuffled images and baselines side by side: ``kg-targets compare-vqa``

Predictions of one configuration that differ in the training seed only are one row. What is one configuration, and
what it is compared with, is read from the metadata beside each CSV:

role           metadata                          compared with
model          trained_on real, images real
question_only  trained_on blank                  the model of the same name: what the image adds to learning
shuffled       trained_on real, images shuffled  the same trained model: what the right image adds to answers
blank          trained_on real, images blank     the same trained model
majority       mode majority                     every model; only the best baseline of a table is tested against

Each file is given as FILE, or with its configuration's name: NAME=FILE,FILE. A path that contains = or , is taken as
it is where the file is there.

With ``--pool-folds`` the folds of a cross-validation (``image_disjoint``, ``--split-seed 0``, ``1``, …) are put end to
end first, per configuration and seed. All tests of a report are one family, corrected by Holm. Two configurations with
three or more training seeds in common are compared by a t test that contains seed variance (with two it is not
estimable); others by sign flips over images, which say something about these trained models only.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.checks import all_within
from training.command import Work, add_json, print_json
from training.errors import ConfigError
from training.folders import check_writable, write_text
from training.rendering import render
from training.statistics.intervals import nan_to_null
from training.vqa.comparison import MODEL, PLACE, Table, tables_of
from training.vqa.predictions import read_predictions
from training.vqa.scores import HEADLINES


def as_markdown(tables: Sequence[Table], draws: int) -> str:
    """A table for each protocol, what the image adds, the distance to the baselines, and how to read it."""
    tests = [test for table in tables for test in table.tests]
    return render(
        "training.vqa", "compare.md.j2", tables=tables, tests=tests, draws=draws, headlines=HEADLINES
    )


def as_json(tables: Sequence[Table]) -> dict[str, Any]:
    """Every number, as shares of 1; ``null`` for what is not a number."""
    return {"tables": [nan_to_null(_numbers(table)) for table in tables]}


def _numbers(table: Table) -> dict[str, Any]:
    rows = [
        {
            **{key: getattr(row, key) for key in ("name", "role", "mode", "seeds")},
            "models": [one.metadata.get("model") for one in row.predictions],
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
    given = {key: table.metadata.get(key) for key in ("candidates", "candidate_source", "ceiling")}
    return {"place": {key: table.metadata.get(key) for key in PLACE}, **given, "rows": rows, "tests": tests}


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets compare-vqa`."""
    parser.description = __doc__
    add, files = parser.add_argument, "predictions.csv of models and baselines"
    add("predictions", nargs="+", metavar="[NAME=]FILE[,FILE]", help=files)
    add("--out", help="Markdown file; without it, the report is printed")
    add_json(parser)
    add("--pool-folds", action="store_true", help="put the folds of a cross-validation by image end to end")
    add("--draws", type=int, default=2000, help="bootstrap samples")
    add("--seed", type=int, default=0, help="of bootstrap and sign flips")
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
    all_within("--", options, draws=(100, 1_000_000), seed=(0, None))
    if options.out:
        check_writable(Path(options.out).parent, "--out")
    given = [
        (name, read_predictions(Path(file)))
        for name, files in map(_named, options.predictions)
        for file in files
    ]
    tables = tables_of(given, options.draws, options.seed, options.pool_folds)
    page = as_markdown(tables, options.draws)
    if options.out:
        write_text(Path(options.out), page)
    if options.json:
        print_json(as_json(tables))
    else:
        sys.stdout.write(f"wrote {options.out}\n" if options.out else page)
