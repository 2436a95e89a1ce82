"""Readers of the data sets' own layouts, on generated copies of those layouts, and on the real files where present."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.errors import DataError, KGTargetsError, ManifestError
from kg_targets.manifest import Manifest, ReadReport, Record


def read(name: str, split: str, root: Path) -> tuple[list[Record], ReadReport]:
    report = ReadReport()
    return list(Manifest.load(name).records(split, root, report)), report


def roco(root: Path, split: str, captions: bytes, cuis: str = "", licences: str = "") -> Path:
    folder = root / split / "radiology"
    folder.mkdir(parents=True)
    (folder / "captions.txt").write_bytes(captions)
    if cuis:
        (folder / "cuis.txt").write_text(cuis)
    if licences:
        (folder / "licences.txt").write_text(licences)
    return root


def test_roco_joins_captions_concepts_and_articles(tmp_path: Path) -> None:
    roco(
        tmp_path,
        "validation",
        b"ROCO_1\t A CT scan.\r\nROCO_2\t An MRI.\nROCO_3\t\n",
        "ROCO_1\t\tC0040405\tC0817096\nROCO_2\n",
        "ROCO_ID,PMC_ID,CC\nROCO_1,PMC11_fig1.jpg,CC BY\nROCO_2,PMC11_fig2.jpg,CC BY-NC\n",
    )
    records, report = read("roco", "validation", tmp_path)
    assert [record.caption for record in records] == ["A CT scan.", "An MRI.", ""]
    assert records[0].cuis == ("C0040405", "C0817096") and records[1].cuis == ()
    assert [record.group_id for record in records] == ["PMC11", "PMC11", "ROCO_3"]
    assert [record.licence for record in records][:2] == ["CC BY", "CC BY-NC"]
    assert records[0].image_path == "validation/radiology/images/ROCO_1.jpg"
    assert not report.skipped


def test_roco_finds_split_folders_that_its_manifest_does_not_list(tmp_path: Path) -> None:
    roco(tmp_path, "train_slice", b"ROCO_9\t CT\n")
    manifest = Manifest.load("roco")
    assert manifest.present_splits(tmp_path) == ["train_slice"]
    assert [record.image_id for record in manifest.records("train_slice", tmp_path)] == ["ROCO_9"]
    with pytest.raises(ManifestError, match="did you mean 'train_slice'"):
        manifest.split_file("train_slic", tmp_path)


def test_roco_skips_and_counts_broken_lines(tmp_path: Path) -> None:
    roco(tmp_path, "test", b"ROCO_1\t CT\nno tab here\nROCO_2\t bad \xff byte\n\t no id\nROCO_3\t nul \x00\n")
    records, report = read("roco", "test", tmp_path)
    assert [record.image_id for record in records] == ["ROCO_1"]
    assert sum(report.skipped.values()) == 4
    assert "captions.txt line 2" in report.lines()[0]


def test_an_id_cannot_lead_out_of_the_data_root(tmp_path: Path) -> None:
    roco(tmp_path, "test", b"../../../secret\t CT\n")
    with pytest.raises(ManifestError, match="outside the data root"):
        read("roco", "test", tmp_path)


def test_the_licence_filter_keeps_what_was_asked_for_and_counts_the_rest(tmp_path: Path) -> None:
    licences = "ROCO_ID,PMC_ID,CC\nROCO_1,PMC1_a,CC BY\nROCO_2,PMC2_a,NO-CC CODE\n"
    roco(tmp_path, "test", b"ROCO_1\t CT\nROCO_2\t MRI\nROCO_3\t X-ray\n", licences=licences)
    report = ReadReport()
    records = list(Manifest.load("roco").records("test", tmp_path, report, frozenset({"CC BY"})))
    assert [record.image_id for record in records] == ["ROCO_1"]
    assert sum(report.skipped.values()) == 2


def test_roco_v2_joins_captions_and_concepts(tmp_path: Path) -> None:
    (tmp_path / "valid_captions.csv").write_text('ID,Caption\nROCOv2_1,"CT, axial"\nROCOv2_2,MRI\n')
    (tmp_path / "valid_concepts.csv").write_text("ID,CUIs\nROCOv2_1,C0024109;C0034063\n")
    records, _ = read("roco_v2", "valid", tmp_path)
    assert records[0].caption == "CT, axial" and records[0].cuis == ("C0024109", "C0034063")
    assert records[1].cuis == () and records[1].image_path == "valid/ROCOv2_2.jpg"


def test_roco_v2_names_a_missing_column(tmp_path: Path) -> None:
    (tmp_path / "test_captions.csv").write_text("id,text\nx,y\n")
    with pytest.raises(ManifestError, match="column 'ID' is missing"):
        read("roco_v2", "test", tmp_path)


def medpix(root: Path) -> Path:
    image = {
        "Type": "CT",
        "U_id": "MPX1",
        "image": "MPX1_synpic1",
        "Description": {"Caption": "Axial  CT\nshows it.", "Plane": None},
        "Location Category": "Head",
    }
    case = {
        "U_id": "MPX1",
        "Case": {"Title": "A title", "Findings": "Some findings.", "Case Diagnosis": None},
    }
    (root / "descriptions_dev.jsonl").write_text(json.dumps(image) + "\n{broken\n[1]\n" + '{"image": "x"}\n')
    (root / "data_dev.jsonl").write_text(json.dumps(case) + "\n")
    return root


def test_medpix_reads_captions_labels_and_cases(tmp_path: Path) -> None:
    records, report = read("medpix", "dev", medpix(tmp_path))
    labels = {"modality": "CT", "organ": "Head", "plane": ""}
    licence = "none stated (research use, keep private)"
    assert records == [
        Record("MPX1_synpic1", "images/MPX1_synpic1.jpg", "Axial CT shows it.", "MPX1", licence, labels)
    ]
    assert sum(report.skipped.values()) == 3


def test_medpix_case_appends_what_the_case_was_about(tmp_path: Path) -> None:
    records, _ = read("medpix_case", "dev", medpix(tmp_path))
    assert records[0].caption == "Axial CT shows it. A title. Some findings."
    (tmp_path / "data_dev.jsonl").unlink()
    with pytest.raises(ManifestError, match=r"data_dev\.jsonl does not exist"):
        read("medpix_case", "dev", tmp_path)


def test_vqa_rad_gathers_the_questions_of_an_image(tmp_path: Path) -> None:
    item = {"image_name": "synpic1.jpg", "image_organ": "HEAD", "question": "Is it CT?", "answer": "Yes"}
    more = [{"question": "Where?", "answer": 3}, {"question": "Is there a fracture?", "answer": "No"}]
    (tmp_path / "trainset.json").write_text(json.dumps([item, *({**item, **change} for change in more), {}]))
    records, report = read("vqa_rad", "train", tmp_path)
    assert [record.caption for record in records] == ["Is it CT? Where? 3."]
    assert records[0].image_id == "synpic1" and report.skipped == {"has no image_name": 1}
    (tmp_path / "trainset.json").write_text("{}")
    with pytest.raises(ManifestError, match="JSON list"):
        read("vqa_rad", "train", tmp_path)


def test_a_caption_of_a_megabyte_is_read_whole(tmp_path: Path) -> None:
    text = "CT of the chest. " * 62_000
    roco(tmp_path, "test", f"ROCO_1\t {text}\n".encode())
    assert len(read("roco", "test", tmp_path)[0][0].caption) > 1_000_000


def test_duplicate_ids_within_a_split_stop_and_across_splits_do_not(tmp_path: Path) -> None:
    roco(tmp_path, "test", b"ROCO_1\t CT\n")
    roco(tmp_path, "train", b"ROCO_1\t CT\nROCO_1\t MRI\n")
    assert len(read("roco", "test", tmp_path)[0]) == 1
    with pytest.raises(DataError, match="already given"):
        read("roco", "train", tmp_path)


@pytest.mark.parametrize(
    ("name", "folder", "split", "rows"),
    [
        ("roco", "roco", "validation", 8180),
        ("roco", "roco", "train_slice", 17752),
        ("medpix", "medpix", "train", 1653),
        ("medpix_case", "medpix", "test", 200),
        ("vqa_rad", "vqa_rad", "train", 314),
    ],
)
def test_real_files_are_read_without_a_skip(
    shared_data: Path, name: str, folder: str, split: str, rows: int
) -> None:
    records, report = read(name, split, shared_data / folder)
    assert len(records) == rows and not report.skipped


FILES = {
    "csv": ("demo", "train", ["train.csv"]),
    "roco": ("roco", "test", [f"test/radiology/{name}.txt" for name in ("captions", "cuis", "licences")]),
    "roco_v2": ("roco_v2", "test", ["test_captions.csv", "test_concepts.csv"]),
    "medpix": ("medpix_case", "dev", ["descriptions_dev.jsonl", "data_dev.jsonl"]),
    "vqa_rad": ("vqa_rad", "test", ["testset.json"]),
    "json lines": ("imagefolder", "train", ["train/metadata.jsonl"]),
    "r2gen": ("iu_xray_r2gen", "train", ["annotation.json"]),
    "open-i": ("iu_xray", "all", ["ecgen-radiology/1.xml"]),
    "kaggle": ("iu_xray", "all", ["indiana_reports.csv", "indiana_projections.csv"]),
    "mimic_cxr": ("mimic_cxr", "train", ["mimic-cxr-2.0.0-split.csv", "files/p10/p10000032/s50.txt"]),
    "tar": ("biomedica", "all", ["a.tar"]),
}
PIECES = [
    b"image_id,filepath,caption\n",
    b"ID,Caption\n",
    b"ID,CUIs\n",
    b"ROCO_ID,PMC_ID,CC\n",
    b"ROCO_1\t CT\n",
]
PIECES += [
    b"uid,findings,impression,MeSH\n",
    b"uid,filename,projection\n",
    b"dicom_id,study_id,subject_id,split\n",
    b"a,50,10000032,train\n",
    b'{"train": [{"id": 1, "report": 2, "image_path": [3, null]}, {"report": [], "image_path": "../x"}]}',
    b'{"file_name": "a.png", "text": ["x", 1, null], "cui": [{"cui": 1, "start": 0, "end": 1}, [2], null]}\n',
    b"<a><major>x/y</major><parentImage id='../b'/><AbstractText Label='FINDINGS'>c</AbstractText></a>",
    b"FINDINGS: x\nIMPRESSION:",
    b"\x1f\x8b",
    b"\xff\xfe",
    b'{"U_id": 1, "image": 2, "Description": {"Caption": 3}}\n',
    b'[{"image_name": 5}]',
    b"\xff",
    b"\x00",
    b'"',
]
PIECES += [b"a,b,c\n", b"../x\t y\n", b"\r\n", b"\t", b",", b"[", b"{}\n", "é\n".encode(), b"\xef\xbb\xbf"]


@settings(max_examples=60, deadline=None)
@given(
    layout=st.sampled_from(sorted(FILES)),
    contents=st.lists(st.lists(st.sampled_from(PIECES)), min_size=3, max_size=3),
)
def test_no_content_of_a_file_makes_a_reader_crash(layout: str, contents: list[list[bytes]]) -> None:
    name, split, files = FILES[layout]
    with tempfile.TemporaryDirectory() as folder:
        for file, pieces in zip(files, contents, strict=False):
            path = Path(folder) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(pieces))
        try:
            records, _ = read(name, split, Path(folder))
        except KGTargetsError:
            return
        for record in records:
            texts = (
                record.image_id,
                record.image_path,
                record.caption,
                record.group_id,
                *record.labels.values(),
            )
            assert all(isinstance(text, str) for text in texts) and record.image_id


def test_shipped_cuis_are_put_in_capitals_and_malformed_ones_counted(tmp_path: Path) -> None:
    roco(
        tmp_path,
        "test",
        b"ROCO_1\t CT\nROCO_2\t MRI\n",
        "ROCO_1\tc0040405\tC004\nROCO_2\tC0024485\nROCO_1\tC0817096\n",
    )
    records, report = read("roco", "test", tmp_path)
    assert [record.cuis for record in records] == [("C0040405", "C0817096"), ("C0024485",)]
    assert any(
        "1 × shipped CUI is malformed" in line and "captions.txt line 1" in line for line in report.lines()
    )
    assert any("repeated in cuis.txt" in line for line in report.lines())


def test_missing_licences_are_said_because_articles_are_then_unknown(tmp_path: Path) -> None:
    roco(tmp_path, "test", b"ROCO_1\t CT\n")
    assert any("case of its own" in line for line in read("roco", "test", tmp_path)[1].lines())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('ID,Caption\nx,"never closed\ny,z\n', "line 3 is not valid CSV"),
        ("ID,Caption,Caption\nx,a,b\n", "column 'Caption' is there twice"),
    ],
)
def test_csv_that_would_lose_rows_or_columns_stops_the_reading(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "test_captions.csv").write_text(content)
    with pytest.raises(ManifestError, match=message):
        read("roco_v2", "test", tmp_path)
