"""Agreement of extraction with hand-annotated captions: spans, concepts, negation, with intervals and the errors.

A predicted mention matches a gold mention *exactly* when their spans are equal and *by overlap* when they share a code
point; each mention matches at most once, equal spans first, then the largest overlap. Concepts are compared where the
gold names a CUI, negation on all overlapping pairs. Provided CUIs have no span and are not judged here.

The gold set is read from JSONL: captions with hand-annotated mentions.

One object per line: ``{"id", "text", "mentions": [{"start", "end", "text", "name", "type", "negated"[, "cui"]}]
[, "split"]}``; offsets are Unicode code points.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kg_targets.concepts.mention import Mention
from kg_targets.errors import ExtractionError


@dataclass(frozen=True, slots=True)
class GoldMention:
    """One hand-annotated mention; ``cui`` is empty where the annotator was not sure of it."""

    start: int
    end: int
    text: str
    name: str
    type: str
    negated: bool
    cui: str = ""


@dataclass(frozen=True, slots=True)
class GoldCaption:
    """One caption with all its mentions; ``split`` is empty or a name such as ``tune``."""

    id: str
    text: str
    mentions: tuple[GoldMention, ...]
    split: str = ""


def read_jsonl(path: str | Path, split: str | None = None) -> list[GoldCaption]:
    """Read a gold file, of one split only where one is named.

    Raises:
        ExtractionError: the file is missing, has a malformed line, a mention whose offsets do not give its text, or no
            caption of that split.
    """
    captions = [caption for caption in _read(path) if split is None or caption.split == split]
    if not captions:
        raise ExtractionError(f"{path}: holds no caption" + (f" of split {split!r}" if split else ""))
    return captions


def _read(path: str | Path) -> Iterator[GoldCaption]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ExtractionError(f"{path}: cannot be read as UTF-8 JSON lines ({error})") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _caption(json.loads(line))
            except json.JSONDecodeError as error:
                raise ExtractionError(f"{path}:{number}: not valid JSON: {error}") from error
            except (ValueError, TypeError) as error:
                raise ExtractionError(f"{path}:{number}: not a gold caption: {error}") from error


def _caption(row: Any) -> GoldCaption:
    _require(row, ("id", "text", "mentions"), "the caption")
    text = row["text"]
    if not isinstance(text, str) or not isinstance(row["mentions"], list):
        raise TypeError("'text' must be a string and 'mentions' a list")
    mentions = []
    for place, item in enumerate(row["mentions"], start=1):
        _require(item, ("start", "end", "text"), f"mention {place}")
        mention = GoldMention(
            int(item["start"]),
            int(item["end"]),
            str(item["text"]),
            str(item.get("name", item["text"])),
            str(item.get("type", "")),
            bool(item.get("negated", False)),
            str(item.get("cui", "")),
        )
        if text[mention.start : mention.end] != mention.text or mention.start >= mention.end:
            raise ValueError(f"offsets {mention.start}:{mention.end} do not give {mention.text!r}")
        mentions.append(mention)
    return GoldCaption(str(row["id"]), text, tuple(mentions), str(row.get("split", "")))


def _require(item: Any, keys: tuple[str, ...], what: str) -> None:
    if not isinstance(item, Mapping):
        raise TypeError(f"{what} is not a JSON object with the keys {', '.join(keys)}")
    missing = [key for key in keys if key not in item]
    if missing:
        raise ValueError(f"{what} lacks the key {', '.join(map(repr, missing))}")


_Z95 = 1.959963984540054
Pair = tuple[GoldMention, Mention]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % Wilson interval (Wilson 1927); NaN where nothing was counted."""

    successes: int
    total: int

    @property
    def value(self) -> float:
        """successes / total."""
        return self.successes / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % Wilson score interval."""
        if not self.total:
            return math.nan, math.nan
        n, p, z2 = self.total, self.value, _Z95 * _Z95
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Precision, recall and F1 of one way of matching."""

    precision: Rate
    recall: Rate
    f1: float
    f1_interval: tuple[float, float]
    """95 % percentile bootstrap over captions."""


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One disagreement, to be read by a person."""

    caption_id: str
    kind: str
    """``missed``, ``spurious``, ``boundary``, ``concept`` or ``negation``."""
    gold: str
    """The gold wording (with ``CUI`` or ``not`` where that is what differs), empty for spurious mentions."""
    predicted: str
    caption: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything counted on one gold set."""

    captions: int
    mentions: int
    """Hand-marked ones."""
    exact: Agreement
    overlap: Agreement
    recall_by_type: dict[str, Rate]
    """Overlap recall per gold type."""
    precision_by_type: dict[str, Rate]
    """Overlap precision per predicted type; empty without ``types``."""
    concepts: Rate
    """Right CUI among overlapping pairs whose gold names one."""
    negation: Rate
    """Right polarity among overlapping pairs."""
    negated: Agreement
    """Negated mentions as the class to find, among overlapping pairs."""
    discrepancies: tuple[Discrepancy, ...]


def evaluate(
    gold: Sequence[GoldCaption],
    predicted: Sequence[Sequence[Mention]],
    types: Mapping[str, str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Compare predictions with a gold set.

    Args:
        predicted: one list per gold caption.
        types: CUI to type, for precision by type.
        resamples: bootstrap samples of captions for the F1 intervals.

    Raises:
        ExtractionError: the two have different lengths.
    """
    if len(gold) != len(predicted):
        raise ExtractionError(f"evaluation: {len(gold)} gold captions but {len(predicted)} lists of mentions")
    located = [[mention for mention in mentions if mention.located] for mentions in predicted]
    exact = [_match(g.mentions, p, exact=True) for g, p in zip(gold, located, strict=True)]
    overlap = [_match(g.mentions, p, exact=False) for g, p in zip(gold, located, strict=True)]
    pairs = [pair for matched in overlap for pair in matched]
    sizes = [(len(p), len(g.mentions)) for g, p in zip(gold, located, strict=True)]
    rng = np.random.default_rng(seed)
    negated_counts = [_negated_counts(matched) for matched in overlap]
    named = [(g, p) for g, p in pairs if g.cui]
    return Evaluation(
        captions=len(gold),
        mentions=sum(len(caption.mentions) for caption in gold),
        exact=agreement([(len(m), *n) for m, n in zip(exact, sizes, strict=True)], resamples, rng),
        overlap=agreement([(len(m), *n) for m, n in zip(overlap, sizes, strict=True)], resamples, rng),
        recall_by_type=_by_type(
            [g.type.lower() for g, _ in pairs],
            [mention.type.lower() for caption in gold for mention in caption.mentions],
        ),
        precision_by_type={}
        if types is None
        else _by_type(
            [types.get(p.cui, "") for _, p in pairs],
            [types.get(p.cui, "") for found in located for p in found],
        ),
        concepts=Rate(sum(g.cui == p.cui for g, p in named), len(named)),
        negation=Rate(sum(g.negated == p.negated for g, p in pairs), len(pairs)),
        negated=agreement(negated_counts, resamples, rng),
        discrepancies=tuple(
            item
            for caption, found, matched in zip(gold, located, overlap, strict=True)
            for item in _discrepancies(caption, found, matched)
        ),
    )


def _match(gold: Sequence[GoldMention], predicted: Sequence[Mention], *, exact: bool) -> list[Pair]:
    """One-to-one pairs, equal spans first, then (by overlap) in reading order."""
    spans = {(p.start, p.end): p for p in reversed(predicted)}
    pairs = [(g, spans[g.start, g.end]) for g in gold if (g.start, g.end) in spans]
    if exact:
        return pairs
    used_gold = {(g.start, g.end) for g, _ in pairs}
    used = {(p.start, p.end) for _, p in pairs}
    for g in gold:
        if (g.start, g.end) in used_gold:
            continue
        free = [p for p in predicted if (p.start, p.end) not in used and p.start < g.end and g.start < p.end]
        if free:  # "ischemia" rather than "bowel" for "bowel ischemia"
            best = max(free, key=lambda p: (min(p.end, g.end) - max(p.start, g.start), p.start))
            pairs.append((g, best))
            used.add((best.start, best.end))
    return pairs


def _negated_counts(pairs: Sequence[Pair]) -> tuple[int, int, int]:
    both = sum(g.negated and p.negated for g, p in pairs)
    return both, sum(p.negated for _, p in pairs), sum(g.negated for g, _ in pairs)


def agreement(counts: ArrayLike, resamples: int, rng: np.random.Generator) -> Agreement:
    """Precision, recall and F1 from counts for each caption, [captions, 3]: matched, predicted, gold."""
    table = np.asarray(counts, dtype=np.int64).reshape(-1, 3)
    matched, predicted, gold = (int(n) for n in table.sum(axis=0))
    draws = (
        rng.integers(0, len(table), size=(resamples, len(table)))
        if len(table)
        else np.zeros((0, 0), dtype=int)
    )
    sums = table[draws].sum(axis=1)  # [resamples, 3]
    scores = 2 * sums[:, 0] / np.maximum(sums[:, 1] + sums[:, 2], 1)
    low, high = (
        (float(q) for q in np.quantile(scores, [0.025, 0.975])) if len(scores) else (math.nan, math.nan)
    )
    f1 = 2 * matched / (predicted + gold) if predicted + gold else math.nan
    return Agreement(Rate(matched, predicted), Rate(matched, gold), f1, (low, high))


def _by_type(hits: Sequence[str], everything: Sequence[str]) -> dict[str, Rate]:
    found, total = Counter(hits), Counter(everything)
    return {kind: Rate(found[kind], total[kind]) for kind in sorted(total)}


def _discrepancies(
    caption: GoldCaption, found: Sequence[Mention], pairs: Sequence[Pair]
) -> list[Discrepancy]:
    items = []
    paired = {id(g) for g, _ in pairs}, {id(p) for _, p in pairs}
    for g in caption.mentions:
        if id(g) not in paired[0]:
            items.append(Discrepancy(caption.id, "missed", g.text, "", caption.text))
    for p in found:
        if id(p) not in paired[1]:
            items.append(Discrepancy(caption.id, "spurious", "", f"{p.text} ({p.name})", caption.text))
    for g, p in pairs:
        if (g.start, g.end) != (p.start, p.end):
            items.append(Discrepancy(caption.id, "boundary", g.text, p.text, caption.text))
        if g.cui and g.cui != p.cui:
            items.append(
                Discrepancy(caption.id, "concept", f"{g.text} {g.cui}", f"{p.cui} ({p.name})", caption.text)
            )
        if g.negated != p.negated:
            sides = [("not " if side else "") + g.text for side in (g.negated, p.negated)]
            items.append(Discrepancy(caption.id, "negation", sides[0], sides[1], caption.text))
    return items
