"""Against hand-marked mentions: precision, recall and F1 of spans, right concepts, right polarity, and every error."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kg_targets.concepts.evaluate import Agreement, Evaluation, Rate, evaluate
from kg_targets.concepts.gold import read_jsonl
from kg_targets.concepts.mention import Extractor
from kg_targets.ontology import Ontology

ERROR_WIDTH = 100
TYPE_OF_KIND = {"organ": "anatomy", "region": "anatomy"}
"""The gold's types by the ontology's kinds, where the two have different names."""
NO_TYPE = "no type"
"""Of concepts that the ontology lacks or gives no kind."""


def gold_lines(
    path: Path, split: str | None, extractor: Extractor, ontology: Ontology, errors: int, seed: int
) -> Iterator[str]:
    """Lines for a person; the last ones list up to ``errors`` disagreements.

    Raises:
        ExtractionError: the gold file is missing or malformed, or has no caption of that split.
    """
    gold = read_jsonl(path, split)
    found = extractor.extract([caption.text for caption in gold])
    cuis = {mention.cui for mentions in found for mention in mentions}
    result = evaluate(gold, found, {cui: _gold_type(cui, ontology) for cui in cuis}, seed=seed)
    mentions = sum(len(caption.mentions) for caption in gold)
    yield (
        f"{path.name}, {split or 'all splits'}: {result.captions} captions, {mentions} mentions; "
        f"95 % intervals: Wilson for rates, bootstrap over captions for F1 (seed {seed})"
    )
    yield from _table(result)
    kinds = Counter(item.kind for item in result.discrepancies)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    listed = f"; the first {min(errors, len(result.discrepancies))}:" if errors and counts else ""
    yield f"{len(result.discrepancies)} disagreements" + (f" ({counts})" if counts else "") + listed
    for item in result.discrepancies[:errors]:
        caption = item.caption if len(item.caption) <= ERROR_WIDTH else item.caption[: ERROR_WIDTH - 1] + "…"
        sides = f"gold {item.gold or '–'!r} / found {item.predicted or '–'!r}"
        yield f"  {item.kind:<9} {sides} in {item.caption_id}: {caption}"


def _table(result: Evaluation) -> Iterator[str]:
    yield _spans("spans that overlap", result.overlap)
    yield _spans("spans that are equal", result.exact)
    yield f"  {'right concept':<22} {rate_text(result.concepts)}"
    yield f"  {'right polarity':<22} {rate_text(result.negation)}"
    yield _spans("negated mentions", result.negated)
    yield "  by semantic type, spans that overlap (precision: the found concept's type; recall: the gold's)"
    nothing = Rate(0, 0)
    for kind in sorted(result.recall_by_type.keys() | result.precision_by_type.keys()):
        precision, recall = (
            rate_text(rates.get(kind, nothing)) for rates in (result.precision_by_type, result.recall_by_type)
        )
        yield f"    {kind or NO_TYPE:<20} precision {precision:<32} recall {recall}"


def _gold_type(cui: str, ontology: Ontology) -> str:
    kind = ontology[cui].kind if cui in ontology else ""
    return TYPE_OF_KIND.get(kind, kind)


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
