"""`kg-targets concepts`: marked texts on a terminal, JSON, and texts that try to command the terminal."""

import io
import json
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.concepts import colours_wanted

pytestmark = pytest.mark.e2e
TEXT = "No pneumothorax. Possible pneumonia."


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_mentions_are_marked_and_listed_with_what_is_said_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["concepts", TEXT, "nothing here"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "No [pneumothorax]. Possible [pneumonia]."
    assert "negated" in out[1] and "(C0032326): its name" in out[1] and "uncertain" in out[2]
    assert out[-2:] == ["nothing here", "  no concept"]


def test_lines_of_standard_input_are_texts_and_json_holds_every_field(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TEXT}\nCT\n"))
    assert cli.main(["concepts", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["text"] == TEXT and [m["negated"] for m in first["mentions"]] == [True, False]
    assert second["mentions"][0] | {"cui": "C0040405", "start": 0, "end": 2} == second["mentions"][0]


def test_no_control_character_of_a_text_reaches_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "CT\x1b[31m\x07 \u202epneumonia\nCT"
    for terminal in (False, True):
        monkeypatch.setattr("pipelines.concepts.colours_wanted", lambda stream, terminal=terminal: terminal)
        assert cli.main(["concepts", text]) == 0
        out = capsys.readouterr().out
        assert "\\x1b[31m\\x07" in out and "\\u202e" in out and "\\n" in out
        assert not {"\x07", "\u202e", "\x1b[31m"} & set(out) and "\x1b[31m" not in out
        assert ("\x1b[" in out) is terminal


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colours_wanted(Terminal()) and not colours_wanted(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours_wanted(Terminal())


def test_a_wrong_ontology_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["concepts", TEXT, "--extractor", "magic"]) == 2
    assert "extractor magic is not one of" in capsys.readouterr().err


def test_line_ends_of_windows_are_no_part_of_a_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("No effusion.\r\nFracture.\r\n", newline=""))
    assert cli.main(["concepts"]) == 0
    out = capsys.readouterr().out
    assert "\\r" not in out and "[Fracture].\n" in out


def test_what_is_read_is_kept_where_the_folder_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".cache").touch()  # a file, where there would be a folder
    assert cli.main(["concepts", TEXT]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("No [pneumothorax].") and len(told.err.splitlines()) == 1
    assert told.err.startswith("warning: nothing is kept") and "--cache DIR" in told.err
    assert cli.main(["concepts", "--cache", "kept", TEXT]) == 0
    assert capsys.readouterr().err == "" and any(tmp_path.glob("kept/ontology-*"))
    (tmp_path / ".cache").unlink()
    assert cli.main(["concepts", TEXT]) == 0 and any(tmp_path.glob(".cache/kg_targets/ontology-*"))
