"""Odd tables: nothing of them is a traceback, and nothing is lost or mixed up without a word."""

import gzip
import io
import json
import re
import tarfile
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from kg_targets.errors import DataError, ManifestError
from kg_targets.manifest import Manifest, ReadReport, Record
from kg_targets.manifest.record import checked_records
from pipelines.cli import main
from tests.images import png
from tests.kg_targets.manifest.test_table_kinds import manifest, read


def lines(root: Path, *rows: Any, **options: str) -> tuple[list[Record], ReadReport]:
    """Rows as JSON lines; texts stay as they are."""
    (root / "a.jsonl").write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    )
    return read(manifest(root, "a.jsonl", **options))


def table(
    root: Path, data: str | bytes, name: str = "a.csv", **options: str
) -> tuple[list[Record], ReadReport]:
    (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return read(manifest(root, name, **options))


def tar(members: Sequence[tuple[str, bytes]], mode: Any = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


@pytest.mark.parametrize("escaped", [r"\ud83d", r"\u0000", r"\udc00x"])
@pytest.mark.parametrize("field", ["text", "image_id", "group_id", "license", "label_organ", "image"])
def test_texts_that_nothing_can_hold_once_decoded_are_skipped_and_counted(
    tmp_path: Path, escaped: str, field: str
) -> None:
    row = {
        "image": "a.png",
        "text": "CT",
        "image_id": "1",
        "group_id": "g",
        "license": "MIT",
        "label_organ": "x",
    }
    bad = json.dumps(row | {field: "CT @"}).replace("@", escaped)
    records, report = lines(tmp_path, bad, row | {"image_id": "2"})
    assert [record.image_id for record in records] == ["2"]
    ((reason, count),) = report.skipped.items()
    assert count == 1 and ("UTF-8" in reason or "NUL" in reason)
    assert (
        main(
            ["build", str(tmp_path / "mine.yaml"), "--data-root", str(tmp_path), "--out", str(tmp_path / "o")]
        )
        == 0
    )


def test_the_same_holds_for_json_in_tars_and_for_medpix(tmp_path: Path) -> None:
    shard = tar(
        [("1.png", png(1)), ("1.json", rb'{"caption": "CT \ud83d"}'), ("2.png", png(2)), ("2.txt", b"MRI")]
    )
    records, report = table(tmp_path, shard, "a.tar")
    assert [record.caption for record in records] == ["MRI"]
    assert list(report.skipped) == ["caption is not valid UTF-8 (save the file as UTF-8)"]
    rows = [{"U_id": "1", "image": f"i{n}", "Description": {"Caption": "CT@"}} for n in range(2)]
    first, second = map(json.dumps, rows)
    (tmp_path / "descriptions_train.jsonl").write_text(first.replace("@", r"\u0000") + "\n" + second + "\n")
    report = ReadReport()
    assert [one.image_id for one in Manifest.load("medpix").records("train", tmp_path, report)] == ["i1"]
    assert report.skipped == {"caption contains a NUL byte": 1}


def test_ids_with_line_breaks_are_skipped_since_lists_of_cases_have_one_a_line(tmp_path: Path) -> None:
    records, report = lines(
        tmp_path,
        {"image": "a.png", "text": "CT", "image_id": "1\n2"},
        {"image": "b.png", "text": "CT", "image_id": "3", "group_id": "p\r1"},
        {"image": "c.png", "text": "CT\nchest", "image_id": "4"},
    )
    assert [record.image_id for record in records] == ["4"]
    assert report.skipped == {"image_id or group_id has a line break": 2}


NAMED = (
    "participant_id participant subj subj_id ptid pt_id PtNo empi_anon acc_anon AccNum article_accession_id"
)


@pytest.mark.parametrize("name", NAMED.split())
def test_further_words_for_patients_are_never_passed_over(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=f"column '{name}' looks like the patient or case"):
        table(tmp_path, f"filepath,caption,{name}\na.png,CT,p7\n")
    (record,), _ = table(tmp_path, f"filepath,caption,{name}\na.png,CT,p7\n", group_id=name)
    assert record.group_id == "p7"


def test_what_is_said_of_an_article_or_a_person_is_no_case(tmp_path: Path) -> None:
    names = (
        "article_abstract,article_subject,article_mesh_terms,article_keywords,article_reference_ids,article_citation,"
        "article_license,person_detected,is_patient,blood_group,acc,pt,accuracy,apt_id"
    )
    _, report = table(tmp_path, f"filepath,caption,{names}\na.png,CT{',' * len(names.split(','))}\n")
    assert list(report.ignored) == names.split(",") and not any(
        "case" in told for told in report.ignored.values()
    )


def test_a_patient_inside_an_object_is_seen_and_can_be_named(tmp_path: Path) -> None:
    rows = [{"image": f"{n}.png", "text": "CT", "meta": {"patient_id": 5, "age": n}} for n in range(2)]
    with pytest.raises(ManifestError, match=r"column 'meta\.patient_id' looks like the patient"):
        lines(tmp_path, *rows)
    records, report = lines(tmp_path, *rows, group_id="meta.patient_id", labels="meta.age")
    assert [record.labels["meta.age"] for record in records] == ["0", "1"]
    assert [record.group_id for record in records] == ["5", "5"]
    assert list(report.ignored) == ["meta"]
    records, _ = lines(tmp_path, *rows, ignore="meta")
    assert [record.group_id for record in records] == ["0", "1"]
    (tmp_path / "text.json").write_text(
        json.dumps([{"image": "a.png", "text": "CT", "text.more": {"subject": 1}}])
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(ManifestError, match=r"column 'meta\.patient_id' looks like the patient"):
        read(manifest(tmp_path, "a.parquet"))
    records, _ = read(manifest(tmp_path, "a.parquet", group_id="meta.patient_id"))
    assert [record.group_id for record in records] == ["5", "5"]


def test_a_case_written_as_a_fraction_is_the_case_written_whole(tmp_path: Path) -> None:
    notes = {
        "group_id is a number with .0, which is left out": 1,
        "image_id is a number with .0, which is left out": 1,
    }
    rows = [{"image_id": 1.0, "image": "a.png", "text": "CT", "group_id": 7.0},
            {"image_id": 2, "image": "b.png", "text": "CT", "group_id": 7}]  # fmt: skip
    records, report = lines(tmp_path, *rows)
    assert [(record.image_id, record.group_id) for record in records] == [("1", "7"), ("2", "7")]
    assert report.notes == notes
    content = "image_id,filepath,caption,group_id\n1.0,a.png,CT,7.0\n2,b.png,CT,7\n3,c.png,CT,7.50\n4,d.png,CT,v7.0\n"
    records, report = table(tmp_path, content)
    assert [record.group_id for record in records] == ["7", "7", "7.50", "v7.0"] and report.notes == notes
    pq.write_table(pa.table({"filepath": ["a.png", "b.png"], "caption": ["x", "y"], "group_id": [7.0, None]}),
                   tmp_path / "a.parquet")  # fmt: skip
    records, report = read(manifest(tmp_path, "a.parquet"))
    assert [record.group_id for record in records] == ["7", "b"]


def test_splits_that_write_one_patient_in_two_ways_share_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.csv").write_text("filepath,caption,group_id\na.png,CT,7.0\nb.png,CT,\n")
    (tmp_path / "test.csv").write_text("filepath,caption,group_id\nc.png,CT,7\n")
    path = manifest(tmp_path, "train.csv")
    content = yaml.safe_load(path.read_text())
    content["splits"]["test"] = {"files": {"captions": "test.csv"}}
    path.write_text(yaml.safe_dump(content))
    assert main(["check", str(path), "--data-root", str(tmp_path)]) == 0
    assert "share 1 cases and 0 image ids" in capsys.readouterr().out


def one_line(root: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that check ends with."""
    capsys.readouterr()
    assert main(["check", str(path), "--data-root", str(root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_parquet_column_that_is_there_twice_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = [pa.array(["a.png"]), pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(columns, ["filepath", "caption", "caption"]), tmp_path / "a.parquet")
    assert "column 'caption' is there twice" in one_line(tmp_path, manifest(tmp_path, "a.parquet"), capsys)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("options: {}", 'options: {case_pattern: "(("}', "options: case_pattern: not a regular expression"),
        ("captions: a.csv", "captions: []", "files.captions: Value error, an empty list: name a path"),
        ("images: ''", "images: []", "images"),
    ],
)
def test_manifests_that_would_fail_later_are_refused(
    tmp_path: Path, old: str, new: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = manifest(tmp_path, "a.csv")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert told in one_line(tmp_path, path, capsys)


IMAGE = ("k.png", png(1))


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.jsonl", b'{\n "image": "a.png",\n "text": "CT"\n}\n', r"skipped 4 row.*each line must be an object"),
        ("a.jsonl", b'[{"image": "a.png", "text": "CT"}]', r"is not a JSON object.*a list of them is \.json"),
        ("a.jsonl", b"filepath,caption\na.png,CT\n", "is not valid JSON"),
        ("a.json", b"[1, 2]", "is not an object"),
        ("a.json", b"[]", "it is empty"),
        ("a.tar", tar([("k.npy", b"x"), ("k.txt", b"CT")]), r"has no image.*a sample is key\.jpg"),
        ("a.tar", tar([("in.tar", tar([IMAGE]))]), "has no image"),
        ("a.tar", tar([]), "it is empty"),
        ("a.tar", tar([(name, b"1") for name in ("a.png", "b.png", "a.txt", "b.txt")]), r"'a' are apart.*--sort=name"),
        ("a.tar", tar([IMAGE, ("k.txt", b"x"), ("m.png", b"2"), IMAGE, ("k.txt", b"y")]), "'k' are apart"),
        ("a.csv", b"\x28\xb5\x2f\xfd\0\0", "compressed by zstd"),
        ("a.csv.gz", gzip.compress(gzip.compress(b"filepath,caption\n", mtime=0), mtime=0), "gzip twice"),
        ("a.csv", "filepath,caption\n".encode("utf-32"), "UTF-32"),
        ("a.tgz", tar([IMAGE, ("k.txt", b"x")], "w:gz"), "holds a tar"),
        ("a.csv", tar([IMAGE, ("k.txt", b"x")]), "holds a tar"),
        ("a.csv", b"PAR1 and so on", r"must end in \.parquet"),
        ("a.csv", b'filepath,caption\na.png,"CT\n', "must be in quotes"),
        ("a.csv", b"filepath,caption,organ,label_organ\na.png,CT,x,y\n", "'organ' and 'label_organ' are both label"),
    ],
)  # fmt: skip
def test_files_of_which_nothing_can_be_read_say_why(
    tmp_path: Path, name: str, data: bytes, told: str
) -> None:
    options = {"labels": "organ"} if b"label_organ" in data else {}
    with pytest.raises(ManifestError, match=told) as error:
        table(tmp_path, data, name, **options)
    assert str(error.value).isprintable()


def test_a_text_of_the_images_name_with_another_dot_is_its_caption(tmp_path: Path) -> None:
    shard = tar([IMAGE, ("k.caption.txt", b"CT"), ("m.png", png(2)), ("m.txt", b"MRI"), ("m.note.txt", b"x"),
                 ("1.2.png", png(3)), ("1.2.report.txt", b"US")])  # fmt: skip
    records, report = table(tmp_path, shard, "a.tar")
    assert [record.caption for record in records] == ["CT", "MRI", "US"]
    assert report.skipped == {"has no image": 1}


def test_objects_and_lists_that_are_no_caption_or_path_are_skipped(tmp_path: Path) -> None:
    records, report = lines(
        tmp_path,
        {"image": "a.png", "text": {"en": "CT", "zh": "x"}},
        {"image": "b.png", "text": [{"value": "CT"}]},
        {"image": ["c.png", "d.png"], "text": "CT"},
        {"image": ["e.png"], "text": ["CT", "of the chest"]},
        {"image": {"path": "f.png", "bytes": None}, "text": "MRI"},
    )
    assert [record.image_path for record in records] == ["e.png", "f.png"]
    assert [record.caption for record in records] == ["CT of the chest", "MRI"]
    assert sorted(report.skipped.values()) == [1, 2]
    (record,), _ = lines(tmp_path, {"image": "a.png", "text": {"en": "CT"}}, caption="text.en")
    assert record.caption == "CT"


def test_small_oddities_of_tables(tmp_path: Path) -> None:
    (records, report) = table(tmp_path, "filepath,caption,,\na.png,CT,,\nb.png,MRI,,\n")
    assert [record.caption for record in records] == ["CT", "MRI"] and not report.ignored
    ((record,), _) = table(tmp_path, ",filepath,caption\n0, a.png ,CT\n")
    assert (record.image_id, record.image_path) == ("a", "a.png")
    content = 'filepath;"caption, long, text, x";group_id\na.png;CT;p1\n'
    ((record,), _) = table(tmp_path, content, caption="caption, long, text, x")
    assert (record.caption, record.group_id) == ("CT", "p1")
    records, _ = table(tmp_path, "filepath,caption\n1.2.840.1,CT\n1.2.840.2,MRI\n")
    assert [record.image_id for record in records] == ["1.2.840.1", "1.2.840.2"]
    with pytest.raises(ManifestError, match="group_id and ignore both name 'patient_id'"):
        table(
            tmp_path, "filepath,caption,patient_id\na.png,CT,1\n", group_id="patient_id", ignore="patient_id"
        )
    _, report = table(tmp_path, "filepath,caption\na.png,Kn\xe9e\nb.png,CT\n".encode("latin-1"))
    assert list(report.skipped) == ["caption is not valid UTF-8 (save the file as UTF-8)"]


def test_ids_of_equal_digest_are_told_apart_and_equal_ones_named_with_their_first_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"image": f"{n}.png", "text": "CT", "image_id": f"i{n}"} for n in range(3)]
    monkeypatch.setattr("kg_targets.manifest.record.hash", lambda text: 7, raising=False)
    assert len(lines(tmp_path, *rows)[0]) == 3
    with pytest.raises(
        DataError, match=re.escape("a.jsonl line 4: image id 'i1' was already given at a.jsonl line 2")
    ):
        lines(tmp_path, *rows, rows[1])


@pytest.mark.filterwarnings("error:Attempting to set identical")
@pytest.mark.filterwarnings("error:Data has no positive values")
def test_a_card_of_images_about_which_nothing_is_known_warns_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("filepath,caption\na.png,x\nb.png,y\n")
    path, out = manifest(tmp_path, "a.csv"), tmp_path / "out"
    assert main(["build", str(path), "--data-root", str(tmp_path), "--out", str(out)]) == 0
    assert main(["card", str(out / "train"), "--out", str(tmp_path / "card.html")]) == 0


def test_little_is_kept_of_a_row_that_was_read() -> None:
    rows = 100_000

    def generated(_: ReadReport) -> Iterator[tuple[str, Record]]:
        for row in range(rows):
            name = f"a/rather/long/name/of/an/image/{row:09d}"
            yield f"metadata-of-the-training-split.jsonl line {row}", Record(name, "", "CT", name)

    tracemalloc.start()
    assert sum(1 for _ in checked_records(generated, None, ReadReport())) == rows
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 * rows  # less than the ids and places themselves
