"""Uniting two ontologies, and keeping a part of one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kg_targets.ontology.bridge import bridged
from kg_targets.ontology.ontology import Ontology
from kg_targets.ontology.tables import EDGES, Tables


def united(left: Ontology, right: Ontology) -> Ontology:
    """Concepts, names and edges of both; the left one's layers stay in front.

    Verification is decided anew, over all names: a vocabulary of the left and one of the right may confirm
    each other.
    """
    first, second = left.tables(), right.tables()
    offset = max(_layers(first.names), _layers(first.terms))
    return Ontology.from_tables(
        Tables(
            release=f"{first.release} | {second.release}",
            names=pa.concat_tables([first.names, _shifted(second.names, offset)]),
            terms=pa.concat_tables([first.terms, _shifted(second.terms, offset)]),
            edges=pa.concat_tables([first.edges, second.edges]),
            skipped={
                reason: first.skipped.get(reason, 0) + second.skipped.get(reason, 0)
                for reason in {**first.skipped, **second.skipped}
            },
            self_loops=first.self_loops + second.self_loops,
        )
    )


def restricted(ontology: Ontology, keep: npt.NDArray[np.bool_]) -> Ontology:
    """The concepts marked in ``keep`` (bool ``[C]``), with edges over those that leave composed into one."""
    tables, data = ontology.tables(), ontology.resolved()
    kept = {int(cui) for cui in data.cuis[keep]}
    parents: dict[int, list[tuple[str, int]]] = {}
    for edge in data.attached_edges().to_pylist():
        parents.setdefault(edge["child"], []).append((edge["relation"], edge["parent"]))
    edges = list(bridged(parents, kept))
    columns = [[edge[0] for edge in edges], [edge[2] for edge in edges], [edge[1] for edge in edges]]
    members = pa.array(sorted(kept), pa.int32())
    return Ontology.from_tables(
        Tables(
            release=f"{tables.release}, verified concepts",
            names=tables.names.filter(pc.is_in(tables.names["cui"], value_set=members)),
            terms=tables.terms.filter(pc.is_in(tables.terms["cui"], value_set=members)),
            edges=pa.Table.from_arrays(
                [pa.array(column, field.type) for column, field in zip(columns, EDGES, strict=True)],
                schema=EDGES,
            ),
            skipped={**tables.skipped, "unverified concept": int((~keep).sum())},
            self_loops=tables.self_loops,
        )
    )


def _layers(table: pa.Table) -> int:
    return int(pc.max(table["layer"]).as_py() or 0) + 1


def _shifted(table: pa.Table, offset: int) -> pa.Table:
    position = table.column_names.index("layer")
    shifted = np.asarray(table["layer"].to_numpy(), dtype=np.int64) + offset
    return table.set_column(position, table.schema.field("layer"), pa.array(shifted.astype(np.uint8)))
