"""A step's loss (methods.md §2.3): from a batch and its targets to one number, on any number of processes.

    stage one   L = L_ITC + w_v·L_IMV + w_t·L_TT
    stage two   L = the same + w_o·L_OT + w_m·L_ITM

Formulas are in losses.py and model/transport.py, targets in soft_labels.py. A pair of one case is masked in all terms:
it is neither a negative of a contrastive term nor drawn as a hard one. Each process computes the terms of its own rows
so that DDP's mean over processes is the whole batch's: contrastive terms have as many rows everywhere, others are
divided by the mean count.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from kg_targets.losses.contrastive import gather_features
from training.med_vqa.model.transport import inner_tokens, transport_loss
from training.med_vqa.pretrain.losses import (
    MatchingPairs,
    hard_negatives,
    matching_loss,
    matching_pairs,
    soft_contrastive_loss,
)
from training.med_vqa.pretrain.model import Features, PretrainingModel, length_groups
from training.med_vqa.pretrain.soft_labels import StepTargets

Pair = tuple[Tensor, Tensor]
Pairs = Sequence[Tensor]
"""Two tensors, of both directions, views or texts."""


class PretrainingStep(PretrainingModel):
    """A pre-training's model whose forward pass is a step's whole computation.

    The loss is computed inside ``forward``, since negatives are drawn between its two halves, and DDP wants one forward
    pass for each backward pass.
    """

    def forward(
        self,
        text_ids: Tensor,
        text_mask: Tensor,
        targets: StepTargets,
        offset: int,
        words_of_all: Tensor,
        generator: torch.Generator,
        images: Tensor | None = None,
        image_tokens: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The loss of this process's B items and its terms.

        Args:
            text_ids: of the items, as for ``encode``.
            text_mask: likewise.
            targets: ``[B, B_global]``.
            offset: rank · B.
            words_of_all: mask of all ranks' captions, bool ``[B_global, L]``.
            generator: on the CPU, equally seeded on every process; draws the negatives.
            images: of the items, as for ``encode``, or
            image_tokens: likewise.

        Returns:
            Scalars; ``loss`` has a gradient.
        """
        features, weights = self.encode(text_ids, text_mask, images, image_tokens), self.loss
        width = features.images[0].shape[1]
        both = gather_features(torch.cat(features.images, dim=1), torch.cat(features.texts, dim=1))
        all_images, all_texts = (torch.split(gathered, width, dim=1) for gathered in both)

        def symmetric(rows: Pairs, columns: Pairs, wanted: Pairs, name: str) -> Tensor:
            """Mean over both directions."""
            ways = [
                soft_contrastive_loss(row, column, target, self.heads.tau(name), offset, targets.mask)
                for row, column, target in zip(rows, columns, wanted, strict=True)
            ]
            return 0.5 * (ways[0] + ways[1])

        own, of_all = (features.images[0], features.texts[0]), (all_images[0], all_texts[0])
        wanted = targets.image_text, targets.text_image
        values = {"image_text": symmetric(own, of_all[::-1], wanted, "image_text")}
        loss = values["image_text"]
        if self.two_views:
            wanted = targets.views, targets.views_back
            values["views"] = symmetric(features.images, all_images[::-1], wanted, "views")
            loss = loss + weights.views_weight * values["views"]
        if self.two_texts:
            wanted = targets.texts, targets.texts
            values["texts"] = symmetric(features.texts, all_texts[::-1], wanted, "texts")
            loss = loss + weights.texts_weight * values["texts"]
        if self.stage == "two":
            negatives = self._negatives(own, of_all, targets, offset, generator)
            words = inner_tokens(words_of_all)
            pairs = matching_pairs(*negatives, offset, words.any(dim=1))
            of_pairs, fused = self._fused(features, pairs, words_of_all, words)
            values |= fused
            if weights.matching_weight:
                values["no_negative"] = 1.0 - torch.cat([has for _, has in negatives]).float().mean()
            loss = loss + of_pairs
        return {"loss": loss, **values}

    @torch.no_grad()
    def _negatives(
        self, own: Pair, of_all: Pair, targets: StepTargets, offset: int, generator: torch.Generator
    ) -> tuple[Pair, Pair]:
        """A wrong image for each text and a wrong text for each image, and whether there is one."""
        weights = self.loss
        if not weights.matching_weight:
            none = torch.zeros(len(own[0]), dtype=torch.int64, device=own[0].device)
            return (none, none.bool()), (none, none.bool())
        with torch.autocast(own[0].device.type, enabled=False):
            scale = 1.0 / (weights.mining_tau or self.heads.tau("image_text"))
            image_text, text_image = scale * own[0] @ of_all[1].T, scale * own[1] @ of_all[0].T
        share, mask = weights.match_share, targets.mask
        return (
            hard_negatives(text_image, targets.text_image, offset, generator, share, mask),
            hard_negatives(image_text, targets.image_text, offset, generator, share, mask),
        )

    def _fused(
        self, features: Features, pairs: MatchingPairs, words_of_all: Tensor, words: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Transport and matching of pairs of all ranks' items, in groups of about one length of text: loss and terms.

        ``words`` are ``words_of_all``, the captions' tokens, bool ``[B_global, L]``, without [CLS] and [SEP].
        """
        weights = self.loss
        states, tokens = _tokens_of_all(features.words, features.image_tokens)
        positives = (pairs.labels == 1).sum()
        counts = torch.stack([positives, positives.new_full((), len(pairs.labels))]).float()
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            distributed.all_reduce(counts)
            counts /= distributed.get_world_size()
        per_positive, per_pair = counts.clamp(min=1.0).unbind()
        parts: dict[str, list[Tensor]] = {"transport": [], "matching": []}
        answers = torch.zeros_like(pairs.labels)
        steps: dict[str, Any] = {"beta": weights.beta, "outer": weights.outer, "inner": weights.inner}
        groups = length_groups(words_of_all[pairs.texts])
        for index, longest in groups:
            images, texts, labels = pairs.images[index], pairs.texts[index], pairs.labels[index]
            text, image, logits = self.fuse(
                states[texts, :longest], words_of_all[texts, :longest], tokens[images]
            )
            if weights.matching_weight:
                parts["matching"].append(matching_loss(logits, labels, per_pair))
            answers[index] = logits.argmax(dim=1)
            if weights.transport_weight:
                # In one group, as on a GPU, true pairs stand first: none has to be looked for.
                together = slice(pairs.true) if len(groups) == 1 else labels == 1
                real, places = words[texts[together], :longest], image[together, 1:]
                parts["transport"].append(
                    transport_loss(text[together], places, real, **steps, divisor=per_positive)
                )
        values = {name: torch.stack(parts[name]).sum() for name in ("transport", "matching") if parts[name]}
        weighted = [getattr(weights, f"{name}_weight") * value for name, value in values.items()]
        if weights.matching_weight:
            values["matching_accuracy"] = balanced_accuracy(answers, pairs.labels)
        return torch.stack(weighted).sum(), values


def balanced_accuracy(answers: Tensor, labels: Tensor) -> Tensor:
    """Mean of the shares of true and of wrong pairs that are classified correctly: ½ for a constant answer.

    Args:
        answers: int64 ``[R]``, 0 or 1.
        labels: likewise. Pairs of one kind only: the share of the other kind counts as 0.
    """
    right = answers == labels
    shares = [(right & (labels == kind)).sum() / (labels == kind).sum().clamp(min=1) for kind in (0, 1)]
    return torch.stack(shares).mean()


@torch.no_grad()
def _tokens_of_all(words: Tensor, image_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """All ranks' ``[B_global, L, Dt]`` and ``[B_global, N, Dv]``; L is the same on every process.

    Without gradient, since both towers are frozen: what learns behind them is applied to a pair where it is scored.
    """
    gathered = gather_features(image_tokens.float().flatten(1), words.float().flatten(1))
    return gathered[1].view(-1, *words.shape[1:]), gathered[0].view(-1, *image_tokens.shape[1:])
