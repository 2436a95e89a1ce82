"""Selection of the epoch to keep: how well images find their own captions in the dev part.

The measure is the mean reciprocal rank of an image's own caption among the dev part's captions, those of its own case
left out, as in training. In stage one captions are ranked by cosine. In stage two the ``RERANKED`` nearest are ranked
again by the matching head, behind the co-attention that this stage is about; without matching it stays with cosines.

Why not the dev loss: it follows the temperatures and the softness of the labels, and rises with overconfidence while
the order still gets better. A rank is what all label sources, both stages and later tasks have in common.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.med_vqa.model.tokens import Tokens
from training.med_vqa.pretrain.model import PretrainingModel, length_groups

RERANKED = 16
"""Captions of each image that the matching head ranks again."""
_PAIRS = 256
"""Pairs that go through the co-attention together."""


class Selector:
    """Scores a model on the dev part.

    Args:
        cases: case code of each item, N.
        captions: of the same items.
    """

    def __init__(self, cases: Sequence[int], captions: Tokens) -> None:
        codes = torch.tensor(list(cases), dtype=torch.int64)
        self._rivals = codes[:, None] != codes[None, :]
        self._rivals.fill_diagonal_(True)
        self._ids, self._mask = captions.batch(torch.arange(len(captions)))

    def __len__(self) -> int:
        return len(self._ids)

    @torch.no_grad()
    def __call__(self, model: PretrainingModel, image_tokens: Tensor, rows: Tensor) -> Tensor:
        """Reciprocal rank of each image's caption, in (0, 1], float32 ``[R]``; the model is left in eval mode.

        Args:
            model: unwrapped.
            image_tokens: of these dev images, ``[R, P, Dv]``.
            rows: their places among all, int64 ``[R]``.
        """
        model.eval()
        device = image_tokens.device
        ids, mask = self._ids.to(device), self._mask.to(device)
        words = model.words(ids, mask)
        images, texts = model.image_features(image_tokens), model.text_features(words)
        with torch.autocast(
            device.type, enabled=False
        ):  # whatever the towers' precision: ranks want the digits
            cosines = images @ texts.T
        scores = cosines.masked_fill(~self._rivals[rows].to(device), -torch.inf)
        if model.stage == "two" and model.loss.matching_weight:
            scores = _reranked(model, scores, image_tokens, words, mask)
        return 1.0 / ranks(scores, rows.to(device))


def ranks(scores: Tensor, rows: Tensor) -> Tensor:
    """Rank of each row's own entry among its row, from 1, float ``[R]``; ties count half.

    Args:
        scores: ``[R, N]``; −inf: no rival.
        rows: column of each row's own entry, int64 ``[R]``.
    """
    own = scores.gather(1, rows[:, None])
    return 1.0 + (scores > own).sum(dim=1) + 0.5 * ((scores == own).sum(dim=1) - 1)


def _reranked(
    model: PretrainingModel, scores: Tensor, image_tokens: Tensor, words: Tensor, mask: Tensor
) -> Tensor:
    """Scores whose first ``RERANKED`` of each row are in the order of the matching head, still before all others."""
    best = scores.topk(min(RERANKED, scores.shape[1]), dim=1)
    rows = torch.arange(len(scores), device=scores.device)[:, None].expand_as(best.indices).flatten()
    columns = best.indices.flatten()
    matched = torch.empty(len(rows), device=scores.device)
    for start in range(0, len(rows), _PAIRS):
        here = slice(start, start + _PAIRS)
        for index, longest in length_groups(mask[columns[here]]):
            row, column = rows[here][index], columns[here][index]
            _, _, logits = model.fuse(words[column, :longest], mask[column, :longest], image_tokens[row])
            matched[start + index] = (logits[:, 1] - logits[:, 0]).float().sigmoid()
    lifted = 2.0 + matched.view_as(best.values)  # cosines are at most 1
    lifted = torch.where(best.values.isfinite(), lifted, best.values)
    return scores.scatter(1, best.indices, lifted)
