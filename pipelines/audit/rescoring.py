"""Factors of images without some of their concepts: what a store's scorer gives had the caption not named them.

The scorer itself runs once more, with the store's own statistics and fitted vectors. What is read of an image is its
concepts, less the hidden ones; of a caption (``embedding``) its text, from which every mention of them is cut out. A
mixture's factors are put together from its parts', which must be among the stores compared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.errors import DataError, KGTargetsError, MissingExtraError
from kg_targets.graph import ConceptGraph, representatives
from kg_targets.ontology.closure import ParentLists, ancestor_hops
from kg_targets.scoring import SCORERS, SETTINGS, ScoringInput, ontology
from kg_targets.scoring.factors import in_columns
from kg_targets.scoring.mixture import mix
from kg_targets.store import TargetStore
from kg_targets.store.extension import concept_runs, origin
from kg_targets.store.factors import AnyFactors, parts_of
from kg_targets.store.mixture import MIXTURE
from pipelines.build.options import scorer_settings
from pipelines.build.write import fit_statistics
from training.statistics.intervals import IntArray

EMBEDDING = "embedding"
_FROM_THE_IMAGE = ("ontology", "transe", EMBEDDING)
"""Scorers whose factor of an image follows from its own caption; not permuted, not noise, not identity."""
_CHECKED = 256  # rows of an encoder's store that are encoded again to see whether it is the same encoder


@dataclass(frozen=True)
class Hidden:
    """What is hidden of which images."""

    rows: IntArray
    """int64 [Q]: images."""
    cuis: list[str]
    """V concepts, ascending."""
    taken: sparse.csr_array
    """[Q, V], not 0 where the concept is hidden."""


def factors_without(stores: Sequence[TargetStore], hidden: Hidden) -> tuple[list[AnyFactors], dict[int, str]]:
    """Factors of the images without the hidden concepts, [Q, D] for each store.

    Returns:
        The factors, and for the places of stores that cannot be scored again the reason; they keep the stored factors.
    """
    found: dict[int, AnyFactors] = {}
    reasons: dict[int, str] = {}
    mixtures_last = sorted(range(len(stores)), key=lambda place: MIXTURE in stores[place].manifest)
    for place in mixtures_last:
        store = stores[place]
        try:
            if MIXTURE in store.manifest:
                scored = {stores[other].fingerprint: factors for other, factors in found.items()}
                found[place] = _mixed(store, stores, scored)
            else:
                found[place] = rescore(store, hidden)
        except KGTargetsError as error:
            reasons[place] = str(error)
    return [
        found[place] if place in found else store.factors[hidden.rows] for place, store in enumerate(stores)
    ], reasons


def rescore(store: TargetStore, hidden: Hidden) -> AnyFactors:
    """The same of one store that is no mixture.

    Raises:
        KGTargetsError: its factors do not follow from the images' own captions, or what they follow from is not there.
    """
    concepts, config = store.concepts, store.manifest["config"]
    scorer, names = config["scorer"], sorted(concepts["cui"])
    if scorer not in _FROM_THE_IMAGE:
        raise DataError("not derived from the image's own concepts")
    settings = _settings(store)
    ascending = np.argsort(concepts["cui"].to_numpy())
    own = sparse.csr_array(store.cui_matrix()[hidden.rows][:, ascending], dtype=np.float64)
    visible = sparse.csr_array(own - own.multiply(_columns(hidden, names)))
    visible.eliminate_zeros()
    edges = is_a_edges(store) if config["use_ontology"] else []
    pairs = ancestors(names, edges, config["max_hops"]).tocoo()
    # One column for CUIs of equal meaning, as the graph has it.
    related = list(store.edges[["child", "relation", "parent"]].itertuples(index=False, name=None))
    runs = concept_runs(store)
    first = representatives(names, related, runs)
    closure = sparse.csr_array((np.ones(len(pairs.row)), (pairs.row, first[pairs.col])), shape=pairs.shape)
    closure.data[:] = 1.0
    encoder: dict[str, Any] = {"encode": _encoder(settings.encoder)} if scorer == EMBEDDING else {}
    data = ScoringInput(
        ConceptGraph(names, visible, closure, related, runs),
        fit_statistics(store),
        image_ids=[store.image_ids[row] for row in hidden.rows],
        shrinkage=config["shrinkage"],
        flat_ancestors=config.get("flat_ancestors", False),  # older stores have no such fields
        blocks=ontology.parse_blocks(config.get("blocks", "")),
        kinds=concepts["kind"].iloc[ascending].tolist(),
        seed=config["seed"],
        options=settings,
        captions=lambda: captions_without(store, hidden),
        fitted=_fitted(store) if scorer in SETTINGS else None,
        **encoder,
    )
    return in_columns(SCORERS[scorer](data).matrix, names, concepts["cui"].tolist())


def captions_without(store: TargetStore, hidden: Hidden) -> list[str]:
    """The images' captions without the words that name a hidden concept, whatever is said of it, [Q]."""
    named = store.mentions[store.mentions["start"] >= 0]
    spans: dict[int, list[tuple[int, int, str]]] = {}
    columns = (store.rows(named["image_id"]), named["start"], named["end"], named["cui"])
    for row, *span in zip(*(column.tolist() for column in columns), strict=True):
        spans.setdefault(row, []).append(tuple(span))
    texts = []
    for place, row in enumerate(hidden.rows):
        taken = {hidden.cuis[column] for column in hidden.taken[[place]].indices}
        kept = list(store.captions[row])
        for start, end, cui in spans.get(int(row), ()):
            if cui in taken:  # blanks, so that later spans stay where they are
                kept[start:end] = [""] * (end - start)
        texts.append("".join(kept))
    return texts


def recomputation_error(store: TargetStore) -> float:
    """Largest difference between the stored factors and those scored again with nothing hidden.

    0 where the difference would say nothing: TransE's images as nodes, which are placed anew.

    Raises:
        KGTargetsError: as `rescore`.
    """
    if _places_images(store):
        return 0.0
    rows = np.arange(len(store), dtype=np.int64)
    if store.manifest["config"]["scorer"] == EMBEDDING:
        rows = np.unique(np.linspace(0, len(store) - 1, _CHECKED).astype(np.int64))
    nothing = Hidden(rows, [], sparse.csr_array((len(rows), 0)))
    again, stored = rescore(store, nothing), store.factors[rows]
    worst = (
        sparse.csr_array(one - other).data if sparse.issparse(one) else one - other
        for one, other in zip(parts_of(again), parts_of(stored), strict=True)
    )
    return max(float(np.abs(difference).max(initial=0.0)) for difference in worst)


def _columns(hidden: Hidden, cuis: list[str]) -> sparse.csr_array:
    """[Q, C]: what is hidden, by a store's own concepts."""
    place = pd.Index(hidden.cuis).get_indexer(pd.Index(cuis))
    mine = np.flatnonzero(place >= 0)
    chosen = sparse.csr_array((np.ones(len(mine)), (place[mine], mine)), shape=(len(hidden.cuis), len(cuis)))
    return sparse.csr_array(hidden.taken @ chosen)


def _mixed(store: TargetStore, stores: Sequence[TargetStore], scored: Mapping[str, AnyFactors]) -> AnyFactors:
    """Factors of a mixture from its parts', found by their fingerprints."""
    entries = store.manifest[MIXTURE]
    by_fingerprint = {one.fingerprint: one for one in stores}
    if any(entry["fingerprint"] not in scored for entry in entries):
        raise DataError("a mixture whose parts are not all among these stores, or cannot be scored again")
    parts = [by_fingerprint[entry["fingerprint"]] for entry in entries]
    cuis = pd.Index(store.concepts["cui"])
    columns = [cuis.get_indexer(part.concepts["cui"]).astype(np.int64) for part in parts]
    weights = [entry["weight"] for entry in entries]
    return mix([scored[part.fingerprint] for part in parts], columns, weights, len(cuis))


def _fitted(store: TargetStore) -> Mapping[str, NDArray[np.float32]]:
    """What the scorer fitted on the fit split, whose store lies beside this one."""
    split, fitted_on = store.manifest["fit"]["split"], store.manifest["inputs"].get("fitted_on")
    if fitted_on is None:
        return store.vectors
    folder = store.path.parent / split
    fit = TargetStore.open(folder)
    if origin(fit) != fitted_on:
        raise DataError(f"{folder} is not the store that it was fitted on")
    return fit.vectors


def _encoder(spec: str) -> Callable[..., NDArray[np.float32]]:
    if find_spec("torch") is None:
        raise MissingExtraError("its encoder needs torch: pip install 'kg-targets[train]'", name="torch")
    from pipelines.build.captions import CaptionEncoder

    return CaptionEncoder(spec, lambda line: None).encode


def _settings(store: TargetStore) -> Any:
    config = store.manifest["config"]
    return scorer_settings(config["scorer"], SETTINGS.get(config["scorer"]), config.get("scorer_options", ""))


def _places_images(store: TargetStore) -> bool:
    return getattr(_settings(store), "mode", "") == "transductive"


def is_a_edges(store: TargetStore) -> list[tuple[str, str]]:
    """(child, parent) of every edge that the closure follows."""
    return list(zip(store.edges["child"].tolist(), store.edges["parent"].tolist(), strict=True))


def ancestors(
    cuis: Sequence[str], edges: Sequence[tuple[str, str]], max_hops: int | None = None
) -> sparse.csr_array:
    """float64 [V, V]: 1 where the column is the row itself or an ancestor of it; ``cuis`` are in ascending order."""
    child, parent = (np.searchsorted(cuis, [pair[side] for pair in edges]) for side in (0, 1))
    graph = ParentLists.from_edges(child, parent, len(cuis))
    rows, columns, _ = ancestor_hops(graph, np.arange(len(cuis), dtype=np.int64), max_hops)
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(cuis), len(cuis)))
