"""Mentions, which every extractor returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

STATUSES = ("negated", "uncertain", "hypothetical", "historical", "family")
"""What a caption can say of a mention besides stating it; each is a field of ``Mention`` and a column of a store."""


class Mention(NamedTuple):
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
    score: float = 1.0
    """Confidence in [0, 1]; 1 for exact dictionary matches and provided CUIs."""
    negated: bool = False
    """The caption says that the concept is absent ("no pleural effusion")."""
    uncertain: bool = False
    """The caption gives it as one possibility ("may represent pneumonia")."""
    hypothetical: bool = False
    """It was looked for, or would matter if it were there ("to rule out fracture")."""
    historical: bool = False
    """The patient once had it ("history of breast cancer")."""
    family: bool = False
    """A relative has it."""
    source: str = ""
    """Name of the extractor that found it."""

    @property
    def located(self) -> bool:
        """Whether the mention has a place in the caption's text."""
        return self.start >= 0

    @property
    def asserted(self) -> bool:
        """Whether the caption says, perhaps with doubt, that it is there."""
        return not (self.negated or self.hypothetical or self.historical or self.family)

    @property
    def stated(self) -> bool:
        """Whether the caption says so without doubt."""
        return self.asserted and not self.uncertain


def marked(mention: Mention, statuses: Iterable[str]) -> Mention:
    """The mention with those statuses."""
    given: dict[str, Any] = dict.fromkeys(statuses, True)
    return mention._replace(**given)


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
