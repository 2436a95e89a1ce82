"""`kg-targets prepare`: a data set as it is published → the files in use, with the counts that must come out."""

import json
from collections.abc import Iterator
from pathlib import Path

from kg_targets.errors import DataError
from kg_targets.manifest import Manifest
from kg_targets.manifest.places import alternatives
from kg_targets.store.schema import writing


def prepare_data_set(dataset: str, data_root: Path | None, out: Path | None) -> Iterator[str]:
    """Write each split's file; a line for each.

    Args:
        dataset: name, or path of a manifest.
        data_root: where the published file is.
        out: folder to write to; ``None``: beside the published file.

    Raises:
        ConfigError: the data set needs no preparation.
        DataError: the published file is missing or another, or other counts come out than must.
    """
    manifest = Manifest.load(dataset, "questions")
    root = data_root or manifest.default_root
    folder = out or root
    for split, spec in manifest.splits.items():
        content = manifest.prepared(split, root)
        count, expected = len(json.loads(content)), spec.expected_questions
        if expected is not None and count != expected:
            raise DataError(
                f"{manifest.name}/{split}: {count:,} questions come out and {expected:,} must: it is another release, "
                "or an incomplete download"
            )
        target = folder / alternatives(spec.files["questions"])[0]
        partial = target.with_name(f".{target.name}.partial")
        with writing(target):
            folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(target)
        same = spec.is_published("questions", folder)
        known = "the very file that published results use" if same else "sha256 differs from the file in use"
        yield f"{target}: {count:,} questions, {known}"
