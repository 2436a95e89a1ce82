"""Files of answers as people and evaluation kits write them, read as rows of id, answer and question.

file                                          ids from                     answers from
CSV or JSON of one's own                      ``id``, ``question_id`` …    ``answer`` …
kg-targets (``evaluate vqa``)                 ``id``                       ``predicted``
LLaVA, LLaVA-Med (``answers-file.jsonl``)     ``question_id``              ``text``
lm-evaluation-harness, lmms-eval              an id inside ``doc``, else   ``filtered_resps``
(``samples_*.jsonl``, ``--log_samples``)      ``doc_id``, a position
VLMEvalKit (``.xlsx``, ``.tsv``, ``.json``)   ``index``                    ``prediction``

Separator, encoding and compression are told by the content. A file that holds right answers beside the model's names
the model's by one of the earlier names: ``answer`` is the last.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from kg_targets.manifest import ReadReport
from kg_targets.manifest.files import csv_rows, json_content, json_lines, objects, open_text
from training.errors import ConfigError, DataError

IDS = ("question_id", "qid", "id", "index", "doc.question_id", "doc.qid", "doc.id", "doc.index", "doc_id")
ANSWERS = (
    "prediction", "predicted", "pred", "response", "model_answer", "model_output", "output", "generated_text",
    "filtered_resps", "resps", "text", "answer",
)  # fmt: skip
QUESTIONS = ("question", "doc.question", "prompt", "input")
"""Fields that may hold each, first choice first."""
_FAILED = "Failed to obtain answer"
"""How VLMEvalKit begins what stands for an answer that a service did not give."""
_PICKLES = (".pkl", ".pickle")
_LISTS = ("answers", "predictions", "results", "samples", "data")
_FILTER = "filter"
"""lm-evaluation-harness repeats each question for every filter of its task; the first one's rows are taken."""


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """One row of a file."""

    id: str
    answer: str
    """Empty for none."""
    question: str
    """As the file has it, prompt included; empty where it has none."""


@dataclass(frozen=True)
class AnswerFile:
    """The rows of a file, and where in it they stand."""

    rows: tuple[GivenAnswer, ...]
    id_field: str
    answer_field: str
    notes: tuple[str, ...]
    """For people: what was left out."""


def read_answers(path: Path, id_field: str = "", answer_field: str = "") -> AnswerFile:
    """Read a file of answers.

    Args:
        path: CSV, TSV, JSON, JSON lines or Excel.
        id_field: name of the column of ids; empty: the first of ``IDS`` that is there.
        answer_field: likewise, of ``ANSWERS``.

    Raises:
        ConfigError: there is no such column.
        DataError: the file cannot be read, or holds no row with an id.
        ManifestError: its text or table is malformed.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}: give the file of the model's answers"
        )
    if path.suffix.lower() in _PICKLES:
        raise DataError(
            f"{path} is a pickle, which is not read since it may run code: give the kit's .xlsx, .tsv or .json file"
        )
    report = ReadReport()
    records = [_flat(record) for record in _records(path, report)]
    first = next((record[_FILTER] for record in records if record.get(_FILTER)), None)
    kept = [record for record in records if record.get(_FILTER) in (None, first)]
    notes = [f"{count:,} rows skipped: {reason}" for reason, count in report.skipped.items()]
    if len(kept) < len(records):
        notes.append(f"{len(records) - len(kept):,} rows of other filters than {first!r} are left out")
    if not kept:
        raise DataError(f"{path} holds no answer: it must have a row for each question")
    ids, answers = (
        _field(path, kept, "id", id_field, IDS),
        _field(path, kept, "answer", answer_field, ANSWERS),
    )
    asked = next((name for name in QUESTIONS if any(name in record for record in kept)), "")
    rows = tuple(
        GivenAnswer(_text(record.get(ids)), _text(record.get(answers)), _text(record.get(asked)))
        for record in kept
    )
    failed = sum(row.answer.startswith(_FAILED) for row in rows)
    if failed:
        rows = tuple(replace(row, answer="") if row.answer.startswith(_FAILED) else row for row in rows)
        notes.append(f"{failed:,} answers begin with {_FAILED!r}: they count as none")
    return AnswerFile(rows, ids, answers, tuple(notes))


def _records(path: Path, report: ReadReport) -> Iterator[Mapping[str, Any]]:
    if path.is_file() and zipfile.is_zipfile(path):
        yield from _spreadsheet(path)
        return
    with open_text(path) as stream:
        head = [line for line in islice(stream, 50) if line.strip()]
    start = head[0].lstrip()[:1] if head else ""
    if (
        start == "{"
        and [line.strip()[:1] for line in head[:2]] == ["{", "{"]
        and head[0].rstrip().endswith("}")
    ):
        yield from (record for _, record in json_lines(path, report))
    elif start in ("{", "["):
        content = json_content(path, DataError)
        if isinstance(content, dict):
            content = _listed(content)
        yield from (record for _, record in objects(content, path, report))
    else:
        yield from (row for _, row in csv_rows(path, (), report, separator=None))


def _listed(content: dict[str, Any]) -> list[Any]:
    """The rows of a JSON object: the only line of JSON lines, a list under a usual name, or ids with their answers."""
    if not content.keys().isdisjoint((*IDS, "doc")) and not content.keys().isdisjoint(ANSWERS):
        return [content]
    for name in _LISTS:
        if isinstance(content.get(name), list):
            return list(content[name])
    return [
        {"id": name, **(value if isinstance(value, dict) else {"answer": value})}
        for name, value in content.items()
    ]


def _spreadsheet(path: Path) -> Iterator[dict[str, Any]]:
    if find_spec("openpyxl") is None:
        raise DataError(
            f"{path} is an Excel file, which needs openpyxl: pip install openpyxl, or save it as CSV"
        )
    import pandas as pd

    try:
        frame = pd.read_excel(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is no Excel file that can be read: save it as CSV") from error
    yield from ({str(name): value for name, value in row.items()} for row in frame.to_dict("records"))


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the fields of its ``doc`` beside its own, as ``doc.NAME``."""
    doc = record.get("doc")
    inner = {f"doc.{name}": value for name, value in doc.items()} if isinstance(doc, dict) else {}
    return {**record, **inner}


def _field(
    path: Path, records: Sequence[Mapping[str, Any]], what: str, given: str, known: Sequence[str]
) -> str:
    names = dict.fromkeys(name for record in records for name in record)
    if given and given not in names:
        raise ConfigError(f"--{what}-field: {path} has no {given!r}: it has {', '.join(islice(names, 12))}")
    found = given or next((name for name in known if name in names), "")
    if not found:
        raise DataError(
            f"{path} has no {what} under a name known here ({', '.join(known[:4])} …): it has "
            f"{', '.join(islice(names, 12))}; name one with --{what}-field"
        )
    return found


def _text(value: Any) -> str:
    """A cell as text: of a list (samples of one question) the first; whole numbers without a decimal point."""
    while isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, float):
        value = None if value != value else int(value) if value.is_integer() else value
    return "" if value is None else str(value).strip()
