"""Log-likelihoods of all candidates, or of a short-list, for questions that are encoded already."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.errors import DataError
from training.med_vqa.answer.trie import CHUNK, Pack, Trie, pack
from training.med_vqa.model.modeling import Encoded, MedVQAModel
from training.med_vqa.model.tokens import pieces_of
from training.vqa.answers import normalise_answer

TokenIds = tuple[int, ...]
SLICE = 1 << 23
"""Scores of words held at a time: 32 MB of float32, whatever the vocabulary and the number of candidates."""


@dataclass(frozen=True)
class Candidates:
    """C answers and their tokens, in the order given, which breaks ties."""

    texts: tuple[str, ...]
    """As they will be given back."""
    token_ids: tuple[TokenIds, ...]
    """Without special tokens; no two are equal, none is empty."""
    merged: dict[str, str]
    """Answers that have the same tokens as an earlier one, which stands for both: later text to the earlier."""

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Any, longest: int) -> "Candidates":
        """Tokenise answers; one that spells the same tokens as an earlier one is merged with it.

        The model cannot tell such answers apart: as two, they would count twice in every probability.

        Args:
            texts: answers.
            tokenizer: a tokenizer of transformers.
            longest: tokens that the decoder can read of an answer, at most.

        Raises:
            DataError: one normalises or tokenises to nothing, or is too long.
        """
        empty = next((text for text in texts if not normalise_answer(text)), None)
        if empty is not None:
            raise DataError(f"candidate answer {empty!r} is empty after normalisation: remove it")
        kept: dict[TokenIds, str] = {}
        merged: dict[str, str] = {}
        for text, ids in zip(texts, pieces_of(texts, tokenizer), strict=True):
            if not ids:
                raise DataError(f"candidate answer {text!r} has no token the model knows: remove it")
            if len(ids) > longest:
                raise DataError(
                    f"candidate answer {text[:40]!r}… has {len(ids)} tokens, the decoder reads {longest}: shorten it"
                )
            first = kept.setdefault(tuple(ids), text)
            if first != text:
                merged[text] = first
        return cls(tuple(kept.values()), tuple(kept), merged)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class _Prepared:
    """A pack on the model's device, with all that does not depend on the question."""

    states: Tensor
    """After the decoder's layers that see no question, ``[1, T, D]``."""
    mask: Tensor
    """bool ``[T, T]``."""
    own: int
    rows: Tensor
    """int64 ``[E]``, as in ``Pack``, likewise the next two."""
    continuations: Tensor
    places: Tensor
    offsets: tuple[int, ...]
    """Positions in E at which own rows begin, and E: own + 1 numbers."""


class Ranker:
    """Scores C candidates for any number of questions.

    log p(candidate) = Σ_t log p(token_t | tokens before it, question, image) + log p(end | candidate, question, image)

    Every unique prefix of the candidates is decoded once per question, and below the layers with cross-attention once
    at all. It holds states of the model as it is now: after a change of the weights, make another.

    Args:
        model: in eval mode.
        sequences: token ids of the candidates, without special tokens, none empty.
        start: token that answers start from.
        end: token that ends an answer.
        chunk: prefixes decoded at a time.
    """

    def __init__(
        self, model: MedVQAModel, sequences: tuple[TokenIds, ...], start: int, end: int, chunk: int = CHUNK
    ) -> None:
        self._model = model
        self._trie = Trie.of(sequences, start)
        self._packs = [self._prepare(one) for one in pack(self._trie, end, chunk)]
        device = model.device
        self._parents = torch.as_tensor(self._trie.parents, device=device)
        self._levels = [torch.as_tensor(nodes, device=device) for nodes in self._trie.levels]
        self._ends = torch.as_tensor(self._trie.ends, device=device)

    @torch.inference_mode()
    def log_likelihoods(self, encoded: Encoded) -> Tensor:
        """log p of every candidate, nats, float32 (float64 for a model in float64) ``[B, C]``.

        Args:
            encoded: B questions.
        """
        encoded = self._model.precompute_cross_attention_kv(encoded)
        parts = [self._steps(one, encoded) for one in self._packs]
        nodes = len(self._trie)
        steps = parts[0].new_zeros(len(encoded), 2 * nodes)
        for one, part in zip(self._packs, parts, strict=True):
            steps[:, one.places] = part
        paths = steps[:, :nodes]
        for level in self._levels:  # sums along the paths, from the root down
            paths[:, level] += paths[:, self._parents[level]]
        return paths[:, self._ends] + steps[:, nodes + self._ends]

    def _steps(self, one: _Prepared, encoded: Encoded) -> Tensor:
        """log p of a pack's continuations, ``[B, E]``."""
        decoder, questions = self._model.decoder, len(encoded)
        alike = one.states.expand(questions, -1, -1)
        states = decoder.seeing(alike, one.mask, encoded.memory or (), encoded.mask)[:, -one.own :]
        size = max(1, SLICE // (questions * decoder.config.vocab_size))
        parts = []
        for start in range(0, one.own, size):
            scores = _widened(decoder.scores(states[:, start : start + size]))  # (B, size, V)
            here = slice(one.offsets[start], one.offsets[min(start + size, one.own)])
            rows = one.rows[here] - start
            parts.append(scores[:, rows, one.continuations[here]] - scores.logsumexp(-1)[:, rows])
        return torch.cat(parts, dim=1)

    @torch.inference_mode()
    def _prepare(self, one: Pack) -> _Prepared:
        device = self._model.device
        mask = torch.as_tensor(one.mask, device=device)
        tokens, positions, rows, continuations, places = (
            torch.as_tensor(values, device=device)
            for values in (one.tokens, one.positions, one.rows, one.continuations, one.places)
        )
        states = self._model.decoder.blind(tokens[None], mask, positions)
        offsets = tuple(int(place) for place in one.rows.searchsorted(range(one.own + 1)))
        return _Prepared(states, mask, one.own, rows, continuations, places, offsets)


def log_probs(logits: Tensor) -> Tensor:
    """log p of every word piece, float32 (float64 for a model in float64)."""
    return _widened(logits).log_softmax(dim=-1)


def _widened(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def shortlist(first: Tensor, sequences: tuple[TokenIds, ...], k: int) -> Tensor:
    """The k candidates whose first tokens are the likeliest, int64 ``[B, min(k, C)]``, in the candidates' order.

    Candidates with the same first token are equally likely so far and each takes a place; where not all of them have
    room, those that stand first among the candidates are in.

    Args:
        first: log p of every word piece as the first one, ``[B, V]``.
        sequences: token ids of the C candidates.
        k: at least 1.
    """
    beginnings = torch.tensor([sequence[0] for sequence in sequences], device=first.device)
    order = first[:, beginnings].sort(dim=1, descending=True, stable=True).indices
    return order[:, :k].sort(dim=1).values
