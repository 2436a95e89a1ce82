"""A run that was killed, stopped or ran out of disk goes on as if nothing had happened, or says why it cannot."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from safetensors import SafetensorError

from tests import REPOSITORY
from tests.training.conftest import reset_accelerate
from tests.training.tiny import arguments, losses, write_world
from training.clip.load import WEIGHTS
from training.engine import state as state_module
from training.engine.checkpoint import CHECKPOINT, FINISHED, RUN
from training.engine.process import StopRequest, resolve_threads
from training.engine.state import STATE, saved_key
from training.nb_clip.run import NBClipRun
from training.run import main as run

STEPS = 20
"""Optimizer steps of a run: ten epochs of two."""

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/, train/, dev/ and an uninterrupted run, whole/."""
    folder = tmp_path_factory.mktemp("tiny")
    write_world(folder)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(options(folder, folder / "whole")) == 0
    return folder


def options(world: Path, output: Path, *extra: str) -> list[str]:
    return arguments(world, output, "--optim.epochs=10", "--save.every=1", "--optim.lr=0.01", *extra)


def launch(world: Path, output: Path, *extra: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "training/run.py", *options(world, output, *extra)],
        cwd=REPOSITORY,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_steps(process: "subprocess.Popen[str]", output: Path, steps: int) -> None:
    log = output / "log.jsonl"
    deadline = time.monotonic() + 120
    while not log.is_file() or len(losses(output)) < steps:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.005)


def assert_like_the_uninterrupted(world: Path, output: Path) -> None:
    """Every logged loss, the chosen epoch and the weights, byte for byte."""
    assert losses(output) == losses(world / "whole") and len(losses(output)) == STEPS
    for name in ("metrics.json", f"{CHECKPOINT}/{WEIGHTS}"):
        assert (output / name).read_bytes() == (world / "whole" / name).read_bytes()
    assert (output / FINISHED).is_file() and not (output / STATE).exists()


class Crash(BaseException):
    """The process ends here, as far as the run is concerned."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, list[str]]]]:
    """(step, ids) of every step that is taken; a test may set ``crash_at`` on it."""

    class Seen(list[tuple[int, list[str]]]):
        crash_at: int | None = None

    steps = Seen()
    original = NBClipRun.backward

    def backward(self: NBClipRun, batch: Any, step: int, measured: bool) -> Any:
        if step == steps.crash_at:
            raise Crash
        steps.append((step, self.ids(batch)))
        return original(self, batch, step, measured)

    monkeypatch.setattr(NBClipRun, "backward", backward)
    yield steps


@pytest.mark.parametrize("every", [1, 3])
def test_after_a_crash_in_an_epoch_the_same_images_come_in_the_same_order(
    every: int, world: Path, tmp_path: Path, seen: Any
) -> None:
    assert run(options(world, tmp_path / "reference", "--overwrite=true")) == 0
    expected = list(seen)
    seen.clear()
    seen.crash_at = 8  # the second step of the fourth epoch
    again = options(world, tmp_path / "run", f"--save.every={every}")
    with pytest.raises(Crash):
        run(again)
    saved = 7 if every == 1 else 6
    seen.crash_at = None
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run([*again, "--resume=must"]) == 0
    assert seen[:7] == expected[:7] and seen[7:] == expected[saved:]
    assert_like_the_uninterrupted(world, tmp_path / "run")


def test_a_run_killed_without_warning_continues_identically(world: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = launch(world, output)
    wait_for_steps(process, output, 9)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (output / FINISHED).exists()
    before = len(losses(output))
    assert run(options(world, output)) == 0
    assert before < STEPS
    assert_like_the_uninterrupted(world, output)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_asked_to_stop_saves_its_state_says_so_and_continues(
    number: signal.Signals, code: int, world: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    process = launch(world, output, "--save.every=0")
    wait_for_steps(process, output, 9)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    last = error.strip().splitlines()[-1]
    assert last.startswith("stopped after step ") and "the same command continues" in last
    assert (output / STATE).is_dir()
    assert run([*options(world, output, "--save.every=0"), "--resume", "must"]) == 0
    assert_like_the_uninterrupted(world, output)


def test_a_full_disk_ends_the_run_and_leaves_the_former_state_whole(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, save = tmp_path / "run", state_module.save_file
    calls = 0

    def fill(tensors: Any, path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            Path(path).write_bytes(b"as much as there was room for")
            raise SafetensorError("I/O error: No space left on device")
        save(tensors, path)

    monkeypatch.setattr(state_module, "save_file", fill)
    assert run(options(world, output)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --output ") and "cannot be written" in error
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run([*options(world, output), "--resume=must"]) == 0
    assert_like_the_uninterrupted(world, output)


@pytest.fixture(scope="module")
def unfinished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended after some steps."""
    output = tmp_path_factory.mktemp("unfinished") / "run"
    original = NBClipRun.backward

    def backward(self: NBClipRun, batch: Any, step: int, measured: bool) -> Any:
        if step == 6:
            raise Crash
        return original(self, batch, step, measured)

    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NBClipRun, "backward", backward)
        with pytest.raises(Crash):
            run(options(world, output))
    return output


def test_a_damaged_state_is_one_line_and_starting_over_is_offered(
    unfinished: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    shutil.copytree(unfinished, output)
    weights = output / STATE / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert run(options(world, output)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "model.safetensors is damaged or incomplete" in error and "--resume never" in error


def test_a_state_whose_renaming_was_cut_short_is_found(unfinished: Path, world: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(unfinished, output)
    (output / STATE).rename(output / "state.old")
    (output / "state.new").mkdir()
    (output / "state.new" / "model.safetensors").write_bytes(b"half")
    assert run([*options(world, output), "--resume=must"]) == 0
    assert_like_the_uninterrupted(world, output)


def test_an_unfinished_run_of_another_configuration_is_protected(
    unfinished: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    shutil.copytree(unfinished, output)
    other = options(world, output, "--seed=7", "--optim.max_steps=1")
    assert run(other) == 2
    error = capsys.readouterr().err
    assert "holds an unfinished run: seed was 0, is now 7 and 1 more field(s) differ" in error
    assert "--seed 0 --optim.max_steps null continues it" in error and "--overwrite true" in error
    assert run([*other, "--resume=never"]) == 2 and (output / STATE).is_dir()
    (output / "thesis.tex").write_text("not ours")
    assert run([*other, "--overwrite=true"]) == 0
    assert (output / "thesis.tex").read_text() == "not ours"


def test_a_machine_with_another_number_of_cores_continues_warns_and_records_it(
    unfinished: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, before = tmp_path / "run", resolve_threads(0)
    shutil.copytree(unfinished, output)
    (output / RUN).write_text(json.dumps({"key": saved_key(output)}))  # as version 0.2.0 wrote it
    other = options(world, output, f"--threads={before + 1}")
    assert run([*other, "--resume=must"]) == 0
    error = capsys.readouterr().err
    assert f"warning: continued on {before + 1} CPU threads, {before} before" in error
    assert f"--threads {before} keeps it" in error
    assert json.loads((output / RUN).read_text())["threads"] == [[0, before], [5, before + 1]]
    told = f"{before} from step 1, {before + 1} from step 6: rounding may differ"
    assert json.loads((output / "metrics.json").read_text())["threads_changed"].startswith(told)
    assert losses(output)[:5] == losses(world / "whole")[:5]
    assert losses(output) == pytest.approx(losses(world / "whole"), rel=1e-2)
    assert run(other) == 0 and "this finished run: nothing" in capsys.readouterr().err
    assert run(options(world, output)) == 0
    assert f"(with {before + 1} CPU threads and not {before}): nothing to do" in capsys.readouterr().err


def test_a_folder_with_a_config_of_something_else_is_no_run_folder(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("somebody: else's")
    (tmp_path / "thesis.tex").write_text("not ours")
    for extra in ((), ("--overwrite=true",), ("--resume=never",)):
        assert run([*options(world, tmp_path), *extra]) == 2
        assert "is not empty and is not a training run" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "thesis.tex"]


def test_a_disk_without_room_is_one_line_and_leaves_no_half_written_files(
    world: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    command = f"{limit}; sys.argv[0] = 'run.py'; from training.run import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", command, *options(world, output)],
        cwd=REPOSITORY,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --output ") and "Traceback" not in done.stderr
    assert {path.name for path in output.iterdir()} == {"run.json", "config.yaml", "data.json", "log.jsonl"}


def test_a_run_outlives_neither_its_launcher_nor_its_work(world: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--cpu", "--num_processes", "1",
                "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
    process = subprocess.Popen(
        [
            *launcher,
            "training/run.py",
            *options(world, output, "--optim.epochs=2000", "--save.every=0", "--save.minutes=9"),
        ],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
    )
    wait_for_steps(process, output, 3)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    deadline = time.monotonic() + 60
    while not (output / STATE / "state.json").is_file():
        assert time.monotonic() < deadline, "the process goes on without its launcher"
        time.sleep(0.05)
    assert 3 <= json.loads((output / STATE / "state.json").read_text())["progress"]["step"] < 4000


def test_two_processes_that_were_killed_continue_identically(world: Path, tmp_path: Path) -> None:
    def launched(output: Path) -> "subprocess.Popen[str]":
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        return subprocess.Popen(
            [*torchrun, "training/run.py", *options(world, output, "--threads=1", "--optim.epochs=6")],
            cwd=REPOSITORY,
            env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    whole, output = tmp_path / "whole", tmp_path / "run"
    assert launched(whole).communicate(timeout=120) and (whole / FINISHED).is_file()
    process = launched(output)
    wait_for_steps(process, output, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (output / FINISHED).exists()
    assert launched(output).communicate(timeout=120) and (output / FINISHED).is_file()
    assert losses(output) == losses(whole) and len(losses(output)) == 12
    weights = f"{CHECKPOINT}/{WEIGHTS}"
    assert (output / weights).read_bytes() == (whole / weights).read_bytes()
    # BatchNorm apart, which this model has not, one process takes the same steps up to rounding.
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(options(world, tmp_path / "alone", "--threads=1", "--optim.epochs=6")) == 0
    assert losses(tmp_path / "alone")[0] == pytest.approx(losses(whole)[0], abs=2e-6)
    assert losses(tmp_path / "alone") == pytest.approx(losses(whole), rel=1e-2)


def test_there_must_be_something_to_continue_if_it_is_asked_for(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*options(world, tmp_path / "run"), "--resume=must"]) == 2
    assert "no unfinished run to continue" in capsys.readouterr().err
    assert run([*options(world, tmp_path / "run"), "--resume=always"]) == 2
    assert "is not one of auto, never, must" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_second_interrupt_does_not_wait_for_the_step_to_end() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_log_of_a_continued_run_tells_each_step_once(
    unfinished: Path, world: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(unfinished, output)
    with (output / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "loss": 99.0}\n{"step": 7, "lo')  # logged after the state was saved, and torn
    assert run(options(world, output)) == 0
    steps = [
        json.loads(line)["step"] for line in (output / "log.jsonl").read_text().splitlines() if "loss" in line
    ]
    assert steps == list(range(1, STEPS + 1))
    assert_like_the_uninterrupted(world, output)


def test_a_compiled_run_takes_the_same_steps_and_goes_on_without_compilation(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(arguments(world, tmp_path / "plain", "--threads=1")) == 0
    reset_accelerate()
    bounds, taken = NBClipRun.after_step, [0]

    def after_step(self: NBClipRun) -> None:
        bounds(self)
        taken[0] += 1
        if taken[0] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as compiled:
        compiled.setenv(
            "ACCELERATE_DYNAMO_BACKEND", "AOT_EAGER"
        )  # as the launcher passes --dynamo_backend on
        compiled.setattr(NBClipRun, "after_step", after_step)
        assert run(arguments(world, tmp_path / "run", "--threads=1")) == 128 + signal.SIGTERM
    reset_accelerate()
    assert run(arguments(world, tmp_path / "run", "--threads=1", "--resume=must")) == 0
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
