"""`kg-targets vqa score` on an invented data set."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.processes import kg_targets
from tests.training.vqa.fakes import picture, rows, write_data
from training.vqa.predictions import read_predictions
from training.vqa.protocols import prepare

main = kg_targets("vqa score")


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """The options that name a data set with pictures and a file of right answers, one of which is missing."""
    manifest = write_data(tmp_path / "a b", pictures=True, test=rows(range(10, 16), 1000))
    test = prepare(manifest, tmp_path / "a b", "strict").test
    path = tmp_path / "answers.csv"
    path.write_text("id,answer\n" + "".join(f"{one.id},{one.answer}\n" for one in test[1:]))
    return [
        str(path),
        "--dataset",
        str(tmp_path / "a b" / "tiny_vqa.yaml"),
        "--data-root",
        str(tmp_path / "a b"),
    ]


def test_the_report_and_its_json_say_the_same(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*data, "--draws", "200"]) == 0
    page = capsys.readouterr().out
    assert "answers.csv: 17 rows, ids from id, answers from answer" in page
    assert "17 questions have an answer; 1 have none and count as wrong" in page
    assert "overall" in page and "94.4 [" in page and "leaks: not looked for" in page
    assert main([*data, "--draws", "200", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracies"]["overall"]["interval"]["mean"] == pytest.approx(17 / 18)
    assert found["counts"]["answered"] == 17 and found["protocol"] == "strict" and found["leaks"] == []
    assert set(found["baselines"]) == {"global", "answer_type", "kind", "question"}
    assert main([*data, "--draws", "200", "--partial", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracies"]["overall"]["interval"]["mean"] == 1.0


def test_every_protocol_scores_and_its_answers_can_be_compared(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for protocol in ("paper", "strict", "image_disjoint"):
        out = tmp_path / f"{protocol}.csv"
        assert main([*data, "--protocol", protocol, "--out", str(out), "--name", "mine", "--by", "id"]) in (
            0,
            2,
        )
        if protocol != "image_disjoint":
            assert read_predictions(out).metadata["name"] == "mine"
            capsys.readouterr()
            assert kg_targets("compare-vqa")([str(out), "--draws", "200"]) == 0
            assert "mine" in capsys.readouterr().out


def write_captions(root: Path, images: range) -> Path:
    """A data set of captions whose pictures are some of the questions', under other names."""
    (root / "images").mkdir(parents=True)
    lines = ["image_id,filepath,caption"]
    for number in images:
        picture(number).save(root / "images" / f"p{number}.png")
        lines.append(f"p{number},images/p{number}.png,a caption")
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    manifest = {
        "name": "captioned", "title": "t", "format": "csv", "licence": "CC0-1.0", "how_to_get": "invented",
        "fit_split": "train", "splits": {"train": {"files": {"captions": "train.csv"}}},
    }  # fmt: skip
    (root / "captioned.yaml").write_text(yaml.safe_dump(manifest))
    return root


def test_test_images_in_the_models_training_are_found_and_left_out(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_captions(tmp_path / "other", range(14, 20))
    named = f"{other / 'captioned.yaml'}={other},tiny_vqa,pmc_vqa,slake={tmp_path}"
    assert main([*data, "--trained-on", named, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    leaks = {leak["trained_on"]: leak for leak in found["leaks"]}
    captioned = leaks[str(other / "captioned.yaml")]
    assert captioned["images"] == ["synpic14", "synpic15"] and captioned["looked_at"]
    assert captioned["told"] == "shows 2 of the 6 test images (by pictures; at least)"
    assert leaks["tiny_vqa"]["told"].startswith("its own strict training part shows 2 of the test images")
    assert not leaks["pmc_vqa"]["looked_at"] and "not one of" in leaks["pmc_vqa"]["told"]
    assert not leaks["slake_en"]["looked_at"] and not leaks["slake_zh"]["looked_at"]
    assert found["unseen_images"]["overall"]["interval"]["queries"] == 18 - 3 * 4
    assert main([*data, "--trained-on", named]) == 0
    assert "accuracy on questions about other images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "name"], "--by"),
        (["--protocol", "fair"], "--protocol"),
        (["--draws", "5"], "--draws"),
        (["--out", "scored.txt"], "must end in .csv"),
        (["--id-field", "key"], "--id-field"),
    ],
)
def test_wrong_options_are_one_line(
    data: list[str], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*data, *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_it_needs_no_torch(data: list[str]) -> None:
    code = (
        "import sys; from pipelines.cli import main; sys.modules['torch'] = None; "
        "sys.exit(main(['vqa', 'score', *sys.argv[1:]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *data, "--trained-on", "tiny_vqa"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_first_word_alone_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.cli import main as kg

    assert kg(["vqa"]) == 2
    assert '"vqa" is not a command (did you mean "vqa score"?)' in capsys.readouterr().err
