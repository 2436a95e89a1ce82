"""Hard negatives and image-text matching: who may be drawn, how often, and what the drawn rows are made of."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.training.med_vqa import fakes as fakes
from training.errors import ConfigError, ShapeError
from training.med_vqa.pretrain.losses import hard_negatives, matching_loss, matching_pairs
from training.med_vqa.pretrain.soft_labels import teacher_targets

LOCAL, GLOBAL, OFFSET = 3, 9, 6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cosines(rows: int = LOCAL, columns: int = GLOBAL, seed: int = 0) -> Tensor:
    return torch.rand(rows, columns, generator=seeded(seed)) * 2 - 1


def drawn(similarity: Tensor, targets: Tensor, offset: int, draws: int, mask: Tensor | None = None) -> Tensor:
    """How often each column was drawn, ``[B_local, B_global]``."""
    counts, generator = torch.zeros_like(similarity), seeded()
    for _ in range(draws):
        index, has = hard_negatives(similarity, targets, offset, generator, mask=mask)
        counts[torch.arange(len(index))[has], index[has]] += 1
    return counts


def test_columns_are_drawn_as_often_as_the_softmax_of_the_similarity_over_allowed_ones_says() -> None:
    """AMiF's code draws from raw cosines, which may be negative and are nearly uniform where they are not."""
    similarity, mask = 2 * cosines() - 3, torch.zeros(LOCAL, GLOBAL, dtype=torch.bool)
    mask[1, 2:5] = True
    draws = 4000
    counts = drawn(similarity, fakes.hard_targets(LOCAL, GLOBAL, OFFSET), OFFSET, draws, mask)
    for row in range(LOCAL):
        weights = np.exp(similarity[row].double().numpy())
        weights[OFFSET + row] = 0
        weights[mask[row].numpy()] = 0
        expected = weights / weights.sum()
        tolerance = 4 * np.sqrt(expected * (1 - expected) / draws)
        assert (np.abs(counts[row].numpy() / draws - expected) <= tolerance).all()


@pytest.mark.parametrize("offset", [0, 3, OFFSET])
def test_the_positive_is_never_drawn_on_any_process_however_similar_it_is(offset: int) -> None:
    similarity = cosines()
    similarity.diagonal(offset).fill_(1000.0)
    counts = drawn(similarity, fakes.hard_targets(LOCAL, GLOBAL, offset), offset, 200)
    assert not counts.diagonal(offset).any()
    assert (counts.sum(dim=1) == 200).all()


def test_what_the_soft_labels_call_a_match_is_never_drawn() -> None:
    targets = torch.tensor([[0.4, 0.25, 0.2, 0.15], [0.1, 0.6, 0.3, 0.0]])
    counts = drawn(torch.tensor([[0.0, 50, 50, 0], [0.0, 0, 50, 0]]), targets, 0, 100)
    assert counts[0, 3] == 100, "0.25 and 0.2 are at least half of 0.4"
    assert counts[1, 0] + counts[1, 3] == 100 and not counts[1, 2], "0.3 is half of 0.6"
    index, has = hard_negatives(torch.zeros(2, 4), targets, 0, seeded(), match_share=0.3)
    assert has.tolist() == [False, True] and index[1] in (0, 3)


def test_a_batch_of_matches_only_has_no_negative_and_neither_has_one_item() -> None:
    targets = teacher_targets(torch.zeros(4, 4), 0, 0.01)
    index, has = hard_negatives(cosines(4, 4), targets, 0, seeded())
    assert not has.any() and index.tolist() == [0, 0, 0, 0]
    index, has = hard_negatives(torch.ones(1, 1), torch.ones(1, 1), 0, seeded())
    assert has.tolist() == [False] and index.tolist() == [0]


def test_similarities_that_are_no_numbers_are_not_drawn() -> None:
    similarity = torch.full((2, 4), float("nan"))
    similarity[0, 2] = -3.0
    index, has = hard_negatives(similarity, fakes.hard_targets(2, 4, 0), 0, seeded())
    assert has.tolist() == [True, False] and index.tolist() == [2, 0]


def test_wholly_masked_rows_have_no_negative_and_take_none_from_others() -> None:
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[0] = True
    similarity = torch.tensor([[9.0, 9, 9, 9], [0.0, 9, 0, -200]])
    index, has = hard_negatives(similarity, fakes.hard_targets(2, 4, 0), 0, seeded(), mask=mask)
    assert has.tolist() == [False, True] and index[1] in (0, 2)


def test_logits_of_any_size_have_a_negative() -> None:
    similarity = torch.tensor([[0.0, -1e30, -2e30], [3e38, 0.0, -3e38]])
    index, has = hard_negatives(similarity, fakes.hard_targets(2, 3, 0), 0, seeded())
    assert has.all() and index.tolist() == [1, 0]


def test_the_same_generator_draws_the_same_and_processes_together_draw_what_one_draws() -> None:
    similarity, targets = 5 * cosines(8, 8), fakes.hard_targets(8, 8, 0)
    whole = hard_negatives(similarity, targets, 0, seeded(3))
    assert whole[0].tolist() == hard_negatives(similarity, targets, 0, seeded(3))[0].tolist()
    assert whole[0].tolist() != hard_negatives(similarity, targets, 0, seeded(4))[0].tolist()
    parts = [
        hard_negatives(similarity[rows], targets[rows], rows.start, seeded(3))[0]
        for rows in (slice(0, 4), slice(4, 8))
    ]
    assert torch.cat(parts).tolist() == whole[0].tolist()


def test_no_gradient_goes_through_the_draw() -> None:
    similarity = cosines().requires_grad_()
    index, has = hard_negatives(similarity, fakes.hard_targets(LOCAL, GLOBAL, OFFSET), OFFSET, seeded())
    assert not index.requires_grad and not has.requires_grad


def test_parts_that_do_not_fit_and_a_share_of_nothing_are_errors() -> None:
    with pytest.raises(ShapeError, match="outside"):
        hard_negatives(cosines(), cosines(), 7, seeded())
    with pytest.raises(ShapeError, match="targets of"):
        hard_negatives(cosines(), cosines(3, 8), 0, seeded())
    with pytest.raises(ShapeError, match="mask of"):
        hard_negatives(cosines(), cosines(), 0, seeded(), mask=torch.zeros(1, 9, dtype=torch.bool))
    with pytest.raises(ConfigError, match=r"match_share: 0\.0 must be above 0"):
        hard_negatives(cosines(), cosines(), 0, seeded(), match_share=0.0)


def a_batch() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Second of two processes of two items each: negatives among four; the second text has no negative image."""
    images = torch.tensor([1, 0]), torch.tensor([True, False])
    texts = torch.tensor([3, 0]), torch.tensor([True, True])
    return images, texts


def test_rows_are_positives_then_negative_images_then_negative_texts() -> None:
    pairs = matching_pairs(*a_batch(), offset=2)
    assert list(zip(pairs.images.tolist(), pairs.texts.tolist(), pairs.labels.tolist(), strict=True)) == [
        (2, 2, 1), (3, 3, 1), (1, 2, 0), (2, 3, 0), (3, 0, 0),
    ]  # fmt: skip


def test_rows_with_a_text_that_has_no_token_are_left_out() -> None:
    pairs = matching_pairs(*a_batch(), offset=2, usable=torch.tensor([False, True, True, False]))
    assert list(zip(pairs.images.tolist(), pairs.texts.tolist(), strict=True)) == [(2, 2), (1, 2)]


def test_directions_of_different_length_are_an_error() -> None:
    images, (index, has) = a_batch()
    with pytest.raises(ShapeError, match="negatives of"):
        matching_pairs(images, (index[:1], has[:1]))


def test_the_loss_is_the_cross_entropy_and_wrong_rows_of_large_logits_have_gradients() -> None:
    """AMiF's code clamps logits to [0, 1], where none of these has a gradient."""
    logits, labels = torch.tensor([[9.0, -7.0], [-4.0, 30.0], [-2.0, -3.0]]), torch.tensor([1, 0, 1])
    logits.requires_grad_()
    loss = matching_loss(logits, labels)
    z = logits.detach().double().numpy()
    expected = np.mean(
        [np.logaddexp(*row) - row[label] for row, label in zip(z, labels.tolist(), strict=True)]
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, (logits.detach().softmax(dim=1) - F.one_hot(labels, 2)) / 3)
    assert (gradient.abs().sum(dim=1) > 0.1).all()


def test_no_row_is_no_loss_and_no_nan() -> None:
    logits = torch.zeros(0, 2, requires_grad=True)
    loss = matching_loss(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0 and logits.grad is not None


def test_a_common_divisor_makes_parts_of_different_length_add_up() -> None:
    logits, labels = cosines(5, 2), torch.tensor([1, 0, 0, 1, 0])
    parts = [matching_loss(logits[rows], labels[rows], divisor=2.5) for rows in (slice(0, 4), slice(4, 5))]
    torch.testing.assert_close(torch.stack(parts).mean(), matching_loss(logits, labels))


def test_logits_of_another_shape_are_an_error() -> None:
    with pytest.raises(ShapeError, match=r"expected \[R, 2\]"):
        matching_loss(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
