"""The columns behind an ontology, in memory or mapped from the files of a cache.

The files are Arrow's IPC format, uncompressed: opening them maps pages instead of reading, and all processes that open
the same files share them. An ontology that came from files is sent to worker processes as their path.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kg_targets.errors import OntologyError
from kg_targets.ontology.closure import ParentLists
from kg_targets.ontology.concept import ALL_CUIS
from kg_targets.ontology.tables import REPLACED_BY

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TABLES = ("concepts", "names", "terms", "edges")


@dataclass(frozen=True)
class Compiled:
    """Tables in canonical order with what is derived from them.

    Shapes: C concepts, R names, E edges.

    Attributes:
        concepts: ``[C]``, ascending by ``cui``: the columns of `Ontology.concept_table`, and ``first_name``, the
            position of the concept's first row in ``names``. One chunk.
        names: ``[R]``, sorted by concept, then preference within it: the columns of `NAMES`, ``support``, the number of
            vocabularies that give the concept this name, and ``confirmed``. Each chunk holds whole concepts.
        terms: sorted by concept, then layer.
        edges: ``[E]``, sorted, self-loops dropped; ends may dangle.
        self_loops: how many were dropped.
        ambiguous_aliases: spellings that more than one concept has.
        folder: where the files are that the tables are mapped from; None: in memory.
    """

    concepts: pa.Table
    names: pa.Table
    terms: pa.Table
    edges: pa.Table
    self_loops: int
    ambiguous_aliases: int
    folder: Path | None = None

    def save(self, folder: Path) -> list[Path]:
        """Write a file for each table; returns them."""
        paths = [folder / f"{name}.arrow" for name in TABLES]
        for path, name in zip(paths, TABLES, strict=True):
            table = getattr(self, name)
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        return paths

    @classmethod
    def open(cls, folder: Path, self_loops: int, ambiguous_aliases: int) -> Compiled:
        """Map the files of a folder.

        Raises:
            OntologyError: one of them is missing, or is no Arrow file.
        """
        try:
            concepts, names, terms, edges = (
                pa.ipc.open_file(pa.memory_map(str(folder / f"{name}.arrow"))).read_all() for name in TABLES
            )
        except (OSError, pa.ArrowException) as error:
            raise OntologyError(f"{folder}: cannot be opened ({error}); run the command again") from error
        return cls(concepts, names, terms, edges, self_loops, ambiguous_aliases, folder)

    def __reduce__(self) -> tuple[object, ...]:
        if self.folder is not None:
            return Compiled.open, (self.folder, self.self_loops, self.ambiguous_aliases)
        columns = self.concepts, self.names, self.terms, self.edges, self.self_loops, self.ambiguous_aliases
        return Compiled, columns

    @cached_property
    def cuis(self) -> npt.NDArray[np.int32]:
        """Numbers of the concepts, ascending, ``[C]``."""
        return self._concept_column("cui")

    @cached_property
    def first_names(self) -> npt.NDArray[np.int32]:
        """Where each concept's names begin, ``[C]``."""
        return self._concept_column("first_name")

    def _concept_column(self, name: str) -> npt.NDArray[np.int32]:
        """A column as it lies in memory or in its file, without a copy."""
        return np.asarray(self.concepts[name].chunk(0).to_numpy(), dtype=np.int32)

    @cached_property
    def _ends(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Bools]:
        """Positions of child and parent in ``cuis``, and whether both are there; each ``[E]``."""
        position = np.full(ALL_CUIS, -1, dtype=np.int32)
        position[self.cuis] = np.arange(len(self.cuis))
        child, parent = position[self.edges["child"].to_numpy()], position[self.edges["parent"].to_numpy()]
        return child, parent, (child >= 0) & (parent >= 0)

    @cached_property
    def successors(self) -> tuple[Ints, Ints]:
        """Retired CUIs, ascending, and the concepts here that replace them; see `successors_of`."""
        return successors_of(self.edges, self.cuis)

    def attached_edges(self) -> pa.Table:
        """The edges with both ends among the concepts."""
        return self.edges.filter(pa.array(self._ends[2]))

    def graph(self, relations: frozenset[str]) -> ParentLists:
        """Parents of every concept under some relations, over positions in ``cuis``."""
        child, parent, attached = self._ends
        wanted = pc.is_in(self.edges["relation"], value_set=pa.array(sorted(relations), pa.string()))
        chosen = attached & np.asarray(wanted.to_numpy(), dtype=bool)
        return ParentLists.from_edges(child[chosen], parent[chosen], len(self.cuis))


def successors_of(edges: pa.Table, cuis: npt.NDArray[np.int32]) -> tuple[Ints, Ints]:
    """Retired CUIs, ascending, and the concepts that replace them; each has one. Each ``[S]``.

    Args:
        edges: distinct, sorted.
        cuis: the concepts.
    """
    replacing = edges.filter(pc.equal(edges["relation"], REPLACED_BY))
    old, new = (replacing[name].to_numpy().astype(np.int64) for name in ("child", "parent"))
    numbers, counts = np.unique(old, return_counts=True)
    kept = np.isin(old, numbers[counts == 1]) & np.isin(new, cuis) & ~np.isin(old, cuis)
    return old[kept], new[kept]
