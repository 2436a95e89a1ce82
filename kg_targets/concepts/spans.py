"""Overlapping spans settled: the longest wins, then the leftmost."""

from __future__ import annotations

from typing import Protocol, TypeVar


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
