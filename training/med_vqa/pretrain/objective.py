"""The terms of a step (methods.md §2.3): from encoded items and their targets to one loss, on any number of processes.

    stage one   L = L_ITC + w_v·L_IMV + w_t·L_TT
    stage two   L = the same + w_o·L_OT + w_m·L_ITM

Formulas are in `objectives`. A pair of one case is masked in all terms: it is neither a negative of a
contrastive term nor drawn as a hard one. Each process computes the terms of its own rows so that DDP's mean over
processes is the whole batch's: contrastive terms have as many rows everywhere, others are divided by the mean count.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

from training.med_vqa.pretrain.labels import StepTargets
from training.med_vqa.pretrain.objectives import (
    hard_negatives,
    inner_tokens,
    matching_inputs,
    matching_loss,
    matching_pairs,
    soft_contrastive_loss,
    transport_loss,
)
from training.med_vqa.pretrain.objectives.matching import MatchingPairs
from training.nb_clip.gather import gather_features

if TYPE_CHECKING:
    from training.med_vqa.pretrain.model import Encoded, PretrainingModel

Values = dict[str, Tensor]


def step_loss(
    model: "PretrainingModel",
    encoded: "Encoded",
    targets: StepTargets,
    offset: int,
    words_of_all: Tensor,
    generator: torch.Generator,
) -> Values:
    """The loss of this process's rows and its terms; arguments as in ``PretrainingModel.forward``."""
    width = encoded.images[0].shape[1]
    both = gather_features(torch.cat(encoded.images, dim=1), torch.cat(encoded.texts, dim=1))
    images, texts = (torch.split(features, width, dim=1) for features in both)
    mask, weights, tau = targets.mask, model.loss, model.heads.tau

    def symmetric(
        rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], name: str
    ) -> Tensor:
        """Mean over both directions."""
        ways = [
            soft_contrastive_loss(row, column, target, tau(name), offset, mask)
            for row, column, target in zip(rows, columns, wanted, strict=True)
        ]
        return 0.5 * (ways[0] + ways[1])

    own = encoded.images[0], encoded.texts[0]
    values = {
        "image_text": symmetric(
            own, (texts[0], images[0]), (targets.image_text, targets.text_image), "image_text"
        )
    }
    loss = values["image_text"]
    if model.two_views:
        first, second = encoded.images
        wanted = targets.views, targets.views_back
        values["views"] = symmetric((first, second), (images[1], images[0]), wanted, "views")
        loss = loss + weights.views_weight * values["views"]
    if model.two_texts:
        first, second = encoded.texts
        wanted = targets.texts, targets.texts
        values["texts"] = symmetric((first, second), (texts[1], texts[0]), wanted, "texts")
        loss = loss + weights.texts_weight * values["texts"]
    if model.stage == "two":
        found = _negatives(model, own, (images[0], texts[0]), targets, offset, generator)
        words = inner_tokens(words_of_all)
        pairs = matching_pairs(*found, offset, words.any(dim=1))
        of_pairs, fused = _fused(model, encoded, pairs, words_of_all, words)
        values |= fused
        if weights.matching_weight:
            values["no_negative"] = 1.0 - torch.cat([has for _, has in found]).float().mean()
        loss = loss + of_pairs
    return {"loss": loss, **values}


@torch.no_grad()
def _negatives(
    model: "PretrainingModel",
    own: tuple[Tensor, Tensor],
    of_all: tuple[Tensor, Tensor],
    targets: StepTargets,
    offset: int,
    generator: torch.Generator,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A wrong image for each text and a wrong text for each image, and whether there is one; none without matching.

    Args:
        model: its temperatures and weights.
        own: unit vectors of this process's images and texts.
        of_all: of everybody's.
        targets: which pairs are matches, or of one case.
        offset: of this process's items.
        generator: draws them.
    """
    weights = model.loss
    if not weights.matching_weight:
        none = torch.zeros(len(own[0]), dtype=torch.int64, device=own[0].device)
        return (none, none.bool()), (none, none.bool())
    with torch.autocast(own[0].device.type, enabled=False):
        scale = 1.0 / (weights.mining_tau or model.heads.tau("image_text"))
        image_text, text_image = scale * own[0] @ of_all[1].T, scale * own[1] @ of_all[0].T
    share, mask = weights.match_share, targets.mask
    return (
        hard_negatives(text_image, targets.text_image, offset, generator, share, mask),
        hard_negatives(image_text, targets.image_text, offset, generator, share, mask),
    )


def _fused(
    model: "PretrainingModel", encoded: "Encoded", pairs: MatchingPairs, words_of_all: Tensor, words: Tensor
) -> tuple[Tensor, Values]:
    """Transport and matching of this process's pairs, in groups of about one length of text: their loss, and the terms.

    Args:
        model: its co-attention and matching head.
        encoded: this process's items.
        pairs: of places among everybody's items.
        words_of_all: bool ``[B_global, L]``, tokens of the captions.
        words: the same without [CLS] and [SEP].
    """
    from training.med_vqa.pretrain.model import length_groups

    weights = model.loss
    states, tokens = _tokens_of_all(encoded.words, encoded.image_tokens)
    positives = (pairs.labels == 1).sum()
    counts = _mean_over_processes(torch.stack([positives, positives.new_tensor(len(pairs.labels))]).float())
    per_positive, per_pair = counts.clamp(min=1.0).unbind()
    parts: dict[str, list[Tensor]] = {"transport": [], "matching": []}
    answers = torch.zeros_like(pairs.labels)
    for index, longest in length_groups(words_of_all[pairs.texts]):
        some = MatchingPairs(pairs.images[index], pairs.texts[index], pairs.labels[index])
        image_rows, text_rows, mask = matching_inputs(
            some, tokens, states[:, :longest], words_of_all[:, :longest]
        )
        text, image, logits = model.fuse(text_rows, mask, image_rows)
        if weights.matching_weight:
            parts["matching"].append(matching_loss(logits, some.labels, per_pair))
        answers[index] = logits.argmax(dim=1)
        if weights.transport_weight:
            together = some.labels == 1
            parts["transport"].append(
                transport_loss(
                    text[together],
                    image[together, 1:],
                    words[some.texts[together], :longest],
                    beta=weights.beta,
                    outer=weights.outer,
                    inner=weights.inner,
                    divisor=per_positive,
                )
            )
    values = {name: torch.stack(parts[name]).sum() for name in ("transport", "matching") if parts[name]}
    weighted = [getattr(weights, f"{name}_weight") * value for name, value in values.items()]
    if weights.matching_weight:
        values["matching_accuracy"] = balanced_accuracy(answers, pairs.labels)
    return torch.stack(weighted).sum(), values


def balanced_accuracy(answers: Tensor, labels: Tensor) -> Tensor:
    """Mean of the shares of true and of wrong pairs that are told rightly: ½ for an answer that is always the same.

    Args:
        answers: int64 ``[R]``, 0 or 1.
        labels: likewise. Pairs of one kind only: the share of the other kind counts as 0.
    """
    right = answers == labels
    shares = [right[labels == kind].sum() / (labels == kind).sum().clamp(min=1) for kind in (0, 1)]
    return torch.stack(shares).mean()


@torch.no_grad()
def _tokens_of_all(words: Tensor, image_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Everybody's ``[B_global, L, Dt]`` and ``[B_global, N, Dv]``; L is the same on every process.

    Without gradient, since both towers are frozen: what learns behind them is applied to a pair where it is scored.
    """
    everyone = gather_features(image_tokens.float().flatten(1), words.float().flatten(1))
    return everyone[1].view(-1, *words.shape[1:]), everyone[0].view(-1, *image_tokens.shape[1:])


def _mean_over_processes(counts: Tensor) -> Tensor:
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(counts)
        counts = counts / distributed.get_world_size()
    return counts
