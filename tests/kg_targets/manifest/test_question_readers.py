"""Every layout from files written here; what the real ones hold is in tests/training/vqa/test_real_data.py."""

import json
import os
import pickle
from pathlib import Path

import pytest

from kg_targets.errors import DataError
from kg_targets.manifest import Question, ReadReport
from kg_targets.manifest.images import ImageFolder
from kg_targets.manifest.readers import READERS, ReadRequest
from kg_targets.manifest.readers.vqa_rad import clean_types
from training.vqa.answers import accepted_answers


def read(
    name: str, files: dict[str, Path], language: str = "en", split: str = "test", images: str = "images"
) -> tuple[list[Question], ReadReport]:
    reader = READERS[name].questions
    assert reader is not None
    request = ReadRequest(
        split,
        files,
        images,
        "CC0-1.0",
        {},
        language,
        ReadReport(),
        ImageFolder(next(iter(files.values())).parent),
    )
    return [question for _, question in reader(request)], request.report


def written(path: Path, content: object) -> dict[str, Path]:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return {"questions": path}


def test_vqa_rad_cleans_types_and_takes_numbers(tmp_path: Path) -> None:
    row = {"qid": 7, "image_name": "synpic1.jpg", "question": "How many?", "answer": 4}
    rows = [
        row | {"answer_type": "CLOSED ", "question_type": "PRSE, ATRIB"},
        row | {"qid": 8, "answer_type": "OPEN", "question_type": "Other", "answer": "Two."},
        row | {"qid": 9, "answer_type": "", "question_type": "", "answer": "No"},
        "not a question",
    ]
    (first, second, third), report = read("vqa_rad", written(tmp_path / "x.json", rows))
    assert (first.id, first.image_id, first.image_path) == ("7", "synpic1", "images/synpic1.jpg")
    assert (first.closed, first.category, first.kind) == (True, "ATTRIB+PRES", "closed ATTRIB+PRES")
    assert first.answer == "4"
    assert (second.closed, second.kind, accepted_answers(second)) == (False, "open OTHER", ("2",))
    assert (third.closed, third.category) == (True, "OTHER")
    assert report.skipped == {"is not an object": 1}
    assert sum(report.notes.values()) == 1


def test_the_order_in_which_types_are_noted_says_nothing() -> None:
    assert clean_types("PRES, POS") == clean_types("POS,PRES ") == "POS+PRES"


def test_slake_keeps_one_language(tmp_path: Path) -> None:
    row = {
        "qid": 1,
        "img_name": "xmlab5/source.jpg",
        "question": "Which plane?",
        "answer": "coronal",
        "q_lang": "en",
        "answer_type": "OPEN",
        "content_type": "Plane",
    }
    rows = [row, row | {"qid": 2, "q_lang": "zh", "answer": "冠状面。", "answer_type": "CLOSED"}]
    files = written(tmp_path / "x.json", rows)
    (english,), _ = read("slake", files)
    (chinese,), _ = read("slake", files, "zh")
    assert (english.image_id, english.image_path) == ("xmlab5", "images/xmlab5/source.jpg")
    assert (english.kind, chinese.kind) == ("open Plane", "closed Plane")
    assert accepted_answers(chinese, "zh") == ("冠状面",)


PATH_ROWS = [
    {"image": "test_0001", "question": "What is stained?", "answer": "nuclei"},
    {"image": "test_0001", "question": "Are nuclei stained?", "answer": "Yes"},
    {"image": "test_0002", "question": "by whom?", "answer": "nobody"},
]


@pytest.mark.parametrize("suffix", [".pkl", ".json"])
def test_path_vqa_types_questions_by_their_answer_and_first_word(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"test_qa{suffix}"
    path.write_bytes(pickle.dumps(PATH_ROWS) if suffix == ".pkl" else json.dumps(PATH_ROWS).encode())
    questions, _ = read("path_vqa", {"questions": path})
    assert [question.kind for question in questions] == ["open what", "closed yes/no", "open other"]
    assert [question.id for question in questions] == ["test-0", "test-1", "test-2"]
    assert questions[0].image_path == "images/test_0001.jpg"


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harm",)


def test_a_pickle_that_would_run_code_is_refused_and_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "test_qa.pkl"
    path.write_bytes(pickle.dumps([Harmful()]))
    with pytest.raises(DataError, match="plain lists and texts"):
        read("path_vqa", {"questions": path})
    assert not (tmp_path / "harm").exists()


def test_path_vqa_pairs_have_neither_split_nor_image(tmp_path: Path) -> None:
    rows = [{"Image_ID": "Fig.1", "Questions": "Where is it ?", "Answers": " here "}]
    ((question,), _) = read("path_vqa_pairs", written(tmp_path / "x.json", rows), split="all", images="")
    assert (question.image_id, question.image_path, question.category) == ("Fig.1", "", "where")


def test_vqa_med_takes_several_right_answers(tmp_path: Path) -> None:
    text = (
        "synpic1|organ|which organ?|The Lung#spine\nsynpic2|modality|is it ct?|no\n\nsynpic3|organ|broken\n"
    )
    (organ, closed), report = read(
        "vqa_med_2019", written(tmp_path / "x.txt", text + "synpic4|taste|what?|sweet\n")
    )
    assert organ.references == ("The Lung", "spine")
    assert accepted_answers(organ) == ("lung", "spine")
    assert (organ.kind, closed.kind) == ("open organ", "closed modality")
    assert sum(report.skipped.values()) == 2


def test_vqa_med_training_files_are_a_category_each(tmp_path: Path) -> None:
    files = {}
    for category in ("plane", "abnormality"):
        files[category] = tmp_path / f"{category}.txt"
        files[category].write_text("synpic1|what?|axial\n", encoding="utf-8")
    questions, _ = read("vqa_med_2019", files, split="train")
    assert [question.category for question in questions] == ["plane", "abnormality"]
    assert len({question.id for question in questions}) == 2


@pytest.mark.parametrize("content", ["{", '{"a": 1}', ""])
@pytest.mark.parametrize("name", ["vqa_rad", "slake", "path_vqa", "path_vqa_pairs"])
def test_a_damaged_file_is_told_on_one_line(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DataError) as error:
        read(name, written(tmp_path / "damaged.json", content))
    assert "damaged.json" in str(error.value) and "\n" not in str(error.value)
