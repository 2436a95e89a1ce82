"""The command line's manners: wrong arguments are one line, Ctrl-C is quiet, parallel runs do not collide."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from kg_targets import TargetStore
from pipelines import cli
from pipelines.build import executors
from tests import REPOSITORY
from training.command import Work

pytestmark = pytest.mark.e2e
COMMAND = [sys.executable, "-m", "pipelines.cli"]
NAMES = [name for commands in cli.COMMANDS.values() for name in commands]
NEED_TORCH = [
    "evaluate retrieval",
    "evaluate vqa",
    "score-sheet",
    "plan",
    "suggest",
    "tables",
    "predict",
    "export",
]


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
        (["build", "demo", "--splt", "all"], "--splt (did you mean --split?)", "kg-targets build"),
        (["verify", "a", "b"], "unrecognized arguments: b", "kg-targets verify"),
        (["explain", "store", "image", "-k", "many"], "invalid int value: 'many'", "kg-targets explain"),
        (["card", "store"], "arguments are required: --out", "kg-targets card"),
        (["demo-data", "--images"], "expected one argument", "kg-targets demo-data"),
        (["evaluate-concepts", "--errors", "x"], "invalid int value", "kg-targets evaluate concepts"),
        (["evaluate", "targets"], "arguments are required: STORE", "kg-targets evaluate targets"),
        (["check"], "arguments are required: dataset", "kg-targets check"),
        (["datasets", "x"], "unrecognized arguments: x", "kg-targets datasets"),
        (["nonsense"], '"nonsense" is not a command', "kg-targets"),
        (["evaluate", "retrievals"], '(did you mean "evaluate retrieval"?)', "kg-targets"),
        (["evaluate", "frobnicate"], '"evaluate frobnicate" is not a command: see', "kg-targets"),
        (["explain", "--stor", "x"], "unrecognized arguments: --stor: see", "kg-targets explain"),
        (["--nonsense", "datasets"], '"--nonsense" is not a command', "kg-targets"),
    ],
)
def test_wrong_arguments_are_one_line_that_names_the_right_help(
    arguments: list[str], message: str, help_of: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("error: ") and message in err and err.endswith(f": see {help_of} --help\n")


def test_the_overview_fits_one_screen_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) <= 40 and max(map(len, shown)) <= 100
    for name in NAMES:
        assert sum(line.startswith(f"  {name} ") for line in shown) == 1
    assert cli.main([]) == 2 and "usage: kg-targets COMMAND" in capsys.readouterr().out
    assert cli.main(["evaluate"]) == 2 and "evaluate vqa" in capsys.readouterr().out
    assert cli.main(["evaluate", "--help"]) == 0 and "score-sheet" not in capsys.readouterr().out
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out.startswith("kg-targets ")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_a_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("torch") is None and name in NEED_TORCH:
        pytest.skip("needs torch")
    with pytest.raises(SystemExit) as caught:
        cli.main([*name.split(), "--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0 and shown.startswith(f"usage: kg-targets {name} ")
    assert len(shown.splitlines()) > 6  # a description and its options


@pytest.mark.parametrize("name", NEED_TORCH)
def test_a_command_without_its_packages_names_the_extra(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(module: str) -> None:
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")

    monkeypatch.setattr(cli, "import_module", absent)
    assert cli.main([*name.split(), "--help"]) == 2
    told = f"error: kg-targets {name} needs torch, which is not installed: pip install 'kg-targets[train]'\n"
    assert capsys.readouterr().err == told


def greet(parser: argparse.ArgumentParser) -> Work:
    """A command as CONTRIBUTING describes it."""
    parser.add_argument("name")
    return lambda options: print(f"hello {options.name}")


def test_a_command_is_a_function_and_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS["Looking"], "greet somebody", (f"{__name__}:greet", "say hello"))
    assert cli.main(["greet", "somebody", "Ada"]) == 0 and capsys.readouterr().out == "hello Ada\n"
    assert cli.main(["--help"]) == 0 and "  greet somebody      say hello" in capsys.readouterr().out
    assert cli.main(["greet-somebody"]) == 2
    assert capsys.readouterr().err.endswith("required: name: see kg-targets greet somebody --help\n")


def test_a_bug_in_our_imports_is_not_taken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str) -> None:
        raise ModuleNotFoundError("No module named 'pipelines.gone'", name="pipelines.gone")

    monkeypatch.setattr(cli, "import_module", absent)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["datasets"])


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_completion_script_is_one_that_bash_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "--top-k" in script and "evaluate" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_what_reports_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def read(*arguments: str) -> Any:
        assert cli.main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert {"demo", "vqa_rad"} <= {one["name"] for one in read("datasets")}
    assert cli.main(["demo-data", "--images", "60", "--out", str(tmp_path / "data")]) == 0
    root = ["--data-root", str(tmp_path / "data")]
    build = ["build", "demo", *root, "--split", "train", "--out", str(tmp_path / "out")]
    assert cli.main(build) == 0
    capsys.readouterr()
    train = read("check", "demo", *root)["splits"]["train"]
    assert train["present"] and train["images"] == train["images_present"] == train["captions"] > 20
    store = TargetStore.open(tmp_path / "out" / "train")
    assert len(read("verify", str(store.path))["checks"]) > 3
    (pair,) = read("explain", str(store.path), *store.image_ids[:2])
    assert (pair["first"], pair["second"]) == tuple(store.image_ids[:2])
    assert len(read("explain", str(store.path), store.image_ids[0], "-k", "2")) == 2
    (report,) = read("evaluate", "concepts", "demo", "--split", "train", *root)
    assert report["captions"] == train["captions"] and report["labels"]["modality"]["rates"]
    gold = read("evaluate", "concepts", "--gold", str(REPOSITORY / "tests" / "gold" / "captions.jsonl"))
    assert gold["captions"] > 10 and gold["overlap"]["precision"]["total"] > 10


def test_every_command_that_reports_prints_json() -> None:
    writing = {
        "demo-data",
        "folds",
        "prepare",
        "browse",
        "build",
        "card",
        "label",
        "score-sheet",
        "tables",
        "export",
        "export-store",
        "completion",
    }
    present = [name for name in NAMES if find_spec("torch") or name not in NEED_TORCH]
    silent = {name for name in present if "--json" not in cli.load_command(name)[0]._option_string_actions}
    assert silent == writing & set(present)


def test_help_still_lists_every_build_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["build", "--help"])
    assert caught.value.code == 0 and "--top-k" in capsys.readouterr().out


def test_ctrl_c_while_modules_are_still_imported_gives_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_command", interrupted)
    assert cli.main(["datasets"]) == 130
    assert capsys.readouterr().err == f"{cli.INTERRUPTED}\n"


def test_ctrl_c_that_an_import_turns_into_another_error_is_still_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def numpy_says_something_else(name: str) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("you should not try to import numpy from its source directory") from None

    monkeypatch.setattr(cli, "load_command", numpy_says_something_else)
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(["datasets"]) == 130
    assert capsys.readouterr().err == f"{cli.INTERRUPTED}\n"
    assert signal.getsignal(signal.SIGINT) is before


class PressesCtrlCInItsFinalizer:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_that_a_finalizer_loses_is_pressed_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def works_on(name: str) -> None:
        del [PressesCtrlCInItsFinalizer()][0]
        for _ in range(1000):
            time.sleep(0.01)
        raise AssertionError("the interrupt was lost")

    monkeypatch.setattr(cli, "load_command", works_on)
    before = sys.unraisablehook
    assert cli.main(["datasets"]) == 130
    assert capsys.readouterr().err == f"{cli.INTERRUPTED}\n"
    assert sys.unraisablehook is before


def test_an_error_without_ctrl_c_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("no module named numpy")

    monkeypatch.setattr(cli, "load_command", broken)
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
    assert err == f"{cli.INTERRUPTED}\n"
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


@pytest.mark.skipif(find_spec("torch") is not None, reason="is about an environment without torch")
@pytest.mark.parametrize("flags", [[], ["--help"], ["--optim.lr=1"]])
def test_training_without_torch_names_the_extra_in_one_line(flags: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "training/run.py", *flags], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "kg-targets[train]" in done.stderr
