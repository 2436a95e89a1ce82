"""Images above a similarity are neither pulled nor pushed: what is masked, and what is left of the targets."""

from typing import cast

import numpy as np
import pytest
import torch

from kg_targets.losses.contrastive import info_nce_loss, semantic_matching_loss
from kg_targets.store import TargetStore
from tests.training.data.test_data import configure
from tests.training.nb_clip.fakes import FakeStore
from training.errors import ConfigError
from training.nb_clip.batch_targets import TargetBuilder, Targets
from training.nb_clip.config import LossConfig, PolicyConfig

SIMILARITY = np.array(
    [[1.0, 0.9, 0.4, 0.1], [0.3, 1.0, 0.2, 0.8], [0.4, 0.2, 1.0, 0.5], [0.1, 0.8, 0.5, 1.0]]
)
"""Asymmetric at images 0 and 1."""
ROWS = torch.arange(4)


def targets(
    loss: str,
    exclude: float | str | None,
    policy: str = "evidence",
    cases: str = "abcd",
    mask_cases: bool = True,
) -> Targets:
    config = LossConfig(name=loss, exclude_related=exclude, mask_same_case=mask_cases)  # type: ignore[arg-type]
    store = cast(TargetStore, FakeStore(SIMILARITY, [True] * 4, list(cases)))
    return TargetBuilder(store, config, PolicyConfig(name=policy, threshold=0.25))(ROWS, ROWS, 0)


@pytest.mark.parametrize("loss", ["info_nce", "semantic_matching", "mse", "sigmoid"])
def test_pairs_that_are_similar_in_either_direction_are_masked_and_the_true_pair_never(loss: str) -> None:
    expected = torch.zeros(4, 4, dtype=torch.bool)
    for i, j in ((0, 1), (1, 3)):
        expected[i, j] = expected[j, i] = True
    found = targets(loss, 0.6)
    assert found.mask is not None and torch.equal(found.mask, expected)
    assert not found.i2t[expected].any() and not found.t2i[expected].any()
    assert targets(loss, None).mask is None


def test_what_lies_between_the_policy_and_the_exclusion_still_takes_mass() -> None:
    found = targets("semantic_matching", 0.6)
    assert found.i2t[2, 3] > 0 and found.i2t[0, 2] > 0
    np.testing.assert_allclose(found.i2t.sum(dim=1).numpy(), 1, atol=1e-6)


def test_the_stores_own_threshold_can_be_meant() -> None:
    found, expected = targets("info_nce", "threshold"), targets("info_nce", FakeStore.threshold)
    assert found.mask is not None and torch.equal(found.mask, cast(torch.Tensor, expected.mask))
    assert torch.equal(found.i2t, torch.eye(4))


def test_infonce_with_exclusion_is_the_softmax_over_what_is_left() -> None:
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = targets("info_nce", 0.6)
    mask = cast(torch.Tensor, found.mask)
    loss = info_nce_loss(logits, logits.T, 0, mask=mask)
    rows = [
        float(torch.logsumexp(z[row][~mask[row]], 0) - z[row, row])
        for z in (logits, logits.T)
        for row in range(4)
    ]
    assert float(loss) == pytest.approx(sum(rows) / 8, abs=1e-6)
    same = semantic_matching_loss(logits, logits.T, found.i2t, found.t2i, mask=mask)
    assert float(same) == pytest.approx(float(loss), abs=1e-6)


def test_images_of_one_case_keep_the_weight_that_a_control_gives_them() -> None:
    found = targets("semantic_matching", 0.6, "same_case", "aabc", mask_cases=False)
    assert found.mask is not None and not found.mask[0, 1] and found.mask[1, 3]
    assert found.i2t[0, 1] > 0 and found.i2t[1, 3] == 0
    both = targets("semantic_matching", 0.6, "evidence", "aabc")
    assert both.mask is not None and both.mask[0, 1] and both.mask[1, 3]


def test_contradictions_and_wrong_values_are_named() -> None:
    assert configure("--loss.exclude_related=0.4").loss.exclude_related == 0.4
    assert (
        configure("--loss.exclude_related=threshold", "--loss.name=info_nce").loss.exclude_related
        == "threshold"
    )
    with pytest.raises(ConfigError, match=r"loss\.exclude_related: 1.0 must be"):
        LossConfig(exclude_related=1.0)
    with pytest.raises(ConfigError, match="takes out every pair"):
        configure("--loss.exclude_related=threshold", "--policy.name=evidence")
    with pytest.raises(ConfigError, match=r"loss\.exclude_related"):
        configure("--loss.exclude_related=much")
