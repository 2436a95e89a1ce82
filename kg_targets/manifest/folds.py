"""Cross-validation folds of a data set by whole cases, each fold a data set of its own in the ``csv`` layout.

DIR/folds.json                        what the folds were made from, and sha256 and counts of every part; written last
DIR/fold<k>/manifest.yaml             `kg-targets build DIR/fold<k>/manifest.yaml --data-root DIR/fold<k>` takes it
DIR/fold<k>/train.csv, test.csv       the records; image paths stay relative to the data set's own data root
"""

import csv
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from kg_targets.errors import ConfigError, DataError
from kg_targets.manifest.given_concepts import concepts_text
from kg_targets.manifest.model import Manifest
from kg_targets.manifest.record import ReadReport, Record
from kg_targets.store.digest import file_sha256, shuffle_key
from kg_targets.store.schema import replace_folder, writing

MARKER = "folds.json"
MANIFEST = "manifest.yaml"
TRAIN, TEST = "train", "test"
_FILES = {MANIFEST: MANIFEST, TRAIN: "train.csv", TEST: "test.csv"}
"""Part of a fold to its file."""


@dataclass(frozen=True)
class FoldConfig:
    """Options for a data set that is split into folds."""

    test: tuple[str, ...]
    """Splits whose cases are each in exactly one fold's test part."""
    train_only: tuple[str, ...] = ()
    """Splits whose cases are in every fold's train part, and in no test part."""
    count: int = 5
    """Folds, ≥ 2."""
    seed: int = 0
    """Seed of the order in which cases are dealt out, ≥ 0."""

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ConfigError(f"--folds {self.count} must be at least 2")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed} must be at least 0")
        if not self.test:
            raise ConfigError("--test names no split: give at least one, such as --test train,test")
        twice = [split for split, n in Counter(self.test + self.train_only).items() if n > 1]
        if twice:
            raise ConfigError(f"--test and --train-only name split {twice[0]!r} twice: name it once")


@dataclass(frozen=True)
class Folds:
    """Folds on disk."""

    folder: Path
    names: tuple[str, ...]
    created: bool
    """False if these very folds were already there."""
    lines: tuple[str, ...]
    """For people: the size of each fold, and what was noticed about the data."""


def fold_names(count: int) -> tuple[str, ...]:
    """``fold0``, ``fold1``, …"""
    return tuple(f"fold{number}" for number in range(count))


def assign_cases(images: dict[str, int], count: int, seed: int) -> dict[str, int]:
    """Assign each case to the fold that tests it.

    Cases are put into the order of sha256(seed, case), a shuffle that no library version changes, then stably sorted
    by their number of images, most first. In this order each goes to the fold that holds the fewest images so far (of
    equals: the fewest cases, then the lowest number). Folds so differ by no more images than the largest case has.

    Args:
        images: case to its number of images, ≥ 1.
        count: folds.
        seed: another one gives other folds.

    Returns:
        Case to fold number, from 0.

    Raises:
        DataError: there are fewer cases than folds.
    """
    if len(images) < count:
        raise DataError(f"{len(images)} cases cannot fill {count} folds: lower --folds")
    order = sorted(images, key=lambda case: shuffle_key(seed, case))
    order.sort(key=lambda case: -images[case])
    held = [(0, 0, number) for number in range(count)]
    assigned = {}
    for case in order:
        in_images, in_cases, number = min(held)
        held[number] = (in_images + images[case], in_cases + 1, number)
        assigned[case] = number
    return assigned


def write_folds(manifest: Manifest, data_root: Path, out: Path, config: FoldConfig) -> Folds:
    """Write every fold, or find that these very folds are there already; all or nothing, by one rename.

    A case of ``test`` that also has images in a ``train_only`` split is in the train part of every fold but its own.

    Raises:
        ManifestError: no such split, or its file is missing or malformed.
        DataError: an image id is in two splits, a record cannot be written as CSV, or OUT holds something else.
        StoreError: OUT cannot be written.
    """
    report = ReadReport()
    records = {
        split: list(manifest.records(split, data_root, report)) for split in config.test + config.train_only
    }
    _check_ids(records)
    tested = [record for split in config.test for record in records[split]]
    everything = tested + [record for split in config.train_only for record in records[split]]
    assigned = assign_cases(Counter(map(_case, tested)), config.count, config.seed)
    _refuse_foreign(out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    partial = workplace / "new"
    try:
        with writing(out):
            partial.mkdir()  # with the usual permissions, which mkdtemp does not give
        folds = {}
        for number, name in enumerate(fold_names(config.count)):
            parts = {
                TRAIN: [record for record in everything if assigned.get(_case(record)) != number],
                TEST: [record for record in tested if assigned[_case(record)] == number],
            }
            folds[name] = _write_fold(partial / name, manifest, number, config, parts)
        content = {
            "dataset": manifest.name,
            "splits_sha256": {split: manifest.split_digest(split, data_root) for split in records},
            "options": asdict(config),
            "folds": folds,
        }
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        with writing(out):
            (partial / MARKER).write_text(text, encoding="utf-8")
        created = not _is_current(out, text)
        if created:
            replace_folder(partial, out, workplace / "old")
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    sizes = (
        f"{name}: train {fold[TRAIN]['images']:,} images of {fold[TRAIN]['cases']:,} cases, "
        f"test {fold[TEST]['images']:,} of {fold[TEST]['cases']:,}"
        for name, fold in folds.items()
    )
    return Folds(out, fold_names(config.count), created, (*sizes, *report.lines()))


def _case(record: Record) -> str:
    """An image without a case is a case of its own."""
    return record.group_id or record.image_id


def _check_ids(records: dict[str, list[Record]]) -> None:
    seen: dict[str, str] = {}
    for split, rows in records.items():
        for record in rows:
            if record.image_id in seen:
                raise DataError(
                    f"image id {record.image_id!r} is in {seen[record.image_id]} and in {split}: folds need ids that "
                    "are unique in the data set, rename or remove one of them"
                )
            seen[record.image_id] = split


def _write_fold(
    folder: Path, manifest: Manifest, number: int, config: FoldConfig, parts: dict[str, list[Record]]
) -> dict[str, Any]:
    """Write manifest and parts into ``folder``; returns what the marker says of each part."""
    told = {}
    with writing(folder):
        folder.mkdir()
    for part, rows in parts.items():
        path = folder / _FILES[part]
        _write_records(path, rows)
        told[part] = {
            "images": len(rows),
            "cases": len(set(map(_case, rows))),
            "sha256": file_sha256(path),
        }
    train_only = f" --train-only {','.join(config.train_only)}" if config.train_only else ""
    content = {
        "name": f"{manifest.name}-fold{number}",
        "title": f"{manifest.title}: fold {number} of {config.count}",
        "format": "csv",
        "licence": manifest.licence,
        "citation": manifest.citation,
        "how_to_get": f"It is made by `kg-targets folds {manifest.name} --test {','.join(config.test)}{train_only} "
        f"--folds {config.count} --seed {config.seed}`; --data-root is the folder of this manifest.",
        "fit_split": TRAIN,
        "label_concepts": manifest.label_concepts,
        "splits": {
            part: {
                "files": {"captions": _FILES[part]},
                "expected_rows": len(rows),
                "sha256": told[part]["sha256"],
            }
            for part, rows in parts.items()
        },
    }
    with writing(folder):
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    told[MANIFEST] = {"sha256": file_sha256(folder / MANIFEST)}
    written = Manifest.load(folder / MANIFEST)
    for part, rows in parts.items():
        _check_read_back(written, part, folder, rows)
    return told


def _write_records(path: Path, rows: Sequence[Record]) -> None:
    labels = list(dict.fromkeys(name for record in rows for name in record.labels))
    columns = ["image_id", "filepath", "caption", "cuis", "group_id", "licence"]
    # What UTF-8 cannot hold is replaced here and found by reading back.
    with writing(path), path.open("w", encoding="utf-8", errors="replace", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*columns, *(f"label_{name}" for name in labels)])
        for record in rows:
            cuis = concepts_text(record.cuis, record.places)
            fixed = [record.image_id, record.image_path, record.caption, cuis, _case(record), record.licence]
            writer.writerow([*fixed, *(record.labels.get(name, "") for name in labels)])


def _check_read_back(manifest: Manifest, part: str, folder: Path, rows: Sequence[Record]) -> None:
    """Nothing that a record carries may be lost on the way through CSV."""
    found = {record.image_id: _content(record) for record in manifest.records(part, folder)}
    for record in rows:
        if found.get(record.image_id) != _content(record):
            raise DataError(
                f"the record of image {record.image_id!r} cannot be written as CSV without a change (an unprintable "
                "character in its texts, or a case that is called nan or 7.0?): mend it in the data set"
            )


def _content(record: Record) -> tuple[Any, ...]:
    labels = sorted((name, value) for name, value in record.labels.items() if value)
    return (
        record.image_path,
        record.caption,
        _case(record),
        record.licence,
        labels,
        record.cuis,
        record.places,
    )


def _is_current(out: Path, text: str) -> bool:
    """Whether OUT holds these folds with every file as it was written."""
    try:
        if (out / MARKER).read_text(encoding="utf-8") != text:
            return False
        return all(
            file_sha256(out / name / _FILES[part]) == entry["sha256"]
            for name, fold in json.loads(text)["folds"].items()
            for part, entry in fold.items()
        )
    except OSError:
        return False


def _refuse_foreign(out: Path) -> None:
    """Only a folder that holds folds and nothing else is ever replaced.

    Raises:
        DataError: OUT is something else, or the command runs inside it.
    """
    if Path.cwd().is_relative_to(out.resolve()):
        raise DataError(
            f"--out {out}: a folder that the command runs in cannot be replaced: name one for the folds"
        )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MARKER).is_file():
        raise DataError(f"{out} exists and holds no folds: it will not be replaced, choose another --out")
    for path in sorted(out.iterdir()):
        if path.is_dir() and path.name.startswith("fold"):
            foreign = [file for file in sorted(path.iterdir()) if file.name not in _FILES.values()]
        else:
            foreign = [path] if path.name != MARKER else []
        if foreign:
            raise DataError(
                f"{foreign[0]} is not part of the folds: move it, or choose another --out than {out}"
            )
