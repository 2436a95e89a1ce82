"""Tables as people have them: other names of columns, other separators and encodings, ids that collide."""

import gzip
from pathlib import Path

import pytest
import yaml

from kg_targets.errors import DataError, ManifestError
from kg_targets.manifest import Manifest, ReadReport, Record

LINE = "a.png,CT of the chest,p7,Chest\n"


def manifest(root: Path, **options: str) -> Manifest:
    content = {
        "name": "mine", "title": "Mine", "format": "csv", "licence": "CC0-1.0", "how_to_get": "Invented.",
        "fit_split": "train", "options": options, "splits": {"train": {"files": {"captions": "train.csv"}}},
    }  # fmt: skip
    (root / "mine.yaml").write_text(yaml.safe_dump(content))
    return Manifest.load(root / "mine.yaml")


def read(root: Path, content: str | bytes, **options: str) -> tuple[list[Record], ReadReport]:
    data = content.encode() if isinstance(content, str) else content
    (root / "train.csv").write_bytes(data)
    report = ReadReport()
    return list(manifest(root, **options).records("train", root, report)), report


CASES = """patient_id PatientID patient.no subject_id study_id case_id case pmcid PMC pid StudyInstanceUID mrn
id_patient subject_identifier patient_code patient_hash deid_patient_id anon_patient patients PatientIdentifier
hadm_id encounter_id studies anon-patientID group groupId"""


@pytest.mark.parametrize("name", CASES.split())
def test_a_column_of_patients_or_cases_is_never_passed_over(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=f"column '{name}' looks like the patient or case") as told:
        read(tmp_path, f"filepath,caption,{name}\na.png,CT,p7\n")
    assert f"options: {{group_id: {name}}}" in str(told.value)
    records, _ = read(tmp_path, f"filepath,caption,{name}\na.png,CT,p7\n", group_id=name)
    assert records[0].group_id == "p7"
    records, report = read(tmp_path, f"filepath,caption,{name}\na.png,CT,p7\n", ignore=name)
    assert records[0].group_id == "a" and report.ignored == {name: ""}


@pytest.mark.parametrize("missing", ["nan", "NaN", "None", "NA", "n/a", "NULL", "<NA>", " "])
def test_a_case_that_says_it_is_missing_is_no_case(tmp_path: Path, missing: str) -> None:
    rows = f"a.png,CT,{missing}\nb.png,MRI,{missing}\nc.png,US,Nan Li\n"
    records, report = read(tmp_path, f"filepath,caption,group_id\n{rows}")
    assert [record.group_id for record in records] == ["a", "b", "Nan Li"]
    assert report.notes == {"group_id is empty, the image counts as a case of its own": 2}


def test_the_patient_is_proposed_before_the_study(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"column 'subject_id' looks.*ignore: study_id, subject_id"):
        read(tmp_path, "filepath,caption,study_id,subject_id\na.png,CT,s1,p1\n")
    header = "filepath,caption,group_id,study_id\n"
    records, report = read(tmp_path, header + "a.png,CT,p1,s1\n")
    assert records[0].group_id == "p1" and "another case" in report.ignored["study_id"]


def test_what_tells_something_of_a_patient_or_belongs_to_a_study_is_no_case(tmp_path: Path) -> None:
    names = "PatientAge,patient_sex,study_date,StudyDescription,age_group,lowercase,series_uid,SeriesInstanceUID,split"
    records, report = read(tmp_path, f"filepath,caption,{names}\na.png,CT,{',' * names.count(',')}\n")
    assert records[0].group_id == "a" and list(report.ignored) == names.split(",")
    assert "patient or study" in report.ignored["series_uid"] == report.ignored["SeriesInstanceUID"]
    assert report.ignored["split"] == "are all splits in one file? It is read as one: write a file for each"


def test_columns_that_are_not_used_are_listed_with_the_likely_intention(tmp_path: Path) -> None:
    content = "filepath,caption,organ,lisence,note\na.png,CT,chest,MIT,x\n"
    _, report = read(tmp_path, content)
    assert report.used == {"filepath": "filepath", "caption": "caption"}
    (line,) = report.lines()
    assert line == (
        "columns that are not used: organ (a label? options: {labels: organ}), lisence (did you mean licence?), note"
    )
    records, report = read(tmp_path, content, labels="organ", licence="lisence", ignore="note")
    assert records[0].labels == {"organ": "chest"} and records[0].licence == "MIT"
    assert report.ignored == {"note": ""}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_told_by_the_header_or_given(tmp_path: Path, separator: str) -> None:
    content = "filepath,caption,group_id,label_organ\n".replace(",", separator) + LINE.replace(",", separator)
    word = "tab" if separator == "\t" else separator
    for options in ({}, {"separator": word}):
        (record,), _ = read(tmp_path, content, **options)
        assert (record.caption, record.group_id, record.labels) == (
            "CT of the chest",
            "p7",
            {"organ": "Chest"},
        )


def test_a_wrong_separator_and_options_that_nobody_reads_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"separator 'x' is not one of , ; tab \|"):
        read(tmp_path, "filepath,caption\n", separator="x")
    with pytest.raises(ManifestError, match=r"'filepath,caption' is one column with this option separator"):
        read(tmp_path, "filepath,caption\na.png,CT\n", separator="tab")
    with pytest.raises(ManifestError, match=r"options of layout csv.*did you mean 'separator'"):
        manifest(tmp_path, seperator=";")
    with pytest.raises(
        ManifestError, match=r"group_id names column 'patient', which is not there.*'patient_id'"
    ):
        read(tmp_path, "filepath,caption,patient_id\na.png,CT,1\n", group_id="patient")
    text = (tmp_path / "mine.yaml").read_text().replace("format: csv", "format: roco")
    (tmp_path / "mine.yaml").write_text(text.replace("separator", "anything"))
    with pytest.raises(ManifestError, match="options of layout roco: it has none"):
        Manifest.load(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "gzip", "gzip of utf-16"]
)
def test_encodings_and_compression_are_told_by_the_first_bytes(tmp_path: Path, encoding: str) -> None:
    text = "filepath,caption\na.png,Röntgen – 胸部\n"
    data = {
        "utf-16-le-bom": b"\xff\xfe" + text.encode("utf-16-le"),
        "gzip": gzip.compress(text.encode()),
        "gzip of utf-16": gzip.compress(text.encode("utf-16")),
    }.get(encoding) or text.encode(encoding)
    (record,), _ = read(tmp_path, data)
    assert record.caption == "Röntgen – 胸部"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "filepath,caption\na.png,CT\n".encode("utf-16-le"),
            "UTF-16 without a byte order mark: save it as UTF-8",
        ),
        ("filepath,caption\na.png,CT\n".encode("utf-16-be"), "UTF-16 without a byte order mark"),
        (b"PK\x03\x04rest", "is a zip file"),
        (gzip.compress(b"filepath,caption\n" * 9000, mtime=0)[:60], "is damaged"),
        (b"\x1f\x8bgarbage", "cannot be read"),
        (b"file\x1b[31mpath,caption\na,b\n", r"\\x1b\[31m"),
        (b"\n\n", "is empty"),
        (b"\xff\xfe\x00", "is damaged|is empty|missing"),
    ],
)
def test_other_files_are_refused_in_a_line_without_control_characters(
    tmp_path: Path, data: bytes, message: str
) -> None:
    with pytest.raises(ManifestError, match=message) as told:
        read(tmp_path, data)
    assert str(told.value).isprintable()


def test_a_header_of_thirty_thousand_columns_is_read_and_named_in_short(tmp_path: Path) -> None:
    names = ",".join(f"feature_{number}" for number in range(30_000))
    _, report = read(tmp_path, f"filepath,caption,{names}\na.png,CT,{',' * 29_999}\n")
    with pytest.raises(ManifestError, match=r"is missing.* and 29,990 more") as told:
        read(tmp_path, f"path,words,{names}\n")
    assert len(str(told.value)) < 1000 and len(report.ignored) == 30_000 and len(report.lines()[0]) < 1000


def test_names_that_collide_make_ids_of_paths(tmp_path: Path) -> None:
    records, report = read(
        tmp_path, "filepath,caption\np1/s1/view1.jpg,CT\np1/s2/view1.jpg,MRI\np2/a.b.png,US\n"
    )
    assert [record.image_id for record in records] == ["p1/s1/view1", "p1/s2/view1", "p2/a.b"]
    assert "ids are paths" in report.lines()[0]
    records, _ = read(tmp_path, "filepath,caption\np1/x.jpg,CT\np2/y.jpg,MRI\n")
    assert [record.image_id for record in records] == ["x", "y"]
    with pytest.raises(DataError, match="several captions of one image: each needs an id of its own"):
        read(tmp_path, "filepath,caption\np1/x.jpg,CT\np1/x.jpg,MRI\n")


def test_a_path_is_corrected_to_the_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.PNG").write_bytes(b"")
    records, _ = read(tmp_path, "filepath,caption\nimages\\a.jpg,CT\nimages/b.jpg,MRI\n")
    assert [record.image_path for record in records] == ["images/a.PNG", "images/b.jpg"]


def test_usual_names_of_path_caption_and_licence_are_taken(tmp_path: Path) -> None:
    (record,), report = read(tmp_path, "file_name,text,license,cui\na.png,CT,MIT,C0040405;C0817096\n")
    assert (record.image_path, record.caption, record.licence) == ("a.png", "CT", "MIT")
    assert record.cuis == ("C0040405", "C0817096") and report.used["caption"] == "text"
