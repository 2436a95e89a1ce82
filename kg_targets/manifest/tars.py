"""Captions in webdataset's tar shards: ``a/b.jpg``, ``a/b.txt`` and ``a/b.json`` are a row."""

import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from kg_targets.errors import ManifestError, printable
from kg_targets.manifest.images import ending
from kg_targets.manifest.record import ReadReport, unusable_text

TEXTS = ("txt", "caption", "text")
"""Endings of a member that is the caption."""
MAX_TEXT = 1 << 24
"""Bytes of a text or JSON member that are read."""


def sample_key(path: str) -> str:
    """``a/b`` of ``a/b.c.png``: webdataset's key of a sample, all before the name's first dot."""
    folder, slash, base = path.rpartition("/")
    return folder + slash + base.partition(".")[0]


@dataclass
class _Sample:
    """The members with one name but for the endings that are read."""

    row: dict[str, Any] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    """Names in the shard."""
    problem: str = ""
    """Why it cannot be used; empty if it can."""


def tar_rows(path: Path, place: str, report: ReadReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of a shard in its order; rows without an image or with unusable texts are counted and skipped.

    A row has ``filepath``, which is ``place``, a slash and the image's name in the shard, ``caption`` where there is a
    text, and the keys of the JSON. Members are a row's if their names without the ending are the same, dots in them or
    not (``1.2.840.1.png``, ``1.2.840.1.txt``); an image without a text of its own (``k.a.png``) belongs to webdataset's
    key of it where the shard has that (``k.txt``).

    Args:
        path: the shard.
        place: its path relative to the data root.
        report: filled while reading.

    Raises:
        ManifestError: it is compressed or damaged.
    """
    try:
        with tarfile.open(path, "r:") as shard:
            seen = set[str]()
            for key, members in groupby(_members(shard), lambda member: sample_key(member[0])):
                samples = dict[str, _Sample]()
                for name, member in members:
                    _read(shard, member, name, samples, path, report)
                samples = samples or {key: _Sample()}  # nothing that is read
                if again := seen.intersection(samples):
                    raise ManifestError(
                        f"{path}: the members of {min(again)!r} are apart: those of one sample must follow each other "
                        "(tar --sort=name)"
                    )
                seen.update(samples)
                for own, sample in _joined(_with_own_texts(samples), key).items():
                    yield from _finished(f"{path.name} sample {own}", place, sample, report)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise ManifestError(
            f"{path} is not a readable plain tar ({printable(str(error))[:200]}): unpack it if it is compressed, or "
            "download it again"
        ) from error


def _members(shard: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    while (member := shard.next()) is not None:
        shard.members = []  # type: ignore[attr-defined]  # it would remember every header of a large shard
        if member.isreg():
            yield member.name.removeprefix("./"), member


def _read(
    shard: tarfile.TarFile, member: tarfile.TarInfo, name: str, samples: dict[str, _Sample], path: Path,
    report: ReadReport,
) -> None:  # fmt: skip
    """Add a member to its sample."""
    stem, suffix = posixpath.splitext(name)
    kind = suffix.lower().removeprefix(".")
    if ending(name):
        samples.setdefault(stem, _Sample()).images.append(name)
    elif kind in (*TEXTS, "json"):
        sample = samples.setdefault(stem, _Sample())
        stream = shard.extractfile(member) if member.size <= MAX_TEXT else None
        if stream is None or (kind != "json" and "caption" in sample.row):
            report.note(
                "text of a sample that is not read: too large, or its second one", f"{path.name}/{name}"
            )
        else:
            sample.problem = sample.problem or _add(sample.row, kind, stream.read())


def _with_own_texts(samples: dict[str, _Sample]) -> dict[str, _Sample]:
    """The samples, where ``k.caption.txt`` is the text of ``k.png``: a text without an image of its own name."""
    kept = dict(samples)
    for own, sample in samples.items():
        owner = samples.get(posixpath.splitext(own)[0], sample)
        if owner.images and not sample.images and "caption" not in owner.row:
            owner.row = {**kept.pop(own).row, **owner.row}
            owner.problem = owner.problem or sample.problem
    return kept


def _joined(samples: dict[str, _Sample], key: str) -> dict[str, _Sample]:
    """The samples of one key of webdataset; where it has texts or an image itself, images without a text are its."""
    if (owner := samples.get(key)) is None:
        return samples
    kept = {}
    for own, sample in samples.items():
        bare = not sample.row or ("caption" in owner.row and "caption" not in sample.row)
        if sample is not owner and sample.images and bare and not sample.problem:
            if not owner.images:
                owner.row = sample.row | owner.row
            owner.images += sample.images
        else:
            kept[own] = sample
    return kept


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
    where: str, place: str, sample: _Sample, report: ReadReport
) -> Iterator[tuple[str, dict[str, Any]]]:
    problem = sample.problem or ("" if sample.images else "has no image")
    if problem:
        report.skip(problem, where)
        return
    for _ in sample.images[1:]:
        report.note("further image of a sample, not read", where)
    yield where, {**sample.row, "filepath": f"{place}/{sample.images[0]}"}
