"""The closing lines of a build: coverage, similarities, frequent concepts, and CUIs that need a look."""

import pandas as pd

from kg_targets.graph import coverage
from kg_targets.ontology import Ontology
from kg_targets.store import TargetStore


def summary_lines(store: TargetStore, most_frequent: int = 8) -> list[str]:
    """The closing lines of a build."""
    concepts = store.concepts
    shares = coverage(store.cui_matrix(), concepts["kind"])
    asserted = int((concepts["images"] > 0).sum())
    unknown = int((~store.known).sum())
    quantiles = store.manifest["similarity"]["quantiles"]
    ordered = concepts[concepts["images"] > 0].sort_values(["images", "cui"], ascending=[False, True])
    findings = ordered[ordered["kind"] == "finding"]
    lines = [
        "captions with a concept: " + ", ".join(f"{group} {share:.1%}" for group, share in shares.items()),
        f"graph: {asserted:,} concepts asserted, {len(concepts) - asserted:,} ancestors, {len(store.edges):,} edges",
        f"unknown images (identity targets): {unknown:,} of {len(store):,} ({unknown / len(store):.1%})",
        "similarity between cases: " + ", ".join(f"{name} {value:.3f}" for name, value in quantiles.items()),
        f"most frequent concepts: {_listed(ordered.head(most_frequent))}",
        f"most frequent findings: {_listed(findings.head(most_frequent))}",
    ]
    if found := store.manifest.get("neighbors"):
        lines.append(
            f"neighbours are approximate: {found['recall']:.1%} of the exact ones of 256 of {found['distinct_rows']:,} "
            "distinct rows (--neighbors exact finds all, in a time that grows with the square)"
        )
    if retired := store.manifest["retired_cuis"]:
        lines.append(f"retired CUIs, followed to their successors: {_counted(retired)}")
    confirmation = store.manifest["confirmation"]
    if confirmation["singly_confirmed"]:
        lines.append(
            f"CUIs that a single source confirms: {confirmation['singly_confirmed']:,} of {confirmation['concepts']:,} "
            f"concepts, {confirmation['share']:.1%} of what the images assert (--ontology seed-strict leaves them out)"
        )
    if "languages" in store.manifest:
        counts, dropped = store.manifest["languages"], store.manifest["config"]["languages"] == "drop"
        fate = "nothing is read in them" if dropped else "they are read like the others; --languages drop"
        lines.append(
            f"captions surely not English: {sum(counts.values()):,} of {len(store):,}"
            + (f" ({_counted(counts)}; {fate})" if counts else "")
        )
    if unknown_cuis := store.manifest["unknown_cuis"]:
        kept = store.manifest["config"]["keep_unknown_cuis"]
        fate = "stand alone, without ancestors" if kept else "are left out"
        lines.append(
            f"{store.manifest['unknown_cuis_count']:,} CUIs that the ontology lacks {fate}: {_counted(unknown_cuis)} "
            "(UMLS would place them: --ontology 'seed|umls:META')"
        )
    return lines


def confirmation(ontology: Ontology, images: dict[str, int]) -> dict[str, float]:
    """Count what rests on CUIs that one source confirms: concepts, and their share of the images' assertions.

    Args:
        ontology: that knows what is confirmed.
        images: CUI to the number of images that assert it.
    """
    counts = {cui: count for cui, count in images.items() if cui in ontology}
    single = {cui: count for cui, count in counts.items() if not ontology[cui].verified}
    return {
        "concepts": len(counts),
        "singly_confirmed": len(single),
        "share": sum(single.values()) / max(sum(counts.values()), 1),
    }


def _counted(cuis: dict[str, int]) -> str:
    most = sorted(cuis.items(), key=lambda item: (-item[1], item[0]))[:5]
    return ", ".join(f"{cui} ×{count:,}" for cui, count in most)


def _listed(concepts: pd.DataFrame) -> str:
    return ", ".join(
        f"{name} {count:,}" for name, count in zip(concepts["name"], concepts["images"], strict=True)
    )
