"""What a reader is asked for, and the file access that readers share."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kg_targets.manifest import ReadReport
from training.errors import DataError


@dataclass(frozen=True)
class ReadRequest:
    """One split of one data set."""

    split: str
    files: dict[str, Path]
    """Role to path; which roles there are depends on the reader."""
    images: str
    """Folder of the split's images relative to the data root; may be empty."""
    language: str
    """``en`` or ``zh``."""
    report: ReadReport = field(default_factory=ReadReport)
    """Filled while reading."""

    def image_path(self, name: str) -> str:
        """Path of an image relative to the data root; empty where the data set has no images."""
        return f"{self.images}/{name}" if self.images else ""


def json_objects(path: Path, report: ReadReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of a JSON list; items that are no objects are counted and skipped.

    Raises:
        DataError: the file is not readable as a JSON list.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable as JSON ({error}): download it again") from error
    yield from objects(content, path, report)


def objects(content: Any, path: Path, report: ReadReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of what should be a list of objects.

    Raises:
        DataError: it is no list.
    """
    if not isinstance(content, list):
        raise DataError(f"{path} must hold a list of questions")
    for number, item in enumerate(content):
        where = f"{path.name} item {number}"
        if isinstance(item, dict):
            yield where, item
        else:
            report.skip("is not an object", where)


def text(item: dict[str, Any], key: str) -> str:
    """A field as text: numbers (some answers are) as they print, anything missing as nothing."""
    value = item.get(key)
    return "" if value is None else str(value)


def yes_or_no(answer: str) -> bool:
    """Whether an answer is yes or no, case, white space and a full stop aside."""
    return answer.strip().rstrip(".").lower() in ("yes", "no")
