"""VQA-RAD's one published file becomes the two that are in use: rows, numbers, splits, and to the byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from kg_targets.errors import DataError
from kg_targets.manifest import Manifest, ReadReport
from pipelines.cli import main

NAME = "VQA_RAD Dataset Public.json"


def published(number: int, kind: str, frame: str = "NULL", **other: Any) -> dict[str, Any]:
    """A row as in the published file; the content is invented."""
    return {
        "qid": number, "phrase_type": kind, "qid_linked_id": f"03f{number}", "image_case_url": "https://invented.example",
        "image_name": f"synpic{number % 3}.jpg", "image_organ": "CHEST", "evaluation": "not evaluated",
        "question": f"Question {number}?", "question_rephrase": "NULL", "question_relation": "NULL",
        "question_frame": frame, "question_type": "PRES", "answer": "Yes", "answer_type": "CLOSED", **other,
    }  # fmt: skip


ROWS = [
    published(0, "freeform"),
    published(1, "para", "Framed 1?", answer=3),
    published(2, "test_freeform", "Framed 2?"),
    published(3, "test_para", answer_type="OPEN"),
    published(4, "freeform", " null "),
    published(5, "freeform", None),  # type: ignore[arg-type]
]


def publish(root: Path, rows: object = ROWS) -> Path:
    folder = root / "VQA_RAD Image Folder"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"synpic{number}.jpg").write_bytes(b"x")
    (root / NAME).write_text(json.dumps(rows))
    return root


def test_the_published_file_is_read_as_it_is(tmp_path: Path) -> None:
    root, manifest, report = publish(tmp_path), Manifest.load("vqa_rad", "questions"), ReadReport()
    assert manifest.present_splits(root) == ["train", "test"]
    train, test = (manifest.questions(split, root, report) for split in ("train", "test"))
    assert [(one.id, one.question) for one in train] == [
        ("1", "Question 0?"), ("2", "Question 1?"), ("3", "Framed 1?"), ("5", "Framed 2?"), ("7", "Question 4?"),
        ("8", "Question 5?"),
    ]  # fmt: skip
    assert [(one.id, one.question, one.closed) for one in test] == [
        ("4", "Question 2?", True),
        ("6", "Question 3?", False),
    ]
    assert train[2].answer == "3" and train[2].image_path == "VQA_RAD Image Folder/synpic1.jpg"
    assert not report.lines() and manifest.questions_are_published("train", root) is None
    captions = {record.image_id: record.caption for record in manifest.records("test", root)}
    assert captions == {"synpic2": "Question 2?", "synpic0": "Question 3?"}


def test_prepare_refuses_other_counts_and_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(publish(tmp_path / "a"))
    assert main(["prepare", "vqa_rad", "--data-root", root]) == 2
    assert "vqa_rad/train: 6 questions come out and 3,064 must" in capsys.readouterr().err
    assert not (tmp_path / "a" / "trainset.json").exists()
    for rows, message in (([{"qid": 1}], "is not VQA-RAD's published file"), ({}, "must hold a JSON list")):
        assert main(["prepare", "vqa_rad", "--data-root", str(publish(tmp_path / message[:9], rows))]) == 2
        assert message in capsys.readouterr().err
    assert main(["prepare", "vqa_rad", "--data-root", str(tmp_path)]) == 2
    assert f"{NAME} does not exist. VQA-RAD must be downloaded" in capsys.readouterr().err
    assert main(["prepare", "slake_en", "--data-root", str(tmp_path)]) == 2
    assert "slake_en needs no preparation" in capsys.readouterr().err


def from_files_in_use(folder: Path) -> list[dict[str, Any]]:
    """The published rows that follow from the two files in use, which number both parts in one."""
    parts = {"train": "trainset.json", "test": "testset.json"}
    rows = [
        (row["qid"], split, row)
        for split, name in parts.items()
        for row in json.loads((folder / name).read_bytes())
    ]
    items: list[dict[str, Any]] = []
    for _, split, row in sorted(rows, key=lambda one: one[0]):
        if row["phrase_type"] == "frame":
            assert row["answer"] == items[-1]["answer"] and row["image_name"] == items[-1]["image_name"]
            items[-1]["question_frame"] = row["question"]
        else:
            kind = ("test_" if split == "test" else "") + row["phrase_type"]
            items.append(published(len(items), kind) | row | {"phrase_type": kind})
    return items


def test_the_files_in_use_come_out_to_the_byte(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = from_files_in_use(shared_data / "vqa_rad")
    assert len(items) == 2248
    root = publish(tmp_path / "published", items)
    assert main(["prepare", "vqa_rad", "--data-root", str(root), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "3,064 questions, the very file" in told and "451 questions, the very file" in told
    for name in ("trainset.json", "testset.json"):
        assert (tmp_path / "out" / name).read_bytes() == (shared_data / "vqa_rad" / name).read_bytes()
    for split in ("train", "test"):
        manifest = Manifest.load("vqa_rad", "questions")
        direct = manifest.questions(split, root)
        in_use = manifest.questions(split, shared_data / "vqa_rad")
        assert [(one.id, one.question, one.answer, one.kind) for one in direct] == [
            (one.id, one.question, one.answer, one.kind) for one in in_use
        ]


def test_a_damaged_published_file_is_an_error(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / NAME).write_text("[{")
    with pytest.raises(DataError, match="not readable as JSON"):
        Manifest.load("vqa_rad", "questions").questions("train", tmp_path)
