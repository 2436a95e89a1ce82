"""`kg-targets label`: a table of reports and findings, by CheXpert's classes, by headings or by CUIs."""

from pathlib import Path

import pandas as pd
import pytest

from pipelines import cli

pytestmark = pytest.mark.e2e
REPORTS = (
    "report_id,findings,impression\n"
    "r1,No pneumothorax. Small left pleural effusion.,\n"
    "r2,Opacity may represent pneumonia.,No effusion.\n"
    "r3,Lungs are clear.,Endotracheal tube.\n"
    "r4,CT to rule out pneumothorax. History of pneumonia.,\n"
    "r5,No pneumothorax.,Pneumothorax is seen.\n"
)


def label(folder: Path, *options: object, out: str = "out/labels.csv") -> tuple[int, Path]:
    path = folder / "reports.csv"
    path.write_text(REPORTS, encoding="utf-8")
    target = folder / out
    return cli.main(["label", str(path), "--out", str(target), *map(str, options)]), target


def test_chexperts_classes_are_present_uncertain_absent_or_not_mentioned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, path = label(tmp_path)
    assert code == 0
    table = pd.read_csv(path, keep_default_na=False).set_index("id")
    assert table.shape == (5, 14) and table.columns[0] == "No Finding"
    assert table["Pneumothorax"].tolist() == ["absent", "", "", "", "present"]  # what is present wins
    assert table["Pleural Effusion"].tolist()[:1] == ["present"]
    assert table["Pneumonia"].tolist() == ["", "uncertain", "", "", ""]
    assert table["Support Devices"].tolist() == ["", "", "present", "", ""]
    assert table["No Finding"].tolist() == ["", "", "present", "present", ""]
    out = capsys.readouterr().out
    assert "5 reports × 14 findings" in out and "Pneumothorax 1" in out


def test_cuis_take_their_descendants_and_parquet_holds_the_same(tmp_path: Path) -> None:
    code, path = label(tmp_path, "--findings", "C0032226,C0032326", out="labels.parquet")
    assert code == 0
    table = pd.read_parquet(path)
    assert table["Pleural disease"].tolist()[0] == "present"  # a pleural effusion is one
    assert table["Pneumothorax"].tolist() == ["absent", "", "", "", "present"]


def test_headings_are_a_list_of_findings_too(tmp_path: Path) -> None:
    code, path = label(tmp_path, "--findings", "mesh")
    assert code == 0 and "Hiatal hernia" in pd.read_csv(path)


@pytest.mark.parametrize(
    ("options", "out", "message"),
    [
        (["--findings", "magic"], "x.csv", "are none of mesh, chexpert and no CUIs"),
        (["--findings", "C9999999"], "x.csv", "does not have C9999999"),
        ([], "x.json", "must end in .csv or .parquet"),
        (["--text", "nothing"], "x.csv", "has no column 'nothing'"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    tmp_path: Path, options: list[str], out: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, path = label(tmp_path, *options, out=out)
    err = capsys.readouterr().err
    assert code == 2 and message in err and err.count("\n") == 1 and not path.exists()


def test_tables_of_another_separator_and_encoding_are_read_and_broken_rows_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "id;text\nr1;No pneumothorax.\nr2;Pneumothorax.;one field too many\nr3;Pneumothorax.\n"
    (tmp_path / "reports.csv").write_bytes(text.encode("utf-16"))
    out = tmp_path / "labels.csv"
    assert cli.main(["label", str(tmp_path / "reports.csv"), "--out", str(out)]) == 0
    table = pd.read_csv(out, keep_default_na=False)
    assert table["id"].tolist() == ["r1", "r3"] and table["Pneumothorax"].tolist() == ["absent", "present"]
    assert (
        capsys.readouterr().err == "note: skipped 1 row(s): has not 2 columns (first: reports.csv line 3)\n"
    )
    assert cli.main(["label", str(tmp_path / "none.csv"), "--out", str(out)]) == 2
    assert "none.csv is not there: give a table of reports" in capsys.readouterr().err


def test_a_heart_of_normal_size_is_no_cardiomegaly_and_an_empty_report_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [
        "The heart is normal in size.", "Normal heart size.", "Heart size and pulmonary vascularity are unremarkable.",
        "The heart is not enlarged.", "Heart size is at the upper limits of normal.", "Heart. Lungs normal.", "",
    ]  # fmt: skip
    path = tmp_path / "reports.csv"
    path.write_text("Report_ID,FINDINGS\n" + "".join(f"r{n},{text}\n" for n, text in enumerate(texts)))
    assert cli.main(["label", str(path), "--out", str(tmp_path / "o.csv")]) == 0
    table = pd.read_csv(tmp_path / "o.csv", keep_default_na=False)
    assert table["Cardiomegaly"].tolist() == ["absent"] * 4 + [""] * 3
    assert table["No Finding"].tolist() == ["present"] * 6 + [""]
    assert table["id"].tolist()[0] == "r0"
    assert "read: FINDINGS\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "options"),
    [("label", ["--out", "o.csv"]), ("evaluate concepts", ["--mesh", "x"])],
)
def test_a_file_that_is_no_text_is_one_line(
    command: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reports.csv"
    path.write_bytes(bytes(range(128, 256)) + b"\n" + bytes(range(200, 250)))
    assert cli.main([*command.split(), str(path), *options]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "is no table of texts" in err


def test_a_header_alone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "reports.csv"
    path.write_text("id,text\n")
    assert cli.main(["label", str(path), "--out", str(tmp_path / "o.csv")]) == 0
    assert "has a header and no row" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["label", "evaluate"])
def test_where_nothing_can_be_written_the_ontology_is_read_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    gold = Path("tests/gold/captions.jsonl").resolve()
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".cache").touch()  # a file, where there would be a folder
    if command == "label":
        assert label(tmp_path)[0] == 0
    else:
        assert cli.main(["evaluate", "concepts", "--gold", str(gold)]) == 0
    told = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("warning: nothing is kept") for line in told) == 1
    kept = ["--cache", str(tmp_path / "kept")]
    code = (
        label(tmp_path, *kept)[0]
        if command == "label"
        else cli.main(["evaluate", "concepts", "--gold", str(gold), *kept])
    )
    assert code == 0 and any(tmp_path.glob("kept/ontology-*"))
