"""``kg-targets evaluate concepts``: how well an extractor reads, against a gold file or against label columns.

Against hand-marked mentions: precision, recall and F1 of spans, right concepts, right polarity, and every error.

Against label columns: does the text name the value that the image's label has?

The manifest says which concepts stand for a label's value (``label_concepts``). A caption names a value if it asserts
such a concept, something that is a kind of it, or a part of it. Labels describe the image and captions need not repeat
them, so recall has a ceiling below 1; precision is what extraction answers for.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.concepts.evaluate import Agreement, Evaluation, Rate, evaluate
from kg_targets.concepts.gold_files import read_gold
from kg_targets.concepts.mention import Extractor
from kg_targets.errors import ManifestError
from kg_targets.manifest import Manifest, Record
from kg_targets.ontology import Ontology
from training.statistics.intervals import case_interval

RELATIONS = ("is_a", "part_of")
DRAWS = 2000
"""Bootstrap samples of cases per interval."""


def label_report(
    manifest: Manifest,
    split: str,
    records: list[Record],
    extractor: Extractor,
    ontology: Ontology,
    errors: int,
    seed: int,
) -> dict[str, Any]:
    """Rates of each label that the manifest ties to concepts, and up to ``errors`` captions that name another value.

    Images of one case are not independent, so the intervals come from a percentile bootstrap that resamples cases.

    Raises:
        ManifestError: the manifest ties no label to concepts.
    """
    if not manifest.label_concepts:
        raise ManifestError(
            f"{manifest.name}: label_concepts is empty: say there which concepts a label's values mean"
        )
    found = extractor.extract([record.caption for record in records], [record.cuis for record in records])
    asserted = [sorted({m.cui for m in mentions if m.asserted and m.cui in ontology}) for mentions in found]
    groups, cases = np.unique([record.group_id for record in records], return_inverse=True)
    reached = _with_ancestors(asserted, ontology)
    labels = {}
    for label, values in manifest.label_concepts.items():
        named = [{value for value, cuis in values.items() if above & set(cuis)} for above in reached]
        given = [record.labels.get(label, "") for record in records]
        wrong = [row for row, value in enumerate(given) if value in values and value not in named[row]]
        labels[label] = _label_rates(list(values), given, named, cases, seed) | {
            "errors": [
                {"image_id": records[row].image_id, "label": given[row], "named": sorted(named[row]),
                 "caption": records[row].caption}
                for row in [row for row in wrong if named[row]][:errors]
            ]
        }  # fmt: skip
    return {
        "dataset": manifest.name, "split": split, "captions": len(records), "cases": len(groups), "draws": DRAWS,
        "seed": seed, "labels": labels,
    }  # fmt: skip


def label_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Lines of ``label_report`` for a person, one table per label."""
    yield (
        f"{report['dataset']}/{report['split']}: {report['captions']:,} captions of {report['cases']:,} cases; 95 % "
        f"intervals: percentile bootstrap over cases ({DRAWS:,} draws, seed {report['seed']}), t below 200 cases"
    )
    for label, table in report["labels"].items():
        yield f"  {label}: {table['captions']:,} labelled captions"
        for title, one in table["rates"].items():
            yield f"    {title:<47} {_share(one)}"
        for value, one in table["recall"].items():
            yield f"    {value:<32} recall           {_share(one)}"
        for wrong in table["errors"]:
            caption = " ".join(wrong["caption"].split())[:90]
            yield f"    {wrong['image_id']}: label {wrong['label']!r}, text names {wrong['named']}: {caption}"


def _label_rates(
    values: list[str],
    given: list[str],
    named: list[set[str]],
    cases: NDArray[np.int64],
    seed: int,
) -> dict[str, Any]:
    def share(rows: list[int]) -> dict[str, Any] | None:
        """Share of rows whose text names the label's value, its interval from resampled cases."""
        if not rows:
            return None
        right = np.array([given[row] in named[row] for row in rows], dtype=np.float64)
        interval = asdict(case_interval(right, cases[rows], DRAWS, seed))
        return {**interval, "right": int(right.sum()), "total": len(rows)}

    rows = [row for row, value in enumerate(given) if value in values]
    speaking = [row for row in rows if named[row]]
    only = [row for row in speaking if len(named[row]) == 1]
    rates = {
        "text names the label's value": share(rows),
        "… of those that name any value": share(speaking),
        "… of those that name exactly one": share(only),
    }
    recall = {value: share([row for row in rows if given[row] == value]) for value in values}
    return {"captions": len(rows), "rates": rates, "recall": recall}


def _share(one: Mapping[str, Any] | None) -> str:
    return "–" if one is None else _rate(one["mean"], one["low"], one["high"], one["right"], one["total"])


def _rate(value: float, low: float, high: float, hits: int, total: int) -> str:
    """``0.954 [0.931, 0.970] (520/545)``."""
    bounds = "–" if low != low else f"{low:.3f}, {high:.3f}"
    return f"{value:.3f} [{bounds}] ({hits:,}/{total:,})"


def _with_ancestors(asserted: list[list[str]], ontology: Ontology) -> list[set[str]]:
    used = sorted({cui for cuis in asserted for cui in cuis})
    nodes, hops = ontology.ancestor_matrix(used, relations=RELATIONS)
    names = np.asarray(nodes, dtype=object)
    above = {cui: set(names[hops[[row]].indices]) for row, cui in enumerate(used)}
    return [set().union(*(above[cui] for cui in cuis)) for cuis in asserted]


ERROR_WIDTH = 100
TYPE_OF_KIND = {"organ": "anatomy", "region": "anatomy"}
"""The gold's types by the ontology's kinds, where the two have different names."""
NO_TYPE = "no type"
"""Type of concepts that the ontology lacks or gives no kind."""


def gold_evaluation(
    path: Path, split: str | None, extractor: Extractor, ontology: Ontology, seed: int
) -> Evaluation:
    """Agreement with the hand-marked captions of a file.

    Raises:
        ExtractionError: the gold file is missing or malformed, or has no caption of that split.
    """
    gold = read_gold(path, split)
    found = extractor.extract([caption.text for caption in gold])
    cuis = {mention.cui for mentions in found for mention in mentions}
    kinds = {cui: ontology[cui].kind if cui in ontology else "" for cui in cuis}
    types = {cui: TYPE_OF_KIND.get(kind, kind) for cui, kind in kinds.items()}
    return evaluate(gold, found, types, seed=seed)


def gold_lines(result: Evaluation, title: str, errors: int, seed: int) -> Iterator[str]:
    """Lines for a person; the last ones list up to ``errors`` disagreements."""
    yield (
        f"{title}: {result.captions} captions, {result.mentions} mentions; "
        f"95 % intervals: Wilson for rates, bootstrap over captions for F1 (seed {seed})"
    )
    yield from _table(result)
    by_kind = Counter(item.kind for item in result.discrepancies)
    counts = ", ".join(f"{count} {kind}" for kind, count in by_kind.most_common())
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
    if result.negated.recall.total:
        yield f"  {'right polarity':<22} {rate_text(result.negation)}"
    else:
        yield f"  {'right polarity':<22} – (the gold denies no mention; PubTator's files cannot)"
    yield _spans("negated mentions", result.negated)
    yield "  by semantic type, spans that overlap (precision: the found concept's type; recall: the gold's)"
    nothing = Rate(0, 0)
    for kind in sorted(result.recall_by_type.keys() | result.precision_by_type.keys()):
        precision, recall = (
            rate_text(rates.get(kind, nothing)) for rates in (result.precision_by_type, result.recall_by_type)
        )
        yield f"    {kind or NO_TYPE:<20} precision {precision:<32} recall {recall}"


def _spans(title: str, agreement: Agreement) -> str:
    low, high = agreement.f1_interval
    return (
        f"  {title:<22} precision {rate_text(agreement.precision)}  recall {rate_text(agreement.recall)}  "
        f"F1 {agreement.f1:.3f} [{low:.3f}, {high:.3f}]"
    )


def rate_text(rate: Rate) -> str:
    """``0.954 [0.931, 0.970] (520/545)``."""
    return _rate(rate.value, *rate.interval, rate.successes, rate.total) if rate.total else "–"
