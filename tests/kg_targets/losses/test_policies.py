"""Target policies against float64 loops, and the promises they make about who receives mass."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from kg_targets.losses import policies
from kg_targets.losses.policies import (
    Pairs,
    evidence_policy,
    fixed_mass_policy,
    pair_structure,
    softmax_policy,
)
from kg_targets.losses.registry import POLICIES, bind_policy
from training.errors import ConfigError, ShapeError
from training.nb_clip.config import PolicyConfig

Array = NDArray[np.float64]
PARAMETERS = {"temperature": 0.3, "alpha": 0.6, "threshold": 0.2, "saturation": 1.5}


def reference(name: str, similarity: Array, pairs: Pairs) -> Array:
    """The policy in float64, row by row, straight from methods.md §1.4."""
    targets = np.zeros_like(similarity)
    for i in range(similarity.shape[0]):
        positive = int(pairs.positive[i].nonzero().item())
        others = [j for j in range(similarity.shape[1]) if pairs.soft_positives[i, j]]
        s = similarity[i]
        if name == "softmax":
            weights = {j: np.exp(s[j] / PARAMETERS["temperature"]) for j in [positive, *others]}
            for j, weight in weights.items():
                targets[i, j] = weight / sum(weights.values())
            continue
        if name == "fixed_mass":
            odds = {
                j: np.exp((s[j] - PARAMETERS["threshold"]) / PARAMETERS["temperature"]) - 1 for j in others
            }
            weights = {j: max(odd, 0.0) for j, odd in odds.items()}
            total = sum(weights.values())
            mass = (1 - PARAMETERS["alpha"]) * total / (1 + total)
        elif name in ("fixed_mass_softmax", "uniform", "same_case"):
            scale = PARAMETERS["temperature"] if name == "fixed_mass_softmax" else np.inf
            weights = {j: np.exp(s[j] / scale) for j in others}
            mass = 1 - PARAMETERS["alpha"] if others else 0.0
        elif name == "identity":
            weights, mass = {}, 0.0
        else:
            weights = {
                j: max(s[j] - PARAMETERS["threshold"], 0) / (1 - PARAMETERS["threshold"]) for j in others
            }
            mass = (1 - PARAMETERS["alpha"]) * min(1.0, sum(weights.values()) / PARAMETERS["saturation"])
        targets[i, positive] = 1 - mass
        for j, weight in weights.items():
            if mass > 0:
                targets[i, j] = mass * weight / sum(weights.values())
    return targets


def apply(name: str, similarity: Array, pairs: Pairs | None = None) -> torch.Tensor:
    return bind_policy(name, **PARAMETERS)(torch.tensor(similarity, dtype=torch.float32), pairs=pairs)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[Array, Pairs]:
    rows, ahead, behind = draw(st.integers(1, 6)), draw(st.integers(0, 4)), draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    columns = ahead + rows + behind
    similarity = rng.uniform(-1, 1, (rows, columns)).round(3)
    pairs = pair_structure(
        torch.tensor(similarity),
        offset=ahead,
        known_rows=torch.tensor(rng.random(rows) < 0.8),
        known_columns=torch.tensor(rng.random(columns) < 0.8),
        excluded=torch.tensor(rng.random((rows, columns)) < 0.2),
    )
    return similarity, pairs


@pytest.mark.parametrize("name", POLICIES)
@given(case=blocks())
@settings(max_examples=60, deadline=None)
def test_policies_equal_their_formulas_at_any_offset_and_rows_sum_to_one(
    name: str, case: tuple[Array, Pairs]
) -> None:
    similarity, pairs = case
    targets = apply(name, similarity, pairs)
    assert targets.dtype == torch.float32
    np.testing.assert_allclose(targets.numpy(), reference(name, similarity, pairs), atol=2e-6)
    np.testing.assert_allclose(targets.sum(dim=1).numpy(), 1, atol=1e-5)
    assert (targets[~(pairs.positive | pairs.soft_positives)] == 0).all()


@pytest.mark.parametrize("name", POLICIES)
def test_unknown_images_get_the_identity_and_receive_no_soft_mass(name: str) -> None:
    similarity = np.full((4, 4), 0.9)
    known = torch.tensor([True, True, False, True])
    pairs = pair_structure(torch.tensor(similarity), known_rows=known, known_columns=known)
    targets = apply(name, similarity, pairs)
    assert targets[2].tolist() == [0, 0, 1, 0]
    assert targets[[0, 1, 3], 2].tolist() == [0, 0, 0]
    assert ((targets[0, [1, 3]] > 0) == (name != "identity")).all()


@pytest.mark.parametrize("name", POLICIES)
def test_pairs_of_one_case_receive_no_mass(name: str) -> None:
    similarity = np.full((3, 3), 0.9)
    same_case = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    targets = apply(name, similarity, pair_structure(torch.tensor(similarity), excluded=same_case))
    assert targets[0, 1] == targets[1, 0] == 0
    assert (targets.diagonal() > 0).all()


@pytest.mark.parametrize("name", POLICIES)
def test_a_row_without_soft_positives_is_the_identity(name: str) -> None:
    similarity = np.eye(3)
    nobody = pair_structure(torch.tensor(similarity), known_rows=torch.zeros(3, dtype=torch.bool))
    assert torch.equal(apply(name, similarity, nobody), torch.eye(3))


def test_text_to_image_targets_come_from_the_transpose_of_an_asymmetric_similarity() -> None:
    similarity = np.random.default_rng(0).uniform(0, 1, (5, 5))
    np.fill_diagonal(similarity, 1)
    image_text, text_image = apply("evidence", similarity), apply("evidence", similarity.T)
    pairs = pair_structure(torch.tensor(similarity))
    np.testing.assert_allclose(text_image.numpy(), reference("evidence", similarity.T, pairs), atol=2e-6)
    assert not torch.allclose(text_image, image_text.T, atol=1e-3)
    np.testing.assert_allclose(text_image.sum(dim=1).numpy(), 1, atol=1e-6)


def test_evidence_keeps_the_true_pair_between_alpha_and_one_at_any_batch_size() -> None:
    for batch in (2, 64, 512):
        similarity = torch.full((batch, batch), 0.95)
        diagonal = evidence_policy(similarity, threshold=0.2, alpha=0.7).diagonal()
        assert (diagonal >= 0.7 - 1e-6).all() and (diagonal < 1).all()
    assert (
        softmax_policy(torch.full((512, 512), 0.5)).diagonal().max() < 0.01
    )  # a temperature is not a policy


@pytest.mark.parametrize("policy", [fixed_mass_policy, policies.fixed_mass_softmax_policy])
def test_fixed_mass_stays_finite_at_a_tiny_temperature(policy: Callable[..., Tensor]) -> None:
    similarity = torch.tensor([[1.0, 0.9, -1.0], [0.9, 1.0, 0.1], [-1.0, 0.1, 1.0]])
    targets = policy(similarity, alpha=0.7, temperature=1e-4)
    assert torch.isfinite(targets).all()
    torch.testing.assert_close(targets[0], torch.tensor([0.7, 0.3, 0.0]))


GRADED = ("fixed_mass", "evidence")
"""Policies whose soft mass vanishes with similarity."""


@pytest.mark.parametrize("name", GRADED)
@pytest.mark.parametrize("batch", [2, 3, 64])
def test_where_nothing_is_similar_the_row_is_the_identity(name: str, batch: int) -> None:
    assert torch.equal(apply(name, np.eye(batch)), torch.eye(batch))
    old = policies.fixed_mass_softmax_policy(torch.eye(3), 0.7)  # what it spent until version 0.3
    torch.testing.assert_close(old[0], torch.tensor([0.7, 0.15, 0.15]))


@pytest.mark.parametrize("name", GRADED)
@given(case=blocks(), column=st.integers(0, 12), step=st.floats(1e-6, 0.3))
@settings(max_examples=60, deadline=None)
def test_mass_rises_with_similarity_and_without_a_jump(
    name: str, case: tuple[Array, Pairs], column: int, step: float
) -> None:
    similarity, pairs = case
    column %= similarity.shape[1]
    raised = similarity.copy()
    raised[:, column] += step
    before, after = apply(name, similarity, pairs), apply(name, raised, pairs)
    soft = pairs.soft_positives[:, column]
    assert (after[soft, column] >= before[soft, column] - 1e-6).all()
    slope = 1 / (1 - PARAMETERS["threshold"]) / PARAMETERS["saturation"] + 1 / PARAMETERS["temperature"]
    assert ((after - before).abs() <= 2 * slope * step + 1e-5).all()


@pytest.mark.parametrize("name", GRADED)
def test_mass_goes_to_nothing_as_similarity_falls_to_the_threshold(name: str) -> None:
    masses = []
    for above in (0.3, 1e-2, 1e-4, 1e-6, 0.0, -0.1):
        similarity = np.eye(4)
        similarity[0, 1] = PARAMETERS["threshold"] + above
        masses.append(float(apply(name, similarity)[0, 1]))
    assert masses == sorted(masses, reverse=True)
    assert masses[0] > 0.05 and masses[3] < 1e-5 and masses[-2:] == [0.0, 0.0]


@pytest.mark.parametrize("name", ["softmax", "fixed_mass_softmax", *GRADED, "uniform"])
def test_images_in_another_order_get_the_same_targets(name: str) -> None:
    generator = np.random.default_rng(1)
    similarity, order = generator.uniform(0, 1, (9, 9)), generator.permutation(9)
    targets, mixed = apply(name, similarity), apply(name, similarity[np.ix_(order, order)])
    np.testing.assert_allclose(mixed.numpy(), targets.numpy()[np.ix_(order, order)], atol=1e-6)


def test_fixed_mass_is_nearly_all_spent_on_one_clear_soft_positive_at_any_batch_size() -> None:
    for batch in (2, 512):
        similarity = torch.eye(batch)
        similarity[0, 1] = 0.25
        targets = fixed_mass_policy(similarity.double(), alpha=0.7, temperature=0.05)
        assert targets[0, 1] == pytest.approx(0.3 * (1 - np.exp(-5)), abs=1e-6)
        assert targets[0, 0] == pytest.approx(1 - 0.3 * (1 - np.exp(-5)), abs=1e-6)


def test_wrong_shapes_and_names_are_named() -> None:
    with pytest.raises(ShapeError, match="does not fit"):
        pair_structure(torch.zeros(3, 5), offset=3)
    with pytest.raises(ShapeError, match="mask of shape"):
        pair_structure(torch.zeros(3, 5), known_columns=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ConfigError, match='"hard" is not one of softmax'):
        bind_policy("hard", **PARAMETERS)


@pytest.mark.parametrize(
    ("name", "expected"), [("softmax", 1.0), ("fixed_mass", 0.05), ("fixed_mass_softmax", 0.05)]
)
def test_each_policy_has_a_temperature_of_its_own(name: str, expected: float) -> None:
    assert PolicyConfig(name=name).used_temperature == expected
    assert PolicyConfig(name=name, temperature=0.3).used_temperature == 0.3
    with pytest.raises(ConfigError, match=r"policy\.temperature: 0 must be at least"):
        PolicyConfig(name=name, temperature=0)


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        (policies.softmax_policy, {"temperature": 0.0}, "temperature 0 must be above 0"),
        (policies.softmax_policy, {"temperature": -1.0}, "temperature -1 must be above 0"),
        (policies.fixed_mass_policy, {"temperature": float("nan")}, "temperature nan must be above 0"),
        (policies.fixed_mass_policy, {"threshold": 1.0}, "1 - threshold 0 must be above 0"),
        (policies.fixed_mass_policy, {"alpha": 2.0}, "alpha 2 must be above 0 and at most 1"),
        (policies.uniform_policy, {"alpha": 0.0}, "alpha 0 must be above 0 and at most 1"),
        (policies.evidence_policy, {"threshold": 1.0}, "1 - threshold 0 must be above 0"),
        (policies.evidence_policy, {"threshold": 0.1, "alpha": -0.1}, "alpha -0.1 must be above 0"),
        (policies.evidence_policy, {"threshold": 0.1, "saturation": 0.0}, "saturation 0 must be above 0"),
    ],
)
def test_parameters_out_of_range_are_refused(
    policy: Callable[..., Tensor], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        policy(torch.eye(3), **options)


@pytest.mark.parametrize(
    ("similarity", "masks"),
    [
        (torch.zeros(4), {}),
        (torch.zeros(2, 4), {"excluded": torch.zeros(4, 2, dtype=torch.bool)}),
        (torch.zeros(2, 4), {"excluded": torch.zeros(2, 4)}),
        (torch.zeros(2, 4), {"known_rows": torch.ones(4, dtype=torch.bool)}),
        (torch.zeros(2, 4), {"known_columns": torch.ones(4)}),
    ],
)
def test_masks_of_another_shape_or_type_are_refused(similarity: Tensor, masks: dict[str, Tensor]) -> None:
    with pytest.raises(ShapeError):
        policies.pair_structure(similarity, **masks)


def test_pairs_of_another_batch_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"pairs of \[2, 4\] do not fit S of \[1, 4\]"):
        policies.softmax_policy(torch.zeros(1, 4), pairs=policies.pair_structure(torch.zeros(2, 4)))
