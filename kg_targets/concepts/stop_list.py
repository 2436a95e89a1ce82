"""Aliases and CUIs that must not be matched, each with its reason; and how the tables of this folder are read.

A stopped alias of several words is matched all the same, and yields nothing: "mass effect" then is no mass.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from kg_targets.concepts.text import fold_alias
from kg_targets.errors import ExtractionError

_SHIPPED = Path(__file__).with_name("stop_list.tsv")
_COLUMNS = ["alias", "cui", "reason"]


@dataclass(frozen=True, slots=True)
class StopEntry:
    """One line: an alias, a CUI or a pair of both, which then stops only that reading of the alias."""

    alias: str
    cui: str
    reason: str


@dataclass(frozen=True, slots=True)
class StopList:
    """Strings and CUIs to leave alone. A bare alias does not stop a case-sensitive abbreviation of the same letters."""

    entries: tuple[StopEntry, ...] = ()
    _stopped: frozenset[tuple[str, str]] = field(init=False, repr=False)
    """Folded alias and CUI; one of them is empty where the other is stopped whatever goes with it."""

    def __post_init__(self) -> None:
        stopped = frozenset((fold_alias(entry.alias), entry.cui) for entry in self.entries)
        object.__setattr__(self, "_stopped", stopped)

    @classmethod
    def shipped(cls) -> StopList:
        """The list that comes with the library, found by reading the most frequent mistakes."""
        return cls.read(_SHIPPED)

    @classmethod
    def read(cls, path: str | Path) -> StopList:
        """Read a tab-separated file with the header ``alias cui reason``.

        Raises:
            ExtractionError: the file is missing, is not UTF-8 or has a line with neither alias nor CUI.
        """
        rows = enumerate(read_table(path, _COLUMNS), start=2)
        return cls(tuple(_entry(path, number, row) for number, row in rows if any(row)))

    def __or__(self, other: StopList) -> StopList:
        return StopList(tuple(dict.fromkeys(self.entries + other.entries)))

    @property
    def aliases(self) -> frozenset[str]:
        """Folded aliases of which some reading is stopped."""
        return frozenset(alias for alias, _ in self._stopped if alias)

    @property
    def cuis(self) -> frozenset[str]:
        """CUIs that are stopped whatever their wording."""
        return frozenset(cui for alias, cui in self._stopped if not alias)

    def stops(self, folded_alias: str, cui: str, is_abbreviation: bool) -> bool:
        """Whether this reading of an alias must not be matched."""
        if self.stops_cui(cui) or (folded_alias, cui) in self._stopped:
            return True
        return (folded_alias, "") in self._stopped and not is_abbreviation

    def phrases(self) -> list[str]:
        """Folded aliases of several words that stand for no concept and whose words must not yield one either."""
        return sorted(alias for alias, cui in self._stopped if " " in alias and not cui)

    def stops_cui(self, cui: str) -> bool:
        """Whether a CUI must not be used, whatever its wording (also when a data set ships it)."""
        return ("", cui) in self._stopped


def read_table(path: str | Path, header: list[str]) -> list[list[str]]:
    """The rows of a tab-separated file below its header line.

    Raises:
        ExtractionError: the file is missing or not UTF-8, or its first line is not the header.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            first, *rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
    except (OSError, ValueError) as error:
        raise ExtractionError(f"{path}: cannot be read as a UTF-8 table ({error})") from error
    if first != header:
        raise ExtractionError(f"{path}: the first line must be the header {' '.join(header)}, tab-separated")
    return rows


def _entry(path: str | Path, number: int, row: list[str]) -> StopEntry:
    alias, cui, reason = [*row, "", "", ""][:3]
    if len(row) > len(_COLUMNS) or not (alias.strip() or cui.strip()):
        raise ExtractionError(f"{path}:{number}: each line needs an alias, a CUI or both, then a reason")
    return StopEntry(alias.strip(), cui.strip(), reason.strip())
