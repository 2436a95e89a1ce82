import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import kg_targets
from tests.training.vqa.fakes import rows, write_data
from training.errors import ConfigError
from training.vqa.baselines import BASELINES, majority_baseline
from training.vqa.predictions import read_predictions
from training.vqa.protocols import prepare

main = kg_targets("evaluate baselines")


def predicted(tmp_path: Path, name: str, protocol: str = "strict") -> dict[tuple[str, str], str]:
    """(image, question) to what the baseline answers."""
    split = prepare(write_data(tmp_path), tmp_path, protocol)
    return {(row.image_id, row.question): row.predicted for row in majority_baseline(split, name).rows}


def test_each_baseline_goes_by_more_than_the_one_before(tmp_path: Path) -> None:
    organ, side = ("synpic1", "Which organ is shown?"), ("synpic1", "Left or right?")
    assert set(predicted(tmp_path, "global").values()) == {"yes"}
    assert predicted(tmp_path, "answer_type")[organ].startswith("organ")
    assert predicted(tmp_path, "answer_type")[side] == "yes"
    assert predicted(tmp_path, "kind")[side] in ("left", "right")
    assert predicted(tmp_path, "question") == predicted(tmp_path, "kind")  # every kind has one question here


def test_an_unknown_kind_falls_back_and_ties_go_by_the_alphabet(tmp_path: Path) -> None:
    test = rows(range(1), 1000, question_type="NEW")
    split = prepare(write_data(tmp_path, test=test), tmp_path, "strict")
    found = [row.predicted for row in majority_baseline(split, "kind").rows]
    assert found[:2] == ["yes", "yes"]
    assert found[2] == min(question.answer for question in split.train if not question.closed)


def test_only_candidates_are_answered(tmp_path: Path) -> None:
    split = prepare(write_data(tmp_path), tmp_path, "paper")
    assert {row.predicted for name in BASELINES for row in majority_baseline(split, name).rows} <= set(
        split.candidates
    )


def test_an_unknown_baseline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="global"):
        predicted(tmp_path, "image")


def test_the_command_writes_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    options = ["--dataset", str(tmp_path / "tiny_vqa.yaml"), "--data-root", str(tmp_path)]
    assert main([*options, "--out", str(tmp_path / "baselines")]) == 0
    assert "strict: majority by kind" in capsys.readouterr().out
    assert main([*options, "--protocol", "paper", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["protocol"], one["baseline"]) for one in found] == [("paper", name) for name in BASELINES]
    assert all(0 <= one["accuracies"]["overall"]["interval"]["mean"] <= 1 for one in found)
    assert len(list((tmp_path / "baselines").iterdir())) == 2 * 3 * len(BASELINES)
    metadata = read_predictions(tmp_path / "baselines" / "paper-kind.csv").metadata
    assert (metadata["mode"], metadata["protocol"]) == ("majority", "paper")
    assert main([*options, "--protocol", "fair"]) == 2
    for option, value in (("--part", "dev"), ("--split-seed", "-1"), ("--validation-share", "0.9")):
        capsys.readouterr()
        assert main([*options, option, value]) == 2
        assert capsys.readouterr().err.startswith(f"error: {option}: ")
    assert main(["--dataset", "vqa_rad", "--data-root", str(tmp_path / "absent")]) == 2


def test_a_reader_that_leaves_costs_no_file_and_no_traceback(tmp_path: Path) -> None:
    write_data(tmp_path)
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "evaluate",
        "baselines",
        "--dataset",
        str(tmp_path / "tiny_vqa.yaml"),
    ]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "baselines")],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
    assert len(list((tmp_path / "baselines").iterdir())) == 2 * 3 * len(BASELINES)


def test_help_keeps_the_lines_of_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown if line.split("  ")[0] in BASELINES] == list(BASELINES)
