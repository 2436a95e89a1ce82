"""Training on what frozen layers made once: the same run again, shared over runs, one process or two."""

import os
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from tests import REPOSITORY
from tests.training.tiny import arguments, losses, write_world
from training.run import main as run

WEIGHTS = Path("checkpoint") / "open_clip_model.safetensors"

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_world(folder)
    return folder


def cached(world: Path, output: Path, *extra: str) -> list[str]:
    return arguments(
        world, output, "--model.name=lite0-tiny-text", "--model.image_size=32", "--model.lock_image=true",
        "--model.lock_image_unlocked_groups=2", "--model.freeze_batch_norm=true", "--data.cached_views=3",
        f"--data.cache={world / 'cache'}", "--threads=1", *extra,
    )  # fmt: skip


def test_a_second_run_reads_the_cache_and_is_the_same_to_the_bit(world: Path, tmp_path: Path) -> None:
    assert run(cached(world, tmp_path / "a")) == 0
    files = {path: path.stat().st_mtime_ns for path in (world / "cache").rglob("*.npy")}
    assert len(files) == 28  # 16 images in three views each, 12 of dev as they are
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(cached(world, tmp_path / "b")) == 0
    assert {path: path.stat().st_mtime_ns for path in (world / "cache").rglob("*.npy")} == files
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


def test_the_checkpoint_is_the_whole_model_and_only_what_is_unlocked_moved(
    world: Path, tmp_path: Path
) -> None:
    assert run(cached(world, tmp_path / "short", "--optim.max_steps=1")) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(cached(world, tmp_path / "long", "--optim.lr=0.01")) == 0
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("short", "long"))
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    trunk = {name for name in moved if name.startswith("visual.trunk.")}
    last_two = tuple(f"visual.trunk.{part}" for part in ("blocks.5.3", "blocks.6", "conv_head", "bn2"))
    assert trunk and all(name.startswith(last_two) for name in trunk)
    open_clip.create_model(f"local-dir:{tmp_path / 'long' / 'checkpoint'}")


def test_two_processes_begin_with_the_loss_of_one(world: Path, tmp_path: Path) -> None:
    assert run(cached(world, tmp_path / "one", "--optim.max_steps=1")) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = cached(world, tmp_path / "two", "--optim.max_steps=1", f"--data.cache={tmp_path / 'cache'}")
    done = subprocess.run(
        [*launch, "training/run.py", *options],
        cwd=REPOSITORY,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--model.lock_image=false", "model.lock_image_unlocked_groups needs model.lock_image true"),
        ("--data.in_memory=false", "data.cached_views keeps features of all images in memory"),
        ("--data.cached_views=-1", "data.cached_views: -1 must be at least 0"),
        ("--data.cache=", "data.cache is empty"),
    ],
)
def test_contradictions_are_told_on_one_line(
    extra: str, message: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cached(world, tmp_path / "run", extra)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
