"""The stores under comparison, and the checks that make a paired comparison of them meaningful."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.errors import DataError, StoreError
from kg_targets.store import TargetStore, TeacherStore

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Subjects:
    """One or more stores over the same images in the same order; the first is the reference."""

    stores: tuple[TargetStore, ...]

    @property
    def reference(self) -> TargetStore:
        """The store that the others are compared with."""
        return self.stores[0]

    @cached_property
    def cases(self) -> IntArray:
        """int64 [N]: case of each image, 0 … cases − 1."""
        groups = np.asarray(self.reference.group_ids, dtype=object)
        codes: IntArray = np.unique(groups, return_inverse=True)[1].ravel().astype(np.int64)
        return codes

    @property
    def case_count(self) -> int:
        """Number of cases."""
        return int(self.cases.max()) + 1

    def described(self) -> list[dict[str, Any]]:
        """What each store is, for the report's head."""
        return [
            {
                "store": str(store.path),
                "fingerprint": store.fingerprint,
                "scorer": store.manifest["config"]["scorer"],
                "use_ontology": store.manifest["config"]["use_ontology"],
                "max_hops": store.manifest["config"]["max_hops"],
                "extractor": store.manifest["config"]["extractor"],
                "ontology": store.manifest["ontology"]["release"],
                "fitted_on": store.manifest["fit"]["split"],
                "threshold": store.threshold,
                "unknown_images": int((~store.known).sum()),
            }
            for store in self.stores
        ]


def open_subjects(paths: Sequence[str | Path]) -> Subjects:
    """Open the stores and check that they can be compared image by image.

    Raises:
        StoreError: a folder is not a target store.
        DataError: the stores hold different images, or one of them has nothing to score.
    """
    if not paths:
        raise DataError("evaluate-targets needs at least one store, such as build/demo/dev")
    stores = tuple(TargetStore.open(path) for path in paths)
    for store in stores:
        if isinstance(store, TeacherStore):
            raise StoreError(
                f"{store.path} is a teacher's store, which knows no concepts to score: `kg-targets verify` and "
                "`explain` look at it"
            )
    first = stores[0]
    for other in stores[1:]:
        names = [f"{store.dataset}/{store.split}" for store in (first, other)]
        if names[0] != names[1]:
            raise DataError(
                f"{other.path} holds {names[1]}, {first.path} holds {names[0]}: compare stores of one split"
            )
        if first.image_ids != other.image_ids or first.group_ids != other.group_ids:
            raise DataError(
                f"{other.path} has other images, another row order or other cases than {first.path}: "
                "build both from the same files with the same options"
            )
    for store in stores:
        if not store.known.any():
            raise DataError(
                f"{store.path}: no image has a known concept, so there is nothing to score: "
                "build it with another extractor or ontology"
            )
    subjects = Subjects(stores)
    if subjects.case_count < 2:
        raise DataError(
            f"{first.path}: all {len(first):,} image(s) belong to one case, and neighbours are looked for in "
            "other cases: check the group ids"
        )
    return subjects
