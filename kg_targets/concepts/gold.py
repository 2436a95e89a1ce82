"""Captions with hand-marked mentions, read from JSONL: what extraction is measured against.

One object per line: ``{"id", "text", "mentions": [{"start", "end", "text", "name", "type", "negated"[, "cui"]}]
[, "split"]}``; offsets are Unicode code points.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kg_targets.errors import ExtractionError


@dataclass(frozen=True, slots=True)
class GoldMention:
    """One hand-marked mention; ``cui`` is empty where the annotator was not sure of it."""

    start: int
    end: int
    text: str
    name: str
    type: str
    negated: bool
    cui: str = ""


@dataclass(frozen=True, slots=True)
class GoldCaption:
    """One caption with all its mentions; ``split`` is empty or a name such as ``tune``."""

    id: str
    text: str
    mentions: tuple[GoldMention, ...]
    split: str = ""


def read_jsonl(path: str | Path, split: str | None = None) -> list[GoldCaption]:
    """Read a gold file, of one split only where one is named.

    Raises:
        ExtractionError: the file is missing, has a malformed line, a mention whose offsets do not give its text, or no
            caption of that split.
    """
    captions = [caption for caption in _read(path) if split is None or caption.split == split]
    if not captions:
        raise ExtractionError(f"{path}: holds no caption" + (f" of split {split!r}" if split else ""))
    return captions


def _read(path: str | Path) -> Iterator[GoldCaption]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ExtractionError(f"{path}: cannot be read as UTF-8 JSON lines ({error})") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _caption(json.loads(line))
            except json.JSONDecodeError as error:
                raise ExtractionError(f"{path}:{number}: not valid JSON: {error}") from error
            except (ValueError, TypeError) as error:
                raise ExtractionError(f"{path}:{number}: not a gold caption: {error}") from error


def _caption(row: Any) -> GoldCaption:
    _require(row, ("id", "text", "mentions"), "the caption")
    text = row["text"]
    if not isinstance(text, str) or not isinstance(row["mentions"], list):
        raise TypeError("'text' must be a string and 'mentions' a list")
    mentions = []
    for place, item in enumerate(row["mentions"], start=1):
        _require(item, ("start", "end", "text"), f"mention {place}")
        mention = GoldMention(
            int(item["start"]),
            int(item["end"]),
            str(item["text"]),
            str(item.get("name", item["text"])),
            str(item.get("type", "")),
            bool(item.get("negated", False)),
            str(item.get("cui", "")),
        )
        if text[mention.start : mention.end] != mention.text or mention.start >= mention.end:
            raise ValueError(f"offsets {mention.start}:{mention.end} do not give {mention.text!r}")
        mentions.append(mention)
    return GoldCaption(str(row["id"]), text, tuple(mentions), str(row.get("split", "")))


def _require(item: Any, keys: tuple[str, ...], what: str) -> None:
    if not isinstance(item, Mapping):
        raise TypeError(f"{what} is not a JSON object with the keys {', '.join(keys)}")
    missing = [key for key in keys if key not in item]
    if missing:
        raise ValueError(f"{what} lacks the key {', '.join(map(repr, missing))}")
