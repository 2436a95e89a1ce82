"""`kg-targets evaluate concepts --mesh`: findings in reports against headings, counted by hand."""

import json
from pathlib import Path

import pytest

from pipelines import cli

pytestmark = pytest.mark.e2e
HEADER = "report_id,findings,impression,mesh_labels\n"
ROWS = (
    'r1,Left pleural effusion.,No pneumothorax.,"Pleural Effusion/left"\n'
    'r2,Possible pleural effusion.,,"Pleural Effusion|Opacity/lung"\n'  # uncertain: missed; the opacity is missed, too
    "r3,Cardiomegaly.,,normal\n"  # spurious
    "r4,The heart is enlarged.,,Cardiac Shadow/enlarged\n"
    "r5,Pneumonia.,,No Indexing\n"  # left out
)


def evaluate(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    code = cli.main(["evaluate", "concepts", str(path), "--mesh", "mesh_labels", *options])
    done = capsys.readouterr()
    return code, done.out, done.err


def test_each_finding_has_its_rates_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "reports.csv"
    path.write_text(HEADER + ROWS, encoding="utf-8")
    found = json.loads(evaluate(path, capsys, "--json")[1])
    assert found["rows"] == 4 and found["counted"] == "stated"
    effusion, heart = found["findings"]["Pleural effusion"], found["findings"]["Cardiomegaly"]
    assert (effusion["recall"]["successes"], effusion["recall"]["total"], effusion["precision"]["value"]) == (
        1,
        2,
        1,
    )
    assert (heart["precision"]["successes"], heart["precision"]["total"], heart["recall"]["value"]) == (
        1,
        2,
        1,
    )
    assert found["all"]["f1"] == pytest.approx(2 * 2 / (3 + 4))
    errors = {(error["report"], error["finding"], error["error"]) for error in found["errors"]}
    assert errors == {
        ("r2", "Pleural effusion", "missed"),
        ("r2", "Opacity", "missed"),
        ("r3", "Cardiomegaly", "spurious"),
    }
    out = evaluate(path, capsys, "--errors", "1")[1]
    assert "4 labelled reports" in out and "Pleural effusion       2" in out and out.count("missed") == 1


def test_uncertain_findings_count_on_request_and_seeds_repeat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reports.tsv"
    path.write_text((HEADER + ROWS).replace(",", "\t").replace('"', ""), encoding="utf-8")
    first = evaluate(path, capsys, "--json", "--count-uncertain")[1]
    assert json.loads(first)["findings"]["Pleural effusion"]["f1"] == 1
    assert evaluate(path, capsys, "--json", "--count-uncertain")[1] == first


def test_a_manifests_label_works_like_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.csv").write_text(
        "filepath,caption,label_mesh\na.png,Pneumothorax.,Pneumothorax/left\nb.png,Clear.,normal\n",
        encoding="utf-8",
    )
    arguments = ["evaluate", "concepts", "demo", "--mesh", "mesh", "--data-root", str(tmp_path), "--json"]
    assert cli.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reports"] == "demo/train" and found["findings"]["Pneumothorax"]["f1"] == 1


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,b\n1,2\n", [], "none of the usual columns of text: name some of a, b by --text"),
        ("a,b\n1,2\n", ["--text", "c"], "has no column 'c'"),
        ("text,b\n1,2\n", [], "has no column 'mesh_labels': there are b"),
        ("text,mesh_labels\nx,No Indexing\n", [], "gives no report a label"),
        ("", [], "is empty: its first line must name the columns"),
        ("text,mesh_labels\nx,normal\n", ["--gold", "x.jsonl"], "say either a data set or --gold"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(
    tmp_path: Path, content: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reports.csv"
    path.write_text(content, encoding="utf-8")
    code, _, err = evaluate(path, capsys, *options)
    assert code == 2 and message in err and err.count("\n") == 1
