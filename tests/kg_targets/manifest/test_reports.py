"""Radiology reports: IU X-ray in its three forms, report generation's JSON, MIMIC-CXR's tree; invented content."""

import gzip
import json
from pathlib import Path

import pytest

from kg_targets.errors import ManifestError
from kg_targets.manifest import Manifest, ReadReport, Record
from kg_targets.manifest.reports import sections
from tests.images import png

XML = """<?xml version="1.0"?><eCitation><MedlineCitation><Article><Abstract>
<AbstractText Label="INDICATION">Cough</AbstractText><AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">{impression}</AbstractText></Abstract></Article></MedlineCitation>
<MeSH>{terms}</MeSH>{images}</eCitation>"""


def read(name: str, split: str, root: Path) -> tuple[list[Record], ReadReport]:
    report = ReadReport()
    return list(Manifest.load(name).records(split, root, report)), report


def open_i(root: Path) -> None:
    (root / "ecgen-radiology").mkdir()
    terms = "<major>Opacity/lung/left</major><major>Opacity/lung/right</major><major>Nodule</major>"
    images = '<parentImage id="CXR1_1_IM-1"/><parentImage id="CXR1_1_IM-2"/>'
    contents = [
        XML.format(findings="Two opacities.", impression="Pneumonia.", terms=terms, images=images),
        XML.format(
            findings="", impression="Normal.", terms="<major>normal</major>", images='<parentImage id="CXR2_IM-1"/>'
        ),
        XML.format(findings="", impression="", terms="", images='<parentImage id="CXR3_IM-1"/>'),
        XML.format(findings="Text.", impression="", terms="", images=""),
        "<broken",
    ]  # fmt: skip
    for number, content in enumerate(contents, start=1):
        (root / "ecgen-radiology" / f"{number}.xml").write_text(content)
    (root / "images").mkdir()
    (root / "images" / "CXR1_1_IM-2.png").write_bytes(png(0))


def test_open_i_xml_gives_an_image_a_record_and_the_study_as_case(tmp_path: Path) -> None:
    open_i(tmp_path)
    records, report = read("iu_xray", "all", tmp_path)
    assert [record.image_id for record in records] == ["CXR1_1_IM-1", "CXR1_1_IM-2", "CXR2_IM-1"]
    assert [record.group_id for record in records] == ["CXR1", "CXR1", "CXR2"]
    assert records[0].caption == "Two opacities. Pneumonia." and records[2].caption == "Normal."
    assert records[0].labels == {"finding": "Opacity+Nodule", "normal": "no"}
    assert records[2].labels == {"finding": "normal", "normal": "yes"}
    assert [record.image_path for record in records][:2] == [
        "images/CXR1_1_IM-1.jpg",
        "images/CXR1_1_IM-2.png",
    ]
    assert (
        report.skipped["has no text in the sections that are asked for"]
        == report.skipped["names no image"]
        == 1
    )
    assert len(report.skipped) == 3


def test_kaggles_two_tables_and_one_table_are_read(tmp_path: Path) -> None:
    (tmp_path / "indiana_reports.csv").write_text(
        "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"
        "1,Cardiomegaly/borderline;Opacity,x,x,x,x,Large heart.,\n2,normal,x,x,x,x,Clear.,Normal.\n"
    )
    with pytest.raises(ManifestError, match=r"indiana_projections\.csv does not exist"):
        read("iu_xray", "all", tmp_path)
    projections = "uid,filename,projection\n1,1_IM-1.dcm.png,Frontal\n1,1_IM-2.dcm.png,Lateral\n"
    (tmp_path / "indiana_projections.csv").write_text(projections)
    records, report = read("iu_xray", "all", tmp_path)
    assert [record.labels for record in records] == [
        {"finding": "Cardiomegaly+Opacity", "normal": "no", "projection": view}
        for view in ("Frontal", "Lateral")
    ]
    assert report.skipped == {"names no image": 1}
    (tmp_path / "indiana_reports.csv").write_text(
        "report_id,image_path,findings,impression,mesh_labels\nCXR7,a/b.png,Clear.,Normal.,Opacity/lung|Scar\n"
    )
    (record,), _ = read("iu_xray", "all", tmp_path)
    assert (record.group_id, record.image_path, record.labels["finding"]) == (
        "CXR7",
        "a/b.png",
        "Opacity+Scar",
    )


def test_report_generations_json_is_read_by_split(tmp_path: Path) -> None:
    study = {
        "id": "CXR1_IM-1",
        "report": "no  acute\nfindings .",
        "image_path": ["CXR1_IM-1/0.png", "CXR1_IM-1/1.png"],
    }
    mimic = {
        "id": "d1",
        "subject_id": 7,
        "study_id": 8,
        "report": "Clear.",
        "image_path": "p7/s8/d1.jpg",
        "split": "val",
    }
    content = {"train": [study, {"id": "x", "report": "y"}, 3], "val": [mimic]}
    (tmp_path / "annotation.json").write_text(json.dumps(content))
    records, report = read("iu_xray_r2gen", "train", tmp_path)
    assert [record.image_id for record in records] == ["CXR1_IM-1/0", "CXR1_IM-1/1"]
    assert {record.group_id for record in records} == {"CXR1_IM-1"} and records[
        0
    ].caption == "no acute findings ."
    assert report.skipped == {"names no image": 1, "is not an object": 1}
    (record,), _ = read("iu_xray_r2gen", "val", tmp_path)
    assert (record.group_id, record.image_path) == ("7", "images/p7/s8/d1.jpg")
    with pytest.raises(ManifestError, match="test is no list of studies; the file has train, val"):
        read("iu_xray_r2gen", "test", tmp_path)
    (tmp_path / "annotation.json").write_text("[]")
    with pytest.raises(ManifestError, match="the file has no splits at all"):
        read("iu_xray_r2gen", "train", tmp_path)


REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  Cough

 FINDINGS:

 No effusion: the lungs are
 clear.

 IMPRESSION:

 No acute process.
"""


def mimic(root: Path, report: str = REPORT) -> Path:
    study = root / "files" / "p10" / "p10000032"
    (study / "s50").mkdir(parents=True)
    (study / "s50" / "aa.jpg").write_bytes(png(0))
    (study / "s50.txt").write_text(report)
    rows = ["dicom_id,study_id,subject_id,split", "aa,50,10000032,train", "bb,50,10000032,train"]
    rows += ["cc,51,10000032,test", "dd,52,10000032,train"]
    (root / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    return root


def test_mimic_cxr_joins_reports_images_views_and_findings(tmp_path: Path) -> None:
    root = mimic(tmp_path)
    assert Manifest.load("mimic_cxr").present_splits(root) == ["train", "validate", "test"]
    records, report = read("mimic_cxr", "train", root)
    assert [record.image_id for record in records] == ["aa", "bb"]
    assert records[0].caption == "No effusion: the lungs are clear. No acute process."
    assert records[0].group_id == "10000032" and records[0].labels == {}
    assert records[0].image_path == "files/p10/p10000032/s50/aa.jpg"
    (reason,) = report.skipped
    assert reason.startswith("has no report in files or mimic-cxr-reports/files")
    assert "options: {reports: FOLDER}" in reason and "p10/p10000032/s52.txt" in report.lines()[0]
    (root / "mimic-cxr-2.0.0-metadata.csv").write_text("dicom_id,ViewPosition\naa,PA\n")
    (root / "mimic-cxr-2.0.0-chexpert.csv").write_text(
        "subject_id,study_id,Edema,Pneumonia,No Finding\n10000032,50,1.0,-1.0,1.0\n"
    )
    records, _ = read("mimic_cxr", "train", root)
    assert (
        records[0].labels == {"view": "PA", "finding": "Edema+No Finding"} and records[1].labels["view"] == ""
    )


@pytest.mark.parametrize("place", ["mimic-cxr-reports/files", "mimic-cxr-reports"])
def test_reports_of_mimic_cxr_may_lie_where_their_archive_was_unpacked(place: str, tmp_path: Path) -> None:
    root = mimic(tmp_path)
    expected, _ = read("mimic_cxr", "train", root)
    folder = root / place / "p10" / "p10000032"
    folder.mkdir(parents=True)
    (root / "files" / "p10" / "p10000032" / "s50.txt").rename(folder / "s50.txt")
    assert read("mimic_cxr", "train", root)[0] == expected and expected


def test_images_of_open_i_may_lie_in_the_folder_of_their_archive(tmp_path: Path) -> None:
    (tmp_path / "images" / "NLMCXR_png").mkdir(parents=True)
    (tmp_path / "images" / "NLMCXR_png" / "a.png").write_bytes(png(0))
    (tmp_path / "indiana_reports.csv").write_text("uid,MeSH,findings,impression\n1,normal,Clear.,None.\n")
    (tmp_path / "indiana_projections.csv").write_text("uid,filename,projection\n1,a.png,Frontal\n")
    (record,), _ = read("iu_xray", "all", tmp_path)
    assert record.image_path == "images/NLMCXR_png/a.png"


def test_ids_of_mimic_cxr_cannot_lead_out_of_the_root(tmp_path: Path) -> None:
    root = mimic(tmp_path / "root")
    (tmp_path / "s50.txt").write_text(REPORT)
    rows = "dicom_id,study_id,subject_id,split\naa,50,../../../x,train\naa,../../../../s50,10000032,train\n"
    (root / "mimic-cxr-2.0.0-split.csv").write_text(rows)
    records, report = read("mimic_cxr", "train", root)
    assert not records and report.skipped == {"has no image id, or a subject or study that is no number": 2}


def test_a_report_without_sections_is_the_caption_as_a_whole_and_counted(tmp_path: Path) -> None:
    records, report = read("mimic_cxr", "train", mimic(tmp_path, "Only a line.\n"))
    assert records[0].caption == "Only a line."
    assert list(report.notes) == [
        "report has neither FINDINGS nor IMPRESSION, all of its text is the caption"
    ]


def test_sections_are_told_by_headings_in_capitals() -> None:
    assert sections("FINDINGS AND IMPRESSION: Clear.") == ("Clear.", "")
    assert sections("FINDINGS: a\nCONCLUSION: b\nNOTIFICATION: c") == ("a", "b")
    assert sections("findings: a") is None and sections("") is None


def test_the_text_option_chooses_sections(tmp_path: Path) -> None:
    text = Path("data_manifests/mimic_cxr.yaml").read_text()
    root = mimic(tmp_path)
    for option, caption in (
        ("findings", "No effusion: the lungs are clear."),
        ("impression", "No acute process."),
    ):
        (root / "mine.yaml").write_text(f"{text}options: {{text: {option}}}\n")
        assert next(iter(Manifest.load(root / "mine.yaml").records("train", root))).caption == caption
    (root / "mine.yaml").write_text(f"{text}options: {{reports: ..}}\n")
    with pytest.raises(
        ManifestError, match=r"option reports: image path '\.\.' points outside the data root"
    ):
        list(Manifest.load(root / "mine.yaml").records("train", root))
    (root / "mine.yaml").write_text(f"{text}options: {{text: all}}\n")
    with pytest.raises(
        ManifestError, match="text must be findings_and_impression, findings, impression, not 'all'"
    ):
        list(Manifest.load(root / "mine.yaml").records("train", root))
