"""``kg-targets evaluate concepts --mesh``: findings in reports against the headings that annotators gave them.

A report has a finding if its text states the finding or something that is a kind of it; uncertain ones count where
they are asked for. Intervals: Wilson for precision and recall, percentile bootstrap over reports for F1.
"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

import numpy as np

from kg_targets.concepts.evaluate import Rate, agreement
from kg_targets.concepts.findings import PRESENT, UNCERTAIN, findings, states
from kg_targets.concepts.mention import Extractor
from kg_targets.errors import DataError, printable
from kg_targets.ontology import Ontology
from pipelines.audit.reports import Reports

NOT_INDEXED = "No Indexing"
"""Label of reports that no annotator has seen; they are left out."""
RESAMPLES = 1000


def finding_report(
    reports: Reports,
    column: str,
    ontology: Ontology,
    extractor: Extractor,
    uncertain: bool,
    errors: int,
    seed: int,
) -> dict[str, Any]:
    """Precision, recall and F1 of each finding and of all together, and up to ``errors`` of the worst errors.

    Args:
        column: of the labels, ``Heading/qualifier/…`` joined by ``|``.
        uncertain: count what a report only holds possible.

    Raises:
        DataError: there is no such column, or no report is indexed.
    """
    labels = reports.column(column)
    kept = [row for row, given in enumerate(labels) if given.strip() not in ("", NOT_INDEXED)]
    if not kept:
        raise DataError(f"{reports.title}: column {column!r} gives no report a label")
    listed = findings("mesh", ontology, extractor)
    said = states(extractor.extract([reports.texts[row] for row in kept]), listed, ontology)
    found = said >= (UNCERTAIN if uncertain else PRESENT)
    gold = np.array([[finding.labelled(labels[row]) for finding in listed] for row in kept])
    rng = np.random.default_rng(seed)
    counts = np.stack([found & gold, found, gold])  # [3, reports, findings]
    rates = {
        finding.name: {
            "cuis": sorted(finding.cuis), "reports": int(gold[:, at].sum()),
            **_shown(asdict(agreement(counts[:, :, at].T.astype(int), RESAMPLES, rng))),
        }
        for at, finding in enumerate(listed)
    }  # fmt: skip
    total = _shown(asdict(agreement(counts.sum(axis=2).T, RESAMPLES, rng)))
    return {
        "reports": reports.title, "rows": len(kept), "counted": "stated or uncertain" if uncertain else "stated",
        "seed": seed, "findings": rates, "all": total,
        "errors": [
            {"finding": listed[at].name, "error": "spurious" if found[row, at] else "missed",
             "report": reports.ids[kept[row]], "labels": labels[kept[row]], "text": reports.texts[kept[row]]}
            for row, at in _worst(found != gold)[:errors]
        ],
    }  # fmt: skip


def finding_lines(report: dict[str, Any]) -> Iterator[str]:
    """Lines of ``finding_report`` for a person."""
    yield (
        f"{report['reports']}: {report['rows']:,} labelled reports, findings {report['counted']}; 95 % intervals: "
        f"Wilson, bootstrap over reports for F1 ({RESAMPLES:,} draws, seed {report['seed']})"
    )
    yield f"  {'finding':<18} {'n':>5}  {'precision':<28} {'recall':<28} F1"
    rows = {**report["findings"], "all": report["all"]}
    for name, one in rows.items():
        absent = "" if one.get("cuis", True) else "  the ontology has no such concept"
        f1, (low, high) = one["f1"], one["f1_interval"]
        yield (
            f"  {name:<18} {one['recall']['total']:>5}  {_rate(one['precision']):<28} {_rate(one['recall']):<28} "
            f"{f1:.3f} [{low:.3f}, {high:.3f}]{absent}"
        )
    for error in report["errors"]:
        text = printable(error["text"])
        shown = text if len(text) <= 160 else text[:159] + "…"
        where = printable(f"{error['finding']}, {error['report']}, labels {error['labels']}")
        yield f"  {error['error']:<8} {where}: {shown}"


def _worst(wrong: Any) -> list[tuple[int, int]]:
    """(row, finding) of every error, the findings with most errors first, one of each in turn."""
    order = np.argsort(-wrong.sum(axis=0), kind="stable")
    each = [[(int(row), int(at)) for row in np.flatnonzero(wrong[:, at])] for at in order]
    return [error for turn in zip_longest(*each) for error in turn if error is not None]


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    for name in ("precision", "recall"):
        rate = Rate(**found[name])
        found[name] |= {"value": rate.value, "interval": rate.interval}
    return found


def _rate(one: dict[str, Any]) -> str:
    low, high = one["interval"]
    return "–" if not one["total"] else f"{one['value']:.3f} [{low:.3f}, {high:.3f}]"
