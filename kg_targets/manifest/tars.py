"""Captions in webdataset's tar shards: the members of one key, ``a/b.jpg``, ``a/b.txt``, ``a/b.json``, are a row."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kg_targets.errors import ManifestError, printable
from kg_targets.manifest.images import ending
from kg_targets.manifest.record import ReadReport, unusable_text

TEXTS = ("txt", "caption", "text")
"""Endings of a member that is the caption."""
MAX_TEXT = 1 << 24
"""Bytes of a text or JSON member that are read."""


def tar_rows(path: Path, place: str, report: ReadReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of a shard in its order; rows without an image or with unusable texts are counted and skipped.

    A row has ``filepath``, which is ``place``, a slash and the image's name in the shard, ``caption`` where there is a
    text, and the keys of the JSON.

    Args:
        path: the shard.
        place: its path relative to the data root.
        report: filled while reading.

    Raises:
        ManifestError: it is compressed or damaged.
    """
    key, row, image, problem = None, dict[str, Any](), "", ""
    try:
        with tarfile.open(path, "r:") as shard:
            while (member := shard.next()) is not None:
                shard.members = []  # type: ignore[attr-defined]  # it would remember every header of a large shard
                if not member.isreg():
                    continue
                folder, slash, base = member.name.removeprefix("./").rpartition("/")
                stem, _, suffix = base.partition(".")
                if key != (member_key := f"{folder}{slash}{stem}"):
                    if key is not None:
                        yield from _finished(path, key, row, image, problem, report)
                    key, row, image, problem = member_key, {}, "", ""
                if ending(base):
                    image = image or f"{place}/{folder}{slash}{base}"
                elif suffix.lower() in (*TEXTS, "json") and member.size <= MAX_TEXT:
                    stream = shard.extractfile(member)
                    data = stream.read() if stream is not None else b""
                    problem = problem or _add(row, suffix.lower(), data)
        if key is not None:
            yield from _finished(path, key, row, image, problem, report)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise ManifestError(
            f"{path} is not a readable plain tar ({printable(str(error))[:200]}): unpack it if it is compressed, or "
            "download it again"
        ) from error


def _add(row: dict[str, Any], suffix: str, data: bytes) -> str:
    """Add a member to its row; what is wrong with it, or nothing."""
    text = data.decode("utf-8-sig", errors="surrogateescape")
    if why := unusable_text(text):
        return f"{suffix} {why}"
    if suffix != "json":
        row["caption"] = text.strip()
        return ""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return "json is not valid JSON"
    if not isinstance(content, dict):
        return "json is not an object"
    for name, value in content.items():
        row.setdefault(name, value)
    return ""


def _finished(
    path: Path, key: str, row: dict[str, Any], image: str, problem: str, report: ReadReport
) -> Iterator[tuple[str, dict[str, Any]]]:
    where = f"{path.name} sample {key}"
    problem = problem or ("" if image else "has no image")
    if problem:
        report.skip(problem, where)
    else:
        yield where, {**row, "filepath": image}
