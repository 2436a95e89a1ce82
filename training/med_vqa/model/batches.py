"""Texts as padded tokens, and batches of questions of about one length, in an order that (seed, epoch) decides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.samplers.base import Sampler

POOL = 16
"""Batches that are cut from one sorted pool: more waste less padding, fewer meet by chance."""


@dataclass(frozen=True)
class Tokens:
    """N texts as word pieces."""

    ids: Tensor
    """int64 ``[N, L]``, padded to the longest text."""
    lengths: Tensor
    """int64 ``[N]``: how many of each row are real."""
    cut: int = 0
    """Texts that were longer than allowed."""

    @classmethod
    def of(cls, pieces: Sequence[Sequence[int]], padding: int, cut: int = 0) -> "Tokens":
        """Rows of word pieces, which may be empty, padded with the token ``padding``."""
        lengths = torch.tensor([len(row) for row in pieces], dtype=torch.int64)
        ids = torch.full((len(pieces), max([1, *lengths.tolist()])), padding, dtype=torch.int64)
        for row, values in enumerate(pieces):
            ids[row, : len(values)] = torch.tensor(values, dtype=torch.int64)
        return cls(ids, lengths, cut)

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens int64 ``[B, L]`` and mask bool ``[B, L]`` (True = real), padded to the longest of ``rows``."""
        lengths = self.lengths[rows]
        longest = max(1, int(lengths.max()))
        return self.ids[rows, :longest], torch.arange(longest) < lengths[:, None]


def pieces_of(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Word pieces of each text, without special tokens, however long it is."""
    if not texts:
        return []
    found: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return found


def questions_as_tokens(texts: Sequence[str], tokenizer: Any, longest: int) -> Tokens:
    """``[CLS] … [SEP]``, at most ``longest`` tokens with both; what is longer loses its end, not its [SEP]."""
    pieces = pieces_of(texts, tokenizer)
    rows = [[tokenizer.cls_token_id, *row[: longest - 2], tokenizer.sep_token_id] for row in pieces]
    return Tokens.of(rows, tokenizer.pad_token_id, sum(len(row) > longest - 2 for row in pieces))


def answers_as_tokens(texts: Sequence[str], tokenizer: Any, longest: int) -> Tokens:
    """``[CLS] … [SEP]``, at most ``longest`` tokens; what is longer loses its [SEP], too: no answer ends there."""
    rows = [[tokenizer.cls_token_id, *row, tokenizer.sep_token_id] for row in pieces_of(texts, tokenizer)]
    cut = sum(len(row) > longest for row in rows)
    return Tokens.of([row[:longest] for row in rows], tokenizer.pad_token_id, cut)


def knowledge_as_tokens(texts: Sequence[str], tokenizer: Any) -> Tokens:
    """Word pieces alone, as the gate takes them; texts without any are left out."""
    return Tokens.of([row for row in pieces_of(texts, tokenizer) if row], tokenizer.pad_token_id)


@dataclass(frozen=True)
class QuestionSampler(Sampler):
    """Batches of questions of about one length: a new order each epoch, sorted within pools of ``POOL`` batches.

    What the remainder of an epoch is, chance decides before lengths do, so that no question is left out for its length.
    Every process gets the same number of questions of each step.
    """

    what: ClassVar[str] = "training questions"
    least: ClassVar[int] = 1
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False)
    """Tokens of each question, int64 ``[images]``."""

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Positions of all processes' questions, int64 ``[batch_size]``, step by step."""
        order, generator = self.shuffled(epoch)
        order = order[: self.steps * self.batch_size]
        cut: list[NDArray[np.int64]] = []
        for start in range(0, len(order), POOL * self.batch_size):
            pool = order[start : start + POOL * self.batch_size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            cut += np.split(pool, range(self.batch_size, len(pool), self.batch_size))
        for place in torch.randperm(self.steps, generator=generator).tolist():
            yield cut[place]

    def padding_waste(self, epoch: int = 1) -> float:
        """Share of the question tokens of an epoch, over all processes, that is padding, in [0, 1)."""
        shape = (self.steps, self.world_size, self.batch_size // self.world_size)
        lengths = self.lengths[np.concatenate(list(self.batches(epoch)))].reshape(shape)
        padded = lengths.max(axis=2).sum() * shape[2]
        return float(1 - lengths.sum() / padded)
