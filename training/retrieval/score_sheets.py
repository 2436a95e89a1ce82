"""Score sheets: every query's score in every measure, kept so that tables are made without a model or an image."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import DataError
from training.folders import whole_file
from training.retrieval.measures import Measures, Scored

Value = str | int | float

FORMAT = 1
"""Version of the file; a sheet in another one is made again."""
_ABOUT = b"kg_targets.score_sheet"
_COUNTS = ("images", "cases")
"""Metadata that pooling adds up."""
CLASSES = "zero-shot classes of "
"""Begins the key that lists a zero-shot label's classes in the order of their codes."""


@dataclass(frozen=True, eq=False)
class ScoreSheet:
    """One model (or chance) on one retrieval set: every query's score in every measure."""

    image_ids: list[str]
    """Queries, N in number, each once."""
    cases: list[str]
    """Case of each query, N names."""
    measures: Measures
    """Name to scores, float64 ``[N]``, NaN for a query without one."""
    metadata: dict[str, Value]
    """Data, protocol, model and versions that the scores rest on."""


def case_names(image_ids: Sequence[str], group_ids: Sequence[str]) -> list[str]:
    """``group_id`` of each image; one without it is a case of its own, named after the image."""
    return [group or f"image {image}" for image, group in zip(image_ids, group_ids, strict=True)]


def write_sheet(path: Path, sheet: ScoreSheet) -> None:
    """Write a sheet as Parquet by atomic rename; the same sheet gives the same bytes.

    Columns are ``image_id``, ``case``, one float64 for each measure, and ``class of <measure>`` where its mean is a
    mean of classes; headings and the sheet's metadata are in the schema's metadata.

    Raises:
        CheckpointError: the file cannot be written.
    """
    columns = {"image_id": pa.array(sheet.image_ids, pa.string()), "case": pa.array(sheet.cases, pa.string())}
    for name, scored in sheet.measures.items():
        columns[name] = pa.array(scored.values, pa.float64())
        if scored.classes is not None:
            columns[_class_column(name)] = pa.array(scored.classes, pa.int64())
    sections = {name: scored.section for name, scored in sheet.measures.items()}
    about = {"format": FORMAT, "facts": sheet.metadata, "sections": sections}
    table = pa.table(columns).replace_schema_metadata({_ABOUT: json.dumps(about, ensure_ascii=False)})
    with whole_file(path, "--out") as partial:
        pq.write_table(table, partial)


def read_sheet(path: Path) -> ScoreSheet:
    """A sheet as it was written.

    Raises:
        DataError: there is none, or it is damaged or of another format.
    """
    again = "make it again with kg-targets score-sheet"
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[_ABOUT])
        if about["format"] != FORMAT:
            raise DataError(f"{path} is a score sheet of another version: {again}")
        measures = {}
        for name, section in about["sections"].items():
            classes = _class_column(name)
            codes = table[classes].to_numpy() if classes in table.column_names else None
            measures[name] = Scored(table[name].to_numpy(), section, codes)
        return ScoreSheet(table["image_id"].to_pylist(), table["case"].to_pylist(), measures, about["facts"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{path} is missing or no score sheet: {again}") from error


def pool(sheets: Sequence[ScoreSheet]) -> ScoreSheet:
    """Sheets of disjoint retrieval sets (the folds of a cross-validation) as one, end to end.

    Metadata that all sheets share stays; numbers of images and of cases are added up; the others go.

    Raises:
        DataError: no sheet is given, an image or a case is in two of them, or they do not measure the same.
    """
    if not sheets:
        raise DataError("no score sheets to pool: give at least one")
    for what, names in (
        ("image", [sheet.image_ids for sheet in sheets]),
        ("case", [sorted(set(sheet.cases)) for sheet in sheets]),
    ):
        name, count = Counter(name for part in names for name in part).most_common(1)[0]
        if count > 1:
            raise DataError(
                f'{what} "{name}" is in {count} folds: a case belongs to one fold\'s test part only'
            )
    first = sheets[0]
    for sheet in sheets[1:]:
        _check_same_measures(first, sheet)
    metadata = {
        name: value
        for name, value in first.metadata.items()
        if all(sheet.metadata.get(name) == value for sheet in sheets)
    }
    for name in _COUNTS:
        if all(name in sheet.metadata for sheet in sheets):
            metadata[name] = sum(int(sheet.metadata[name]) for sheet in sheets)
    return ScoreSheet(
        [image for sheet in sheets for image in sheet.image_ids],
        [case for sheet in sheets for case in sheet.cases],
        {name: _joined([sheet.measures[name] for sheet in sheets]) for name in first.measures},
        metadata,
    )


def _joined(parts: Sequence[Scored]) -> Scored:
    classes = [part.classes for part in parts if part.classes is not None]
    return Scored(
        np.concatenate([part.values for part in parts]),
        parts[0].section,
        np.concatenate(classes) if classes else None,
    )


def _check_same_measures(*both: ScoreSheet) -> None:
    headings, classes = (
        [
            {name: (scored.section, scored.classes is None) for name, scored in s.measures.items()}
            for s in both
        ],
        [{name: value for name, value in s.metadata.items() if name.startswith(CLASSES)} for s in both],
    )
    if differing := _different(*headings):
        raise DataError(
            f'score sheets differ in the measure "{differing[0]}": score all of them with the same options'
        )
    if differing := _different(*classes):
        raise DataError(
            f"score sheets differ in the {differing[0]}: folds that lack a class cannot be pooled, leave it out"
        )


def _different(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _class_column(measure: str) -> str:
    return f"class of {measure}"
