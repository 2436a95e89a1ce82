"""The loss in ranges of rows: value and gradient beside float64 in one piece, for every loss, policy and mask."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kg_targets.errors import ShapeError
from kg_targets.losses import chunked, chunked_loss
from kg_targets.losses.contrastive import ContrastiveBatch
from kg_targets.losses.policies import pair_structure, similarity_targets
from kg_targets.losses.registry import LOSSES, POLICIES, bind_policy

LOCAL, GLOBAL, OFFSET, WIDTH = 7, 11, 3, 5
"""A process of several: its row i has its true pair in column 3 + i. Ranges of three rows, the last one of one."""


@pytest.fixture(autouse=True)
def three_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(chunked, "rows_at_once", lambda *_: 3)
    yield


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def leaves(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Features of all processes, unit, and a scale and a bias, that collect gradients."""
    features = {"all_image": draw(GLOBAL, WIDTH), "all_text": draw(GLOBAL, WIDTH, seed=1)}
    found = {name: torch.nn.functional.normalize(value, dim=-1) for name, value in features.items()}
    found |= {"scale": torch.tensor(9.0).double(), "bias": torch.tensor(-3.0).double()}
    return {name: value.to(dtype).requires_grad_() for name, value in found.items()}


def mask(excluded: str) -> Tensor | None:
    """Images of one case, which is symmetric over the batch, or those and many more; None: nobody."""
    if excluded == "nothing":
        return None
    cases = torch.tensor([0, 1, 2, 0, 1, 3, 4, 5, 4, 0, 6])
    same = cases[OFFSET : OFFSET + LOCAL, None] == cases
    if excluded == "related":
        same |= draw(LOCAL, GLOBAL, seed=5) > 0.5
    same.diagonal(OFFSET).fill_(False)
    return same


def targets_of(policy: str, similarity: Tensor, excluded: Tensor | None) -> Tensor:
    known = torch.arange(GLOBAL) != 4
    pairs = pair_structure(similarity, OFFSET, known[OFFSET : OFFSET + LOCAL], known, excluded)
    if policy == "similarity":
        return similarity_targets(similarity, pairs=pairs)
    return bind_policy(policy, 0.3, 0.6, 0.2, 1.5)(similarity, pairs=pairs)


def in_one_piece(
    name: str, leaf: dict[str, Tensor], targets: list[Tensor], excluded: Tensor | None
) -> Tensor:
    """The losses of methods.md §1.4 by their definition, in the leaves' own precision."""
    local = slice(OFFSET, OFFSET + LOCAL)
    image, text = leaf["all_image"], leaf["all_text"]
    rows = [image[local] @ text.T, text[local] @ image.T]
    hidden = torch.zeros(LOCAL, GLOBAL, dtype=torch.bool) if excluded is None else excluded
    if name == "mse":
        return ((rows[0] - targets[0]).square() * ~hidden).sum() / (LOCAL * GLOBAL)
    if name == "sigmoid":
        z, t = leaf["scale"] * rows[0] + leaf["bias"], targets[0].clamp(0, 1)
        terms = t * torch.nn.functional.logsigmoid(z) + (1 - t) * torch.nn.functional.logsigmoid(-z)
        return -(terms * ~hidden).sum() / LOCAL
    total = torch.zeros((), dtype=rows[0].dtype)
    for cosines, weights in zip(rows, targets, strict=True):
        z = leaf["scale"] * cosines
        log = z - z.masked_fill(hidden, -torch.inf).logsumexp(dim=1, keepdim=True)
        total = total - 0.5 * (weights * log.masked_fill(hidden, 0)).sum() / LOCAL
    return total


def in_chunks(
    name: str, leaf: dict[str, Tensor], targets: list[Tensor], excluded: Tensor | None
) -> tuple[Tensor, list[tuple[int, int]]]:
    loss, local = LOSSES[name], slice(OFFSET, OFFSET + LOCAL)
    asked = []

    def of_rows(logits_i2t: Tensor, logits_t2i: Tensor, start: int, stop: int) -> Tensor:
        asked.append((start, stop))
        part = [target[start:stop] for target in targets]
        hidden = None if excluded is None else excluded[start:stop]
        return loss.compute(ContrastiveBatch(logits_i2t, logits_t2i, *part, OFFSET + start, hidden))

    value = chunked_loss(
        leaf["all_image"][local], leaf["all_text"][local], of_rows,
        scale=leaf["scale"] if loss.scaled else None, bias=leaf["bias"] if loss.biased else None,
        all_image=leaf["all_image"], all_text=leaf["all_text"],
    )  # fmt: skip
    return value, asked


CASES = [
    *(("semantic_matching", policy) for policy in POLICIES),
    ("info_nce", "identity"),
    ("mse", "similarity"),
    ("sigmoid", "similarity"),
]


@pytest.mark.parametrize(("name", "policy"), CASES)
@pytest.mark.parametrize("excluded", ["nothing", "one case", "related"])
def test_value_and_gradients_are_those_of_float64_in_one_piece(name: str, policy: str, excluded: str) -> None:
    hidden = mask(excluded)
    similarities = [draw(LOCAL, GLOBAL, seed=seed).sigmoid() for seed in (2, 3)]  # asymmetric
    targets = [targets_of(policy, similarity, hidden) for similarity in similarities]
    wide, narrow = leaves(torch.float64), leaves()
    expected = in_one_piece(name, wide, [each.double() for each in targets], hidden)
    found, asked = in_chunks(name, narrow, targets, hidden)
    assert asked == [(0, 3), (3, 6), (6, 7)] and found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    (2 * found).backward()  # what a loss scaler does
    for leaf, reference in zip(narrow.values(), wide.values(), strict=True):
        if reference.grad is None:
            assert leaf.grad is None
            continue
        assert leaf.grad is not None
        error = (leaf.grad.double() / 2 - reference.grad).norm()
        assert error <= 1e-5 * reference.grad.norm()


@pytest.mark.parametrize("learnt", [(), ("scale",), ("scale", "bias")])
def test_the_gradient_is_the_slope_of_the_loss(learnt: tuple[str, ...]) -> None:
    leaf, targets = leaves(torch.float64), draw(LOCAL, GLOBAL).softmax(-1)
    others = [leaf[name].detach().requires_grad_(name in learnt) for name in ("scale", "bias")]

    def loss_of_rows(logits_i2t: Tensor, logits_t2i: Tensor, start: int, stop: int) -> Tensor:
        both = logits_i2t.log_softmax(-1) + logits_t2i.sigmoid()
        return -(targets[start:stop] * both).sum(-1).mean()

    def loss(all_image: Tensor, all_text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        local = slice(OFFSET, OFFSET + LOCAL)
        return chunked_loss(
            all_image[local], all_text[local], loss_of_rows, scale=scale, bias=bias, all_image=all_image,
            all_text=all_text,
        )  # fmt: skip

    assert torch.autograd.gradcheck(loss, (leaf["all_image"], leaf["all_text"], *others))


def test_features_of_half_precision_are_scored_in_float32_under_autocast_too() -> None:
    image, text = (draw(LOCAL, WIDTH, seed=seed).bfloat16().requires_grad_() for seed in (0, 1))
    seen: list[torch.dtype] = []

    def loss_of_rows(logits_i2t: Tensor, logits_t2i: Tensor, *_: int) -> Tensor:
        seen.extend((logits_i2t.dtype, (logits_i2t @ logits_t2i.T).dtype))
        return logits_i2t.mean()

    with torch.autocast("cpu", torch.bfloat16):
        loss = chunked_loss(image, text, loss_of_rows)
    loss.backward()
    assert set(seen) == {torch.float32} and loss.dtype == torch.float32
    assert image.grad is not None and image.grad.dtype == torch.bfloat16


def test_without_gradient_nothing_but_the_value_is_computed() -> None:
    image, text = draw(LOCAL, WIDTH), draw(LOCAL, WIDTH)
    asked: list[bool] = []

    def loss_of_rows(logits_i2t: Tensor, logits_t2i: Tensor, *_: int) -> Tensor:
        asked.append(logits_i2t.requires_grad or logits_t2i.requires_grad)
        return logits_i2t.mean()

    found = chunked_loss(image, text, loss_of_rows)
    assert not any(asked) and not found.requires_grad
    np.testing.assert_allclose(found.item(), (image @ text.T).mean().item(), rtol=1e-6)


def test_features_that_do_not_fit_are_an_error() -> None:
    given: Any = draw(4, 5), draw(3, 5), lambda *_: None
    with pytest.raises(ShapeError, match=r"got \[4, 5\], \[3, 5\], \[4, 5\], \[3, 5\]"):
        chunked_loss(*given)


def test_small_batches_are_one_piece_and_large_ones_take_the_memory_of_a_few_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    for device, piece, few in (
        (torch.device("cpu"), 1 << 10, 1 << 21),
        (torch.device("cuda"), 1 << 11, 1 << 24),
    ):
        assert chunked.rows_at_once(piece, device) == piece
        assert all(chunked.rows_at_once(size, device) * size <= few for size in (1 << 12, 1 << 14, 1 << 15))
