"""Manifests and the csv layout: every bad input gives one clear line or a counted, reported skip."""

from pathlib import Path

import pytest

from kg_targets.errors import DataError, ManifestError
from kg_targets.manifest import Manifest, ReadReport, Record, known_data_sets
from tests import REPOSITORY

DEMO = Manifest.load("demo")
HEADER = b"image_id,filepath,caption,group_id,label_region\n"


def read(folder: Path, content: bytes) -> tuple[list[Record], ReadReport]:
    (folder / "train.csv").write_bytes(content)
    report = ReadReport()
    return list(DEMO.records("train", folder, report)), report


def test_every_shipped_manifest_loads() -> None:
    assert "demo" in [manifest.name for manifest in known_data_sets()]


def test_records_keep_text_labels_and_groups(tmp_path: Path) -> None:
    records, report = read(tmp_path, HEADER + 'a,images/a.png,"CT, axial – 5 µm",case1,chest\n'.encode())
    assert records == [
        Record("a", "images/a.png", "CT, axial – 5 µm", "case1", "CC0-1.0", {"region": "chest"})
    ]
    assert report.read == 1 and not report.skipped


def test_only_filepath_and_caption_are_required(tmp_path: Path) -> None:
    records, _ = read(tmp_path, b"filepath,caption\nimages/x.png,CT\n")
    assert (records[0].image_id, records[0].group_id, records[0].labels) == ("x", "x", {})


def test_a_byte_order_mark_and_crlf_are_harmless(tmp_path: Path) -> None:
    records, _ = read(tmp_path, b"\xef\xbb\xbf" + HEADER.replace(b"\n", b"\r\n") + b"a,a.png,CT,g,chest\r\n")
    assert records[0].image_id == "a"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"b,b.png,broken \xff byte,g,chest\n", "caption is not valid UTF-8 (save the file as UTF-8)"),
        (b"b,b.png,nul \x00 byte,g,chest\n", "caption contains a NUL byte"),
        (b",b.png,no id,g,chest\n", "has no image id"),
        (b"b,b.png,too few columns\n", "has not 5 columns"),
    ],
)
def test_an_unusable_row_is_skipped_counted_and_placed(tmp_path: Path, row: bytes, reason: str) -> None:
    records, report = read(tmp_path, HEADER + b"a,a.png,CT,g,chest\n" + row + b"c,c.png,MRI,g,chest\n")
    assert [record.image_id for record in records] == ["a", "c"]
    assert report.skipped == {reason: 1}
    assert "train.csv line 3" in report.lines()[0]


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "images/../../x.png", "C:\\x.png", "..\\x.png"]
)
def test_a_path_that_leaves_the_data_root_stops_the_reading(tmp_path: Path, path: str) -> None:
    with pytest.raises(ManifestError, match="outside the data root"):
        read(tmp_path, HEADER + f"a,{path},CT,g,chest\n".encode())


def test_a_duplicate_id_names_both_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 3: image id 'a' was already given at train.csv line 2"):
        read(tmp_path, HEADER + b"a,a.png,CT,g,chest\na,b.png,MRI,g,chest\n")


def test_an_empty_file_and_a_missing_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is empty"):
        read(tmp_path, b"")
    with pytest.raises(ManifestError, match="column 'caption' is missing"):
        read(tmp_path, b"filepath,words\na.png,CT\n")


def test_a_missing_split_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"does not exist.*kg-targets demo-data.*DATA_ROOT"):
        list(DEMO.records("train", tmp_path))


def test_a_misspelt_split_or_data_set_gets_a_suggestion() -> None:
    with pytest.raises(ManifestError, match="did you mean 'train'"):
        DEMO.split_file("trian", Path())
    with pytest.raises(ManifestError, match="did you mean 'demo'"):
        Manifest.load("demoo")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("format: csv", "formt: csv"),
        ("fit_split: train", "fit_split: training"),
        ("captions: train.csv", "captions: ../train.csv"),
        ("name: demo", "name: [demo"),
    ],
)
def test_a_wrong_manifest_names_file_and_key(tmp_path: Path, change: str, message: str) -> None:
    source = (REPOSITORY / "data_manifests" / "demo.yaml").read_text()
    assert change in source
    path = tmp_path / "mine.yaml"
    path.write_text(source.replace(change, message))
    with pytest.raises(ManifestError, match=r"mine\.yaml"):
        Manifest.load(path)
