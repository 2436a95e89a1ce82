"""`kg-targets evaluate-concepts` on captions and labels whose counts are known by hand."""

import json
from pathlib import Path

import pytest

from pipelines import cli

pytestmark = pytest.mark.e2e
GOLD = Path(__file__).parents[1] / "gold" / "captions.jsonl"


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
