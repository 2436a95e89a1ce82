"""Files of answers in the forms that people and evaluation kits write, all invented."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kg_targets.errors import KGTargetsError
from training.errors import ConfigError, DataError
from training.vqa.answer_files import read_answers

LM_EVAL = {
    "doc_id": 4, "doc": {"qid": 11, "question": "Left?"}, "target": "no", "arguments": [["prompt", {}]],
    "resps": [["Yes."]], "filtered_resps": ["yes"], "filter": "none", "doc_hash": "ab", "exact_match": 0.0,
}  # fmt: skip
LLAVA = {
    "question_id": 11, "prompt": "Left?\nAnswer briefly.", "text": "yes", "answer_id": "x", "model_id": "m",
    "metadata": {},
}  # fmt: skip


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("text", "found", "fields"),
    [
        ("id,answer\n11,yes\n", "yes", ("id", "answer")),
        ("\ufeffid;answer\r\n11;yes\r\n", "yes", ("id", "answer")),
        ("answer\tid\tnote\nyes\t11\t\n", "yes", ("id", "answer")),
        (
            "index\tquestion\tanswer\tprediction\n11\tLeft?\tno\tyes\n",
            "yes",
            ("index", "prediction"),
        ),  # VLMEvalKit
        ("id,image_id,question,answer,predicted\n11,i,Left?,no,yes\n", "yes", ("id", "predicted")),  # our own
        ('id,answer\n11,"yes, on the\nleft"\n', "yes, on the\nleft", ("id", "answer")),
        (jsonl(LLAVA), "yes", ("question_id", "text")),
        (jsonl(LM_EVAL), "yes", ("doc.qid", "filtered_resps")),
        (
            jsonl({**LM_EVAL, "doc_id": 11, "doc": {}, "filtered_resps": [["yes"]]}),
            "yes",
            ("doc_id", "filtered_resps"),
        ),
        (json.dumps([{"qid": 11, "answer": "yes"}]), "yes", ("qid", "answer")),
        (json.dumps({"11": "yes"}), "yes", ("id", "answer")),
        (json.dumps({"11": "yes"}, indent=1), "yes", ("id", "answer")),
        (json.dumps({"11": {"response": "yes", "answer": "no"}}), "yes", ("id", "response")),
        (
            json.dumps({"model": "m", "predictions": [{"id": 11.0, "pred": "yes"}]}, indent=2),
            "yes",
            ("id", "pred"),
        ),
        (json.dumps([{"id": "11", "output": ["yes", "no"]}]), "yes", ("id", "output")),
        (json.dumps([{"id": "11", "output": None}]), "", ("id", "output")),
    ],
)
def test_ids_and_answers_are_found_in_usual_files(
    tmp_path: Path, text: str, found: str, fields: tuple[str, str]
) -> None:
    path = tmp_path / "answers"
    path.write_text(text, encoding="utf-8", newline="")
    given = read_answers(path)
    assert [(row.id, row.answer) for row in given.rows] == [("11", found)]
    assert (given.id_field, given.answer_field) == fields
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert read_answers(path) == given


def test_utf_16_as_a_spreadsheet_program_saves_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\tanswer\n11\tè\n", encoding="utf-16")
    assert read_answers(tmp_path / "a.csv").rows[0].answer == "è"


def test_an_excel_file_is_read_or_the_package_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd, path = pytest.importorskip("pandas"), tmp_path / "model_set.xlsx"
    pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    pd.DataFrame({"index": [11, 12], "answer": ["no", "no"], "prediction": ["yes", None]}).to_excel(
        path, index=False
    )
    assert [(row.id, row.answer) for row in read_answers(path).rows] == [("11", "yes"), ("12", "")]
    monkeypatch.setattr("training.vqa.answer_files.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install openpyxl"):
        read_answers(path)


def test_a_zip_that_is_no_excel_file_is_one_line(tmp_path: Path) -> None:
    import zipfile

    pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as file:
        file.writestr("x.txt", "x")
    with pytest.raises(DataError, match="save it as CSV"):
        read_answers(tmp_path / "a.xlsx")


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,key,answer,mine\n1,11,no,yes\n")
    (row,) = read_answers(path, "key", "mine").rows
    assert (row.id, row.answer) == ("11", "yes")
    with pytest.raises(ConfigError, match=r"--answer-field: .* has no 'his': it has id, key, answer, mine"):
        read_answers(path, "key", "his")


def test_only_the_first_filter_of_a_harness_counts_and_the_rest_is_told(tmp_path: Path) -> None:
    path = tmp_path / "samples_task.jsonl"
    path.write_text(
        jsonl(LM_EVAL, {**LM_EVAL, "filter": "strict", "filtered_resps": ["no"]}) + "not JSON\n[1]\n"
    )
    given = read_answers(path)
    assert [row.answer for row in given.rows] == ["yes"]
    assert given.notes == (
        "1 rows skipped: is not valid JSON",
        "1 rows skipped: is not a JSON object",
        "1 rows of other filters than 'none' are left out",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,answer\n", "holds no answer"),
        ("[]", "holds no answer"),
        (
            "key,answer\n1,yes\n",
            r"no id under a name known here \(question_id, qid, id, index …\): it has key, answer",
        ),
        ("id,key\n1,yes\n", "name one with --answer-field"),
        ('{"a": [1', "not readable as JSON"),
    ],
)
def test_what_is_no_file_of_answers_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(KGTargetsError, match=message) as caught:
        read_answers(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(KGTargetsError, match="is not there: give the file"):
        read_answers(tmp_path / "none.csv")


def test_what_stands_for_an_answer_that_failed_is_none(tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    path.write_text("index\tprediction\n1\tyes\n2\tFailed to obtain answer via API. \n")
    found = read_answers(path)
    assert [row.answer for row in found.rows] == ["yes", ""]
    assert found.notes == ("1 answers begin with 'Failed to obtain answer': they count as none",)


def test_a_pickle_is_refused_unread_and_the_other_files_named(tmp_path: Path) -> None:
    (tmp_path / "out.pkl").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    with pytest.raises(DataError, match=r"is a pickle.*give the kit's \.xlsx, \.tsv or \.json"):
        read_answers(tmp_path / "out.pkl")
