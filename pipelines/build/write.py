"""Stage three: the concepts and edges of the graph, vectors, quantiles of the similarities.

Also whether a store that is there is still the one that a build would write.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import kg_targets
from kg_targets.errors import StoreError
from kg_targets.graph import ConceptGraph
from kg_targets.ontology import Concept, Ontology
from kg_targets.scoring import ConceptStatistics, Factors
from kg_targets.scoring.factors import Vectors, pair_similarities
from kg_targets.store import StoreWriter, TargetStore, schema
from kg_targets.store.digest import file_sha256, files_sha256, json_sha256
from kg_targets.store.extension import extensions
from kg_targets.store.factors import AnyFactors, dense_matrix, sparse_matrix
from pipelines.build.executors import Say

PAIRS = 1_000_000
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)


def open_if_current(target: Path, inputs: dict[str, Any], say: Say) -> TargetStore | None:
    """The store in ``target`` if it is whole and was made of these inputs."""
    try:
        store = TargetStore.open(target)
    except StoreError:
        return None
    if json_sha256(store.manifest.get("inputs"), str) != json_sha256(inputs, str):
        return None
    if any(file_sha256(target / entry["file"]) != entry["sha256"] for entry in store.manifest["files"]):
        return None
    older = store.manifest["schema_version"] != schema.SCHEMA_VERSION
    joined = sum(entry["rows"] for entry in extensions(store))
    told = " (in the layout of 0.2: --force writes the new one)" if older else ""
    say(f"{target}: up to date{told}" + (f", with {joined:,} rows that joined it" if joined else ""))
    return store


def code_digest() -> str:
    """sha256 of the code and tables that make stores, so that one made by other code is never taken as up to date."""
    library, stages = Path(kg_targets.__file__).parent, Path(__file__).parent
    apart = ("losses", "inspect")  # they read stores
    files = [
        path
        for path in library.rglob("*")
        if path.suffix in (".py", ".tsv") and path.relative_to(library).parts[0] not in apart
    ]
    return files_sha256(sorted([*files, *stages.glob("*.py")]))


def write_concepts(
    writer: StoreWriter,
    cuis: Sequence[str],
    images: NDArray[Any],
    statistics: ConceptStatistics,
    ontology: Ontology,
) -> None:
    """Write the table ``concepts``.

    Args:
        writer: of the store.
        cuis: C concepts, in the order of factor columns.
        images: that assert each, int [C].
        statistics: of the fit split.
        ontology: that knows their names and kinds.
    """
    known = [ontology[cui] if cui in ontology else Concept(cui, name=cui) for cui in cuis]
    table = pa.table(
        {
            "concept": np.arange(len(cuis), dtype=np.int32),
            "cui": cuis,
            "name": [concept.name for concept in known],
            "kind": [concept.kind for concept in known],
            "semantic_types": [list(concept.semantic_types) for concept in known],
            "images": images,
            "fit_asserted": [statistics.asserted.get(cui, 0) for cui in cuis],
            "fit_covered": [statistics.covered.get(cui, 0) for cui in cuis],
            "ic": statistics.information_content(cuis),
            "idf": statistics.inverse_document_frequency(cuis),
        },
        schema=schema.CONCEPT_COLUMNS,
    )
    writer.write(schema.part(schema.CONCEPTS, 0), table)


def write_edges(writer: StoreWriter, graph: ConceptGraph) -> None:
    """Write the table ``edges``."""
    child, relation, parent = zip(*graph.edges, strict=True) if graph.edges else ((), (), ())
    edges = {"child": list(child), "relation": list(relation), "parent": list(parent)}
    writer.write(schema.part(schema.EDGES, 0), pa.table(edges, schema=schema.EDGE_COLUMNS))


def fit_statistics(store: TargetStore, unseen: bool = True) -> ConceptStatistics:
    """The counts of the fit split, as a store's concepts have them; and, if wanted, the values where a count is 0."""
    concepts = store.concepts

    def column(name: str) -> dict[str, Any]:
        return dict(zip(concepts["cui"], concepts[name].tolist(), strict=True))

    counts = {"asserted": column("fit_asserted"), "covered": column("fit_covered")}
    values = {"unseen_ic": column("ic"), "unseen_idf": column("idf")} if unseen else {}
    return ConceptStatistics(store.manifest["fit"]["captions"], **counts, **values)


def write_vectors(writer: StoreWriter, vectors: Vectors) -> None:
    """Write the table ``vectors`` of a scorer that fits some; others have no such table."""
    if vectors:
        rows = {"name": list(vectors), "vector": [np.asarray(vector) for vector in vectors.values()]}
        writer.write(schema.part(schema.VECTORS, 0), pa.table(rows, schema=schema.VECTOR_COLUMNS))


def factor_shape(factors: AnyFactors, concepts: int) -> dict[str, int | None]:
    """The manifest's entry of factors: how many columns are dense, None for none, and how many sparse.

    The latter is left out where there are none, and where they are the concepts.
    """
    dense, narrow = dense_matrix(factors), sparse_matrix(factors)
    shape: dict[str, int | None] = {"dense": None if dense is None else int(dense.shape[1])}
    if narrow is not None and (dense is not None or narrow.shape[1] != concepts):
        shape["sparse"] = int(narrow.shape[1])
    return shape


def off_diagonal_quantiles(factors: Factors, cases: NDArray[Any]) -> dict[str, float]:
    """Quantiles of S_ij over one million random ordered pairs of known images of different cases, fixed seed.

    Pairs of one case are left out: training masks them, so they say nothing about what a threshold does. A data set
    with fewer than two known cases has no such pair: all quantiles are 0.

    Args:
        factors: of N images.
        cases: a number of each image's case, [N].
    """
    known = np.flatnonzero(factors.known)
    values = np.zeros(0)
    if len(known) and (cases[known] != cases[known[0]]).any():
        generator = np.random.default_rng(0)
        left, right = generator.choice(known, PAIRS), generator.choice(known, PAIRS)
        different = cases[left] != cases[right]
        values = pair_similarities(factors.matrix, left[different], right[different])
    return {f"p{round(100 * q)}": float(np.quantile(values, q)) if len(values) else 0.0 for q in QUANTILES}
