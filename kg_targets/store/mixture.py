"""Parts of a mixture's factors, by the manifest's entry ``mixture``; see ``kg_targets.scoring.mixture``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from kg_targets.store.factors import AnyFactors, PlainFactors, dense_matrix, sparse_matrix

MIXTURE = "mixture"


def part_entry(
    manifest: Mapping[str, Any], weight: float, factors: AnyFactors
) -> dict[str, str | float | bool | int | None]:
    """The manifest's entry of one part.

    Args:
        manifest: of the part's store.
        weight: its share of the similarity.
        factors: the part's own.
    """
    scorer, dense = str(manifest["config"]["scorer"]), dense_matrix(factors)
    encoder = f" ({manifest['encoder']['name']})" if "encoder" in manifest else ""
    return {
        "scorer": scorer,
        "name": f"{scorer}{encoder}",
        "weight": weight,
        "fingerprint": str(manifest["fingerprint"]),
        "sparse": sparse_matrix(factors) is not None,
        "dense": None if dense is None else int(dense.shape[1]),
    }


def split_parts(
    factors: AnyFactors, parts: Sequence[Mapping[str, Any]], concepts: int
) -> list[tuple[PlainFactors, ...]]:
    """Each part's columns, sparse before dense, in the order of the parts.

    Args:
        factors: some rows of a mixture's.
        parts: entry ``mixture`` of its manifest.
        concepts: number of rows of its table ``concepts``.
    """
    narrow, wide = sparse_matrix(factors), dense_matrix(factors)
    found: list[tuple[PlainFactors, ...]] = []
    column, dimension = 0, 0
    for part in parts:
        own: list[PlainFactors] = []
        if part["sparse"] and narrow is not None:
            own.append(sparse.csr_array(narrow[:, column : column + concepts]))
            column += concepts
        if part["dense"] is not None and wide is not None:
            own.append(wide[:, dimension : dimension + part["dense"]])
            dimension += part["dense"]
        found.append(tuple(own))
    return found


def product_of_pair(one: PlainFactors, other: PlainFactors) -> float:
    """K_i·K_j of two images' factors, [1, D] each, in float64."""
    if isinstance(one, np.ndarray):
        first, second = (np.asarray(each, dtype=np.float64).ravel() for each in (one, other))
        return float(first @ second)
    return float(one.astype(np.float64).multiply(other).sum())
