"""Negation: the mentions that a caption says are absent, by phrases that negate and the scope of each.

A rule engine in the manner of NegEx (Chapman et al., A Simple Algorithm for Identifying Negated Findings and Diseases
in Discharge Summaries, J Biomed Inform 2001) and ConText/pyConText (Harkema et al. 2009; Chapman et al. 2011):
phrases before or after a finding, phrases that only look like negation, and words that end a scope. Unlike NegEx the
scope is not a window of words but a clause: it follows lists ("no A, B or C"), ends at conjunctions, at "showing",
"with", "after", at panel letters "(b)", and, behind a first finding, at a place ("no leak from the aneurysm").
Uncertain findings ("cannot exclude", "to rule out") count as asserted, as in NegEx.

The phrases of ``negation_triggers.tsv``, found in folded text in one pass.

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

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ahocorasick_rs import AhoCorasick

from kg_targets.concepts.lexicon import Hit, read_table
from kg_targets.concepts.text import Folded, boundaries, break_words, fold_alias, without_overlap
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
        roles: dict[str, frozenset[str]] = {}
        for number, row in enumerate(read_table(path, ["phrase", "role"]), start=2):
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


_CLAUSE_BREAK = re.compile(r":|\([a-h]\)(?!,| or\b| nor\b| and\b)|\u2014")
_CLOSED = re.compile(r"\s*(?:$|[.;,)!?])")
_BEHIND_COLON = re.compile(r":\s*$")
_NUMBERED = re.compile(r"\.? ?\d")  # "No. 5", "case no 2"
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|seen|noted|identified|found|detected|visible|visuali[sz]ed)\b"
)
_CONJUNCTION = re.compile(r"\b(?:or|nor|and)\b")
_LATER_OR = re.compile(r", ?n?or\b")
_FUNCTION_WORD = re.compile(
    r"\b(?:in|on|at|of|for|to|by|from|is|are|was|were|has|have|seen|noted|present|normal|this|the|a|an|\d+)\b"
)
_BESIDE_PLACE = re.compile(r"\s*(?:(?:the|a|left|right|both|bilateral|normal)\s+)*")
_PHRASE_END = re.compile(r"\s*(?:$|[^\w\s]|(?:in|on|at|of|and|or|with|is|was|after|from|due|as|by)\b)")
_EVIDENCE = re.compile(r"\b(?:evidence|signs?|indications?)\b")
_MAX_ITEM_WORDS = 3


@dataclass(frozen=True, slots=True)
class NegationRules:
    """The trigger table and the rules of scope."""

    table: TriggerTable

    @classmethod
    def shipped(cls) -> NegationRules:
        """The rules with the table that comes with the library."""
        return cls(TriggerTable.read())

    def absent(self, caption: str, folded: Folded, hits: Sequence[Hit]) -> frozenset[int]:
        """Positions in ``hits`` (in reading order, without overlap) of what the caption says is absent."""
        if not any(hit.sense.negatable or hit.sense.place for hit in hits):
            return frozenset()
        triggers = self.table.find(folded)
        if not triggers:
            return frozenset()
        ends = boundaries(caption)
        if folded.origin is not None:
            ends = [bisect_left(folded.origin, end) for end in ends]
        starts = [hit.start for hit in hits]
        free = [t for t in triggers if not _inside(t, hits, starts)]
        found: set[int] = set()
        for position, trigger in enumerate(free):
            if trigger.negating:
                sentence = bisect_right(ends, trigger.start)
                low = ends[sentence - 1] if sentence else 0
                high = ends[sentence] if sentence < len(ends) else len(folded.text)
                found |= _Scope(folded.text, hits, starts, free, position, low, high).absent()
        return frozenset(found)


def _inside(trigger: Trigger, hits: Sequence[Hit], starts: list[int]) -> bool:
    """Whether a trigger is part of a mention ("non-contrast")."""
    index = bisect_right(starts, trigger.start) - 1
    return index >= 0 and hits[index].end >= trigger.end


@dataclass(frozen=True, slots=True)
class _Scope:
    """One trigger in its sentence ``text[low:high]``."""

    text: str
    hits: Sequence[Hit]
    starts: list[int]
    triggers: list[Trigger]
    position: int
    low: int
    high: int

    def absent(self) -> set[int]:
        """Positions of the hits that this trigger denies."""
        trigger = self.triggers[self.position]
        roles = trigger.roles
        closed = _CLOSED.match(self.text, trigger.end) is not None
        if "after_colon" in roles and closed and _BEHIND_COLON.search(self.text, self.low, trigger.start):
            return self._backward(_BEHIND_COLON.search(self.text, self.low, trigger.start).start())  # type: ignore[union-attr]
        if "after_any" in roles:
            return self._backward(trigger.start) | self._place_before(trigger.start)
        if "after" in roles or ("after_end" in roles and closed):
            return self._backward(trigger.start)
        if "next" in roles:
            return {i for i in self._between(trigger.end, self.high) if self.hits[i].start == trigger.end + 1}
        if roles & {"before", "before_any", "after_end"} and not _NUMBERED.match(self.text, trigger.end):
            return self._forward(trigger)
        return set()

    def _between(self, start: int, end: int) -> range:
        """Positions of the hits that begin in ``[start, end)``."""
        return range(bisect_left(self.starts, start), bisect_left(self.starts, end))

    def _forward(self, trigger: Trigger) -> set[int]:
        """Everything from the trigger to the end of its list or clause."""
        limit = self.high
        places: list[Trigger] = []
        for index in range(self.position + 1, len(self.triggers)):
            other = self.triggers[index]
            if other.start >= limit:
                break
            if "place" in other.roles:
                places.append(other)
            elif "unchanged" in other.roles:
                if not self._between(trigger.end, other.start) and self._words(trigger.end, other.start) <= 3:
                    return set()  # "no significant change in the effusion"
            else:
                limit = other.start
        if broken := _CLAUSE_BREAK.search(self.text, trigger.end, limit):
            limit = broken.start()
        limit = _end_of_list(self.text, trigger.end, limit)
        chosen = self._before_places(trigger.end, limit, places)
        if "before_any" in trigger.roles:
            chosen |= self._place_after(trigger.end, limit)
        return chosen

    def _place_after(self, start: int, limit: int) -> set[int]:
        """A place that is itself denied: "absence of the left kidney", but not "agenesis of maxillary canines"."""
        return {
            i
            for i in self._between(start, limit)
            if self.hits[i].sense.place
            and _BESIDE_PLACE.fullmatch(self.text, start, self.hits[i].start)
            and _PHRASE_END.match(self.text, self.hits[i].end)
        }

    def _place_before(self, end: int) -> set[int]:
        """The same behind it: "the left kidney is absent"."""
        return {
            i
            for i in self._between(self.low, end)
            if self.hits[i].sense.place and not self.text[self.hits[i].end : end].strip()
        }

    def _backward(self, end: int) -> set[int]:
        """Everything from the beginning of the clause or list to ``end``."""
        limit = self.low
        places: list[Trigger] = []
        for index in range(self.position - 1, -1, -1):
            other = self.triggers[index]
            if other.start < limit:
                break
            if "place" in other.roles:
                places.append(other)
            elif not other.roles & {"stop_forward", "unchanged"} and not self.text.startswith(",", other.end):
                limit = other.end  # a comma behind it ends a clause of its own: "seen before, has resolved"
                break
        for broken in _CLAUSE_BREAK.finditer(self.text, limit, end):
            limit = broken.end()
        limit = self._start_of_list(limit, end)
        return self._before_places(limit, end, [place for place in places if place.start >= limit])

    def _start_of_list(self, limit: int, end: int) -> int:
        """The first comma-separated item that belongs to what the trigger speaks of."""
        comma = self.text.rfind(",", limit, end)
        while comma >= 0:
            if _CONJUNCTION.search(self.text, comma + 1, end):  # "A, B and C were not seen"
                return self._first_item(limit, comma)
            if self._between(comma + 1, end) or self.text[comma + 1 : end].strip():
                return comma + 1
            end = self.text.rfind(",", limit, comma)  # "the effusion, seen before, has resolved"
            comma = self.text.rfind(",", limit, max(end, limit))
        return limit

    def _first_item(self, limit: int, comma: int) -> int:
        """Walk back over short items: "A, B, and C were not seen"."""
        while comma >= 0:
            previous = self.text.rfind(",", limit, comma)
            if not _is_item(self.text[max(previous + 1, limit) : comma]):
                return comma + 1
            comma = previous
        return limit

    def _before_places(self, start: int, end: int, places: Sequence[Trigger]) -> set[int]:
        """The negatable hits, but none of those that only say where the denied one is not."""
        chosen: set[int] = set()
        reach = start  # end of the last chosen hit
        for index in self._between(start, end):
            hit = self.hits[index]
            if not hit.sense.negatable:
                continue
            if any(
                reach <= place.start < hit.start and self._locates(place, start, chosen) for place in places
            ) and not (chosen and _CONJUNCTION.search(self.text, reach, hit.start)):
                continue
            chosen.add(index)
            reach = hit.end
        return chosen

    def _locates(self, place: Trigger, start: int, chosen: set[int]) -> bool:
        """Whether "in", "around" … stands behind what is denied: a chosen hit, or words that are no concept."""
        if chosen:
            return True
        words = self.text[start : place.start]
        return (
            self.text[place.start : place.end] != "of the"
            and bool(words.strip())
            and not _EVIDENCE.search(words)
        )

    def _words(self, start: int, end: int) -> int:
        return len(self.text[start:end].split())


def _is_item(segment: str) -> bool:
    """A list item: few words, none of them a preposition, a verb or a number."""
    return len(segment.split()) <= _MAX_ITEM_WORDS and not _FUNCTION_WORD.search(segment)


def _end_of_list(text: str, start: int, limit: int) -> int:
    """End of a forward scope: the comma behind the list that it opens."""
    comma = text.find(",", start, limit)
    first = True
    while comma >= 0:
        following = text.find(",", comma + 1, limit)
        segment = text[comma + 1 : following if following >= 0 else limit].strip()
        if _VERB.search(text, start, comma) or _breaks_list(text, segment, comma, limit, first):
            return comma
        comma, first = following, False
    return limit


def _breaks_list(text: str, segment: str, comma: int, limit: int, first: bool) -> bool:
    """Whether what follows a comma is no further item of a negated list."""
    conjunction = _CONJUNCTION.match(segment)
    if conjunction:  # "no A, and B is seen" speaks of B anew; "no A, B, and C is seen" does not
        return first and conjunction.group() == "and" and _VERB.search(segment) is not None
    if _LATER_OR.search(text, comma + 1, limit):
        return False
    return not _is_item(_CONJUNCTION.split(segment, maxsplit=1)[0])
