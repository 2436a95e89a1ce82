"""Figures of the offline half, each beside a peer or a limit measured in the same run.

    python benchmarks/offline.py --captions ../shared/data/roco/validation/radiology/captions.txt \
        --ontology "seed|tsv:../shared/data/ontologies"

Without ``--captions`` the generated captions of the demo are used, with the seed ontology. Timings are medians of
``--repeats`` runs on one thread unless said otherwise; trust the ratios, not the seconds.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from machine import command, head, milliseconds, report
from scipy import sparse
from sparse_dot_topn import sp_matmul_topn

from kg_targets.concepts import EXTRACTORS
from kg_targets.graph import ConceptGraph
from kg_targets.manifest import Manifest
from kg_targets.ontology import Ontology, load_ontology
from kg_targets.scoring import SCORERS, ConceptStatistics, ScoringInput
from kg_targets.scoring.neighbors import nearest
from kg_targets.store.block import gram

T = TypeVar("T")
NEIGHBORS = 64


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """Result of a call, and its wall seconds."""
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def read_captions(path: Path | None) -> tuple[str, list[str]]:
    """(description, captions) of a tab-separated caption file, or of the demo."""
    if path is None:
        records = Manifest.load("demo").records("train", "build/demo/data")
        return "demo train, generated", [record.caption for record in records]
    lines = path.read_text(encoding="utf-8").split("\n")
    return f"{path.parts[-3]}/{path.name}", [line.partition("\t")[2].strip() for line in lines if line]


def scored_graph(
    ontology: Ontology, captions: list[str], rows: int
) -> tuple[ConceptGraph, ConceptStatistics, list[str]]:
    """Graph of ``rows`` images whose concepts are those of captions drawn with replacement, two merged into one."""
    found = EXTRACTORS["dictionary"](ontology).extract(captions)
    cuis = [sorted({mention.cui for mention in mentions if mention.asserted}) for mentions in found]
    generator = np.random.default_rng(0)
    pairs = generator.integers(0, len(cuis), (rows, 2))
    # Two captions are merged so that rows differ: with repeated captions every score would be tied with many others.
    asserted = [sorted({*cuis[a], *cuis[b]}) for a, b in pairs]
    graph = ConceptGraph.build(asserted, ontology)
    return graph, ConceptStatistics.fit(graph), [str(row) for row in range(rows)]


def scoring(ontology: Ontology, captions: list[str], rows: int, threads: int) -> dict[str, Any]:
    """Ontology scorer and exact top-64 with ties by the ids, beside sparse_dot_topn alone on the finished factors."""
    graph, fitted, ids = scored_graph(ontology, captions, rows)
    factors, score_seconds = timed(lambda: SCORERS["ontology"](ScoringInput(graph, fitted, ids)))
    found, top_seconds = timed(
        lambda: sum(len(chunk) for chunk in nearest(factors, NEIGHBORS, ids, threads=threads))
    )
    matrix = sparse.csr_matrix(factors.matrix)
    other = sparse.csr_matrix(matrix.T)
    _, peer_seconds = timed(
        lambda: sp_matmul_topn(matrix, other, top_n=NEIGHBORS, threshold=0.0, sort=True, n_threads=threads)
    )
    return {
        "rows": found,
        "nnz_per_row": round(matrix.nnz / rows, 1),
        "threads": threads,
        "scorer_seconds": round(score_seconds, 2),
        "top64_seconds": round(top_seconds, 2),
        "sparse_dot_topn_alone_seconds": round(peer_seconds, 2),
        "ratio_to_sparse_dot_topn": round((score_seconds + top_seconds) / peer_seconds, 2),
    }


def blocks(ontology: Ontology, captions: list[str], repeats: int) -> dict[str, Any]:
    """Milliseconds for a batch's B×B block from sparse factors, beside the dense product of the same rows."""
    graph, fitted, ids = scored_graph(ontology, captions, 8192)
    matrix = sparse.csr_array(SCORERS["ontology"](ScoringInput(graph, fitted, ids)).matrix)
    generator = np.random.default_rng(0)
    result: dict[str, Any] = {
        "nnz_per_row": round(matrix.nnz / matrix.shape[0], 1),
        "columns": matrix.shape[1],
    }
    for size in (256, 1024):
        rows = generator.permutation(matrix.shape[0])[:size]
        dense = matrix[rows].toarray()
        for name, work in (
            ("block", lambda rows=rows: gram(matrix[rows])),
            ("dense_product", lambda dense=dense: dense @ dense.T),
        ):
            result[f"{name}_{size}_ms"] = round(milliseconds(work, 5 * repeats), 2)
    return result


def main() -> None:
    """Measure, print, and write ``benchmarks/results/offline.json``."""
    parser = command(__doc__, "offline", threads=2, ontology="seed", rows=65_536, repeats=5)
    parser.add_argument("--captions", type=Path, default=None)
    options = parser.parse_args()
    data, captions = read_captions(options.captions)
    ontology = load_ontology(options.ontology, ".cache/kg_targets")
    result = head() | {
        "captions": data,
        "ontology": ontology.release,
        "scoring": scoring(ontology, captions, options.rows, options.threads),
        "blocks": blocks(ontology, captions, options.repeats),
    }
    report(result, options.out)


if __name__ == "__main__":
    main()
