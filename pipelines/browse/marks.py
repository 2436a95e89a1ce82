"""Pairs that a person marked as wrong: a CSV file that grows by a line a mark."""

import csv
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from kg_targets.errors import ConfigError

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula."""


@dataclass(frozen=True)
class Mark:
    """One pair and what is wrong with it."""

    store: str
    """Its fingerprint."""
    first: str
    second: str
    similarity: str
    remark: str
    marked: str
    """When, UTC."""


def mark(store: str, first: str, second: str, similarity: float, remark: str) -> Mark:
    """A mark made now."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return Mark(store, first, second, f"{similarity:.4f}", " ".join(remark.split())[:500], when)


def read_marks(file: Path) -> list[Mark]:
    """The marks of a file; none where there is no file.

    Raises:
        ConfigError: it is no file of marks.
    """
    names = [field.name for field in fields(Mark)]
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            found = [Mark(**{name: _plain(row[name] or "") for name in names}) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise ConfigError(f"--marks {file} is not a file of marked pairs ({error}): name another") from error
    return found


def add_mark(file: Path, one: Mark) -> None:
    """Append a mark.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8", newline="") as stream:
            rows = csv.DictWriter(stream, [field.name for field in fields(Mark)])
            if not stream.tell():
                rows.writeheader()
            rows.writerow({name: _no_formula(value) for name, value in asdict(one).items()})
    except OSError as error:
        raise ConfigError(f"--marks {file} cannot be written ({error.strerror}): name another") from error


def _no_formula(value: str) -> str:
    return f"'{value}" if value.startswith(_FORMULA) else value


def _plain(value: str) -> str:
    return value[1:] if value.startswith("'") and value[1:].startswith(_FORMULA) else value
