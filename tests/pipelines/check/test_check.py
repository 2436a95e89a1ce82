"""`kg-targets check` tells what a person should know before an hour is spent, and what to do about each."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cli import main
from tests.images import png, write_tar

TRAIN = """filepath,caption,group_id,label_organ,organ
images/a.jpg,CT of the chest,p1,chest,x
images/b.jpg,CT of the chest,p1,chest,x
images/c.jpg,,p2,head,x
images/d.jpg,MRI of the brain,p3,,x
"""
TEST = "filepath,caption,group_id,label_organ\nimages/a.jpg,CT of the abdomen,p1,abdomen\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "train.csv").write_text(TRAIN)
    (tmp_path / "test.csv").write_text(TEST)
    (tmp_path / "images").mkdir()
    for row, name in enumerate(("a.PNG", "b.tif", "c.png")):
        (tmp_path / "images" / name).write_bytes(png(row))
    content = {
        "name": "mine", "title": "Mine", "format": "csv", "licence": "CC0-1.0", "how_to_get": "Invented.",
        "fit_split": "train", "splits": {name: {"files": {"captions": f"{name}.csv"}} for name in ("train", "test")},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path


def check(
    root: Path, capsys: pytest.CaptureFixture[str], place: Path | None = None
) -> tuple[dict[str, Any], str]:
    """What --json gives, and the lines for a person."""
    command = ["check", str(root / "mine.yaml"), "--data-root", str(place or root)]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(command) == 0
    return found, capsys.readouterr().out


def test_everything_that_is_noticed_is_told_with_what_to_do(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out = check(root, capsys)
    train = found["splits"]["train"]
    assert (train["captions"], train["cases"], train["images"], train["images_present"]) == (4, 3, 4, 3)
    assert train["image_form"] == "folder" and train["image_endings"] == {".PNG": 1, ".tif": 1, ".png": 1}
    assert train["labels"]["organ"] == {"values": 2, "most_frequent": {"chest": 2, "head": 1}, "missing": 1}
    assert train["columns"]["filepath"] == "filepath" and list(train["ignored_columns"]) == ["organ"]
    assert train["repeated_captions"] == train["empty_captions"] == 1
    assert found["shared"][0]["splits"] == ["train", "test"] and found["shared"][0]["cases"] == 1
    for line in (
        "train: 4 captions, 3 cases, 3 of 4 images present (folder: .PNG 1, .tif 1, .png 1)",
        "train: label organ: chest 2, head 1; 1 images without",
        "first missing image: images/d.jpg, nor with another ending of images (its folder holds: .PNG 1, .png 1",
        "1 images are missing: training leaves them out with data.max_broken 1 or more",
        "1 captions are empty",
        "1 captions repeat an earlier one",
        "columns that are not used: organ (a label? options: {labels: organ})",
        "train and test share 1 cases and 1 image ids",
        "kg-targets build --exclude FILE",
    ):
        assert line in out


def test_images_in_tars_are_counted_as_training_finds_them(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in (root / "images").iterdir():
        image.unlink()
    write_tar(root / "shards" / "0.tar", ["x/a.jpg", "x/b.jpg", "x/c.jpg"], [png(0), png(1), png(2)])
    found, out = check(root, capsys)
    assert found["splits"]["train"]["image_form"] == "tar shards"
    assert "train: 4 captions, 3 cases, 3 of 4 images present (tar shards)" in out
    assert "1 images are missing from the tar shards: training leaves them out with data.max_broken 1" in out


def test_images_elsewhere_below_the_root_are_pointed_to(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "images").rename(root / "pictures")
    _, out = check(root, capsys)
    assert "an image of this name is in pictures/: move or link that folder to images" in out
    for image in (root / "pictures").iterdir():
        image.unlink()
    _, out = check(root, capsys)
    assert (
        "its folder holds: no file" in out and "without images targets and text baselines can be made" in out
    )


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("images/A.jpg", "images/a.PNG is there, in other capitals: rename it, or the path"),
        ("IMAGES/a.png", "images/a.PNG is there, in other capitals: rename it, or the path"),
        ("https://invented.example/a.png", "these paths are addresses: download the images"),
    ],
)
def test_paths_in_other_capitals_and_addresses_are_told(
    root: Path, path: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "train.csv").write_text(f"filepath,caption\n{path},CT\n")
    assert f"train: {told}" in check(root, capsys)[1]


def test_two_kinds_of_shards_are_told_as_training_would(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in (root / "images").iterdir():
        image.unlink()
    (root / "x.parquet").write_bytes(b"PAR1")  # a table, say: it has no images
    write_tar(root / "0.tar", ["z.jpg"], [png(0)])
    assert "holds .parquet and .tar files: give one of them" in check(root, capsys)[1]
    write_tar(root / "0.tar", ["images/a.jpg"], [png(0)])
    assert "train: 4 captions, 3 cases, 1 of 4 images present (tar shards)" in check(root, capsys)[1]


def test_images_without_cases_are_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train.csv").write_text("filepath,caption\na.png,CT\nb.png,MRI\n")
    assert (
        "train: every image is a case of its own: where several are of one patient" in check(root, capsys)[1]
    )


@pytest.mark.skipif(find_spec("open_clip") is None, reason="open_clip counts the tokens")
def test_captions_longer_than_the_text_tower_reads_are_counted(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long, longest = "word " * 76, "word " * 75
    (root / "train.csv").write_text(f"filepath,caption\na.png,{long}\nb.png,{longest}\n")
    found, out = check(root, capsys)
    assert found["splits"]["train"]["truncated_captions"] == 1
    assert "1 of 2 captions (50.0%) exceed the 77 tokens" in out


def test_short_captions_need_no_tokenizer(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)  # importing it fails
    assert check(root, capsys)[0]["splits"]["train"]["truncated_captions"] == 0


def test_a_root_that_does_not_exist_or_a_split_that_is_broken_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["check", str(root / "mine.yaml"), "--data-root"]
    assert main([*command, str(root / "nowhere")]) == 2
    assert "does not exist: name the folder" in capsys.readouterr().err
    (root / "train.csv").write_text("filepath,caption,patient_id\na.png,CT,7\n")
    assert main([*command, str(root)]) == 0
    assert (
        "train: " in (out := capsys.readouterr().out) and "column 'patient_id' looks like the patient" in out
    )
    (root / "test.csv").unlink()
    assert main([*command, str(root)]) == 2
    out, told = capsys.readouterr()
    assert "error: train: " in told and "'patient_id' looks like" in told
    assert "looks like" not in out and "to get what is missing: Invented." in out
    (root / "train.csv").unlink()
    assert main([*command, str(root)]) == 2
    out, told = capsys.readouterr()
    assert "mine: nothing usable under" in told and "Invented." in told and "Invented." not in out


def test_a_missing_split_that_builds_are_fitted_on_is_told(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "train.csv").rename(root / "Train.csv")
    out = check(root, capsys)[1]
    assert "train.csv): a build needs it to fit on, or another by --fit-split" in out


def test_a_table_without_a_row_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train.csv").write_text("filepath,caption\n")
    found, out = check(root, capsys)
    assert "train: no row can be used (its files hold none)" in out and "error" in found["splits"]["train"]
    (root / "test.csv").write_bytes(b"filepath,caption\na.png,\xff\n")
    assert main(["check", str(root / "mine.yaml"), "--data-root", str(root)]) == 2
    assert "train: no row can be used" in capsys.readouterr().err


def test_parts_that_ask_about_the_same_images_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"qid": 1, "q_lang": "en", "question": "Where?", "answer": "x", "answer_type": "OPEN"}
    for name, image in (("train", "x1"), ("validate", "x2"), ("test", "x1")):
        (tmp_path / f"{name}.json").write_text(json.dumps([row | {"img_name": f"{image}/source.jpg"}]))
    assert main(["check", "slake_en", "--data-root", str(tmp_path)]) == 0
    assert "train and test ask about 1 of the same images" in capsys.readouterr().out


def test_captions_and_questions_about_shared_images_are_both_told_and_no_option_that_the_layout_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"qid": n, "image_name": f"synpic{n}.jpg", "question": "Where?", "answer": "x"} for n in (1, 2)]
    for name in ("trainset", "testset"):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    assert main(["check", "vqa_rad", "--data-root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "train and test share 2 cases and 2 image ids" in out
    assert "train and test ask about 2 of the same images" in out and "protocol image_disjoint" in out
    assert "every image is a case of its own" in out and "give group_id" not in out
