"""Answers to every question of one part: a CSV file with a line per question, and the facts about them as JSON beside.

X.csv     id, image_id, question, answer, normalised, predicted, correct, probability, closed, category, kind
X.json    data set, protocol, part, seeds, model, candidates and their ceiling; sha256 of the CSV and of these facts;
          written last
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from kg_targets.manifest import Question
from kg_targets.store.digest import text_sha256
from training.errors import DataError, ShapeError
from training.folders import json_text, write_text
from training.vqa.answers import accepted_answers, normalise_answer
from training.vqa.protocols import Split, ceiling

FORMAT = 2
REQUIRED = {"dataset", "protocol", "split", "split_seed", "candidates", "candidate_source", "ceiling"}
"""Facts without which no number can be read."""
_SEAL = "facts_sha256"
SEPARATOR = " # "
"""Between several right answers; normalised answers never contain it."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One question, its right answer, and what was answered."""

    id: str
    image_id: str
    question: str
    answer: str
    """As in the data set."""
    normalised: str
    """Right answers after normalisation, parted by ``SEPARATOR``; empty: nothing is right."""
    predicted: str
    """As the model gave it."""
    correct: bool
    """Whether ``predicted``, normalised, is one of the right answers."""
    probability: float | None
    """Of the predicted answer, in [0, 1]; among what, the facts say (``mode``)."""
    closed: bool
    category: str
    kind: str


COLUMNS = tuple(field.name for field in fields(Prediction))


@dataclass(frozen=True)
class Predictions:
    """One model's (or floor's) answers to one part of a data set under a protocol."""

    rows: tuple[Prediction, ...]
    facts: dict[str, Any]
    """What ``facts_of`` gives, and what the caller adds; plain JSON values."""


def facts_of(split: Split, part: str) -> dict[str, Any]:
    """What predictions rest on, for their JSON file: data set, protocol, part, seed of the cut, candidates, ceiling."""
    return {
        "dataset": split.dataset,
        "language": split.language,
        "protocol": split.protocol,
        "split": part,
        "split_seed": split.seed,
        "candidates": len(split.candidates),
        "candidate_source": split.candidate_source,
        "ceiling": ceiling(split.part(part), split.candidates, split.language),
        "skipped": split.skipped,
    }


def predictions_of(
    split: Split,
    part: str,
    predicted: Sequence[str],
    probabilities: Sequence[float] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Predictions:
    """Score answers to ``part`` of ``split``, in the order of its questions.

    Args:
        predicted: one answer for each question; empty for none.
        probabilities: of these answers, in [0, 1].
        facts: added to ``facts_of(split, part)``. ``compare`` goes by: ``name`` (of the model), ``mode`` (``exact``,
            ``winner``, ``shortlist``, ``generate``, ``floor``), ``images`` (``real``, ``blank``, ``shuffled``,
            ``none``), ``trained_on`` (``real``, ``blank``; for a model), ``seed`` (of the training) and ``model``
            (its digest).

    Raises:
        ShapeError: there are not as many answers as questions.
        ConfigError: no such part.
    """
    questions = split.part(part)
    chances: Sequence[float | None] = [None] * len(questions) if probabilities is None else probabilities
    if not len(questions) == len(predicted) == len(chances):
        given = f"{len(predicted)} answers and {len(chances)} probabilities"
        raise ShapeError(f"{given} for {len(questions)} questions")
    answered = zip(questions, predicted, chances, strict=True)
    rows = tuple(_row(*of_question, split.language) for of_question in answered)
    return Predictions(rows, {**facts_of(split, part), **(facts or {})})


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write ``path`` (a ``.csv``) and the ``.json`` beside it, by atomic rename; the same content, the same bytes.

    Raises:
        CheckpointError: they cannot be written.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in astuple(row)] for row in predictions.rows)
    text = stream.getvalue()
    facts = {
        **predictions.facts,
        "format": FORMAT,
        "questions": len(predictions.rows),
        "correct": sum(row.correct for row in predictions.rows),
        "sha256": text_sha256(text),
    }
    facts[_SEAL] = _seal(facts)
    facts_path(path).unlink(missing_ok=True)
    write_text(path, text)
    write_text(facts_path(path), json_text(facts))


def read_predictions(path: Path) -> Predictions:
    """Predictions as they were written.

    Raises:
        DataError: the CSV or the JSON file is missing, damaged, or they do not belong together.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        facts = json.loads(facts_path(path).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise DataError(f"{path} is of another version: make it again")
        if facts["sha256"] != text_sha256(text) or facts.pop(_SEAL) != _seal(facts):
            raise DataError(f"{path} and {facts_path(path).name} do not belong together: make both again")
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        if not facts.keys() >= REQUIRED:
            raise DataError(
                f"{facts_path(path)} lacks {', '.join(sorted(REQUIRED - facts.keys()))}: make it again"
            )
        _check_types(facts, facts_path(path))
        if tuple(next(lines)) != COLUMNS:
            raise DataError(f"{path} has other columns than predictions have: make it again")
        return Predictions(tuple(_parsed(line) for line in lines), facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, csv.Error) as error:
        raise DataError(
            f"{path} or the .json beside it is missing or holds no predictions: give the .csv that "
            "kg-targets evaluate vqa or kg-targets evaluate baselines wrote"
        ) from error


def facts_path(path: Path) -> Path:
    """The JSON file beside a CSV of predictions."""
    return path.with_suffix(".json")


def _check_types(facts: Mapping[str, Any], where: Path) -> None:
    for name, kinds in _TYPES.items():
        value = facts.get(name)
        if name in facts and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise DataError(f'{where}: "{name}" is {value!r}, not of the type that is written: make it again')
    for group, share in facts["ceiling"].items():
        if not isinstance(share, (int, float)) or isinstance(share, bool):
            raise DataError(f'{where}: the ceiling of "{group}" is {share!r}, not a number: make it again')


_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("dataset", "language", "protocol", "split", "candidate_source"), (str,)),
    **dict.fromkeys(("name", "mode", "images", "trained_on", "model", "precision", "key"), (str,)),
    **dict.fromkeys(("split_seed", "candidates", "questions", "correct", "k", "shuffle_seed"), (int,)),
    "seed": (int, type(None)),
    "ceiling": (dict,),
    "skipped": (dict,),
}


def _seal(facts: Mapping[str, Any]) -> str:
    """sha256 of all other facts: one that was changed by hand is seen."""
    return text_sha256(json_text({name: value for name, value in facts.items() if name != _SEAL}))


def _row(question: Question, predicted: str, probability: float | None, language: str) -> Prediction:
    accepted = accepted_answers(question, language)
    taken = ("id", "image_id", "question", "answer", "closed", "category", "kind")
    return Prediction(
        **{name: getattr(question, name) for name in taken},
        normalised=SEPARATOR.join(accepted),
        predicted=predicted,
        correct=normalise_answer(predicted, language) in accepted,
        probability=None if probability is None or math.isnan(probability) else float(probability),
    )


def _cell(value: str | bool | float | None) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return "" if value is None else repr(value) if isinstance(value, float) else value


def _parsed(line: list[str]) -> Prediction:
    cells: dict[str, Any] = dict(zip(COLUMNS, line, strict=True))
    probability = float(cells["probability"]) if cells["probability"] else None
    flags = {name: _flag(cells[name]) for name in ("correct", "closed")}
    return Prediction(**{**cells, **flags, "probability": probability})


def _flag(cell: str) -> bool:
    if cell not in ("0", "1"):
        raise ValueError(f"{cell!r} is neither 0 nor 1")
    return cell == "1"
