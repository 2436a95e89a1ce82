"""Cases that a pre-training must not see, since a Med-VQA test shows their images (docs/vqa_data.md#leaks)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.manifest import ExcludedCases
from kg_targets.store import TargetStore
from training.errors import DataError
from training.med_vqa.model.history import Excluded

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
    sha256: str = ""
    """Of the listed cases; empty: there is no list."""
    earlier: Mapping[str, Any] = field(default_factory=dict)
    """What the store's manifest says where the store was built without the cases of a list."""

    @classmethod
    def read(cls, path: str | None, store: TargetStore) -> "Exclusions":
        """The list in a file, one ``group_id`` a line; none without a file. A store that was built without the cases of
        this list (``kg-targets build --exclude``) has nothing left to exclude.

        Raises:
            DataError: the file cannot be read, or names cases of which not one is in the store: it is the list of
                another data set, and leaving nothing out would be taken for having left them out.
        """
        earlier = store.manifest.get("excluded", {})
        if path is None:
            return cls(earlier=earlier)
        excluded = ExcludedCases.read(Path(path), "data.exclude")
        listed, sha256 = sorted(excluded.cases), excluded.digest()
        if listed and earlier.get("sha256") == sha256:
            return cls(tuple(listed), (), 0, sha256, earlier)
        there = set(store.group_ids)
        found = tuple(case for case in listed if case in there)
        if listed and not found:
            raise DataError(
                f"data.exclude: {path} names {len(listed):,} case(s) and {store.path} has none of them, not "
                f"{', '.join(listed[:NAMED])}: it is the list of another data set, or leave it out"
            )
        return cls(tuple(listed), found, int(np.isin(store.group_ids, found).sum()), sha256, earlier)

    def kept(self, store: TargetStore) -> NDArray[np.bool_]:
        """bool ``[N]``: rows of the store that belong to no excluded case."""
        return ~np.isin(np.asarray(store.group_ids, dtype=object), self.found)

    def made(self) -> tuple[Excluded, ...]:
        """What is left out: when the store was built, and by the list where it is another one."""
        made = []
        if self.earlier:
            counts = {name: self.earlier[name] for name in ("cases_listed", "cases_found", "images")}
            made.append(Excluded("kg-targets build", self.earlier["sha256"], **counts))
        if self.sha256 and self.sha256 != self.earlier.get("sha256"):
            counts = {"cases_listed": len(self.listed), "cases_found": len(self.found), "images": self.images}
            made.append(Excluded("data.exclude", self.sha256, **counts))
        return tuple(made)

    def facts(self) -> list[dict[str, Any]]:
        """What was left out by which list, for OUTPUT/data.json; empty where nothing was to be."""
        return [asdict(one) for one in self.made()]

    @property
    def empty(self) -> bool:
        """Whether there is a list, and it names no case."""
        return bool(self.sha256) and not self.listed

    def told(self) -> str:
        """For a person, where there is a list."""
        return "; ".join(filter(None, (self._told_of_store(), self._told_of_list())))

    def _told_of_store(self) -> str:
        if not self.earlier:
            return ""
        cases, images = self.earlier["cases_found"], self.earlier["images"]
        return f"{cases} cases with {images} images were excluded when the store was built"

    def _told_of_list(self) -> str:
        if self.empty:
            return "the list of excluded cases is empty: nothing is left out"
        if not self.listed or self.sha256 == self.earlier.get("sha256"):
            return ""
        elsewhere = len(self.listed) - len(self.found)
        missing = f", {elsewhere} listed ones are not in this store" if elsewhere else ""
        return f"{len(self.found)} cases with {self.images} images excluded{missing}"
