"""Which one of an image's concepts is hidden, and what is left of the image then.

A concept's relatives (its ancestors and descendants, as far as any of the stores knows them) are taken away with it:
"effusion" left standing would give "pleural effusion" away without any knowledge of medicine. All stores are asked
the same questions: only concepts that every store asserts of the image are hidden or voted for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.inspect.summary import GROUPS
from kg_targets.store import TargetStore
from pipelines.audit.targets.rescore import ancestors, is_a_edges, is_additive, rescore
from pipelines.audit.targets.similarity import Factors
from pipelines.audit.targets.subjects import Subjects

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class HiddenConcepts:
    """The questions: at most one per image and group of concepts (modality, anatomy, finding)."""

    cuis: list[str]
    """V concepts, ascending: every concept of any store."""
    asserted: sparse.csr_array
    """float64 [N, V]: 1 where every store asserts the concept of the image."""
    related: sparse.csr_array
    """float64 [V, V]: 1 where the column is the row itself, an ancestor or a descendant of it."""
    groups: dict[str, IntArray]
    """Group to those of its concepts (columns) that some image asserts."""
    rows: IntArray
    """int64 [Q]: the image of each question."""
    hidden: IntArray
    """int64 [Q]: the concept hidden (a column)."""
    names: NDArray[np.object_]
    """[Q]: the hidden concept's group."""
    unanswerable: int
    """Questions not asked because no image of another case asserts the concept."""


def hide_concepts(subjects: Subjects, seed: int) -> HiddenConcepts:
    """Choose, for each image and group of kinds, one concept to hide, at random.

    An image takes part in a group if, besides the hidden concept and its relatives, it asserts at least one other.
    """
    stores = subjects.stores
    cuis = sorted({cui for store in stores for cui in store.concepts["cui"]})
    asserted = _asserted_by_all(stores, cuis)
    up = ancestors(cuis, sorted({edge for store in stores for edge in is_a_edges(store)}))
    related = sparse.csr_array(((up + up.T) > 0).astype(np.float64))
    in_use = np.asarray(asserted.sum(axis=0)).ravel() > 0
    kinds = _kinds(stores, cuis)
    groups = {name: np.flatnonzero(np.isin(kinds, members) & in_use) for name, members in GROUPS.items()}
    rows, hidden, names = _choose(asserted, related, groups, np.random.default_rng([seed, 2]))
    kept = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), 512):
        span = slice(start, min(start + 512, len(rows)))
        elsewhere = images_of_other_cases(asserted, subjects.cases, rows[span])
        kept[span] = elsewhere[np.arange(len(elsewhere)), hidden[span]] > 0
    unanswerable = int((~kept).sum())
    return HiddenConcepts(
        cuis, asserted, related, groups, rows[kept], hidden[kept], names[kept], unanswerable
    )


def factors_without(store: TargetStore, questions: HiddenConcepts) -> Factors:
    """Factors of the questions' images without the hidden concepts and their relatives, [Q, D].

    A scorer that does not follow from the image's own concepts (permuted, noise) keeps the stored factor.
    """
    if not is_additive(store):
        return store.factors[questions.rows]
    columns = np.searchsorted(questions.cuis, store.concepts["cui"].tolist())
    taken = questions.related[questions.hidden][:, columns]  # [Q, C] of this store
    own = sparse.csr_array(store.cui_matrix()[questions.rows], dtype=np.float64)
    visible = sparse.csr_array(own - own.multiply(taken))
    visible.eliminate_zeros()
    return rescore(store, visible)


def images_of_other_cases(asserted: sparse.csr_array, cases: IntArray, rows: IntArray) -> NDArray[np.float64]:
    """For each image in ``rows``, how many images outside its case assert each concept, float64 [rows, V]."""
    wanted, index = np.unique(cases[rows], return_inverse=True)
    member = sparse.csr_array((cases[None, :] == wanted[:, None]).astype(np.float64))
    within = (member @ asserted).toarray()
    return np.asarray(np.asarray(asserted.sum(axis=0)).ravel()[None, :] - within[index.ravel()])


def _choose(
    asserted: sparse.csr_array,
    related: sparse.csr_array,
    groups: dict[str, IntArray],
    generator: np.random.Generator,
) -> tuple[IntArray, IntArray, NDArray[np.object_]]:
    rows: list[int] = []
    hidden: list[int] = []
    names: list[str] = []
    for row in range(asserted.shape[0]):
        own = asserted.indices[asserted.indptr[row] : asserted.indptr[row + 1]]
        for name, members in groups.items():
            eligible = [c for c in np.intersect1d(own, members) if _leaves_something(own, related, c)]
            if eligible:
                rows.append(row)
                hidden.append(int(eligible[generator.integers(len(eligible))]))
                names.append(name)
    return np.asarray(rows, np.int64), np.asarray(hidden, np.int64), np.asarray(names, object)


def _leaves_something(own: IntArray, related: sparse.csr_array, hidden: int) -> bool:
    taken = related.indices[related.indptr[hidden] : related.indptr[hidden + 1]]
    return not np.isin(own, taken).all()


def _asserted_by_all(stores: Sequence[TargetStore], cuis: list[str]) -> sparse.csr_array:
    everywhere: sparse.csr_array | None = None
    for store in stores:
        matrix = store.cui_matrix()
        columns = np.searchsorted(cuis, store.concepts["cui"].tolist())
        parts = (matrix.data.astype(np.float64), columns[matrix.indices], matrix.indptr)
        wide = sparse.csr_array(parts, shape=(matrix.shape[0], len(cuis)))
        everywhere = wide if everywhere is None else sparse.csr_array(everywhere.multiply(wide))
    return sparse.csr_array(everywhere)


def _kinds(stores: Sequence[TargetStore], cuis: list[str]) -> NDArray[np.object_]:
    """Kind of each concept; the first store that has it decides."""
    kinds: dict[str, str] = {}
    for store in stores:
        for cui, kind in zip(store.concepts["cui"], store.concepts["kind"], strict=True):
            kinds.setdefault(cui, kind)
    return np.asarray([kinds[cui] for cui in cuis], dtype=object)
