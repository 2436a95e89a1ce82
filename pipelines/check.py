"""`kg-targets check`: what of a data set is present, what is missing, and where to get it."""

from collections.abc import Iterator
from pathlib import Path

from kg_targets.errors import DataError, ManifestError
from kg_targets.manifest import Manifest, ReadReport
from kg_targets.store.digest import file_sha256


def check_lines(dataset: str, data_root: Path | None) -> Iterator[str]:
    """Lines for a person, one per split and problem.

    Raises:
        ManifestError: no such data set.
        DataError: no split at all is usable (after all lines were given).
    """
    manifest = Manifest.load(dataset)
    root = data_root or manifest.default_root
    yield f"{manifest.name}: {manifest.title}"
    yield f"  licence: {manifest.licence}"
    yield from ([f"  citation: {manifest.citation}"] if manifest.citation else [])
    present = manifest.present_splits(root)
    usable = 0
    for split in dict.fromkeys([*manifest.splits, *present]):
        if split not in present:
            yield f"  {split}: not present ({root / manifest.splits[split].files['captions']})"
            continue
        try:
            yield from _split_lines(manifest, split, root)
            usable += 1
        except (ManifestError, DataError) as error:
            yield f"  {split}: {error}"
    if not usable:
        raise DataError(
            f"{manifest.name}: nothing usable under {root}. {manifest.how_to_get} Or set --data-root."
        )
    if len(present) < len(manifest.splits):
        yield f"  to get what is missing: {manifest.how_to_get}"


def _split_lines(manifest: Manifest, split: str, root: Path) -> Iterator[str]:
    report = ReadReport()
    spec = manifest.split_spec(split, root)
    paths = [record.image_path for record in manifest.records(split, root, report)]
    absent = [path for path in paths if not path or not (root / path).is_file()]
    images = f"{len(paths) - len(absent):,} of {len(paths):,} images present"
    yield f"  {split}: {report.read:,} captions, {images}" + (
        f" (first missing: {absent[0]})" if absent else ""
    )
    yield from (f"  {split}: {line}" for line in report.lines())
    for role, name in spec.files.items():
        if not (root / name).is_file():
            yield f"  {split}: optional file {role} is not present ({name})"
    if spec.expected_rows is not None and report.read != spec.expected_rows:
        yield f"  {split}: {spec.expected_rows:,} captions were expected: another release, or an incomplete download"
    if spec.sha256 is not None and file_sha256(root / spec.files["captions"]) != spec.sha256:
        yield f"  {split}: the captions file is not the one this manifest was written for (sha256 differs)"
