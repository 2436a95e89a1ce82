"""`kg-targets check`: what a person should know of a data set before an hour is spent on it, and what to do about it.

Every split is streamed once: of a row four numbers of 64 bits are kept (case, image, path, caption), and its id's
digest, about 130 bytes in all.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.errors import ConfigError, DataError, ManifestError
from kg_targets.manifest import Manifest, ReadReport
from kg_targets.manifest.places import alternatives, first_file, present_files
from kg_targets.manifest.readers import READERS
from pipelines.build.executors import bar
from pipelines.check.images import ImageCounts
from pipelines.check.rows import RowCounts


def check_data_set(dataset: str, data_root: Path | None) -> dict[str, Any]:
    """A data set's splits under a data root, for ``--json`` and ``check_lines``.

    A split has ``present``, and where it is: ``captions`` or ``questions`` (counts), ``cases``, ``images``,
    ``images_present``, ``image_form`` and ``image_endings``, ``labels`` (values with their counts), ``columns`` that
    are read and ``ignored_columns`` with the likely intention, ``remarks`` for a person, and ``error`` where it cannot
    be used. ``shared`` lists the splits that have cases or images in common.

    Raises:
        ManifestError: no such data set.
    """
    manifest = Manifest.load(dataset, None)
    root = data_root or manifest.default_root
    if data_root is not None and not data_root.exists():
        raise ConfigError(f"--data-root {data_root} does not exist: name the folder of the data set's files")
    present = manifest.present_splits(root)
    splits: dict[str, dict[str, Any]] = {}
    rows: dict[str, RowCounts] = {}
    asked: dict[str, frozenset[str]] = {}
    for split in dict.fromkeys([*manifest.splits, *present]):
        part = splits[split] = {"present": split in present, "remarks": []}
        if split not in present:
            looked_for = first_file(root, next(iter(manifest.splits[split].files.values())))
            fitted = (
                ": a build needs it to fit on, or another by --fit-split"
                if split == manifest.fit_split
                else ""
            )
            part["error"] = f"not present ({looked_for}){fitted}"
            continue
        try:
            if "captions" in manifest.holds:
                part |= _captions(manifest, split, root, rows, part["remarks"])
            if "questions" in manifest.holds:
                part |= _questions(manifest, split, root, asked, part["remarks"])
        except (ManifestError, DataError) as error:
            part["error"] = str(error)
    return {
        "dataset": manifest.name, "title": manifest.title, "licence": manifest.licence, "citation": manifest.citation,
        "data_root": str(root), "how_to_get": manifest.how_to_get, "splits": splits,
        "shared": [*_shared(rows), *_shared_by_questions(asked)],
    }  # fmt: skip


def check_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a person, one per split and remark, but for what ``refuse_unusable`` will say."""
    refusal = _refusal(found)
    yield f"{found['dataset']}: {found['title']}"
    yield f"  licence: {found['licence']}"
    yield from ([f"  citation: {found['citation']}"] if found["citation"] else [])
    for split, part in found["splits"].items():
        counts = [f"{part[kind]:,} {kind}" for kind in ("captions", "questions") if kind in part]
        counts += [f"{part['cases']:,} cases"] if "cases" in part else []
        if "images" in part:
            counts.append(f"{part['images_present']:,} of {part['images']:,} images present{_form(part)}")
        yield from ([f"  {split}: {', '.join(counts)}"] if counts else [])
        for name, label in part.get("labels", {}).items():
            yield f"  {split}: label {name}: {_values(label)}"
        renamed = [
            f"{name} from {column}" for name, column in part.get("columns", {}).items() if name != column
        ]
        yield from ([f"  {split}: columns: {', '.join(renamed)}"] if renamed else [])
        lines = [f"{split}: {line}" for line in [*part["remarks"], *filter(None, [part.get("error")])]]
        yield from (f"  {line}" for line in lines if line != refusal)
    yield from (f"  {line}" for line in (one["remark"] for one in found["shared"]))
    if not all(part["present"] for part in found["splits"].values()) and found["how_to_get"] not in refusal:
        yield f"  to get what is missing: {found['how_to_get']}"


def _form(part: Mapping[str, Any]) -> str:
    """`` (folder: .png 40)``."""
    if not part.get("image_form"):
        return ""
    endings = ", ".join(f"{ending} {count:,}" for ending, count in part["image_endings"].items())
    return f" ({part['image_form']}{f': {endings}' if endings else ''})"


def _values(label: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{value} {count:,}" for value, count in label["most_frequent"].items())
    more = label["values"] - len(label["most_frequent"])
    return f"{shown}{f' and {more:,} more values' if more else ''}; {label['missing']:,} images without"


def refuse_unusable(found: Mapping[str, Any]) -> None:
    """Check that a split at least can be used.

    Raises:
        DataError: none can.
    """
    if refusal := _refusal(found):
        raise DataError(refusal)


def _refusal(found: Mapping[str, Any]) -> str:
    """Why no split can be used; empty where one can."""
    if not all("error" in part for part in found["splits"].values()):
        return ""
    broken = [f"{split}: {part['error']}" for split, part in found["splits"].items() if part["present"]]
    advice = f"{found['how_to_get']} Or set --data-root."
    return next(iter(broken), f"{found['dataset']}: nothing usable under {found['data_root']}. {advice}")


def _captions(
    manifest: Manifest, split: str, root: Path, rows: dict[str, RowCounts], remarks: list[str]
) -> dict[str, Any]:
    report, counts, images = ReadReport(), RowCounts(), ImageCounts(root)
    spec = manifest.split_spec(split, root)
    records = bar(spec.expected_rows, f"{split}: reading", " row", manifest.records(split, root, report))
    for record in records:
        counts.add(record)
        images.add(record.image_path)
    if not report.read:
        raise DataError(f"no row can be used ({'; '.join(report.lines()) or 'its files hold none'})")
    rows[split] = counts
    found = images.found(lambda: ((one.image_id, one.image_path) for one in manifest.records(split, root)))
    given, can_be_given = ("group_id" in known for known in (report.used, READERS[manifest.format].options))
    remarks += [*images.remarks(), *counts.remarks(given, can_be_given), *report.lines()]
    for role, named in spec.files_of("captions").items():
        if not present_files(root, named):
            remarks.append(f"optional file {role} is not present ({' or '.join(alternatives(named))})")
    if spec.expected_rows is not None and report.read != spec.expected_rows:
        remarks.append(
            f"{spec.expected_rows:,} captions were expected: another release, or an incomplete download"
        )
    if spec.is_published("captions", root) is False:
        remarks.append("the captions file is not the one this manifest was written for (sha256 differs)")
    return {
        "captions": report.read,
        "cases": counts.cases,
        **found,
        "labels": counts.labels(),
        "columns": report.used,
        "ignored_columns": report.ignored,
        "repeated_captions": counts.repeated_captions,
        "empty_captions": counts.empty_captions,
        **counts.tokens(),
    }


def _questions(
    manifest: Manifest, split: str, root: Path, asked: dict[str, frozenset[str]], remarks: list[str]
) -> dict[str, Any]:
    report = ReadReport()
    questions = manifest.questions(split, root, report)
    images, named = ImageCounts(root), {one.image_id: one.image_path for one in questions}
    asked[split] = frozenset(named)
    for path in named.values():
        images.add(path)
    if not questions:
        raise DataError(f"no question can be used ({'; '.join(report.lines()) or 'its files hold none'})")
    found = images.found(named.items)
    remarks += [line for line in [*images.remarks(), *report.lines()] if line not in remarks]
    expected = manifest.splits[split].expected_questions
    if expected is not None and len(questions) != expected:
        remarks.append(f"{expected:,} questions were expected: another release, or an incomplete download")
    if manifest.questions_are_published(split, root) is False:
        remarks.append("the question files are NOT the published ones (sha256 differs)")
    return {"questions": len(questions), **found}


def _shared(rows: Mapping[str, RowCounts]) -> list[dict[str, Any]]:
    """Pairs of splits that have images or cases in common."""
    found = []
    for (one, first), (other, second) in combinations(rows.items(), 2):
        images, cases = (
            _common(first.image_keys, second.image_keys),
            _common(first.case_keys, second.case_keys),
        )
        if not (images or cases):
            continue
        folds = "" if images else f", or split by whole cases (kg-targets folds --test {one},{other})"
        remark = (
            f"{one} and {other} share {cases:,} cases and {images:,} image ids: what was learnt in one is no news in "
            f"the other; leave the cases out of one of them (kg-targets build --exclude FILE, a group_id a line){folds}"
        )
        found.append({"splits": [one, other], "cases": cases, "images": images, "remark": remark})
    return found


def _shared_by_questions(asked: Mapping[str, frozenset[str]]) -> list[dict[str, Any]]:
    """Pairs of splits that ask about the same images."""
    found = []
    for (one, first), (other, second) in combinations(asked.items(), 2):
        if images := len(first & second):
            remark = (
                f"{one} and {other} ask about {images:,} of the same images: scores on {other} are about images that "
                "training has seen; protocol image_disjoint keeps them apart (docs/vqa_data.md)"
            )
            found.append({"splits": [one, other], "images": images, "remark": remark})
    return found


def _common(first: NDArray[np.int64], second: NDArray[np.int64]) -> int:
    return len(np.intersect1d(first, second))
