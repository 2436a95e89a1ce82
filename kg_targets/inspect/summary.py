"""What a store holds, in a few lines for people: coverage, concepts, similarity, the most frequent concepts."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from kg_targets.store import TargetStore

GROUPS = {
    "modality": ("modality", "sequence"),
    "anatomy": ("region", "organ"),
    "finding": ("finding",),
}
"""The groups of concept kinds whose coverage says whether captions were understood."""


def coverage(store: "TargetStore") -> dict[str, float]:
    """Share of images, in [0, 1], that assert at least one concept of each group, of any group, and of all three."""
    matrix = store.cui_matrix()
    kinds = store.concepts["kind"].to_numpy()
    has = {
        group: np.asarray(matrix[:, np.flatnonzero(np.isin(kinds, members))].sum(axis=1)) > 0
        for group, members in GROUPS.items()
    }
    stacked = np.stack(list(has.values()))
    shares = {group: float(mask.mean()) for group, mask in has.items()}
    return {
        **shares,
        "any of them": float(stacked.any(axis=0).mean()),
        "all three": float(stacked.all(axis=0).mean()),
    }


def summary_lines(store: "TargetStore", most_frequent: int = 8) -> list[str]:
    """The closing lines of a build."""
    concepts = store.concepts
    asserted = int((concepts["images"] > 0).sum())
    unknown = int((~store.known).sum())
    quantiles = store.manifest["similarity"]["quantiles"]
    ordered = concepts[concepts["images"] > 0].sort_values(["images", "cui"], ascending=[False, True])
    findings = ordered[ordered["kind"] == "finding"]
    lines = [
        "captions with a concept: "
        + ", ".join(f"{group} {share:.1%}" for group, share in coverage(store).items()),
        f"graph: {asserted:,} concepts asserted, {len(concepts) - asserted:,} ancestors, {len(store.is_a):,} edges",
        f"unknown images (no concept, identity targets): {unknown:,} of {len(store):,} ({unknown / len(store):.1%})",
        "similarity between cases: " + ", ".join(f"{name} {value:.3f}" for name, value in quantiles.items()),
        f"most frequent concepts: {_listed(ordered.head(most_frequent))}",
        f"most frequent findings: {_listed(findings.head(most_frequent))}",
    ]
    unknown_cuis = store.manifest["unknown_cuis"]
    if unknown_cuis:
        listed = ", ".join(f"{cui} ×{count:,}" for cui, count in list(unknown_cuis.items())[:5])
        fate = "kept without ancestors" if store.manifest["config"]["keep_unknown_cuis"] else "left out"
        lines.append(f"CUIs that the ontology does not have ({fate}): {listed}")
    return lines


def _listed(concepts: pd.DataFrame) -> str:
    return ", ".join(
        f"{name} {count:,}" for name, count in zip(concepts["name"], concepts["images"], strict=True)
    )
