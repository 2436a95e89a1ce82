"""The phrases of ``negation_triggers.tsv``, found in folded text in one pass.

Roles:
    before         what follows is absent
    before_any     the same, also a place named directly: "absent left kidney"
    next           only the very next word is absent: "non-contrast"
    after          what precedes is absent
    after_any      the same, also a place named directly: "the left kidney is absent"
    after_end      like ``after`` where a clause ends: "... is not."
    after_colon    like ``after`` behind a colon: "Effusion: none."
    none           looks like a negation and is not: "not only"
    unchanged      what is denied is a change, not the finding: "no change in"
    stop           ends every scope: "but"
    stop_forward   ends the scope of what stands before it: "which"
    place          begins an indication of place: "in", "around"
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from ahocorasick_rs import AhoCorasick

from kg_targets.concepts.folding import Folded, break_words, fold_alias
from kg_targets.concepts.spans import without_overlap
from kg_targets.errors import ExtractionError

SHIPPED = Path(__file__).with_name("negation_triggers.tsv")
_NEGATING = frozenset(["before", "before_any", "next", "after", "after_any", "after_end", "after_colon"])
_ROLES = _NEGATING | {"none", "unchanged", "stop", "stop_forward", "place"}


class Trigger(NamedTuple):
    """A phrase found in folded text, with every role it may play."""

    start: int
    end: int
    roles: frozenset[str]

    @property
    def negating(self) -> bool:
        """Whether it may deny something."""
        return not _NEGATING.isdisjoint(self.roles)


class TriggerTable:
    """Phrases and their roles; picklable."""

    def __init__(self, roles: dict[str, frozenset[str]]) -> None:
        self._phrases = sorted(roles)
        self._roles = [roles[phrase] for phrase in self._phrases]
        self._automaton = AhoCorasick([f" {break_words(phrase)} " for phrase in self._phrases])

    def __getstate__(self) -> dict[str, frozenset[str]]:
        return dict(zip(self._phrases, self._roles, strict=True))

    def __setstate__(self, roles: dict[str, frozenset[str]]) -> None:
        self.__init__(roles)  # type: ignore[misc]

    @classmethod
    def read(cls, path: str | Path = SHIPPED) -> TriggerTable:
        """Read a tab-separated file with the header ``phrase role``.

        Raises:
            ExtractionError: the file is missing, malformed or names an unknown role.
        """
        try:
            with open(path, encoding="utf-8-sig", newline="") as stream:
                rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
        except (OSError, UnicodeDecodeError) as error:
            raise ExtractionError(f"{path}: cannot be read as a UTF-8 trigger table ({error})") from error
        if not rows or rows[0] != ["phrase", "role"]:
            raise ExtractionError(f"{path}: the first line must be the header phrase role, tab-separated")
        roles: dict[str, frozenset[str]] = {}
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != 2 or row[1] not in _ROLES or not fold_alias(row[0]):
                raise ExtractionError(
                    f"{path}:{number}: needs a phrase and one role of {', '.join(sorted(_ROLES))}"
                )
            phrase = fold_alias(row[0])
            roles[phrase] = roles.get(phrase, frozenset()) | {row[1]}
        return cls(roles)

    def find(self, folded: Folded) -> list[Trigger]:
        """Phrases on word boundaries, the longest where they overlap, in reading order; empty if none can negate."""
        found = []
        negates = False
        for index, start, after in self._automaton.find_matches_as_indexes(folded.search, overlapping=True):
            trigger = Trigger(start, after - 2, self._roles[index])
            if folded.text[start : trigger.end] == self._phrases[index]:
                negates = negates or trigger.negating
                found.append(trigger)
        return without_overlap(found) if negates else []
