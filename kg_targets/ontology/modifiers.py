"""HPO's modifiers ("Severe", "Acute", "Diffuse") are no findings, though HPO's other terms are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kg_targets.ontology.closure import ParentLists

ROOTS = ("HP:0000005", "HP:0012823", "HP:0040279", "HP:0032223")
"""Mode of inheritance, clinical modifier, frequency, blood group: everything below them qualifies something else."""


def with_qualifiers(terms: pa.Table, edges: pa.Table) -> pa.Table:
    """``terms`` with kind ``qualifier`` for HPO's rows at or below one of the roots.

    Args:
        terms: as `Tables.terms`.
        edges: as `Tables.edges`; only ``is_a`` is followed.
    """
    roots = terms.filter(pc.is_in(terms["term"], value_set=pa.array(ROOTS)))["cui"].to_numpy()
    if not len(roots):
        return terms
    is_a = edges.filter(pc.equal(edges["relation"], "is_a"))
    child, parent = is_a["child"].to_numpy(), is_a["parent"].to_numpy()
    cuis = np.unique(np.concatenate([child, parent, roots]))
    # Edges turned around: what is reachable from a root is below it.
    below = ParentLists.from_edges(np.searchsorted(cuis, parent), np.searchsorted(cuis, child), len(cuis))
    found = pa.array(cuis[below.reachable(np.searchsorted(cuis, np.unique(roots)))], terms["cui"].type)
    modifier = pc.and_(pc.equal(terms["source"], "HP"), pc.is_in(terms["cui"], value_set=found))
    kind = pc.if_else(modifier, "qualifier", terms["kind"])
    return terms.set_column(terms.column_names.index("kind"), "kind", kind)
