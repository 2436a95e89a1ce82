"""`kg-targets check`: what of a data set is present, what is missing, and where to get it."""

from collections.abc import Iterator
from pathlib import Path

from kg_targets.errors import DataError, ManifestError
from kg_targets.manifest import Manifest, ReadReport


def check_lines(dataset: str, data_root: Path) -> Iterator[str]:
    """Lines for a person, one per split.

    Raises:
        ManifestError: no such data set.
        DataError: at least one split is missing or unusable (after all lines were given).
    """
    manifest = Manifest.load(dataset)
    yield f"{manifest.name}: {manifest.title}. Licence: {manifest.licence}. {manifest.citation}"
    failed = []
    for split in manifest.splits:
        report = ReadReport()
        try:
            records = list(manifest.records(split, data_root, report))
        except (ManifestError, DataError) as error:
            failed.append(split)
            yield f"  {split}: {error}"
            continue
        paths = [record.image_path for record in records if record.image_path]
        absent = [path for path in paths if not (data_root / path).is_file()]
        images = f"{len(paths) - len(absent):,} of {len(paths):,} images present"
        yield f"  {split}: {report.read:,} captions, {images}" + (f" (first missing: {absent[0]})" if absent else "")
        yield from (f"  {split}: {line}" for line in report.lines())
    if failed:
        raise DataError(f"{manifest.name}: {', '.join(failed)} cannot be used from {data_root}. {manifest.how_to_get}")
