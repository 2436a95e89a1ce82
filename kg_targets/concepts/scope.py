"""Scope: how far the phrases of :mod:`kg_targets.concepts.context` reach.

Unlike NegEx's the scope is not a window of words but a clause: it follows lists ("no A, B or C"), ends at
conjunctions, at "showing", "with", "after", at panel letters "(b)", where an "and" begins a clause with a verb of its
own, and, behind a first finding, at a place ("no leak from the aneurysm"). It never exceeds ``REACH`` code points, so
that the work grows with the text and no faster, whatever the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kg_targets.concepts.lexicon import Hit


class Trigger(NamedTuple):
    """A phrase found in folded text."""

    start: int
    end: int
    roles: dict[str, frozenset[str]]
    """Status that it gives, ``""`` for what concerns every scope, to its roles."""

    def ends_scopes(self, text: str) -> bool:
        """Whether a scope cannot go past it; behind a comma even "suggesting" begins anew."""
        if "through" in self.roles.get("", ()):
            return text[self.start - 2 : self.start] == ", "
        return not all(roles <= _NARROW for roles in self.roles.values())


REACH = 600
"""Code points that a scope has at most; the longest lists of findings in ROCO and in chest reports have 250."""
_NARROW = frozenset(["next", "behind"])
_CLAUSE_BREAK = re.compile(r":|\([a-h]\)(?!,| or\b| nor\b| and\b)|\u2014")
_CLOSED = re.compile(r"\s*(?:$|[.;,)!?])")
_BEHIND_COLON = re.compile(r":\s*$")
_NUMBERED = re.compile(r"\.? ?\d")  # "No. 5", "case no 2"
_VERB = re.compile(  # "no visible fracture, effusion" and "no identified mass" have none
    r"\b(?:(?:is|are|was|were|has|have|had)\b"
    r"|(?:seen|noted|identified|found|detected|visible|visuali[sz]ed)\b"
    r"(?= ?(?:$|[^\w ])| (?:in|on|at|within|by|here)\b))"
)
_AND = re.compile(r" and\b")
_FINITE = re.compile(
    r"\b(?:is|are|was|were|has|have|had|persists?|persisted|remains?|remained|appears?|appeared|continues?|continued"
    r"|seems?|worsens|enlarges|measures?|extends|occupies|occupy|obscures?)\b"
)
_EXISTS = re.compile(  # "no A and B is seen" denies both, "no A and B is large" does not
    r"(?: (?:been|also|\w+ly))* (?:seen|noted|identified|found|detected|visible|visuali[sz]ed|present|evident|apparent"
    r"|appreciated|demonstrated|observed|there|shown|suspected|suggested)\b"
)
_ADJECTIVES = re.compile(
    r"(?: (?:\w+(?:ed|al|ic|ive|ar|ous|ent|ute|ble|ary|ly)|non|new|large|small|gross|frank|focal|old|other))+"
)
_CONJUNCTION = re.compile(r"\b(?:or|nor|and)\b")
_NEXT_ITEM = re.compile(r",|\b(?:or|nor|and)\b")
_LATER_OR = re.compile(r", ?(?:and )?n?or\b")
_FUNCTION_WORD = re.compile(
    r"\b(?:in|on|at|of|for|to|by|from|is|are|was|were|has|have|seen|noted|present|normal|this|the|a|an|\d+)\b"
)
_BESIDE_PLACE = re.compile(r"\s*(?:(?:the|a|left|right|both|bilateral|normal)\s+)*")
_PHRASE_END = re.compile(r"\s*(?:$|[^\w\s]|(?:in|on|at|of|and|or|with|is|was|after|from|due|as|by)\b)")
_EVIDENCE = re.compile(r"\b(?:evidence|signs?|indications?)\b")
_FEW_WORDS = re.compile(r"(?: [\w']+){0,2} ")
_MAX_ITEM_WORDS = 3


@dataclass(slots=True)
class Scope:
    """One trigger in its sentence ``text[low:high]``."""

    text: str
    hits: Sequence[Hit]
    starts: list[int]
    triggers: list[Trigger]
    position: int
    low: int
    high: int

    def reach(self, status: str) -> set[int]:
        """Positions of the hits to which this trigger gives a status."""
        trigger = self.triggers[self.position]
        roles = trigger.roles[status]
        closed = _CLOSED.match(self.text, trigger.end) is not None
        if (
            "after_colon" in roles
            and closed
            and (colon := _BEHIND_COLON.search(self.text, self.low, trigger.start))
        ):
            return self._backward(colon.start())
        if "after_any" in roles:
            return self._backward(trigger.start) | self._place_before(trigger.start)
        if "after" in roles or ("after_end" in roles and closed):
            return self._backward(trigger.start)
        if "behind" in roles:
            return {i for i in self._between(self.low, trigger.start) if self.hits[i].end == trigger.start}
        if "next" in roles:
            return {i for i in self._between(trigger.end, self.high) if self.hits[i].start == trigger.end + 1}
        if "between" in roles:
            return self._either_side(trigger)
        if roles & {"before", "before_list", "before_any", "after_end"} and not _NUMBERED.match(
            self.text, trigger.end
        ):
            return self._forward(trigger, status)
        return set()

    def _between(self, start: int, end: int) -> range:
        """Positions of the hits that begin in ``[start, end)``."""
        return range(bisect_left(self.starts, start), bisect_left(self.starts, end))

    def _forward(self, trigger: Trigger, status: str) -> set[int]:
        """Everything from the trigger to the end of its list or clause."""
        limit = self.high
        roles = trigger.roles[status]
        places: list[Trigger] = []
        for index in range(self.position + 1, len(self.triggers)):
            other = self.triggers[index]
            if other.start >= limit:
                break
            general = other.roles.get("", frozenset())
            near = not self._between(trigger.end, other.start) and self._words(trigger.end, other.start) <= 3
            if "place" in general:
                places.append(other)
            elif "unchanged" in general:
                if near and status == "negated":
                    return set()  # "no significant change in the effusion"
            elif other.ends_scopes(self.text) and not (
                near
                and status in ("negated", "hypothetical")
                and "before" in other.roles.get("uncertain", ())
            ):
                limit = other.start  # but "no suspected fracture", "if clinically suspected fracture"
        if broken := _CLAUSE_BREAK.search(self.text, trigger.end, limit):
            limit = broken.start()
        limit = _end_of_list(
            self.text, trigger.end, limit, long=status == "negated" or "before_list" in roles
        )
        chosen = self._before_places(trigger.end, limit, places)
        if "before_any" in roles:
            chosen |= self._place_after(trigger.end, limit)
        return chosen

    def _either_side(self, trigger: Trigger) -> set[int]:
        """The nearest hit on either side: "atelectasis versus pneumonia"."""
        before = [
            i
            for i in self._between(self.low, trigger.start)
            if self.hits[i].sense.negatable
            and _FEW_WORDS.fullmatch(self.text, self.hits[i].end, trigger.start)
        ]
        after = [
            i
            for i in self._between(trigger.end, self.high)
            if self.hits[i].sense.negatable
            and _FEW_WORDS.fullmatch(self.text, trigger.end, self.hits[i].start)
        ]
        return {*before[-1:], *after[:1]}

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
            general = other.roles.get("", frozenset())
            if "place" in general:
                places.append(other)
            elif (
                not general & {"stop_forward", "unchanged"}
                and other.ends_scopes(self.text)
                and not self.text.startswith(",", other.end)
            ):
                limit = other.end  # a comma behind it ends a clause of its own: "seen before, has resolved"
                break
        for broken in _CLAUSE_BREAK.finditer(self.text, limit, end):
            limit = broken.end()
        limit = self._own_clause(limit, end)
        limit = self._start_of_list(limit, end)
        return self._before_places(limit, end, [place for place in places if place.start >= limit])

    def _own_clause(self, limit: int, end: int) -> int:
        """Where the clause that a trigger closes begins: behind the "and" of "A is large and B has resolved"."""
        last = self.text.rfind(" and ", limit, end)
        verbs = [verb.end() for verb in _FINITE.finditer(self.text, limit, last)] if last >= 0 else []
        if not verbs or not self._between(last, end):  # "the effusion was large and has resolved"
            return limit
        return self.text.find(" and ", verbs[-1], end) + len(" and ")

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
                reach < place.end <= hit.start and self._locates(place, start, chosen) for place in places
            ) and not (chosen and _NEXT_ITEM.search(self.text, reach, hit.start)):
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


def _end_of_list(text: str, start: int, limit: int, *, long: bool) -> int:
    """End of a forward scope: the comma behind the list that it opens, or the "and" of a new clause.

    Args:
        long: also a list without a final "or", as negation has them: "no fracture, no mass, effusion".
    """
    limit = _new_clause(text, start, limit)
    comma = text.find(",", start, limit)
    first = True
    while comma >= 0:
        following = text.find(",", comma + 1, limit)
        segment = text[comma + 1 : following if following >= 0 else limit].strip()
        adjectives = first and _ADJECTIVES.fullmatch(
            text, start, comma
        )  # "no displaced, acute fracture is seen"
        if not adjectives:
            if _VERB.search(text, start, comma) or _breaks_list(text, segment, comma, limit, first):
                return comma
            if not long and not _LATER_OR.search(text, comma, limit):
                return comma
        comma, first = following, False
    return limit


def _new_clause(text: str, start: int, limit: int) -> int:
    """Where a forward scope meets an "and" with a new clause behind it: "no A is seen and B is large", "no A and B
    persists"; ``limit`` if it does not.
    """
    for found in _AND.finditer(text, start, limit):
        comma = text.find(",", found.end(), limit)
        verb = _FINITE.search(text, found.end(), comma if comma >= 0 else limit)
        if verb and (_VERB.search(text, start, found.start()) or not _EXISTS.match(text, verb.end())):
            return found.start()
    return limit


def _breaks_list(text: str, segment: str, comma: int, limit: int, first: bool) -> bool:
    """Whether what follows a comma is no further item of a negated list."""
    conjunction = _CONJUNCTION.match(segment)
    if conjunction:  # "no A, and B is seen" speaks of B anew; "no A, B, and C is seen" does not
        return first and conjunction.group() == "and" and _VERB.search(segment) is not None
    if _LATER_OR.search(text, comma + 1, limit):
        return False
    return not _is_item(_CONJUNCTION.split(segment, maxsplit=1)[0])
