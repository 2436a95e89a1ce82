"""Every loss through the command line for two steps on drawn images, and what a run keeps of it."""

import json
from pathlib import Path

import open_clip
import pytest
from accelerate.state import AcceleratorState

from kg_targets.losses.registry import LOSSES
from tests.training.tiny import arguments, write_world
from training.clip.load import load_clip
from training.run import main as run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_world(folder)
    return folder


def log(output: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_takes_two_steps_and_leaves_a_checkpoint_that_open_clip_loads(
    loss: str, world: Path, tmp_path: Path
) -> None:
    assert run(arguments(world, tmp_path / "run", f"--loss.name={loss}", "--optim.max_steps=2")) == 0
    first, second = log(tmp_path / "run")
    assert {"loss", "kl", "diagonal", "positives", "entropy", "logit_scale"} <= first.keys()
    assert (first["logit_scale"] == second["logit_scale"]) == (loss == "mse")
    assert ("logit_bias" in first) == (loss == "sigmoid")
    model = open_clip.create_model(f"local-dir:{tmp_path / 'run' / 'checkpoint'}")
    assert (model.logit_bias is not None) == (loss == "sigmoid")


def test_sigmoid_continues_with_the_bias_of_its_start_model_and_other_losses_leave_it_alone(
    world: Path, tmp_path: Path
) -> None:
    assert run(arguments(world, tmp_path / "a", "--loss.name=sigmoid", "--optim.max_steps=2")) == 0
    start = f"local-dir:{tmp_path / 'a' / 'checkpoint'}"
    learnt = load_clip(start, logit_bias=-10.0).model.logit_bias.item()
    assert learnt == load_clip(start).model.logit_bias.item() != -10.0
    AcceleratorState._reset_state(reset_partial_state=True)
    extra = ("--optim.max_steps=2", "--model.name", start)
    assert run(arguments(world, tmp_path / "b", *extra)) == 0
    assert load_clip(f"local-dir:{tmp_path / 'b' / 'checkpoint'}").model.logit_bias.item() == learnt


def test_identity_mix_starts_at_the_true_pairs_and_ends_at_the_policys_targets(
    world: Path, tmp_path: Path
) -> None:
    ramp = ("--policy.identity_mix_start=1", "--policy.identity_mix_share=0.5", "--optim.epochs=2")
    assert run(arguments(world, tmp_path / "ramp", *ramp)) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(arguments(world, tmp_path / "plain", "--optim.epochs=2")) == 0
    mixed, plain = ([line["diagonal"] for line in log(tmp_path / name)] for name in ("ramp", "plain"))
    assert mixed[0] == 1.0 and mixed[2:] == plain[2:] and plain[0] < mixed[1] < 1.0


def test_a_run_in_micro_batches_has_the_curve_of_the_run_on_whole_batches(
    world: Path, tmp_path: Path
) -> None:
    """Three steps with augmentation: each slice of the batch has to be moved as the whole batch moves it."""
    assert run(arguments(world, tmp_path / "whole", "--optim.max_steps=3")) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    pieces = ("--loss.micro_batch=3", "--optim.max_steps=3")
    assert run(arguments(world, tmp_path / "pieces", *pieces)) == 0
    whole, pieces_log = log(tmp_path / "whole"), log(tmp_path / "pieces")
    assert len(whole) == len(pieces_log) == 3
    for expected, found in zip(whole, pieces_log, strict=True):
        for name in ("loss", "kl", "logit_scale", "diagonal"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4), name


def test_micro_batches_of_a_model_with_batch_norm_need_it_frozen_and_nothing_is_begun_before(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model.name=demo-resnet", "--loss.micro_batch=4", "--optim.max_steps=1")
    assert run(arguments(world, tmp_path / "run", *flags)) == 2
    assert "--model.freeze_batch_norm=true or --loss.micro_batch=null" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(arguments(world, tmp_path / "run", *flags, "--model.freeze_batch_norm=true")) == 0


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--loss.micro_batch=0", "loss.micro_batch: 0 must be at least 1"),
        (
            "--policy.identity_mix_start=1.5",
            "policy.identity_mix_start: 1.5 must be at least 0 and at most 1",
        ),
        ("--policy.identity_mix_share=0", "policy.identity_mix_share: 0.0 must be at least"),
        ("--loss.init_bias=-1000", "loss.init_bias: -1000.0 must be at least -100"),
        ("--loss.name=siglip", "is not one of semantic_matching, info_nce, mse, sigmoid"),
    ],
)
def test_options_of_losses_outside_their_range_are_named(
    flag: str, message: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(world, tmp_path / "run", flag)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_store_with_a_flipped_bit_is_not_trained_on(
    split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = write_world(tmp_path)
    shard = world / split / "targets" / "part-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    assert run(arguments(world, tmp_path / "run", "--optim.max_steps=2")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "does not match its checksum" in error
    assert not (tmp_path / "run").exists()
