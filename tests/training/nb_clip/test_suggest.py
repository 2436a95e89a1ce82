"""The suggested policy: as soft as promised, on any scale of similarities, and honest where nothing is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kg_targets.losses.policies import fixed_mass_policy, pair_structure
from tests.processes import kg_targets
from tests.training.tiny import write_store
from training.errors import ConfigError
from training.nb_clip.suggest import ALPHA, SOFT_POSITIVES, suggest_policy

main = kg_targets("suggest-policy")


class Store:
    """As much of a store as is asked for: one case per image, similarities of its own."""

    def __init__(self, similarity: np.ndarray, known: bool = True) -> None:
        self.similarity = similarity.astype(np.float32)
        self.known = np.full(len(similarity), known)
        self.cases = np.arange(len(similarity))

    def __len__(self) -> int:
        return len(self.similarity)

    def block(self, rows: np.ndarray) -> np.ndarray:
        return self.similarity[np.ix_(rows, rows)]


def similarities(size: int, scale: float = 1.0) -> np.ndarray:
    factors = np.abs(np.random.default_rng(0).normal(size=(size, 6)))
    factors /= np.linalg.norm(factors, axis=1, keepdims=True)
    return np.asarray(scale * (factors @ factors.T))


@pytest.mark.parametrize("scale", [1.0, 0.2])
@pytest.mark.parametrize("batch", [64, 256])
def test_soft_mass_goes_to_as_many_soft_positives_as_promised_on_any_scale(scale: float, batch: int) -> None:
    found = suggest_policy(Store(similarities(256, scale)), batch)  # type: ignore[arg-type]
    assert found.policy.name == "fixed_mass" and found.policy.alpha == ALPHA
    assert found.soft_positives == pytest.approx(SOFT_POSITIVES, rel=0.15)
    whole = torch.as_tensor(similarities(256, scale))
    pairs = pair_structure(whole)
    targets = fixed_mass_policy(whole, ALPHA, found.policy.used_temperature, pairs=pairs).double().numpy()
    if batch == 256:  # every batch is the whole store: the same number by hand
        soft = np.where(np.eye(256, dtype=bool), 0, targets)
        soft /= soft.sum(axis=1, keepdims=True)
        entropy = -np.sum(np.where(soft > 0, soft * np.log(np.where(soft > 0, soft, 1)), 0), axis=1)
        assert np.exp(entropy).mean() == pytest.approx(found.soft_positives, rel=1e-3)


def test_similarities_ten_times_smaller_get_a_temperature_ten_times_smaller() -> None:
    wide, narrow = (
        suggest_policy(Store(similarities(128, s)), 128).policy.used_temperature for s in (1.0, 0.1)
    )  # type: ignore[arg-type]
    assert narrow == pytest.approx(wide / 10, rel=0.05)


@pytest.mark.parametrize("known", [True, False])
def test_where_nothing_is_similar_it_says_to_train_without(known: bool) -> None:
    found = suggest_policy(Store(np.eye(32), known), 16)  # type: ignore[arg-type]
    assert found.policy.name == "identity" and "nothing to soften by" in found.reason


@pytest.mark.parametrize("size", [1, 33])
def test_a_batch_that_the_store_cannot_fill_is_told(size: int) -> None:
    with pytest.raises(ConfigError, match=r"--batch-size: .* at most 32"):
        suggest_policy(Store(np.eye(32)), size)  # type: ignore[arg-type]


def test_the_command_prints_a_block_that_a_config_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "train", tmp_path / "data", "train")
    assert main(["--store", str(store), "--batch-size", "8"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# ") and "policy:\n  name: fixed_mass\n" in printed
    assert main(["--store", str(store), "--batch-size", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["policy"]["name"] == "fixed_mass"
    assert main(["--store", str(tmp_path), "--batch-size", "8"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
