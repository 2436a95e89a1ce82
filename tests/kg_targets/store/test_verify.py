"""What `verify` finds in stores whose checksums all match: whoever wrote such a file also signed it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kg_targets.errors import StoreError
from kg_targets.store import schema, verify_store
from kg_targets.store.digest import file_sha256, fingerprint
from tests.kg_targets.store.test_store import build


def forge(path: Path, column: str, values: list[Any]) -> None:
    """Put other values into a column, with checksums and fingerprint as if the build had written them."""
    name = schema.part(schema.TARGETS, 0)
    table = pq.read_table(path / name)
    field = table.schema.field(column)
    column_number = table.column_names.index(column)
    pq.write_table(table.set_column(column_number, field, pa.array(values, field.type)), path / name)
    manifest = json.loads((path / schema.MANIFEST).read_text())
    for entry in manifest["files"]:
        if entry["file"] == name:
            entry["sha256"] = file_sha256(path / name)
    manifest["fingerprint"] = fingerprint(manifest)
    (path / schema.MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "image_path", ["../../etc/passwd", "/etc/passwd", "a/../../b.png", "..", "C:\\x.png", "a\\..\\b.png"]
)
def test_an_image_path_that_leaves_the_data_root_is_found(tmp_path: Path, image_path: str) -> None:
    path = build(tmp_path).path
    kept = pq.read_table(path / schema.part(schema.TARGETS, 0))["image_path"].to_pylist()
    forge(path, "image_path", [*kept[:-1], "images/a..b/..c.png"])
    assert "image paths stay below the data root" in verify_store(path)
    forge(path, "image_path", [kept[0], image_path, *kept[2:]])
    with pytest.raises(StoreError, match=r"image path of row 1, .* leaves the data root"):
        verify_store(path)


def test_a_neighbour_that_is_no_row_is_found(tmp_path: Path) -> None:
    path = build(tmp_path).path
    lists = pq.read_table(path / schema.part(schema.TARGETS, 0))["neighbor_rows"].to_pylist()
    row = next(number for number, found in enumerate(lists) if found)
    lists[row][0] = 10_000
    forge(path, "neighbor_rows", lists)
    with pytest.raises(StoreError, match="a row that there is not is named as a neighbour"):
        verify_store(path)
