"""Aliases and CUIs that must not be matched, each with its reason.

A stopped alias of several words is matched all the same, and yields nothing: "mass effect" then is no mass.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kg_targets.concepts.folding import fold_alias
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
    _aliases: frozenset[str] = field(init=False, repr=False)
    _cuis: frozenset[str] = field(init=False, repr=False)
    _pairs: frozenset[tuple[str, str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pairs = [(fold_alias(entry.alias), entry.cui) for entry in self.entries]
        object.__setattr__(self, "_aliases", frozenset(a for a, cui in pairs if a and not cui))
        object.__setattr__(self, "_cuis", frozenset(cui for a, cui in pairs if cui and not a))
        object.__setattr__(self, "_pairs", frozenset((a, cui) for a, cui in pairs if a and cui))

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
        try:
            with open(path, encoding="utf-8-sig", newline="") as stream:
                rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
        except (OSError, UnicodeDecodeError) as error:
            raise ExtractionError(f"{path}: cannot be read as a UTF-8 stop list ({error})") from error
        if not rows or rows[0] != _COLUMNS:
            raise ExtractionError(
                f"{path}: the first line must be the header {' '.join(_COLUMNS)}, tab-separated"
            )
        return cls(
            tuple(_entry(path, number, row) for number, row in enumerate(rows[1:], start=2) if any(row))
        )

    def __or__(self, other: StopList) -> StopList:
        return StopList(tuple(dict.fromkeys(self.entries + other.entries)))

    def with_aliases(self, aliases: Iterable[str], reason: str = "user") -> StopList:
        """This list and the given aliases."""
        return self | StopList(tuple(StopEntry(alias, "", reason) for alias in aliases))

    def stops(self, folded_alias: str, cui: str, is_abbreviation: bool) -> bool:
        """Whether this reading of an alias must not be matched."""
        if cui in self._cuis or (folded_alias, cui) in self._pairs:
            return True
        return folded_alias in self._aliases and not is_abbreviation

    def phrases(self) -> list[str]:
        """Folded aliases of several words that stand for no concept and whose words must not yield one either."""
        return sorted(alias for alias in self._aliases if " " in alias)

    def stops_cui(self, cui: str) -> bool:
        """Whether a CUI must not be used, whatever its wording (also when a data set ships it)."""
        return cui in self._cuis


def _entry(path: str | Path, number: int, row: list[str]) -> StopEntry:
    alias, cui, reason = [*row, "", "", ""][:3]
    if len(row) > len(_COLUMNS) or not (alias.strip() or cui.strip()):
        raise ExtractionError(f"{path}:{number}: each line needs an alias, a CUI or both, then a reason")
    return StopEntry(alias.strip(), cui.strip(), reason.strip())
