"""Answers to every question of one part: a CSV file with a line per question, and their metadata as JSON beside.

X.csv     id, image_id, question, answer, normalised, predicted, correct, probability, closed, category, kind
X.json    data set, protocol, part, seeds, model, candidates and their ceiling; sha256 of the CSV and of this metadata;
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
"""Metadata without which no number can be read."""
MAJORITY = "majority"
"""Mode of a majority baseline's answers: every training run is compared with the same ones."""
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
    """Probability of the predicted answer, in [0, 1]; among what, ``mode`` in the metadata says."""
    closed: bool
    category: str
    kind: str


COLUMNS = tuple(field.name for field in fields(Prediction))


@dataclass(frozen=True)
class Predictions:
    """One model's (or baseline's) answers to one part of a data set under a protocol."""

    rows: tuple[Prediction, ...]
    metadata: dict[str, Any]
    """``metadata_of`` the split, and what the caller adds; plain JSON values."""


def metadata_of(split: Split, part: str) -> dict[str, Any]:
    """Metadata of predictions, for their JSON file: data set, protocol, part, split seed, candidates, ceiling."""
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
    metadata: Mapping[str, Any] | None = None,
) -> Predictions:
    """Score answers to ``part`` of ``split``, in the order of its questions.

    Args:
        predicted: one answer for each question; empty for none.
        probabilities: of these answers, in [0, 1].
        metadata: added to ``metadata_of(split, part)``. ``compare`` goes by: ``name`` (of the model), ``mode``
            (``exact``, ``winner``, ``shortlist``, ``generate``, ``majority``), ``images`` (``real``, ``blank``,
            ``shuffled``, ``none``), ``trained_on`` (``real``, ``blank``; for a model), ``seed`` (of the training run)
            and ``model`` (its digest).

    Raises:
        ShapeError: there are not as many answers as questions.
        ConfigError: no such part.
    """
    questions = split.part(part)
    known: Sequence[float | None] = [None] * len(questions) if probabilities is None else probabilities
    if not len(questions) == len(predicted) == len(known):
        given = f"{len(predicted)} answers and {len(known)} probabilities"
        raise ShapeError(f"{given} for {len(questions)} questions")
    answered = zip(questions, predicted, known, strict=True)
    rows = tuple(_row(*of_question, split.language) for of_question in answered)
    return Predictions(rows, {**metadata_of(split, part), **(metadata or {})})


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
    metadata = {
        **predictions.metadata,
        "format": FORMAT,
        "questions": len(predictions.rows),
        "correct": sum(row.correct for row in predictions.rows),
        "sha256": text_sha256(text),
    }
    metadata[_SEAL] = _seal(metadata)
    metadata_path(path).unlink(missing_ok=True)
    write_text(path, text)
    write_text(metadata_path(path), json_text(metadata))


def read_predictions(path: Path) -> Predictions:
    """Predictions as they were written.

    Raises:
        DataError: the CSV or the JSON file is missing, damaged, or they do not belong together.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        metadata = json.loads(metadata_path(path).read_text(encoding="utf-8"))
        if metadata["format"] != FORMAT:
            raise DataError(f"{path} is of another version: make it again")
        if metadata["sha256"] != text_sha256(text) or metadata.pop(_SEAL) != _seal(metadata):
            raise DataError(f"{path} and {metadata_path(path).name} do not belong together: make both again")
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        if not metadata.keys() >= REQUIRED:
            raise DataError(
                f"{metadata_path(path)} lacks {', '.join(sorted(REQUIRED - metadata.keys()))}: make it again"
            )
        _check_types(metadata, metadata_path(path))
        if metadata.get("mode") == "floor":  # its name up to 0.1.0
            metadata["mode"] = MAJORITY
        if tuple(next(lines)) != COLUMNS:
            raise DataError(f"{path} has other columns than predictions have: make it again")
        return Predictions(tuple(_parsed(line) for line in lines), metadata)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, csv.Error) as error:
        raise DataError(
            f"{path} or the .json beside it is missing or holds no predictions: give the .csv that "
            "kg-targets evaluate vqa or kg-targets evaluate baselines wrote"
        ) from error


def metadata_path(path: Path) -> Path:
    """The JSON file beside a CSV of predictions."""
    return path.with_suffix(".json")


def _check_types(metadata: Mapping[str, Any], where: Path) -> None:
    for name, kinds in _TYPES.items():
        value = metadata.get(name)
        if name in metadata and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise DataError(f'{where}: "{name}" is {value!r}, not of the type that is written: make it again')
    for group, share in metadata["ceiling"].items():
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


def _seal(metadata: Mapping[str, Any]) -> str:
    """sha256 of all other metadata: a value that was changed by hand is seen."""
    return text_sha256(json_text({name: value for name, value in metadata.items() if name != _SEAL}))


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
