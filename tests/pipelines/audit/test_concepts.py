"""`kg-targets evaluate concepts` on captions and labels whose counts are known by hand."""

import json
import re
from pathlib import Path

import pytest

from pipelines import cli
from tests import REPOSITORY

pytestmark = pytest.mark.e2e
GOLD = REPOSITORY / "tests" / "gold" / "captions.jsonl"


def test_labels_are_compared_with_what_the_text_asserts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.csv").write_text(
        "image_id,filepath,caption,label_modality,label_region\n"
        "a,a.png,CT of the lung with a nodule.,ct,chest\n"  # right; the lung is part of the chest
        "b,b.png,MRI of the brain.,ct,head\n"  # the text names another modality
        "c,c.png,Follow-up.,mri,knee\n"  # the text names nothing
        "d,d.png,No fracture of the knee on CT or MRI.,mri,knee\n"  # names two modalities, one of them right
    )
    code = cli.main(["evaluate-concepts", "demo", "--split", "train", "--data-root", str(tmp_path)])
    out = capsys.readouterr().out
    assert code == 0
    modality = out[out.index("modality:") : out.index("region:")]
    assert "label's value                    0.500" in modality and "(2/4)" in modality
    assert "any value                  0.667" in modality and "(2/3)" in modality
    assert "exactly one                0.500" in modality and "(1/2)" in modality
    assert "b: label 'ct', text names ['mri']" in modality
    assert "(3/4)" in out[out.index("region:") :]


def test_a_gold_file_gives_rates_with_intervals_and_lists_errors(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["evaluate-concepts", "--gold", str(GOLD), "--split", "tune", "--errors", "2"])
    out = capsys.readouterr().out
    assert code == 0 and "116 captions" in out
    assert "right polarity" in out and out.count(" in g0") == 2


def test_intervals_of_labels_resample_cases_because_a_cases_images_repeat_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interval(images_per_case: int, seed: int = 0) -> tuple[float, float]:
        rows = [
            f"{case}_{image},p.png,{'CT of the chest.' if case % 2 else 'Follow-up.'},ct,c{case}"
            for case in range(20)
            for image in range(images_per_case)
        ]
        header = "image_id,filepath,caption,label_modality,group_id"
        (tmp_path / "train.csv").write_text("\n".join([header, *rows]) + "\n")
        arguments = ["evaluate-concepts", "demo", "--split", "train", "--data-root", str(tmp_path)]
        assert cli.main([*arguments, "--seed", str(seed)]) == 0
        out = capsys.readouterr().out
        assert (
            f"of 20 cases; 95 % intervals: percentile bootstrap over cases (2,000 draws, seed {seed})" in out
        )
        found = re.search(r"label's value +0\.500 \[([\d.]+), ([\d.]+)\]", out)
        assert found
        return float(found[1]), float(found[2])

    single = interval(1)
    assert 0.25 <= single[0] <= 0.35 and 0.65 <= single[1] <= 0.75  # binomial(20, 0.5): 0.30–0.70 and a step
    assert interval(1) == single  # same seed, same interval
    assert interval(10) == single  # repeating every image ten times teaches nothing new


def test_precision_and_recall_are_given_per_semantic_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "CT of the lung and the liver."
    marked = [("CT", "modality"), ("lung", "anatomy")]  # the liver was not marked: a spurious mention
    mentions = [
        {"start": text.index(t), "end": text.index(t) + len(t), "text": t, "type": kind, "negated": False}
        for t, kind in marked
    ]
    path = tmp_path / "gold.jsonl"
    path.write_text(json.dumps({"id": "g1", "text": text, "mentions": mentions}) + "\n")
    assert cli.main(["evaluate-concepts", "--gold", str(path)]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out[out.index("by semantic type") :].splitlines()[1:]}
    assert re.search(
        r"precision 0\.500 \[0\.095, 0\.905\] \(1/2\) +recall 1\.000 .*\(1/1\)", lines["anatomy"]
    )
    assert "(1/1)" in lines["modality"] and "organ" not in lines
    assert "1 disagreements (1 spurious); the first 1:" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say either a data set or --gold"),
        (["demo", "--gold", str(GOLD)], "say either a data set or --gold"),
        (["--gold", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--gold", str(GOLD), "--split", "nope"], "no caption of split 'nope'"),
        (["--gold", str(GOLD), "--extractor", "magic"], "--extractor magic is not one of"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate-concepts", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err


def test_a_gold_line_that_is_broken_is_placed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gold.jsonl"
    mention = {"start": 0, "end": 3, "text": "MRI", "name": "MRI", "type": "modality", "negated": False}
    path.write_text(json.dumps({"id": "x", "text": "CT.", "mentions": [mention]}) + "\n")
    assert cli.main(["evaluate-concepts", "--gold", str(path)]) == 2
    assert "1" in capsys.readouterr().err


def test_types_are_the_same_in_any_case_and_what_a_file_cannot_say_is_no_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gold.txt"
    path.write_text(
        "1|t|Pleural effusion, a fracture\n1\t0\t16\tPleural effusion\tFinding\n1\t20\t28\tfracture\tfinding\n"
    )
    assert cli.main(["evaluate", "concepts", "--gold", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.count("    finding ") == 1 and "    Finding" not in out
    assert "right polarity         – (the gold denies no mention" in out
