"""Four ways to answer questions that are encoded already.

exact      every candidate's log-likelihood
winner     the answers of ``exact`` without most of its work: a short-list, and all candidates only for the questions
           where one that is not on it could still win
shortlist  those of the k candidates whose first tokens are the likeliest; with k >= C it is ``exact``
generate   the model's own words, greedily; one answer
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from training.errors import CheckpointError, ConfigError
from training.med_vqa.answer.ranking import Candidates, Ranker, TokenIds, log_probs, shortlist
from training.med_vqa.model.modeling import Encoded, MedVQAModel

MODES_HELP = (
    "exact scores every candidate; winner gives the same answers with less work; shortlist scores the k candidates "
    "with the likeliest first tokens; generate writes freely"
)
MAX_TOKENS = 32
"""Word pieces of a generated answer, at most."""
_ROUNDING = 0.1
"""Nats by which a first token's log p may differ between two ways of computing it in float32."""
_STEPS = 4
"""In a lower precision: so many steps between neighbouring numbers of the size of the largest logit. Each of two
logits and two normalisers is off by half a step; the other half of this is for the layers below."""


@dataclass(frozen=True)
class Answer:
    """One answer to one question."""

    text: str
    """The candidate, or the model's own words."""
    probability: float
    """Ranking: softmax of the log-likelihoods over the candidates ranked, which are all or the short-list (``winner``:
    either). Generation: of these word pieces among all there could be, exp(log_likelihood)."""
    log_likelihood: float
    """log p of its word pieces and of the end, nats; of a truncated generated answer: of its word pieces."""


@dataclass(frozen=True)
class Chooser:
    """Chooses answers, in one of the modes; made once for many batches of questions."""

    model: MedVQAModel
    """In eval mode."""
    tokenizer: Any
    """Tokenizer of transformers; [CLS] starts an answer and [SEP] ends it."""
    candidates: Candidates
    """Answers that ranking chooses from, and the spelling of generated ones that equal one of them."""
    k: int
    """Candidates of a short-list."""
    top: int
    """Answers wanted."""
    chunk: int
    """Prefixes decoded at a time."""

    def exact(self, encoded: Encoded) -> list[list[Answer]]:
        """Rank all candidates."""
        texts = [self.candidates.texts] * len(encoded)
        return _best(self._all.log_likelihoods(encoded), texts, self.top)

    def shortlist(self, encoded: Encoded) -> list[list[Answer]]:
        """Rank the likeliest by first token."""
        return self.exact(encoded) if self.k >= len(self.candidates) else self._ranked_short(encoded)[0]

    def winner(self, encoded: Encoded) -> list[list[Answer]]:
        """Rank the likeliest by first token, and all where the bound of the others leaves doubt.

        log p of a candidate is at most log p of its first token. If that of every candidate off the list lies below the
        ``top``-th best on the list, by more than rounding, the best of the list are the best of all. In a lower
        precision than float32, answers nearer to one another than its rounding may stand in another order than
        ``exact`` gives.
        """
        if self.k >= len(self.candidates) or self.top > self.k:
            return self.exact(encoded)
        answers, bounds = self._ranked_short(encoded)
        settled = [
            bound < row[-1].log_likelihood for bound, row in zip(bounds.tolist(), answers, strict=True)
        ]
        doubtful = torch.tensor([not sure for sure in settled], device=bounds.device)
        if doubtful.any():
            ranked = iter(self.exact(encoded.map(lambda part: part[doubtful])))
            answers = [row if sure else next(ranked) for sure, row in zip(settled, answers, strict=True)]
        return answers

    def generate(self, encoded: Encoded) -> list[list[Answer]]:
        """Write freely; tokens that spell a candidate are given as the candidate is written."""
        spelled = dict(zip(self.candidates.token_ids, self.candidates.texts, strict=True))
        start, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        forbidden = [token for token in self.tokenizer.all_special_ids if token != end]
        longest = min(MAX_TOKENS, self.model.decoder.config.max_position_embeddings - 1)
        found, likelihoods = generate(self.model, encoded, start, end, forbidden, longest)
        texts = [spelled.get(tokens) or self.tokenizer.decode(tokens) for tokens in found]
        probabilities = _finite(likelihoods).exp().tolist()
        rows = zip(texts, probabilities, likelihoods.tolist(), strict=True)
        return [[Answer(*row)] for row in rows]

    @cached_property
    def _all(self) -> Ranker:
        """Ranker of all candidates, made when first needed: ``winner`` seldom needs it with a trained model."""
        if not self.candidates.token_ids:
            raise ConfigError("there are no candidate answers to rank: name some, or use --mode generate")
        return self._ranker(self.candidates.token_ids)

    def _ranker(self, token_ids: tuple[TokenIds, ...]) -> Ranker:
        start, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        return Ranker(self.model, token_ids, start, end, self.chunk)

    @torch.inference_mode()
    def _ranked_short(self, encoded: Encoded) -> tuple[list[list[Answer]], Tensor]:
        """The best of a short-list, and the most that log p of a candidate off it can be, ``[B]``."""
        ids, texts = self.candidates.token_ids, self.candidates.texts
        starts = torch.full((len(encoded), 1), self.tokenizer.cls_token_id, device=self.model.device)
        logits = self.model.next_token_logits(starts, encoded)
        first = log_probs(logits)
        chosen = shortlist(first, ids, self.k)
        beginnings = torch.tensor([sequence[0] for sequence in ids], device=first.device)
        others = first[:, beginnings].scatter(1, chosen, -torch.inf).amax(dim=1)
        listed = chosen.tolist()
        scores = [
            self._ranker(tuple(ids[place] for place in places)).log_likelihoods(
                encoded.map(itemgetter(slice(row, row + 1)))
            )
            for row, places in enumerate(listed)
        ]
        named = [[texts[place] for place in places] for places in listed]
        return _best(torch.cat(scores), named, self.top), others + _rounding(logits)


MODES: dict[str, Callable[[Chooser, Encoded], list[list[Answer]]]] = {
    "exact": Chooser.exact,
    "winner": Chooser.winner,
    "shortlist": Chooser.shortlist,
    "generate": Chooser.generate,
}
"""B encoded questions, with the decoder's memory, to the best answers to each."""


@torch.inference_mode()
def generate(
    model: MedVQAModel, encoded: Encoded, start: int, end: int, forbidden: Sequence[int], max_tokens: int
) -> tuple[list[TokenIds], Tensor]:
    """Greedy answers to B questions: the likeliest word piece after the likeliest word piece, until the answer ends.

    The whole beginning is decoded anew for each token: answers have a few of them, and a cache of transformers would
    have to be one for encoder and decoder.

    Args:
        model: in eval mode.
        encoded: the questions.
        start: token that answers start from.
        end: token that ends an answer; not as the first one, an answer has words.
        forbidden: tokens that are never chosen; probabilities are those without the prohibition.
        max_tokens: at least 1, and less than the decoder's positions.

    Returns:
        Tokens of each answer without special ones; and Σ log p of its tokens and of the end, nats, float64 ``[B]``,
        without the end where an answer had not ended after ``max_tokens``.
    """
    encoded, device = model.precompute_cross_attention_kv(encoded), model.device
    tokens = torch.full((len(encoded), 1), start, device=device)
    total = torch.zeros(len(encoded), dtype=torch.float64)
    ended = torch.zeros(len(encoded), dtype=torch.bool, device=device)
    for length in range(max_tokens + 1):
        scores = log_probs(model.next_token_logits(tokens, encoded))
        barred = [*forbidden, end] if length == 0 else forbidden
        likeliest = scores.index_fill(1, torch.tensor(barred, dtype=torch.int64, device=device), -torch.inf)
        chosen = likeliest.argmax(dim=1)
        counted = ~ended if length < max_tokens else ~ended & (chosen == end)
        total += torch.where(counted, scores.gather(1, chosen[:, None])[:, 0], 0.0).cpu().double()
        chosen = chosen.masked_fill(ended, end)
        ended |= chosen == end
        tokens = torch.cat([tokens, chosen[:, None]], dim=1)
        if ended.all():
            break
    rows = tokens[:, 1 : max_tokens + 1].tolist()
    return [tuple(takewhile(lambda token: token != end, row)) for row in rows], total


def _rounding(logits: Tensor) -> Tensor:
    """Nats by which log p of first tokens may differ between two ways of computing it, ``[B, V]`` to ``[B]``."""
    largest = logits.abs().amax(dim=1).float()
    if logits.dtype in (torch.float32, torch.float64):
        return torch.full_like(largest, _ROUNDING)
    return (_STEPS * torch.finfo(logits.dtype).eps * largest).clamp(min=_ROUNDING)


def _best(scores: Tensor, texts: Sequence[Sequence[str]], top: int) -> list[list[Answer]]:
    """The ``top`` of each row's candidates, ``[B, C]`` of them; equal scores in the candidates' order."""
    probabilities = _finite(scores).softmax(dim=1)
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :top]
    numbers = (part.gather(1, order).tolist() for part in (probabilities, scores))
    return [
        [Answer(named[place], *both) for place, *both in zip(*row, strict=True)]
        for named, *row in zip(texts, order.tolist(), *numbers, strict=True)
    ]


def _finite(scores: Tensor) -> Tensor:
    if not torch.isfinite(scores).all():
        raise CheckpointError(
            "the model's likelihoods are not finite numbers: its weights are damaged, or the precision is too low"
        )
    return scores
