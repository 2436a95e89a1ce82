import json
from pathlib import Path

import pytest
import yaml

from kg_targets.errors import ConfigError, DataError, KGTargetsError
from kg_targets.manifest import Manifest, ReadReport, known_data_sets
from tests.processes import kg_targets
from tests.training.vqa.fakes import rows, write_data

main = kg_targets("check")


def test_every_shipped_manifest_is_valid_and_says_how_to_get_the_data() -> None:
    found = known_data_sets("questions")
    assert {manifest.name for manifest in found} >= {
        "vqa_rad",
        "slake_en",
        "slake_zh",
        "path_vqa",
        "vqa_med_2019",
    }
    assert all(manifest.licence and manifest.how_to_get and manifest.citation for manifest in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reader": "vqa_rat"}, "did you mean 'vqa_rad'"),
        ({"language": "de"}, "en, zh"),
        ({"id_pattern": "("}, "regular expression"),
        ({"unknown": 1}, "unknown"),
        ({"splits": {"train": {"files": {"questions": "../x.json"}}}}, "outside the data root"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_data(tmp_path)
    path = tmp_path / "tiny_vqa.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(KGTargetsError, match=message):
        Manifest.load(path, "questions")


@pytest.mark.parametrize("given", ["vqa_rat", "no/such", "absent.yaml"])
def test_a_wrong_name_is_one_line_and_code_2(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([given]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_rows_that_cannot_be_used_are_skipped_and_counted(tmp_path: Path) -> None:
    bad = [
        {"qid": 900, "image_name": "", "question": "?", "answer": "x"},
        {"qid": None, "image_name": "synpic1.png", "question": "?", "answer": "x"},
        {"qid": 901, "image_name": "synpic1.png", "question": "?", "answer": "a\0b"},
    ]
    manifest, report = write_data(tmp_path, train=rows(range(2), 0) + bad), ReadReport()
    assert len(manifest.questions("train", tmp_path, report)) == report.read == 6
    assert sum(report.skipped.values()) == 3


def test_an_id_given_twice_is_an_error(tmp_path: Path) -> None:
    manifest = write_data(tmp_path, train=rows(range(1), 5) + rows(range(1), 5))
    with pytest.raises(DataError, match="already given"):
        manifest.questions("train", tmp_path)


def test_an_image_path_that_climbs_out_is_an_error(tmp_path: Path) -> None:
    manifest = write_data(tmp_path, train=rows(range(1), 0, image_name="../../secret.png"))
    with pytest.raises(KGTargetsError, match="outside the data root"):
        manifest.questions("train", tmp_path)


def test_missing_files_and_splits_say_what_to_do(tmp_path: Path) -> None:
    manifest = write_data(tmp_path)
    with pytest.raises(DataError, match="invented by the tests"):
        manifest.questions("train", tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="did you mean 'test'"):
        manifest.questions("tests", tmp_path)


def test_the_command_lists_rows_and_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path, pictures=True)
    (tmp_path / "images" / "synpic3.png").unlink()
    assert main([str(tmp_path / "tiny_vqa.yaml")]) == 0
    out = capsys.readouterr().out
    assert (
        "train: 36 questions, 11 of 12 images present" in out
        and "first missing image: images/synpic3.png" in out
    )
    assert main([str(tmp_path / "tiny_vqa.yaml"), "--data-root", str(tmp_path / "no")]) == 2


def test_files_are_found_where_a_clone_or_hugging_face_has_them(tmp_path: Path) -> None:
    folder = tmp_path / "med" / "VQAMed2019Test"
    (folder / "VQAMed2019_Test_Images").mkdir(parents=True)
    name = "VQAMed2019_Test_Questions_w_Ref_Answers.txt"
    (folder / name).write_text("synpic1|modality|what is it?|ct\n")
    (question,) = Manifest.load("vqa_med_2019", "questions").questions("test", tmp_path / "med")
    assert question.image_path == "VQAMed2019Test/VQAMed2019_Test_Images/synpic1.jpg"
    row = {"qid": 1, "q_lang": "en", "img_name": "xmlab1/source.jpg", "question": "Is it?", "answer": "Yes"}
    (tmp_path / "validation.json").write_text(json.dumps([row]))
    (question,) = Manifest.load("slake_en", "questions").questions("validation", tmp_path)
    assert question.question == "Is it?"
