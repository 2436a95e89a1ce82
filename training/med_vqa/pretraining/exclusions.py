"""Cases that a pre-training must not see, since a Med-VQA test shows their images (docs/vqa_data.md#leaks)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

    @classmethod
    def read(cls, path: str | None, store: TargetStore) -> "Exclusions":
        """The list in a file, one ``group_id`` a line; none without a file.

        Raises:
            DataError: the file cannot be read, or names cases of which not one is in the store: it is the list of
                another data set, and leaving nothing out would be taken for having left them out.
        """
        if path is None:
            return cls()
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"data.exclude: {path} cannot be read ({reason}): write it by "
                "python -m training.vqa.leaks --exclude-out FILE"
            ) from error
        listed = sorted({line.strip() for line in lines if line.strip()})
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
        return {"cases_listed": len(self.listed), "cases_found": len(self.found), "images": self.images}

    def told(self) -> str:
        """For a person, where there is a list."""
        if not self.listed:
            return ""
        elsewhere = len(self.listed) - len(self.found)
        missing = f", {elsewhere} listed ones are not in this store" if elsewhere else ""
        return f"{len(self.found)} cases with {self.images} images excluded{missing}"
