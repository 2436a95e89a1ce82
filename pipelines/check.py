"""`kg-targets check`: what of a data set is present, what is missing, and where to get it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kg_targets.errors import ConfigError, DataError, ManifestError
from kg_targets.manifest import Manifest, ReadReport
from kg_targets.manifest.places import alternatives, first_file, present_files


def check_data_set(dataset: str, data_root: Path | None) -> dict[str, Any]:
    """A data set's splits under a data root, for ``--json`` and ``check_lines``.

    A split has ``present``, and where it is: ``captions`` or ``questions`` (counts), ``images`` and
    ``images_present``, ``remarks`` for a person, and ``error`` where it cannot be used.

    Raises:
        ManifestError: no such data set.
    """
    manifest = Manifest.load(dataset, None)
    root = data_root or manifest.default_root
    if data_root is not None and not data_root.is_dir():
        raise ConfigError(f"--data-root {data_root} is not a folder")
    present = manifest.present_splits(root)
    splits: dict[str, dict[str, Any]] = {}
    for split in dict.fromkeys([*manifest.splits, *present]):
        part = splits[split] = {"present": split in present, "remarks": []}
        if split in present:
            try:
                for kind in manifest.holds:
                    part |= (_captions if kind == "captions" else _questions)(
                        manifest, split, root, part["remarks"]
                    )
            except (ManifestError, DataError) as error:
                part["error"] = str(error)
        else:
            part["error"] = (
                f"not present ({first_file(root, next(iter(manifest.splits[split].files.values())))})"
            )
        splits[split] = part
    return {
        "dataset": manifest.name, "title": manifest.title, "licence": manifest.licence, "citation": manifest.citation,
        "data_root": str(root), "how_to_get": manifest.how_to_get, "splits": splits,
    }  # fmt: skip


def check_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a person, one per split and remark."""
    yield f"{found['dataset']}: {found['title']}"
    yield f"  licence: {found['licence']}"
    yield from ([f"  citation: {found['citation']}"] if found["citation"] else [])
    for split, part in found["splits"].items():
        counts = [f"{part[kind]:,} {kind}" for kind in ("captions", "questions") if kind in part]
        if "images" in part:
            counts.append(f"{part['images_present']:,} of {part['images']:,} images present")
        yield from ([f"  {split}: {', '.join(counts)}"] if counts else [])
        yield from (f"  {split}: {line}" for line in [*part["remarks"], *filter(None, [part.get("error")])])
    if not all(part["present"] for part in found["splits"].values()):
        yield f"  to get what is missing: {found['how_to_get']}"


def refuse_unusable(found: Mapping[str, Any]) -> None:
    """Check that a split at least can be used.

    Raises:
        DataError: none can.
    """
    if all("error" in part for part in found["splits"].values()):
        raise DataError(
            f"{found['dataset']}: nothing usable under {found['data_root']}. {found['how_to_get']} Or set --data-root."
        )


def _captions(manifest: Manifest, split: str, root: Path, remarks: list[str]) -> dict[str, int]:
    report = ReadReport()
    spec = manifest.split_spec(split, root)
    paths = [record.image_path for record in manifest.records(split, root, report)]
    images = _images(paths, root, remarks)
    remarks += report.lines()
    for role, named in spec.files_of("captions").items():
        if not present_files(root, named):
            remarks.append(f"optional file {role} is not present ({' or '.join(alternatives(named))})")
    if spec.expected_rows is not None and report.read != spec.expected_rows:
        remarks.append(
            f"{spec.expected_rows:,} captions were expected: another release, or an incomplete download"
        )
    if spec.is_published("captions", root) is False:
        remarks.append("the captions file is not the one this manifest was written for (sha256 differs)")
    return {"captions": report.read, **images}


def _questions(manifest: Manifest, split: str, root: Path, remarks: list[str]) -> dict[str, int]:
    report = ReadReport()
    questions = manifest.questions(split, root, report)
    images = _images([*{one.image_id: one.image_path for one in questions}.values()], root, remarks)
    remarks += report.lines()
    expected = manifest.splits[split].expected_questions
    if expected is not None and len(questions) != expected:
        remarks.append(f"{expected:,} questions were expected: another release, or an incomplete download")
    if manifest.questions_are_published(split, root) is False:
        remarks.append("the question files are NOT the published ones (sha256 differs)")
    return {"questions": len(questions), **images}


def _images(paths: list[str], root: Path, remarks: list[str]) -> dict[str, int]:
    absent = [path for path in paths if not path or not (root / path).is_file()]
    if absent and any(paths):
        remarks.append(f"first missing image: {next(filter(None, absent), 'one that no file is named for')}")
    return {"images": len(paths), "images_present": len(paths) - len(absent)}
