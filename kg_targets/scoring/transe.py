"""Belief: images are alike as far as their place in the graph is, as TransE learns it from edges alone.

    h + r ≈ t for every edge h –r→ t of the graph; K_i is the unit vector of image i, S_ij = K_i·K_j ∈ [−1, 1]

Dense, learnt, averaged over seeds. Inductive (default, R): an image is a weighted sum of its concepts' vectors, so
that every split, the fit split included, gets its vectors in one and the same way and new images need no fit.
Transductive (C, the paper's): an image is a node; images of other splits are placed by a few steps with all else
frozen, which is not quite how those of the fit split got theirs. Vectors of concepts and relations are fitted on the
fit split, kept in the store's table ``vectors``, and reused. Needs torch; a store that is there is read without.
Sources: Bordes et al. 2013; NB-CLIP; docs/methods.md#transe says which settings are the paper's.
"""

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.errors import MissingExtraError
from kg_targets.scoring.factors import Factors, ScoringInput
from kg_targets.transe.images import CENTRE, ConceptVectors, Vectors, centred, mean_of_known
from kg_targets.transe.settings import TransESettings
from kg_targets.transe.triples import HAS_ATTRIBUTE, Triples

if TYPE_CHECKING:
    from kg_targets.transe.fit import Fitted


def check_installed() -> None:
    """Before the work: is everything there that a fit needs?

    Raises:
        MissingExtraError: something is not installed.
    """
    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            message = f"--scorer transe needs {package}: pip install 'kg-targets[train]'"
            raise MissingExtraError(message, name=package)


def score(data: ScoringInput) -> Factors:
    """Dense factors, float32 [N, seeds · dim]; an image none of whose concepts has a vector is unknown.

    Raises:
        MissingExtraError: torch is not installed.
        ConfigError: there is no GPU where one was asked for.
    """
    check_installed()
    from kg_targets.transe import fit, placing

    settings = data.options or TransESettings()
    graph, width = data.graph, settings.seeds * settings.dim
    triples = Triples.of(graph)
    must_fit = data.fitted is None and len(triples.edges) > 0
    table = _fitted(data, triples, settings, fit.fit) if must_fit else None
    vectors = dict(data.fitted or {}) if table is None else _named(table, triples, graph.concepts)
    concepts = ConceptVectors.of(graph, vectors, settings.seeds, width)
    if concepts.borrowed or concepts.missing:
        data.say(
            f"concepts that the fit split lacks: {concepts.borrowed:,} get the mean of their nearest ancestors there, "
            f"{concepts.missing:,} have none and play no part"
        )
    relation = vectors.get(HAS_ATTRIBUTE, np.zeros(width, np.float32))
    if settings.mode == "inductive":
        idf = data.statistics.inverse_document_frequency(graph.concepts)
        weights = sparse.csr_array(graph.attributes @ sparse.diags_array(idf))
        sums = concepts.sums(weights, relation, settings.seeds)
        if table is not None:
            vectors[CENTRE] = mean_of_known(sums)
        matrix = centred(sums, vectors.get(CENTRE, np.zeros(width, np.float32)), settings.seeds)
    else:
        matrix = np.zeros((graph.images, width), dtype=np.float32)
        again = np.arange(graph.images)
        if table is not None:
            matrix[triples.rows] = table[: triples.images]
            again = triples.rows[_images_of_held_out_edges(triples, settings, data.seed)]
        matrix[again] = placing.place(graph.attributes[again], concepts.matrix, relation, settings, data.seed)
    return Factors(matrix, matrix.any(axis=1), {} if table is None else vectors)


def _fitted(
    data: ScoringInput, triples: Triples, settings: TransESettings, fit: "Callable[..., Fitted]"
) -> Vectors:
    """Fit all seeds, with a progress bar; the table of nodes and relations."""
    from kg_targets.transe.seed_fit import Callbacks

    fitted_on, held = triples.hold_out(settings.holdout, data.seed)
    data.say(
        f"TransE: {triples.images:,} images, {triples.nodes - triples.images:,} concepts, {len(triples.edges):,} edges "
        f"({', '.join(triples.relations)}), {len(held):,} of them held out"
    )
    total = len(fitted_on) * settings.epochs * settings.seeds
    start = time.perf_counter()
    with data.progress(total, "TransE", " triples") as bar:
        callbacks = Callbacks(data.say, bar.update, lambda found: bar.set_postfix_str(str(found)))
        fitted = fit(triples, settings, data.seed, state=data.state, callbacks=callbacks)
    seconds = time.perf_counter() - start
    for number, evaluation in enumerate(fitted.evaluations):
        data.say(f"  seed {number}: {evaluation}")
    data.say(f"  {seconds:.1f} s on {fitted.device}")
    return fitted.table


def _named(table: Vectors, triples: Triples, concepts: Sequence[str]) -> dict[str, Vectors]:
    """Vectors of all concepts by CUI, and of relations by name."""
    relations = dict(zip(triples.relations, table[triples.nodes :], strict=True))
    return {**dict(zip(concepts, table[triples.concept_nodes], strict=True)), **relations}


def _images_of_held_out_edges(triples: Triples, settings: TransESettings, seed: int) -> NDArray[np.int64]:
    """Image nodes whose fit knew only a part of their concepts."""
    _, held = triples.hold_out(settings.holdout, seed)
    images: NDArray[np.int64] = np.unique(held[held[:, 1] == 0, 0])
    return images
