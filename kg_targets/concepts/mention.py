"""Mentions, which every extractor returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Mention:
    """One concept found in one caption.

    ``start`` and ``end`` count Unicode code points, so ``caption[start:end] == text`` holds exactly. A CUI that came
    with the data set and not from its text has no place in the caption: ``start = end = -1`` and ``text = ""``.
    """

    cui: str
    """UMLS concept unique identifier, for example ``C0032227``."""
    name: str
    """Preferred name of the concept in the ontology (the CUI itself where the ontology has none)."""
    start: int
    """First code point, 0-based; -1 without a place in the text."""
    end: int
    """One past the last code point; -1 without a place in the text."""
    text: str
    """The caption's own wording."""
    score: float
    """Confidence in [0, 1]; 1 for exact dictionary matches and provided CUIs."""
    negated: bool
    """The caption says that the concept is absent ("no pleural effusion")."""
    source: str
    """Name of the extractor that found it."""

    @property
    def located(self) -> bool:
        """Whether the mention has a place in the caption's text."""
        return self.start >= 0


def reading_order(mention: Mention) -> tuple[int, int, str]:
    """Sort key of mentions within a caption: start, then end, then CUI."""
    return mention.start, mention.end, mention.cui


class Extractor(Protocol):
    """Captions in, mentions per caption out; deterministic, one list per caption, in reading order."""

    name: str

    def extract(
        self, captions: Sequence[str], provided: Sequence[Sequence[str]] | None = None
    ) -> list[list[Mention]]:
        """Mentions of each caption; ``provided`` holds the CUIs that a data set ships for it, where it does."""
        ...
