"""How training begins and ends under a launcher, and what it needs installed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from tests import REPOSITORY
from tests.training.tiny import arguments, losses, write_world
from training import run as module
from training.arguments import read_config, to_yaml
from training.engine import process
from training.nb_clip.config import TrainConfig

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SCRIPT = str(REPOSITORY / "training" / "run.py")
ENVIRONMENT = {
    **os.environ,
    "ACCELERATE_USE_CPU": "true",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(REPOSITORY),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_world(folder)
    return folder


@pytest.mark.parametrize("launcher", [ACCELERATE, TORCHRUN], ids=["accelerate", "torchrun"])
def test_a_users_error_is_the_last_line_below_the_launchers_own_words(
    launcher: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [*launcher, SCRIPT, "--optim.lrr", "3"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    told = 'error: command line: "optim.lrr" is not a config field of nb_clip (did you mean "optim.lr"?)'
    assert done.returncode != 0
    assert (
        done.stderr.count(told) == 1
        and done.stderr.splitlines()[-1] == told
        and "Error" in done.stderr.replace(told, "")
    )
    assert done.stdout == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["no temporary folder", "no process left"])
def test_a_line_that_cannot_wait_is_written_at_once(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise OSError(11, broken)

    monkeypatch.setattr(process, "_launcher", lambda: [b"accelerate"])
    monkeypatch.setattr(
        *((process.tempfile, "gettempdir") if "folder" in broken else (process.os, "fork")), fail
    )
    process.tell_last("error: mend it")
    assert capsys.readouterr().err == "error: mend it\n"


def test_ctrl_c_under_accelerate_ends_with_our_line_and_the_same_command_continues(
    world: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    command = [*ACCELERATE, SCRIPT, *arguments(world, output, "--optim.epochs=2000")]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (output / "log.jsonl").is_file() or not losses(output):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=120)[1]
    last = errors.splitlines()[-1]
    assert re.fullmatch(r"stopped after step \d+ of .*, saved in .*: the same command continues", last)


def test_without_arguments_the_demo_is_trained(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert module.main([]) == 2
    told = capsys.readouterr().err
    assert "build/demo/train" in told and "make targets DATASET=demo" in told and told.count("\n") == 1
    assert read_config(TrainConfig, [f"--config={module.DEMO}"]).data.train_store == "build/demo/train"
    for split in ("train", "dev"):
        (tmp_path / "build" / "demo").mkdir(parents=True, exist_ok=True)
        (tmp_path / "build" / "demo" / split).symlink_to(world / split)
    small = tmp_path / "small.yaml"
    small.write_text(
        to_yaml(read_config(TrainConfig, arguments(world, tmp_path / "run", "--optim.max_steps=1")))
    )
    monkeypatch.setattr(module, "DEMO", small)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert module.main([]) == 0
    assert len(losses(tmp_path / "run")) == 1 and "no arguments: the demo" in capsys.readouterr().err


PLATFORM = (
    *("torch", "torchvision", "transformers", "accelerate", "timm", "pyarrow", "pandas", "scipy", "numpy"),
    *("open_clip_torch", "ftfy", "jsonargparse", "docstring_parser"),
)
"""What a GPU platform without internet has, the last four added as pure Python wheels."""


def closure(names: tuple[str, ...]) -> set[str]:
    """Distributions that come with these, by normalised name, without their extras."""
    found: set[str] = set()
    pending = [name.lower().replace("_", "-") for name in names]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        for requirement in required:
            if "extra ==" not in requirement:
                pending.append(re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-"))  # type: ignore[index]
    return found


SMALL = ("--optim.max_steps=1", "--log.trackers=none", "--output=run")
TINY = ("--data.batch_size=8", "--data.cache=cache", "--model.preset=tiny", "--model.text=bert", *SMALL)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the platform's packages alone, as links."""
    site = tmp_path_factory.mktemp("site")
    for name in closure(PLATFORM):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    assert not any(
        (site / name).exists() for name in ("pytest", "matplotlib", "tensorboard", "sparse_dot_topn")
    )
    return site


@pytest.mark.parametrize(
    "flags",
    [
        ("--model.name=local-dir:clip", "--data.train_store=stores/train", "--data.dev_store=stores/test",
         "--data.data_root=data", "--data.batch_size=8", "--select=cui@2", *SMALL),
        ("--task=med_vqa_pretrain", "--data.store=stores/train", "--data.data_root=data", "--data.dev_share=0.2",
         "--soft_labels=[{store: teacher/train}, {store: stores/train}]", *TINY),
        ("--task=med_vqa_finetune", "--data.dataset=vqa_rad", "--data.data_root=vqa",
         "--data.validation_share=0.2", *TINY),
    ],
    ids=["nb_clip", "pretrain", "finetune"],
)  # fmt: skip
def test_training_runs_with_nothing_installed_beyond_the_gpu_platforms_list(
    flags: tuple[str, ...], platform: Path, tmp_path: Path
) -> None:
    shutil.copytree(REPOSITORY / "tests" / "data" / "written_by_v0", tmp_path, dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-S", SCRIPT, *flags],
        cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": str(platform)}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "finished.json").is_file()
