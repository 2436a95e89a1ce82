"""Four ways to an answer. Each is prepared once for many questions, and then answers batches of encoded questions.

exact      every candidate's log-likelihood
winner     the answers of ``exact`` without most of its work: a short-list, and all candidates only for the questions
           where one that is not on it could still win
shortlist  those of the k candidates whose first tokens are the likeliest; with k >= C it is ``exact``
generate   the model's own words, greedily; one answer
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from training.errors import CheckpointError, ConfigError
from training.med_vqa.answer.generation import MAX_TOKENS, generate
from training.med_vqa.answer.ranking import Candidates, Ranker, first_token_logits, log_probs, shortlist
from training.med_vqa.model.modeling import Encoded, MedVQAModel

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
    """log p of its word pieces and of the end, nats; of a generated answer cut for its length: of its word pieces."""


@dataclass(frozen=True)
class Setting:
    """What answers are chosen from, and how many are wanted."""

    model: MedVQAModel
    """In eval mode."""
    tokenizer: Any
    """Of transformers; [CLS] starts an answer and [SEP] ends it."""
    candidates: Candidates
    """What ranking chooses from, and how generated tokens that spell one of them are written."""
    k: int
    """Candidates of a short-list."""
    top: int
    """Answers wanted."""
    chunk: int
    """Prefixes decoded at a time."""

    def ranker(self, rows: Sequence[int] | None = None) -> Ranker:
        """Of the candidates ``rows``; None: of all.

        Raises:
            ConfigError: there are none.
        """
        ids = self.candidates.token_ids
        if not ids:
            raise ConfigError("there are no candidate answers to rank: name some, or use --mode generate")
        chosen = ids if rows is None else tuple(ids[row] for row in rows)
        return Ranker(
            self.model, chosen, self.tokenizer.cls_token_id, self.tokenizer.sep_token_id, self.chunk
        )


Chooser = Callable[[Encoded], list[list[Answer]]]
"""B encoded questions, with the decoder's memory, to the best answers to each."""


def exact(setting: Setting) -> Chooser:
    """Rank all candidates."""
    ranker = setting.ranker()

    def choose(encoded: Encoded) -> list[list[Answer]]:
        texts = [setting.candidates.texts] * len(encoded)
        return _best(ranker.log_likelihoods(encoded), texts, setting.top)

    return choose


def shortlisted(setting: Setting) -> Chooser:
    """Rank the likeliest by first token."""
    if setting.k >= len(setting.candidates):
        return exact(setting)

    def choose(encoded: Encoded) -> list[list[Answer]]:
        listed = _ranked_short(setting, encoded)
        return _best(listed.scores, listed.texts, setting.top)

    return choose


def winners(setting: Setting) -> Chooser:
    """Rank the likeliest by first token, and all where the bound of the others leaves doubt.

    log p of a candidate is at most log p of its first token. If that of every candidate off the list lies below the
    ``top``-th best on the list, by more than rounding, the best of the list are the best of all. In a lower precision
    than float32, answers nearer to one another than its rounding may stand in another order than ``exact`` gives.
    """
    if setting.k >= len(setting.candidates):
        return exact(setting)
    # Made when it is first needed: trained models seldom leave doubt.
    everything = cache(lambda: exact(setting))

    def choose(encoded: Encoded) -> list[list[Answer]]:
        listed = _ranked_short(setting, encoded)
        answers = _best(listed.scores, listed.texts, setting.top)
        enough = setting.top <= setting.k
        settled = [
            enough and bound < row[-1].log_likelihood
            for bound, row in zip((listed.others + listed.rounding).tolist(), answers, strict=True)
        ]
        doubtful = torch.tensor([not sure for sure in settled], device=listed.scores.device)
        if doubtful.any():
            ranked = iter(everything()(encoded.map(lambda part: part[doubtful])))
            answers = [row if sure else next(ranked) for sure, row in zip(settled, answers, strict=True)]
        return answers

    return choose


@dataclass(frozen=True)
class _ShortList:
    """What a short-list of k says about B questions."""

    scores: Tensor
    """Log-likelihoods in full, ``[B, k]``."""
    texts: list[list[str]]
    """Of the candidates on it."""
    others: Tensor
    """log p of the likeliest first token among the candidates that are not on it, ``[B]``."""
    rounding: Tensor
    """Nats by which that may be wrong, ``[B]``."""


def _ranked_short(setting: Setting, encoded: Encoded) -> _ShortList:
    ids, texts = setting.candidates.token_ids, setting.candidates.texts
    logits = first_token_logits(setting.model, encoded, setting.tokenizer.cls_token_id)
    first = log_probs(logits)
    chosen = shortlist(first, ids, setting.k)
    beginnings = torch.tensor([sequence[0] for sequence in ids], device=first.device)
    others = first[:, beginnings].scatter(1, chosen, -torch.inf).amax(dim=1)
    alone = [encoded.map(itemgetter(slice(row, row + 1))) for row in range(len(encoded))]
    scores = [
        setting.ranker(rows).log_likelihoods(one) for rows, one in zip(chosen.tolist(), alone, strict=True)
    ]
    listed = [[texts[row] for row in rows] for rows in chosen.tolist()]
    return _ShortList(torch.cat(scores), listed, others, _rounding(logits))


def _rounding(logits: Tensor) -> Tensor:
    """Nats by which log p of first tokens may differ between two ways of computing it, ``[B, V]`` to ``[B]``."""
    largest = logits.abs().amax(dim=1).float()
    if logits.dtype in (torch.float32, torch.float64):
        return torch.full_like(largest, _ROUNDING)
    return (_STEPS * torch.finfo(logits.dtype).eps * largest).clamp(min=_ROUNDING)


def generated(setting: Setting) -> Chooser:
    """Write freely; tokens that spell a candidate are given as the candidate is written."""
    tokenizer, model = setting.tokenizer, setting.model
    end = tokenizer.sep_token_id
    forbidden = [token for token in tokenizer.all_special_ids if token != end]
    longest = min(MAX_TOKENS, model.decoder.config.max_position_embeddings - 1)
    spelled = dict(zip(setting.candidates.token_ids, setting.candidates.texts, strict=True))

    def choose(encoded: Encoded) -> list[list[Answer]]:
        found = generate(model, encoded, tokenizer.cls_token_id, end, forbidden, longest)
        likelihoods = _finite(torch.tensor([one.log_likelihood for one in found], dtype=torch.float64))
        return [
            [
                Answer(
                    spelled.get(one.token_ids) or tokenizer.decode(one.token_ids),
                    probability,
                    one.log_likelihood,
                )
            ]
            for one, probability in zip(found, likelihoods.exp().tolist(), strict=True)
        ]

    return choose


MODES: dict[str, Callable[[Setting], Chooser]] = {
    "exact": exact,
    "winner": winners,
    "shortlist": shortlisted,
    "generate": generated,
}


def _best(scores: Tensor, texts: Sequence[Sequence[str]], top: int) -> list[list[Answer]]:
    """The ``top`` of each row's candidates, ``[B, C]`` of them; equal scores in the candidates' order."""
    probabilities = _finite(scores).softmax(dim=1)
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :top]
    return [
        [
            Answer(row_texts[place], *numbers)
            for place, *numbers in zip(places, chances, likelihoods, strict=True)
        ]
        for row_texts, places, chances, likelihoods in zip(
            texts,
            order.tolist(),
            probabilities.gather(1, order).tolist(),
            scores.gather(1, order).tolist(),
            strict=True,
        )
    ]


def _finite(scores: Tensor) -> Tensor:
    if not torch.isfinite(scores).all():
        raise CheckpointError(
            "the model's likelihoods are not finite numbers: its weights are damaged, or the precision is too low"
        )
    return scores
