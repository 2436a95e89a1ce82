"""Answers that can be given, as tokens: refused where nothing is left of one, told where two are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.errors import DataError
from training.med_vqa.model.tokens import pieces_of
from training.vqa.normalise import normalise_answer

TokenIds = tuple[int, ...]


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
