"""Ranges of files give the records, counts and places that reading from the front gives."""

import gzip
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.manifest import Manifest, ReadReport, Record

HEADER = "image_id,filepath,caption,group_id,label_site\n"
DIRTY = (
    'a,a.png,"A lung, seen\nfrom the ""front""",c1,x\n'
    "b,b.png,plain,c1,\n"
    "\n"
    "short,row\n"
    'c,c.png,"",c2,y\r\n'
    "d,d.png,nul\0inside,c3,z\n"
    '"e",e.png,last,,w'
)
LINES = (
    '{"image_id": "a", "file_name": "a.png", "text": "one", "site": "x"}\n'
    "\n"
    "not json\n"
    '{"image_id": "b", "file_name": "b.png", "text": "two\\nlines"}\r\n'
    '[1]\n{"image_id": "c", "file_name": "c.png", "text": "three", "meta": {"patient_id": "p"}}'
)


def manifest(folder: Path, files: list[str], **options: str) -> Manifest:
    content = {
        "name": "mine", "title": "Mine", "format": "table", "licence": "CC0", "how_to_get": "Ask.",
        "fit_split": "train", "splits": {"train": {"files": {"captions": files}}}, "options": options,
    }  # fmt: skip
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return Manifest.load(path)


def by_ranges(mine: Manifest, folder: Path, rows: int) -> tuple[list[Record], ReadReport]:
    reader, report = mine.range_reader("train", folder), ReadReport()
    assert reader is not None
    ranges = reader.ranges(rows)
    assert ranges is not None
    keys: list[dict[str, None]] = [{} for _ in reader.files]
    for part in ranges if reader.is_json else ():
        keys[part.file].update(dict.fromkeys(reader.keys(part)))
    assert reader.take_columns(keys, report)
    records, ids = list[Record](), list[str]()
    for part in ranges:
        own = ReadReport()
        records += list(reader.records(part, own, None, frozenset({"c2"}), ids))
        report.add(own)
    assert {record.image_id for record in records} <= {*ids}
    return records, report


def from_the_front(mine: Manifest, folder: Path) -> tuple[list[Record], ReadReport]:
    report = ReadReport()
    return list(mine.records("train", folder, report, None, frozenset({"c2"}))), report


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("name", "content"),
    [("one.csv", HEADER + DIRTY), ("one.csv", "\ufeff" + HEADER + DIRTY + "\n"), ("one.jsonl", LINES)],
)
def test_ranges_of_a_dirty_file_are_the_file(tmp_path: Path, name: str, content: str, rows: int) -> None:
    (tmp_path / name).write_bytes(content.encode())
    mine = manifest(
        tmp_path, [name], **({"labels": "site", "group_id": "meta.patient_id"} if "{" in content else {})
    )
    records, report = by_ranges(mine, tmp_path, rows)
    expected, counted = from_the_front(mine, tmp_path)
    assert records == expected and len(records) >= 2
    assert report == counted
    assert report.lines() == counted.lines()


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    for number in range(3):
        rows = "".join(f"i{number}{row},i.png,caption {row},c,s\n" for row in range(4))
        (tmp_path / f"part-{number}.csv").write_text(HEADER + rows)
    mine = manifest(tmp_path, ["part-*.csv"])
    assert by_ranges(mine, tmp_path, 3) == from_the_front(mine, tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    captions=st.lists(st.text(st.sampled_from('ab",\n\r ;é'), max_size=8), min_size=1, max_size=8),
    rows=st.integers(1, 4),
)
def test_whatever_captions_hold_ranges_are_right_or_not_made(
    tmp_path_factory: pytest.TempPathFactory, captions: list[str], rows: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    quoted = ['"' + text.replace('"', '""') + '"' for text in captions]
    lines = [f"i{row},i.png,{text},c,s\n" for row, text in enumerate(quoted)]
    (folder / "one.csv").write_bytes((HEADER + "".join(lines)).encode())
    mine = manifest(folder, ["one.csv"])
    reader = mine.range_reader("train", folder)
    assert reader is not None
    if reader.ranges(rows) is not None:
        assert by_ranges(mine, folder, rows) == from_the_front(mine, folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("one.csv", (HEADER + 'a,a.png,5" nail,c,s\n').encode()),
        ("one.csv", HEADER.replace("\n", "\r").encode() + b"a,a.png,x,c,s\r"),
        ("one.csv", (HEADER + "a,a.png,x,c,s\n").encode("utf-16")),
        ("one.csv.gz", gzip.compress((HEADER + "a,a.png,x,c,s\n").encode(), mtime=0)),
        ("one.csv", b"filepath,caption\na.png,x\n"),
        ("one.json", json.dumps([{"image_id": "a", "file_name": "a.png", "text": "x"}]).encode()),
    ],
)
def test_what_cannot_be_cut_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    reader = manifest(tmp_path, [name]).range_reader("train", tmp_path)
    assert (
        reader is None
        or reader.ranges(1) is None
        or not reader.take_columns([{} for _ in reader.files], ReadReport())
    )
