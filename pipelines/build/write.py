"""Stage three: neighbours and shards of targets, then the concepts and edges of the graph."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from kg_targets.graph import ConceptGraph
from kg_targets.ontology import Concept, Ontology
from kg_targets.scoring import ConceptStatistics, Factors
from kg_targets.scoring.neighbors import Neighbors, nearest
from kg_targets.store import StoreWriter, schema
from pipelines.build.config import BuildConfig
from pipelines.build.extract import ShardResult, staged_file


def write_targets(
    writer: StoreWriter, shards: list[ShardResult], factors: Factors, config: BuildConfig
) -> list[str]:
    """Write ``targets-*.parquet``, one file per shard, and remove the staged rows.

    Returns:
        The names of the data set's labels.
    """
    neighbors = nearest(factors, config.top_k, chunk_rows=config.rows_per_shard, threads=config.worker_count)
    labels: tuple[str, ...] = ()
    start = 0
    for shard, found in zip(shards, neighbors, strict=True):
        staged = writer.folder / staged_file(shard.index)
        rows = pq.read_table(staged)
        labels = tuple(name.removeprefix("label_") for name in rows.column_names if name.startswith("label_"))
        dense = None if factors.is_sparse else int(factors.matrix.shape[1])
        columns = {
            **{name: rows.column(name) for name in rows.column_names},
            "row": pa.array(np.arange(start, start + rows.num_rows), pa.int64()),
            "cuis": pa.array(shard.cuis, pa.list_(pa.string())),
            "known": pa.array(factors.known[start : start + rows.num_rows]),
            **_factor_columns(factors, start, start + rows.num_rows),
            **_neighbor_columns(found),
        }
        target = schema.target_columns(labels, dense)
        writer.write(
            f"targets-{shard.index:05d}{schema.SUFFIX}", pa.table(columns).select(target.names).cast(target)
        )
        staged.unlink()
        start += rows.num_rows
    return list(labels)


def write_concepts(
    writer: StoreWriter, graph: ConceptGraph, statistics: ConceptStatistics, ontology: Ontology
) -> None:
    """Write ``concepts.parquet`` (in the order of factor columns) and ``is_a.parquet``."""
    cuis = graph.concepts
    known = [ontology[cui] if cui in ontology else Concept(cui, name=cui) for cui in cuis]
    table = pa.table(
        {
            "concept": np.arange(len(cuis), dtype=np.int32),
            "cui": cuis,
            "name": [concept.name for concept in known],
            "kind": [concept.kind for concept in known],
            "semantic_types": [list(concept.semantic_types) for concept in known],
            "images": np.asarray(graph.has_attribute.sum(axis=0)).astype(np.int64),
            "fit_asserted": [statistics.asserted.get(cui, 0) for cui in cuis],
            "fit_covered": [statistics.covered.get(cui, 0) for cui in cuis],
            "ic": statistics.information_content(cuis),
            "idf": statistics.inverse_document_frequency(cuis),
        },
        schema=schema.CONCEPT_COLUMNS,
    )
    writer.write(schema.CONCEPTS, table)
    child, relation, parent = zip(*graph.edges, strict=True) if graph.edges else ((), (), ())
    edges = {"child": list(child), "relation": list(relation), "parent": list(parent)}
    writer.write(schema.IS_A, pa.table(edges, schema=schema.IS_A_EDGES))


def _factor_columns(factors: Factors, start: int, stop: int) -> dict[str, pa.Array]:
    if not factors.is_sparse:
        dense = np.ascontiguousarray(factors.matrix[start:stop])
        return {
            "factor": pa.FixedSizeListArray.from_arrays(pa.array(dense.ravel(), pa.float32()), dense.shape[1])
        }
    matrix = sparse.csr_array(factors.matrix[start:stop])
    offsets = pa.array(matrix.indptr, pa.int32())
    return {
        "factor_index": pa.ListArray.from_arrays(offsets, pa.array(matrix.indices, pa.int32())),
        "factor_value": pa.ListArray.from_arrays(offsets, pa.array(matrix.data, pa.float32())),
    }


def _neighbor_columns(found: list[Neighbors]) -> dict[str, pa.Array]:
    offsets = pa.array(np.concatenate([[0], np.cumsum([len(rows) for rows, _ in found])]), pa.int32())
    rows = np.concatenate([np.zeros(0, np.int32), *(rows for rows, _ in found)])
    scores = np.concatenate([np.zeros(0, np.float32), *(scores for _, scores in found)])
    return {
        "neighbor_rows": pa.ListArray.from_arrays(offsets, pa.array(rows, pa.int32())),
        "neighbor_scores": pa.ListArray.from_arrays(offsets, pa.array(scores, pa.float32())),
    }
