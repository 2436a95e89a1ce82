"""The concept graph: image –has_attribute→ CUI –is_a→ CUI, held as sparse matrices.

Source: NB-CLIP supplement (nodes and edges); hops are our own option, see docs/methods.md#graph. The paper's ablations
are reached from here: the full graph, ``has_attribute`` only (``ontology=None``), and noise (a scorer).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from kg_targets.ontology import Ontology
from kg_targets.ontology.concept import KIND_GROUPS

Edge = tuple[str, str, str]


@dataclass(frozen=True)
class Assertions:
    """The CUIs that images' captions assert, in numbers: those of image i are ``codes[starts[i]:starts[i + 1]]``."""

    names: Sequence[str]
    """CUIs, ascending; codes are places in it, and some may not be used."""
    starts: NDArray[np.int64]
    """int64 [N + 1]."""
    codes: NDArray[np.int32]
    """int32 [A], ascending and distinct within an image."""
    doubtful: NDArray[np.bool_]
    """[A]: the caption only holds it possible."""

    @classmethod
    def of(
        cls, asserted: Sequence[Iterable[str]], doubtful: Sequence[Collection[str]] | None = None
    ) -> "Assertions":
        """The same from lists of CUIs; order and repetition do not matter."""
        names = sorted({cui for cuis in asserted for cui in cuis})
        place = {cui: code for code, cui in enumerate(names)}
        rows = [sorted({place[cui] for cui in cuis}) for cuis in asserted]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        codes = np.fromiter((code for row in rows for code in row), dtype=np.int32, count=int(starts[-1]))
        unsure = np.zeros(len(codes), dtype=bool)
        for row, cuis in enumerate(doubtful or ()):
            part = slice(starts[row], starts[row + 1])
            unsure[part] = np.isin(codes[part], [place[cui] for cui in cuis])
        return cls(names, starts, codes, unsure)

    @classmethod
    def joined(cls, parts: Sequence["Assertions"]) -> "Assertions":
        """Those of all images, part after part."""
        names = sorted({name for part in parts for name in part.names})
        place = {name: code for code, name in enumerate(names)}
        codes, ends = [np.zeros(0, dtype=np.int32)], [np.zeros(1, dtype=np.int64)]
        for part in parts:
            new = np.array([place[name] for name in part.names], dtype=np.int32)
            codes.append(new[part.codes])
            ends.append(part.starts[1:] + ends[-1][-1])
        doubtful = np.concatenate([np.zeros(0, dtype=bool), *(part.doubtful for part in parts)])
        return cls(names, np.concatenate(ends), np.concatenate(codes), doubtful)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def counts(self) -> dict[str, int]:
        """Images that assert each CUI, of those that any asserts."""
        counts = np.bincount(self.codes, minlength=len(self.names)).tolist()
        return {name: count for name, count in zip(self.names, counts, strict=True) if count}

    def listed(self) -> pa.ListArray:
        """As lists of CUIs, ascending."""
        names = pa.array(self.names, pa.string()).take(pa.array(self.codes))
        return pa.ListArray.from_arrays(pa.array(self.starts, pa.int32()), names)


@dataclass(frozen=True)
class ConceptGraph:
    """Images, the concepts their captions assert, and everything those concepts are.

    Shapes: N images, C concepts (asserted ones and their ancestors).
    """

    concepts: list[str]
    """CUIs in ascending order; the column order of every matrix here and of sparse factors."""
    has_attribute: sparse.csr_array
    """float64 [N, C]: 1 where the image's caption asserts the concept (negated mentions do not assert), or the weight
    of what it holds possible."""
    closure: sparse.csr_array
    """float64 [C, C]: 1 where the column is the row's concept itself or, for asserted concepts, an ancestor."""
    edges: list[Edge]
    """(child, relation, parent) between concepts of the graph, sorted."""
    earlier: Sequence[Sequence[str]] = ()
    """Of a store that is extended: the concepts it has, in the runs in which they came (see ``representatives``)."""

    @property
    def images(self) -> int:
        """N, the number of images."""
        return int(self.has_attribute.shape[0])

    @cached_property
    def meanings(self) -> NDArray[np.int64]:
        """int64 [C]: for each concept, the first column of its group of equal meaning."""
        return representatives(self.concepts, self.edges, self.earlier)

    @cached_property
    def attributes(self) -> sparse.csr_array:
        """``has_attribute`` with CUIs of equal meaning as one concept, at the first one's column and largest weight."""
        if np.array_equal(self.meanings, np.arange(len(self.concepts))):
            return self.has_attribute
        entries, size = self.has_attribute.tocoo(), max(len(self.concepts), 1)
        keys, group = np.unique(
            entries.row.astype(np.int64) * size + self.meanings[entries.col], return_inverse=True
        )
        weights = np.zeros(len(keys))
        np.maximum.at(weights, group.reshape(-1), entries.data)
        return sparse.csr_array((weights, (keys // size, keys % size)), shape=self.has_attribute.shape)

    @classmethod
    def build(
        cls,
        asserted: Assertions | Sequence[Sequence[str]],
        ontology: Ontology | None,
        max_hops: int | None = None,
        relations: Sequence[str] = ("is_a",),
        halved: Sequence[Collection[str]] | bool | None = None,
        earlier: Sequence[Sequence[str]] = (),
    ) -> "ConceptGraph":
        """Graph of the images' concepts with their ancestors.

        Args:
            asserted: for each image, the CUIs its caption asserts; in lists, order and repetition do not matter.
            ontology: where ``is_a`` comes from; ``None`` keeps ``has_attribute`` only ("UMLS without ontology").
            max_hops: longest path followed, in edges; ``None`` takes the whole ancestor closure.
            relations: that lead to ancestors: ``is_a``, or ``part_of`` as well.
            halved: for each image, those of its CUIs that weigh ½, ``None`` for none; of numbers, whether doubtful ones
                do.
            earlier: concepts that are in the graph whether these images have them or not, in the runs in which they
                came to the store that these images join.
        """
        if not isinstance(asserted, Assertions):
            unsure = halved if isinstance(halved, Sequence) else None
            asserted, halved = Assertions.of(asserted, unsure), unsure is not None
        used = list(asserted.counts())
        if ontology is None:
            concepts, hops = used, sparse.csr_array(sparse.eye_array(len(used), format="csr"))
        else:
            concepts, hops = ontology.ancestor_matrix(used, max_hops, relations)
        if earlier:
            found, concepts = concepts, sorted({*concepts, *chain.from_iterable(earlier)})
            columns = np.searchsorted(concepts, found)[hops.indices]
            hops = sparse.csr_array((hops.data, columns, hops.indptr), shape=(len(used), len(concepts)))
        edges = [] if ontology is None else ontology.edges(concepts, relations)
        first = representatives(concepts, edges, earlier)
        return cls(
            concepts,
            _incidence(asserted, concepts, bool(halved)),
            _closure(used, concepts, hops, first),
            edges,
            earlier,
        )


def _incidence(asserted: Assertions, concepts: list[str], halved: bool) -> sparse.csr_array:
    place = {cui: column for column, cui in enumerate(concepts)}
    columns = np.array([place.get(cui, -1) for cui in asserted.names], dtype=np.int32)
    weights = np.where(asserted.doubtful, 0.5, 1.0) if halved else np.ones(len(asserted.codes))
    kind = np.int32 if len(asserted.codes) < 2**31 else np.int64
    shape = (len(asserted), len(concepts))
    return sparse.csr_array((weights, columns[asserted.codes], asserted.starts.astype(kind)), shape=shape)


def _closure(
    used: list[str], concepts: list[str], hops: sparse.csr_array, first: NDArray[np.int64]
) -> sparse.csr_array:
    """Square [C, C] from hops [len(used), C]: ancestors that no caption asserts have their own column only.

    CUIs that mean the same (``same_as``) share the column of the first of them, so that a term to which its source gave
    eighteen CUIs does not count eighteen times. So the first one's row has the ancestors of those that are asserted.
    """
    placed = np.searchsorted(concepts, used)
    rest = np.setdiff1d(np.arange(len(concepts)), placed)
    pairs = hops.tocoo()
    own = placed[pairs.row]
    rows = np.concatenate([own, first[own], rest]).astype(np.int64)
    columns = first[np.concatenate([pairs.col, pairs.col, rest])]
    rows, columns = np.unique(np.stack([rows, columns]), axis=1)
    shape = (len(concepts), len(concepts))
    closure = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    closure.sort_indices()
    return closure


def representatives(
    concepts: Sequence[str], edges: Sequence[Edge], earlier: Sequence[Sequence[str]] = ()
) -> NDArray[np.int64]:
    """For each concept, the column of the first of its group of equal meaning; int64 [C].

    Args:
        concepts: of the columns.
        edges: between them; those named ``same_as`` make groups.
        earlier: concepts that came before the others, run after run, as a store was extended. A concept joins the group
            that is there, at the group's first column, and never makes one group of two: factors of before stay right.
    """
    pairs = [(child, parent) for child, relation, parent in edges if relation == "same_as"]
    found = np.arange(len(concepts), dtype=np.int64)
    if not pairs:
        return found
    place = {cui: column for column, cui in enumerate(concepts)}
    known = set(chain.from_iterable(earlier))
    order: list[int] = []
    for run in (*earlier, [cui for cui in concepts if cui not in known]):
        start = len(order)
        order += [place[cui] for cui in run]
        rank = {concepts[column]: number for number, column in enumerate(order)}
        ends = np.array(
            [(rank[one], rank[other]) for one, other in pairs if one in rank and other in rank], np.int64
        ).reshape(-1, 2)
        shape = (len(order), len(order))
        links = sparse.csr_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=shape)
        _, group = sparse.csgraph.connected_components(links, directed=False)
        _, first = np.unique(group, return_index=True)
        columns = np.array(order, dtype=np.int64)
        found[columns[start:]] = columns[first[group[start:]]]
    return found


def coverage(has_attribute: sparse.csr_array, kinds: ArrayLike) -> dict[str, float]:
    """Share of images, in [0, 1], that assert a concept of each group of kinds, of any group, and of all three.

    Args:
        has_attribute: [N, C], not 0 where the image asserts the concept.
        kinds: kind of each concept, length C.
    """
    columns = {group: np.flatnonzero(np.isin(kinds, members)) for group, members in KIND_GROUPS.items()}
    has = {group: has_attribute[:, chosen].sum(axis=1) > 0 for group, chosen in columns.items()}
    stacked = np.stack(list(has.values()))
    told = {**has, "any of them": stacked.any(axis=0), "all three": stacked.all(axis=0)}
    return {name: float(images.mean()) for name, images in told.items()}
