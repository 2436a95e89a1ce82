"""Cases that a store must not have, such as those that a Med-VQA test set shows.

See docs/training-data.md#leaving-cases-out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kg_targets.errors import DataError
from kg_targets.manifest.model import Manifest
from kg_targets.manifest.record import ReadReport
from kg_targets.store.digest import text_sha256

NAMED = 3
"""Cases that a message names."""


@dataclass(frozen=True)
class ExcludedCases:
    """A list of cases (``group_id``) that are left out as if the data set had never had them."""

    path: Path
    """File of the list."""
    cases: frozenset[str]

    @classmethod
    def read(cls, path: Path, option: str = "--exclude") -> "ExcludedCases":
        """The list in a file, one ``group_id`` a line; empty lines are ignored.

        Args:
            path: the file.
            option: which named the file, for the message.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{option}: {path} cannot be read ({reason}): write it by "
                "kg-targets leakage --exclude-out FILE"
            ) from error
        return cls(path, frozenset(line.strip() for line in lines if line.strip()))

    def check_fits(self, manifest: Manifest, data_root: Path, splits: Iterable[str]) -> None:
        """Check that the list is about this data set: one of its cases in one of ``splits`` is enough.

        Splits are read in their order and only up to the first listed case.

        Raises:
            DataError: not one case is in any of the splits: it is the list of another data set, and leaving nothing out
                would be taken for having left them out.
        """
        looked_in = []
        for split in splits if self.cases else ():
            if any(record.group_id in self.cases for record in manifest.records(split, data_root)):
                return
            looked_in.append(split)
        if looked_in:
            raise DataError(
                f"--exclude: {self.path} names {len(self.cases):,} case(s) ({', '.join(sorted(self.cases)[:NAMED])} …) "
                f"and none of them is in {', '.join(looked_in)} of {manifest.name} under {data_root}: give the list "
                "of this data set, or drop --exclude"
            )

    def inputs(self) -> dict[str, str]:
        """The list's part in deciding whether a store is up to date."""
        return {"excluded_sha256": self.digest()}

    def metadata(self, report: ReadReport) -> dict[str, Any]:
        """Entry in a store's manifest: counts and the list's sha256, no case."""
        counts = {
            "cases_listed": len(self.cases),
            "cases_found": len(report.excluded),
            "images": sum(report.excluded.values()),
        }
        return {"excluded": {**counts, "sha256": self.digest()}}

    def digest(self) -> str:
        """sha256 of the cases, ascending: the order of lines and empty ones do not matter."""
        return text_sha256("".join(f"{case}\n" for case in sorted(self.cases)))
