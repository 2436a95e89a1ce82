"""Cases that a pre-training must not see, since a Med-VQA test shows their images (docs/vqa_data.md#leaks)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.manifest import ExcludedCases
from kg_targets.store import TargetStore
from training.errors import DataError

NAMED = 3
"""Cases that a message names."""


@dataclass(frozen=True)
class Exclusions:
    """Cases on a list, and what of them is in a store."""

    listed: tuple[str, ...] = ()
    """Cases that the list names, ascending."""
    found: tuple[str, ...] = ()
    """Those of them that the store has."""
    images: int = 0
    """Images of the store that belong to them."""
    earlier: Mapping[str, Any] = field(default_factory=dict)
    """What the store's manifest says where the store was built without the cases of this very list."""

    @classmethod
    def read(cls, path: str | None, store: TargetStore) -> "Exclusions":
        """The list in a file, one ``group_id`` a line; none without a file. A store that was built without the cases of
        this list (``kg-targets build --exclude``) has nothing left to exclude.

        Raises:
            DataError: the file cannot be read, or names cases of which not one is in the store: it is the list of
                another data set, and leaving nothing out would be taken for having left them out.
        """
        if path is None:
            return cls()
        excluded = ExcludedCases.read(Path(path), "data.exclude")
        listed = sorted(excluded.cases)
        earlier = store.manifest.get("excluded", {})
        if listed and earlier.get("sha256") == excluded.digest():
            return cls(tuple(listed), (), 0, earlier)
        there = set(store.group_ids)
        found = tuple(case for case in listed if case in there)
        if listed and not found:
            raise DataError(
                f"data.exclude: {path} names {len(listed):,} cases and {store.path} has none of them, not "
                f"{', '.join(listed[:NAMED])}: it is the list of another data set, or leave it out"
            )
        return cls(tuple(listed), found, int(np.isin(store.group_ids, found).sum()))

    def kept(self, store: TargetStore) -> NDArray[np.bool_]:
        """bool ``[N]``: rows of the store that belong to no excluded case."""
        return ~np.isin(np.asarray(store.group_ids, dtype=object), self.found)

    def facts(self) -> dict[str, Any]:
        """Counts for OUTPUT/data.json."""
        if self.earlier:
            counted = {name: self.earlier[name] for name in ("cases_listed", "cases_found", "images")}
            return {**counted, "by": "kg-targets build"}
        return {"cases_listed": len(self.listed), "cases_found": len(self.found), "images": self.images}

    def told(self) -> str:
        """For a person, where there is a list."""
        if self.earlier:
            cases, images = self.earlier["cases_found"], self.earlier["images"]
            return f"{cases} cases with {images} images were excluded when the store was built"
        if not self.listed:
            return ""
        elsewhere = len(self.listed) - len(self.found)
        missing = f", {elsewhere} listed ones are not in this store" if elsewhere else ""
        return f"{len(self.found)} cases with {self.images} images excluded{missing}"
