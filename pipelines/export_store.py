"""``kg-targets export-store``: a store's targets for other programs, in the format that a file's ending names.

=================  ==========================================================================
ending             what is written
=================  ==========================================================================
``.npy``           S of all images, float32 ``[N, N]``
``.npz``           factors K with S = K·Kᵀ: sparse as `scipy.sparse.load_npz` reads them, dense as array ``factors``
``.safetensors``   the same as tensors: ``factors``, or ``indptr``, ``indices``, ``values`` and ``shape``
``.graphml``       the graph of images, concepts and what those are, for networkx, Gephi, …
``.tsv``           the same graph as triples head, relation, tail: what pykeen reads
=================  ==========================================================================

Beside the first three stands ``NAME.rows.csv``: row, image_id and group_id in the order of the rows.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from kg_targets.errors import ConfigError
from kg_targets.store import TargetStore
from kg_targets.store.factors import AnyFactors, PlainFactors, parts_of
from training.command import Work
from training.folders import whole_file

LARGEST = 20_000
"""Images of which S is written whole: 1.6 GB."""
_AT_ONCE = 1024
Triple = tuple[str, str, str]


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets export-store`."""
    parser.description = (
        "A store's targets for other programs; the ending of --out chooses the format:\n"
        ".npy (similarities), .npz or .safetensors (factors), .graphml or .tsv (graph; triples for pykeen)"
    )
    parser.add_argument("store", type=Path, help="folder of a target store")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    return _export


def _export(options: argparse.Namespace) -> None:
    write = FORMATS.get(options.out.suffix)
    if write is None:
        raise ConfigError(f"--out {options.out} must end in {', '.join(FORMATS)}")
    store = TargetStore.open(options.store)
    if store.kind == "teacher":
        raise ConfigError(
            f"{options.store} is a teacher's store: its factors are plain columns of its Parquet files"
        )
    with whole_file(options.out, "--out") as partial:
        told = write(store, partial)
    if write not in (_graphml, _triples):
        rows = options.out.with_name(f"{options.out.name}.rows.csv")
        with whole_file(rows, "--out") as partial, partial.open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(["row", "image_id", "group_id"])
            table.writerows(zip(range(len(store)), store.image_ids, store.group_ids, strict=True))
        told += f"; rows in {rows.name}"
    sys.stdout.write(f"{options.out}: {told}\n")


def _similarities(store: TargetStore, file: Path) -> str:
    count = len(store)
    if count > LARGEST:
        raise ConfigError(
            f"similarities of {count:,} images would take {4e-9 * count**2:,.0f} GB (the most is {LARGEST:,} images): "
            "export factors to .npz or .safetensors, S = K·Kᵀ"
        )
    written = np.lib.format.open_memmap(file, mode="w+", dtype=np.dtype("<f4"), shape=(count, count))  # type: ignore[no-untyped-call]
    for low in range(0, count, _AT_ONCE):
        rows = range(low, min(low + _AT_ONCE, count))
        written[low : rows.stop] = store.block(rows, range(count))
    written.flush()
    return f"S, float32 [{count:,}, {count:,}]"


def _joined(factors: AnyFactors) -> PlainFactors:
    """The factors of a store as one matrix; both parts of a mixture side by side, sparse."""
    parts = parts_of(factors)
    if len(parts) == 1:
        return parts[0]
    return sparse.csr_array(sparse.hstack([sparse.csr_array(part) for part in parts], format="csr"))


def _npz(store: TargetStore, file: Path) -> str:
    factors = _joined(store.factors)
    with file.open("wb") as stream:
        if isinstance(factors, np.ndarray):
            np.savez(stream, factors=factors)
        else:
            sparse.save_npz(stream, factors)
    return _shape(factors)


def _safetensors(store: TargetStore, file: Path) -> str:
    from safetensors.numpy import save_file

    factors = _joined(store.factors)
    if isinstance(factors, np.ndarray):
        tensors = {"factors": np.ascontiguousarray(factors)}
    else:
        shape = np.array(factors.shape, np.int64)
        indices, indptr = factors.indices.astype(np.int32), factors.indptr.astype(np.int64)
        tensors = {"indptr": indptr, "indices": indices, "values": factors.data, "shape": shape}
    save_file(tensors, file, {"fingerprint": store.fingerprint, "similarity": "S = K K^T, 1 on the diagonal"})
    return _shape(factors)


def _shape(factors: PlainFactors) -> str:
    kind = "dense" if isinstance(factors, np.ndarray) else f"sparse, {factors.nnz:,} values"
    return f"factors K, float32 [{factors.shape[0]:,}, {factors.shape[1]:,}], {kind}"


def triples(store: TargetStore) -> Iterator[Triple]:
    """Edges of the graph: what images' captions assert (``has_attribute``), then what concepts are."""
    for name, cuis in zip(store.image_ids, store.cuis, strict=True):
        for cui in cuis:
            yield name, "has_attribute", cui
    edges: pd.DataFrame = store.edges
    yield from zip(edges["child"], edges["relation"], edges["parent"], strict=True)


def _triples(store: TargetStore, file: Path) -> str:
    count = 0
    with file.open("w", encoding="utf-8", newline="") as stream:
        for triple in triples(store):
            if any(char in part for part in triple for char in "\t\n\r"):
                raise ConfigError(
                    f"{triple[0]!r} has a tab or line break, which a .tsv cannot hold: use .graphml"
                )
            stream.write("\t".join(triple) + "\n")
            count += 1
    return f"{count:,} triples"


def _graphml(store: TargetStore, file: Path) -> str:
    import networkx as nx

    graph = nx.MultiDiGraph()
    for concept in store.concepts.to_dict("records"):
        graph.add_node(concept["cui"], kind=concept["kind"] or "", name=concept["name"])
    for name in store.image_ids:
        graph.add_node(f"image:{name}", kind="image", name=name)
    for head, relation, tail in triples(store):
        start = f"image:{head}" if relation == "has_attribute" else head
        graph.add_edge(start, tail, key=relation, relation=relation)
    try:
        nx.write_graphml(graph, file)
    except ValueError as error:  # XML has no way to write most control characters
        raise ConfigError(
            f"an image id or a name has a character that XML cannot hold ({error}): use .tsv"
        ) from error
    return f"{graph.number_of_nodes():,} nodes, {graph.number_of_edges():,} edges"


FORMATS: dict[str, Callable[[TargetStore, Path], str]] = {
    ".npy": _similarities,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".graphml": _graphml,
    ".tsv": _triples,
}
"""Ending to what writes it; add one by a function and a line."""
