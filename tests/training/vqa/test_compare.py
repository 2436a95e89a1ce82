import json
import random
from pathlib import Path

import pytest

from tests.processes import kg_targets
from tests.training.vqa.fakes import rows, write_data
from training.vqa.baselines import majority_baseline
from training.vqa.predictions import predictions_of, write_predictions
from training.vqa.protocols import Split, prepare

main = kg_targets("compare-vqa")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three training runs that see images, three that do not, answers to shuffled images, and two baselines."""
    images = range(40)
    split = prepare(write_data(tmp_path / "d", rows(images, 0), rows(images, 1000)), tmp_path / "d", "strict")
    for seed in range(3):
        write(split, tmp_path / f"real{seed}.csv", 0.95, seed, trained_on="real", images="real")
        write(split, tmp_path / f"blank{seed}.csv", 0.5, seed, trained_on="blank", images="blank")
        write(split, tmp_path / f"shuffled{seed}.csv", 0.5, seed, trained_on="real", images="shuffled")
    for name in ("global", "kind"):
        write_predictions(tmp_path / f"majority-{name}.csv", majority_baseline(split, name))
    return tmp_path


def write(split: Split, path: Path, share: float, seed: int, **metadata: object) -> None:
    draw = random.Random(f"{path.name}")
    predicted = [question.answer if draw.random() < share else "wrong" for question in split.test]
    write_predictions(
        path,
        predictions_of(
            split, "test", predicted, metadata={"name": "tiny", "mode": "exact", "seed": seed, **metadata}
        ),
    )


def test_the_report_says_what_the_image_adds(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = runs / "report.md"
    files = [str(path) for path in sorted(runs.glob("*.csv"))]
    assert main([*files, "--out", str(out), "--json"]) == 0
    numbers = capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    assert "## tiny_vqa, test, protocol `strict`, split seed 0" in text
    assert "| tiny | 0, 1, 2 | exact |" in text
    assert "The right image instead of another one adds +" in text
    assert "; 3 of 3 pairs of training runs agree." in text and "| 3 of 3 (seeds 0, 1, 2) |" in text
    assert "ign flips" not in text
    (table,) = json.loads(numbers)["tables"]
    tests = table["tests"]
    assert {test["baseline"]["role"] for test in tests} == {"question_only", "shuffled", "majority"}
    assert {test["baseline"]["name"] for test in tests if test["baseline"]["role"] == "majority"} == {
        "majority by kind"
    }
    assert len(tests) == 9
    assert all(test["p_corrected"] >= test["p_value"] for test in tests)
    assert all(test["test"] == "t" and test["seeds"] == [0, 1, 2] for test in tests)
    assert all(
        test["noise"]["by_training"].keys() == {"0"} and test["noise"]["degrees"] >= 2 for test in tests
    )
    assert table["rows"][0]["seeds"] is not None
    for private in ("synpic", "shadow", "organ 1", str(runs)):
        assert private not in text
    assert main([*reversed(files), "--out", str(runs / "other.md")]) == 0
    capsys.readouterr()
    assert main([*files]) == 0  # without --out, the page is printed
    assert capsys.readouterr().out == text
    assert main([*files, "--json"]) == 0
    assert capsys.readouterr().out == numbers


def test_other_images_are_shown_to_the_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = prepare(write_data(tmp_path / "d"), tmp_path / "d", "strict")
    for name, images, digest in (
        ("a", "real", "one"),
        ("b", "shuffled", "one"),
        ("c", "shuffled", "another"),
    ):
        write(split, tmp_path / f"{name}.csv", 0.9, 0, trained_on="real", images=images, model=digest)
    out = str(tmp_path / "same.md")
    assert main([str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--out", out]) == 0
    capsys.readouterr()
    assert main([str(tmp_path / "a.csv"), str(tmp_path / "c.csv"), "--out", out]) == 2
    assert "(seed 0) are of other weights" in capsys.readouterr().err


def test_names_can_be_given(runs: Path) -> None:
    both = ",".join(str(runs / f"real{seed}.csv") for seed in range(2))
    assert main([f"mine={both}", f"other={runs / 'real2.csv'}", "--out", str(runs / "r.md")]) == 0
    text = (runs / "r.md").read_text(encoding="utf-8")
    assert "| mine | 0, 1 |" in text and "| other | 2 |" in text
    assert "no question-only model" in text or "## What the image adds" not in text


def test_fewer_than_two_pairs_of_training_runs_are_a_statement_about_these_models(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = runs / "r.md"
    shown = [
        "real0.csv",
        "real1.csv",
        "real2.csv",
        "blank0.csv",
        "shuffled0.csv",
        "shuffled1.csv",
        "majority-kind.csv",
    ]
    files = [str(runs / name) for name in shown]
    assert main([*files, "--out", str(out), "--json"]) == 0
    numbers = capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    assert "sign flips: a statement about these trained models only" in text
    assert "| sign flips, these trained models only | – | – |" in text
    assert (
        "| – (seeds 0, 1) | not estimable | not estimable |" in text and "| 3 of 3 (seeds 0, 1, 2) |" in text
    )
    (table,) = json.loads(numbers)["tables"]
    used = {test["baseline"]["role"]: (test["test"], test["seeds"]) for test in table["tests"]}
    assert used == {
        "question_only": ("sign flips", []), "shuffled": ("t", [0, 1]), "majority": ("t", [0, 1, 2])
    }  # fmt: skip
    assert main([str(runs / "real0.csv"), str(runs / "majority-kind.csv"), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "| sign flips, these trained models only |" in text and "- t: " not in text


def test_a_path_with_an_equals_sign_or_a_comma_is_one_file(runs: Path) -> None:
    odd = runs / "lr=1,bs=2"
    odd.mkdir()
    for suffix in (".csv", ".json"):
        (runs / f"real0{suffix}").rename(odd / f"p{suffix}")
    for argument, name in (
        (str(odd / "p.csv"), "tiny"),
        (f"a=b={odd / 'p.csv'}", None),
        (f"mine={odd / 'p.csv'}", "mine"),
    ):
        code = main([argument, "--out", str(runs / "r.md")])
        assert code == (2 if name is None else 0)
        assert name is None or f"| {name} | 0 |" in (runs / "r.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("argument", ["A=", "A=,", "", ",", "A=."])
def test_an_argument_without_a_file_is_one_line(
    runs: Path, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument, "--out", str(runs / "r.md")]) == 2
    assert main([str(runs / "real0.csv"), "--out", "."]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)


@pytest.mark.parametrize("metadata", [{"trained_on": "unknown"}, {}])
def test_a_model_that_may_be_question_only_is_not_compared(
    runs: Path, metadata: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    split = prepare(write_data(runs / "d"), runs / "d", "strict")
    write(split, runs / "copy.csv", 0.9, 0, images="real", **metadata)
    assert main([str(runs / "copy.csv"), "--out", str(runs / "r.md")]) == 2
    assert 'trained on "unknown" images' in capsys.readouterr().err


@pytest.mark.parametrize("given", [["real0.csv", "real0.csv"], ["absent.csv"], ["report.md"]])
def test_what_cannot_be_compared_is_one_line_and_code_2(
    runs: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*(str(runs / name) for name in given), "--out", str(runs / "r.md")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (runs / "r.md").exists()
