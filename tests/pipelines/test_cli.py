"""The command line's manners: wrong arguments are one line, Ctrl-C is quiet, parallel runs do not collide."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipelines import cli
from pipelines.build import executors
from tests import REPOSITORY

pytestmark = pytest.mark.e2e
COMMAND = [sys.executable, "-m", "pipelines.cli"]


@pytest.mark.parametrize(
    ("arguments", "message", "help_of"),
    [
        (
            ["build", "demo", "--top-k", "abc"],
            "argument --top-k: invalid int value: 'abc'",
            "kg-targets build",
        ),
        (["build"], "the following arguments are required: dataset", "kg-targets build"),
        (["build", "demo", "--magic"], "unrecognized arguments: --magic", "kg-targets build"),
        (["verify", "a", "b"], "unrecognized arguments: b", "kg-targets verify"),
        (["explain", "store", "image", "-k", "many"], "invalid int value: 'many'", "kg-targets explain"),
        (["card", "store"], "arguments are required: --out", "kg-targets card"),
        (["demo-data", "--images"], "expected one argument", "kg-targets demo-data"),
        (["evaluate-concepts", "--errors", "x"], "invalid int value", "kg-targets evaluate-concepts"),
        (["evaluate-targets"], "arguments are required: STORE", "kg-targets evaluate-targets"),
        (["check"], "arguments are required: dataset", "kg-targets check"),
        (["datasets", "x"], "unrecognized arguments: x", "kg-targets datasets"),
        (["nonsense"], "invalid choice: 'nonsense'", "kg-targets"),
        (["--nonsense", "datasets"], "unrecognized arguments: --nonsense", "kg-targets"),
        ([], "arguments are required: COMMAND", "kg-targets"),
    ],
)
def test_wrong_arguments_are_one_line_that_names_the_right_help(
    arguments: list[str], message: str, help_of: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("error: ") and message in err and err.endswith(f": see {help_of} --help\n")


def test_help_still_lists_every_build_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["build", "--help"])
    assert caught.value.code == 0 and "--top-k" in capsys.readouterr().out


def test_ctrl_c_while_modules_are_still_imported_gives_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_parser", interrupted)
    assert cli.main(["datasets"]) == 130
    assert capsys.readouterr().err == "interrupted: nothing half-written was left\n"


def test_ctrl_c_that_an_import_turns_into_another_error_is_still_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def numpy_says_something_else() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("you should not try to import numpy from its source directory") from None

    monkeypatch.setattr(cli, "_parser", numpy_says_something_else)
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(["datasets"]) == 130
    assert capsys.readouterr().err == "interrupted: nothing half-written was left\n"
    assert signal.getsignal(signal.SIGINT) is before


class PressesCtrlCInItsFinalizer:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_that_a_finalizer_loses_is_pressed_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def works_on() -> None:
        del [PressesCtrlCInItsFinalizer()][0]
        for _ in range(1000):
            time.sleep(0.01)
        raise AssertionError("the interrupt was lost")

    monkeypatch.setattr(cli, "_parser", works_on)
    before = sys.unraisablehook
    assert cli.main(["datasets"]) == 130
    assert capsys.readouterr().err == "interrupted: nothing half-written was left\n"
    assert sys.unraisablehook is before


def test_an_error_without_ctrl_c_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("no module named numpy")

    monkeypatch.setattr(cli, "_parser", broken)
    with pytest.raises(ImportError, match="no module named numpy"):
        cli.main(["datasets"])


def test_nothing_slow_is_imported_before_ctrl_c_is_caught() -> None:
    slow = {"numpy", "scipy", "pandas", "tqdm", "pydantic"}
    code = f"import sys, pipelines.cli; print(*sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == ""


def interrupt_until_it_ends(process: "subprocess.Popen[str]") -> str:
    """Standard error after Ctrl-C; pressed again after a while, as Python may lose a signal while it forks."""
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=10)[1]
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    raise AssertionError("ten times Ctrl-C did not end the command")


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("delay", [0.15, 0.4])
def test_ctrl_c_soon_after_the_start_is_one_line(delay: float, tmp_path: Path) -> None:
    # The child says when main() is about to start, so that the delay counts from there on any machine.
    code = "import sys; from pipelines.cli import main; print('go', flush=True); sys.exit(main(sys.argv[1:]))"
    arguments = ["demo-data", "--images", "20000", "--out", str(tmp_path / "data")]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "go\n"
        time.sleep(delay)
        err = interrupt_until_it_ends(process)
    assert process.returncode == 130
    assert err == "interrupted: nothing half-written was left\n"
    assert list(tmp_path.iterdir()) == []


def test_two_demo_data_runs_into_one_folder_both_succeed(tmp_path: Path) -> None:
    arguments = [*COMMAND, "demo-data", "--images", "60", "--out", str(tmp_path / "data")]
    running = [
        subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    states = sorted(re.findall(r"written|up to date", "".join(out for out, _ in outputs)))
    assert states == ["up to date", "written"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_cannot_hold_demo_data_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    places = [tmp_path / "file" / "data"] + [Path("/proc/foo")] * Path("/proc/self").exists()
    for place in places:
        assert cli.main(["demo-data", "--images", "20", "--out", str(place)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and err.startswith("error: ") and str(place) in err


def test_cores_are_counted_where_the_system_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert executors.available_cores() >= 1
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert executors.available_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert executors.available_cores() == 1


@pytest.mark.parametrize(
    ("dataset", "folder", "splits"),
    [
        ("medpix", "medpix", ("train", "dev", "test")),
        ("medpix_case", "medpix", ("train", "dev", "test")),
        ("vqa_rad", "vqa_rad", ("train", "test")),
        ("roco", "roco", ("validation",)),
    ],
)
def test_the_real_files_have_the_rows_and_checksums_that_their_manifest_states(
    dataset: str, folder: str, splits: tuple[str, ...], shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = yaml.safe_load((REPOSITORY / "data_manifests" / f"{dataset}.yaml").read_text())
    assert all({"expected_rows", "sha256"} <= manifest["splits"][split].keys() for split in splits)
    assert cli.main(["check", dataset, "--data-root", str(shared_data / folder)]) == 0
    out = capsys.readouterr().out
    assert "were expected" not in out and "sha256 differs" not in out


def test_another_captions_file_is_noticed_by_rows_and_checksum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "validation" / "radiology"
    folder.mkdir(parents=True)
    (folder / "captions.txt").write_text("ROCO_00001\tChest CT.\n")
    assert cli.main(["check", "roco", "--data-root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "8,180 captions were expected" in out and "sha256 differs" in out
