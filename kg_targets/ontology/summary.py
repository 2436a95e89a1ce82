"""What is said about a resolved ontology: its report and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from kg_targets.ontology.closure import cycles
from kg_targets.ontology.concept import OntologyReport, cui_strings
from kg_targets.ontology.resolve import Resolved
from kg_targets.ontology.tables import IS_A, RELATIONS, SAME_AS


def describe(resolved: Resolved, skipped: Mapping[str, int]) -> OntologyReport:
    """Count what is there; ``skipped`` comes from the reader."""
    graphs = {relation: resolved.graph(frozenset([relation])) for relation in RELATIONS}
    count = max(len(resolved.cuis), 1)
    spellings = np.unique((resolved.key * count + resolved.concept_of_name)[resolved.key >= 0]) // count
    return OntologyReport(
        concepts=len(resolved.cuis),
        verified=int(resolved.verified.sum()),
        names=resolved.names.num_rows,
        ambiguous_aliases=int((np.unique(spellings, return_counts=True)[1] > 1).sum()),
        edges={relation: len(graph.parents) for relation, graph in graphs.items() if len(graph.parents)},
        cycles=tuple(tuple(cui_strings(resolved.cuis[group])) for group in cycles(graphs[IS_A])),
        equivalence_classes=len(cycles(graphs[SAME_AS])),
        self_loops=resolved.self_loops,
        dangling_edges=resolved.edges.num_rows - resolved.attached_edges().num_rows,
        skipped=dict(sorted(skipped.items())),
    )


def fingerprint(resolved: Resolved) -> str:
    """sha256 over the content in canonical order: names, terms, and the edges whose ends are concepts."""
    digest = hashlib.sha256()
    for table in (resolved.names, resolved.terms, resolved.attached_edges()):
        for name in table.column_names:
            column = table[name]
            digest.update(f"{name}:{len(column)}\n".encode())
            for chunk in column.chunks:
                values = chunk.to_pylist()
                digest.update("\n".join(map(str, values)).encode() + b"\n" if values else b"")
    return digest.hexdigest()
