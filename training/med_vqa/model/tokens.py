"""Texts as padded tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.errors import ConfigError

MULTILINGUAL = "google-bert/bert-base-multilingual-cased"
FITTING = {"en": ("google-bert/bert-base-uncased",), "zh": (MULTILINGUAL, "google-bert/bert-base-chinese")}
"""Language of a data set to names of text models on the hub that know it; ``MULTILINGUAL`` for all others."""


@dataclass(frozen=True)
class Tokens:
    """N texts as word pieces."""

    ids: Tensor
    """int64 ``[N, L]``, padded to the longest text."""
    lengths: Tensor
    """int64 ``[N]``: how many of each row are real."""
    truncated: int = 0
    """Texts that were longer than allowed."""

    @classmethod
    def of(cls, pieces: Sequence[Sequence[int]], padding: int, truncated: int = 0) -> "Tokens":
        """Rows of word pieces, which may be empty, padded with the token ``padding``."""
        lengths = torch.tensor([len(row) for row in pieces], dtype=torch.int64)
        ids = torch.full((len(pieces), max([1, *lengths.tolist()])), padding, dtype=torch.int64)
        for row, values in enumerate(pieces):
            ids[row, : len(values)] = torch.tensor(values, dtype=torch.int64)
        return cls(ids, lengths, truncated)

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens int64 ``[B, L]`` and mask bool ``[B, L]`` (True = real), padded to the longest of ``rows``."""
        lengths = self.lengths[rows]
        longest = max(1, int(lengths.max()))
        return self.ids[rows, :longest], torch.arange(longest) < lengths[:, None]


def check_positions(name: str, asked: int, reader: Any) -> None:
    """Refuse texts that may be longer than a BERT's positions.

    Raises:
        ConfigError: they may.
    """
    limit = reader.config.max_position_embeddings
    if asked > limit:
        raise ConfigError(f"data.{name}: {asked} exceeds the model's {limit} positions: lower it")


def pieces_of(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Word pieces of each text, without special tokens, however long it is."""
    if not texts:
        return []
    found: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return found


def pieces_as_tokens(pieces: Sequence[Sequence[int]], tokenizer: Any, longest: int) -> Tokens:
    """``[CLS] … [SEP]``, at most ``longest`` tokens with both; what is longer loses its end, not its [SEP]."""
    rows = [[tokenizer.cls_token_id, *row[: longest - 2], tokenizer.sep_token_id] for row in pieces]
    return Tokens.of(rows, tokenizer.pad_token_id, sum(len(row) > longest - 2 for row in pieces))


def questions_as_tokens(texts: Sequence[str], tokenizer: Any, longest: int) -> Tokens:
    """Texts by ``pieces_as_tokens``."""
    return pieces_as_tokens(pieces_of(texts, tokenizer), tokenizer, longest)


def answers_as_tokens(texts: Sequence[str], tokenizer: Any, longest: int) -> Tokens:
    """``[CLS] … [SEP]``, at most ``longest`` tokens; what is longer loses its [SEP], too: no answer ends there."""
    rows = [[tokenizer.cls_token_id, *row, tokenizer.sep_token_id] for row in pieces_of(texts, tokenizer)]
    truncated = sum(len(row) > longest for row in rows)
    return Tokens.of([row[:longest] for row in rows], tokenizer.pad_token_id, truncated)


@dataclass(frozen=True)
class Coverage:
    """How much of some questions and answers a tokenizer can tell apart."""

    unknown: float
    """Share of all their tokens that are the tokenizer's unknown word, in [0, 1]."""
    answers: int
    """Different answers."""
    sequences: int
    """Different token sequences among them: fewer where answers collide, and no model can tell those apart."""

    @classmethod
    def of(cls, questions: Sequence[str], answers: Sequence[str], tokenizer: Any) -> "Coverage":
        """Coverage of questions and answers, each as often as it is trained on."""
        said = pieces_of(answers, tokenizer)
        ids = [one for row in (*pieces_of(questions, tokenizer), *said) for one in row]
        unknown = sum(one == tokenizer.unk_token_id for one in ids) / max(1, len(ids))
        return cls(unknown, len(set(answers)), len(set(map(tuple, said))))

    def __str__(self) -> str:
        return (
            f"{100 * self.unknown:.1f} % of the tokens of questions and answers are unknown words, "
            f"{self.answers:,} different answers become {self.sequences:,} token sequences"
        )

    def check(self, limit: float, dataset: str, language: str) -> None:
        """Refuse a text model that does not know the language.

        Args:
            limit: largest share of unknown tokens, ``data.max_unknown``.
            dataset: name of the data set, for the message.
            language: of its questions, as manifests name it.

        Raises:
            ConfigError: more tokens are unknown.
        """
        if self.unknown > limit:
            fitting = " or ".join(f"hf-hub:{name}" for name in FITTING.get(language, (MULTILINGUAL,)))
            raise ConfigError(
                f"{dataset}: this text model does not know its words: {self}; set --model.text {fitting}, or name a "
                f"folder that holds it (--data.max_unknown 1 trains all the same; now it is {limit:g})"
            )


def knowledge_as_tokens(texts: Sequence[str], tokenizer: Any) -> Tokens:
    """Word pieces alone, as the gate takes them; texts without any are left out."""
    return Tokens.of([row for row in pieces_of(texts, tokenizer) if row], tokenizer.pad_token_id)
