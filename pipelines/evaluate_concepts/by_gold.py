"""Against hand-marked mentions: precision, recall and F1 of spans, right concepts, right polarity, and every error."""

from collections.abc import Iterator
from pathlib import Path

from kg_targets.concepts.evaluate import Agreement, Evaluation, Rate, evaluate
from kg_targets.concepts.gold import read_jsonl
from kg_targets.concepts.mention import Extractor

ERROR_WIDTH = 100


def gold_lines(path: Path, split: str | None, extractor: Extractor, errors: int, seed: int) -> Iterator[str]:
    """Lines for a person; the last ones list up to ``errors`` disagreements.

    Raises:
        ExtractionError: the gold file is missing or malformed, or has no caption of that split.
    """
    gold = read_jsonl(path, split)
    result = evaluate(gold, extractor.extract([caption.text for caption in gold]), seed=seed)
    mentions = sum(len(caption.mentions) for caption in gold)
    yield (
        f"{path.name}, {split or 'all splits'}: {result.captions} captions, {mentions} mentions; "
        f"95 % intervals: Wilson for rates, bootstrap over captions for F1 (seed {seed})"
    )
    yield from _table(result)
    yield f"{len(result.discrepancies)} disagreements" + (f", the first {errors}:" if errors else "")
    for item in result.discrepancies[:errors]:
        caption = item.caption if len(item.caption) <= ERROR_WIDTH else item.caption[: ERROR_WIDTH - 1] + "…"
        found = f"gold {item.gold or '–'!r} / found {item.predicted or '–'!r}"
        yield f"  {item.kind:<9} {found} in {item.caption_id}: {caption}"


def _table(result: Evaluation) -> Iterator[str]:
    yield _spans("spans that overlap", result.overlap)
    yield _spans("spans that are equal", result.exact)
    yield f"  {'right concept':<22} {rate_text(result.concepts)}"
    yield f"  {'right polarity':<22} {rate_text(result.negation)}"
    yield _spans("negated mentions", result.negated)
    for kind, rate in sorted(result.recall_by_type.items()):
        yield f"  {'recall, ' + kind:<22} {rate_text(rate)}"


def _spans(title: str, agreement: Agreement) -> str:
    low, high = agreement.f1_interval
    return (
        f"  {title:<22} precision {rate_text(agreement.precision)}  recall {rate_text(agreement.recall)}  "
        f"F1 {agreement.f1:.3f} [{low:.3f}, {high:.3f}]"
    )


def rate_text(rate: Rate) -> str:
    """``0.954 [0.931, 0.970] (520/545)``."""
    low, high = rate.interval
    return (
        f"{rate.value:.3f} [{low:.3f}, {high:.3f}] ({rate.successes:,}/{rate.total:,})" if rate.total else "–"
    )
