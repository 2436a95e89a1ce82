"""Mentions, which every extractor returns.

Overlapping spans settled: the longest wins, then the leftmost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


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


class Span(Protocol):
    """Anything that covers ``[start, end)`` of a text."""

    @property
    def start(self) -> int: ...  # noqa: D102
    @property
    def end(self) -> int: ...  # noqa: D102


S = TypeVar("S", bound=Span)


def without_overlap(spans: list[S]) -> list[S]:
    """Longest first, then leftmost; what overlaps a chosen span goes. In reading order; O(n log n + text)."""
    if len(spans) < 2:
        return spans
    spans = sorted(spans, key=lambda span: (span.start, span.end))
    kept: list[S] = []
    cluster = [spans[0]]
    reach = spans[0].end
    for span in spans[1:]:
        if span.start < reach:
            cluster.append(span)
            reach = max(reach, span.end)
            continue
        kept.extend(cluster if len(cluster) == 1 else _longest_first(cluster))
        cluster, reach = [span], span.end
    kept.extend(cluster if len(cluster) == 1 else _longest_first(cluster))
    return kept


def _longest_first(cluster: list[S]) -> list[S]:
    """Settle spans that overlap, directly or through others."""
    offset = cluster[0].start
    taken = bytearray(max(span.end for span in cluster) - offset)
    kept = []
    for span in sorted(cluster, key=lambda span: (span.start - span.end, span.start)):
        start, end = span.start - offset, span.end - offset
        if not any(taken[start:end]):
            taken[start:end] = b"\x01" * (end - start)
            kept.append(span)
    kept.sort(key=lambda span: span.start)
    return kept
