"""A loss and a target policy are added by one function and one line in the registry: the command trains with them."""

import json
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from kg_targets.losses.policies import Pairs, pair_structure
from kg_targets.losses.registry import LOSSES, POLICIES, Loss, TargetPolicy
from tests.training.tiny import arguments, losses, write_store
from training.run import main as run

pytestmark = pytest.mark.e2e


def dummy_loss(
    logits_i2t: Tensor,
    logits_t2i: Tensor,
    targets_i2t: Tensor,
    targets_t2i: Tensor,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Squared error between probabilities and targets."""
    return ((logits_i2t.softmax(-1) - targets_i2t) ** 2).mean() + (
        (logits_t2i.softmax(-1) - targets_t2i) ** 2
    ).mean()


def dummy_policy(similarity: Tensor, alpha: float, *, pairs: Pairs | None = None) -> Tensor:
    """α for the true pair; the rest goes to nobody."""
    return alpha * (pairs or pair_structure(similarity)).positive.float()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setitem(LOSSES, "dummy", Loss(dummy_loss, "policy", "squared error of probabilities"))
    monkeypatch.setitem(POLICIES, "dummy", TargetPolicy(dummy_policy, ("alpha",)))


def test_an_added_loss_and_policy_train_by_the_command(tmp_path: Path) -> None:
    write_store(tmp_path / "train", tmp_path / "data", "train")
    write_store(tmp_path / "dev", tmp_path / "data", "dev", images=12)
    added = ("--loss.name", "dummy", "--policy.name", "dummy", "--policy.alpha=0.5", "--optim.max_steps=3")
    assert run(arguments(tmp_path, tmp_path / "run", *added)) == 0
    assert len(losses(tmp_path / "run")) == 3 and (tmp_path / "run" / "finished.json").is_file()
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["diagonal"] == 0.5 and 0 < first["loss"] < 1 and torch.isfinite(torch.tensor(first["kl"]))


def test_a_name_that_is_not_registered_lists_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, known in (("--loss.name=other", "sigmoid, dummy"), ("--policy.name=other", "same_case, dummy")):
        assert run(arguments(tmp_path, tmp_path / "run", flag)) == 2
        assert capsys.readouterr().err.endswith(f'"other" is not one of {", ".join(_names(flag))}\n')
        assert known in ", ".join(_names(flag))


def _names(flag: str) -> list[str]:
    return list(LOSSES if flag.startswith("--loss") else POLICIES)
