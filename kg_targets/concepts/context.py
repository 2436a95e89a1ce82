"""Context: the status that a caption gives each mention, by phrases, their directions and their scopes.

Rules in the manner of ConText (Harkema et al., ConText: An Algorithm for Determining Negation, Experiencer, and
Temporal Status from Clinical Reports, J Biomed Inform 2009), which extends NegEx (Chapman et al. 2001):

=============  ==========================================  ==========================================
status         the caption says                            for instance
=============  ==========================================  ==========================================
negated        that it is absent                           no pleural effusion
uncertain      that it is one possibility                  may represent pneumonia; atelectasis or scar
hypothetical   that it was looked for, or would matter     CT to rule out fracture; if pneumonia develops
historical     that the patient once had it                history of breast cancer
family         that a relative has it                      mother had breast cancer
=============  ==========================================  ==========================================

No status means that the caption states it ("probable", "consistent with" and "old" state it, too). What is negated is
not uncertain as well ("no opacity suspicious for pneumonia"). Scopes are those of :mod:`kg_targets.concepts.scope`.

Phrases stand in ``context_rules.tsv``. ``[is|was]`` takes either word, ``[known|]`` none or that one, ``*`` up to three
adverbs ("cannot be *entirely* excluded"), ``**`` up to three words of any kind.

Roles of a phrase that gives a status:
    before         to what follows
    before_list    the same, a whole list: "the differential includes A, B, and C"
    before_any     the same, also to a place named directly: "absent left kidney"
    next           only to the very next word: "non-contrast"
    after          to what precedes
    after_any      the same, also to a place named directly: "the left kidney is absent"
    after_end      like ``after`` where a clause ends: "... is not."
    after_colon    like ``after`` behind a colon: "Effusion: none."
    behind         only to what stands directly before it: "pneumonia (-)"
    between        to its neighbours on both sides: "atelectasis versus pneumonia"

Roles of a phrase without one (``-``):
    none           looks like a status and is none: "not only"
    unchanged      what is denied is a change, not the finding: "no change in"
    through        ends no scope: "no opacity to suggest pneumonia"
    stop           ends every scope: "but"
    stop_forward   ends the scope of what stands before it: "which"
    place          begins an indication of place: "in", "around"
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from kg_targets.concepts.lexicon import Hit
from kg_targets.concepts.matcher import PatternIndex, TextBatch
from kg_targets.concepts.mention import STATUSES
from kg_targets.concepts.scope import REACH, Scope, Trigger
from kg_targets.concepts.stop_list import read_table
from kg_targets.concepts.text import Folded, boundaries, fold_alias, without_overlap
from kg_targets.errors import ExtractionError

SHIPPED = Path(__file__).with_name("context_rules.tsv")
_GIVING = frozenset((
    "before", "before_list", "before_any", "next",
    "after", "after_any", "after_end", "after_colon", "behind", "between",
))  # fmt: skip
_WITHOUT = frozenset(("none", "unchanged", "through", "stop", "stop_forward", "place"))
Rule = dict[str, frozenset[str]]
"""Status, empty for what a phrase does to every scope, to roles."""

_GAPS = {
    "*": r"(?: (?:[a-z]+ly|be|been|being|also|well|yet|still|as|now|even|further|at all|completed?))"
    + "{0,3}",
    "**": r"(?: [\w']+){0,3}",
}
# Signs that are no words, in folded text, where a dash is a blank
_SIGNS: tuple[tuple[str, re.Pattern[str], Rule], ...] = (
    ("( )", re.compile(r"(?<=\w) ?\( \)"), {"negated": frozenset(["behind"])}),  # pneumonia (-)
    ("?", re.compile(r"(?<!\w)\? ?(?=[a-z])"), {"uncertain": frozenset(["before"])}),  # ?pneumonia
    (
        "?",
        re.compile(r"(?<=\w) ?(?:\(\?\)|\?(?! ?\w))"),
        {"uncertain": frozenset(["behind"])},
    ),  # pneumonia (?)
)


Phrases = Sequence[tuple[int, int, int]]
"""Start, end and position of the phrases that a text has, by start, then by end."""


class ContextRules:
    """Phrases and the status they give, found in many folded texts at once; picklable."""

    def __init__(self, rules: dict[str, Rule]) -> None:
        self._rules = rules
        fixed = {phrase: rule for phrase, rule in rules.items() if "*" not in phrase}
        bodies: dict[tuple[str, ...], list[tuple[Rule, list[str]]]] = {}
        for phrase in sorted(rules.keys() - fixed.keys(), key=len, reverse=True):
            words = phrase.split(" ")
            tail = max(index for index, word in enumerate(words) if word in _GAPS) + 1
            same = bodies.setdefault(tuple(words[:tail]), [])
            tails = next((found for rule, found in same if rule == rules[phrase]), [])
            if not tails:
                same.append((rules[phrase], tails))
            tails.append("".join(" " + re.escape(word) for word in words[tail:]))
        gapped: dict[str, list[tuple[re.Pattern[str], Rule]]] = {}
        for (
            begin,
            alternatives,
        ) in bodies.items():  # one pattern for all: a text is compared with the gap once
            head = "".join(_GAPS.get(word, " " + re.escape(word)) for word in begin)[1:]
            gapped.setdefault(begin[0], []).extend(
                (re.compile(rf"{head}(?:{'|'.join(tails)})(?!\w)"), rule) for rule, tails in alternatives
            )
        telling = {_most_telling(phrase) for phrase in rules if any(rules[phrase])}
        self._index = PatternIndex.of(sorted(fixed.keys() | gapped.keys() | telling))
        phrases = list(map(self._index.pattern, range(len(self._index))))
        self._fixed = [fixed.get(phrase) for phrase in phrases]
        self._gapped = [gapped.get(phrase, ()) for phrase in phrases]
        self._telling = np.array([phrase in telling for phrase in phrases])

    def __getstate__(self) -> dict[str, Rule]:
        return self._rules

    def __setstate__(self, rules: dict[str, Rule]) -> None:
        self.__init__(rules)  # type: ignore[misc]

    @classmethod
    def read(cls, path: str | Path = SHIPPED) -> ContextRules:
        """Read a tab-separated file with the header ``phrase status role``.

        Raises:
            ExtractionError: the file is missing, malformed or names an unknown status or role.
        """
        rules: dict[str, Rule] = {}
        for number, row in enumerate(read_table(path, ["phrase", "status", "role"]), start=2):
            status, role = row[1:] if len(row) == 3 else ("", "")
            if not (role in _WITHOUT if status == "-" else status in STATUSES and role in _GIVING):
                raise ExtractionError(
                    f"{path}:{number}: needs a phrase, one status of {', '.join(STATUSES)} with one role of "
                    f"{', '.join(sorted(_GIVING))}, or - with one of {', '.join(sorted(_WITHOUT))}"
                )
            for phrase in _expand(row[0]):
                rule = rules.setdefault(phrase, {})
                name = "" if status == "-" else status
                rule[name] = rule.get(name, frozenset()) | {role}
        return cls(rules)

    @classmethod
    @lru_cache(1)
    def shipped(cls) -> ContextRules:
        """The rules that come with the library."""
        return cls.read()

    def find(self, batch: TextBatch) -> list[Phrases | None]:
        """The phrases of each text; None where neither they nor signs can give a status."""
        matches = self._index.find(batch, plurals=False)
        codes = batch.codes
        signs = np.flatnonzero(codes == ord("?"))
        empty = np.flatnonzero(codes == ord("("))  # "(-)", whose dash is a blank
        empty = empty[
            (codes[empty + 1] == ord(" ")) & (codes[np.minimum(empty + 2, len(codes) - 1)] == ord(")"))
        ]
        telling = np.zeros(len(batch.base) - 1, bool)
        telling[matches.text[self._telling.take(matches.pattern)]] = True
        telling[batch.owner(np.concatenate([signs, empty]))] = True
        kept = telling.take(matches.text)
        columns = (matches.start, matches.end, matches.pattern)
        rows = list(zip(*(column[kept].tolist() for column in columns), strict=True))
        bounds = np.searchsorted(matches.text[kept], np.arange(len(telling) + 1)).tolist()
        return [
            rows[low:high] if told else None
            for told, (low, high) in zip(telling.tolist(), pairwise(bounds), strict=True)
        ]

    def statuses(
        self, caption: str, folded: Folded, hits: Sequence[Hit], phrases: Phrases | None
    ) -> dict[int, set[str]]:
        """Statuses of the hits that have one, by position in ``hits`` (in reading order, without overlap).

        Args:
            caption: a text.
            folded: the same.
            hits: its mentions.
            phrases: as `find` gives them.
        """
        text = folded.text
        if phrases is None or not any(hit.sense.negatable or hit.sense.place for hit in hits):
            return {}
        starts = [hit.start for hit in hits]
        found: dict[int, set[str]] = {}
        free = []
        for trigger in self._triggers(text, phrases):
            index = _inside(trigger, hits, starts)
            if index < 0:
                free.append(trigger)
            elif hits[index].sense.apart and (given := set(filter(None, trigger.roles))):
                found.setdefault(index, set()).update(given)  # "the heart is not enlarged"
        if not found and not any(any(trigger.roles) for trigger in free):
            return {}
        ends = boundaries(caption)
        if folded.origin is not None:
            ends = [bisect_left(folded.origin, end) for end in ends]
        for position, trigger in enumerate(free):
            if any(trigger.roles):
                sentence = bisect_right(ends, trigger.start)
                low = ends[sentence - 1] if sentence else 0
                high = ends[sentence] if sentence < len(ends) else len(text)
                low, high = max(low, trigger.start - REACH), min(high, trigger.end + REACH)
                scope = Scope(text, hits, starts, free, position, low, high)
                for status in filter(None, trigger.roles):
                    for index in scope.reach(status):
                        found.setdefault(index, set()).add(status)
        for given in found.values():
            if "negated" in given:
                given.discard("uncertain")
        return found

    def _triggers(self, text: str, phrases: Phrases) -> list[Trigger]:
        """What the phrases and signs of a text are, the longest where they overlap, in reading order."""
        found = []
        for start, end, phrase in phrases:
            rule = self._fixed[phrase]
            if rule is not None:
                found.append(Trigger(start, end, rule))
            for pattern, gapped in self._gapped[phrase]:
                if match := pattern.match(text, start):
                    found.append(Trigger(start, match.end(), gapped))
        for sign, pattern, rule in _SIGNS:
            if sign in text:
                found += [Trigger(match.start(), match.end(), rule) for match in pattern.finditer(text)]
        return without_overlap(found)


def _most_telling(phrase: str) -> str:
    """What a text with a phrase must have: the phrase, or one word of a phrase with gaps, rarer than "to" or "seen"."""
    words = set(phrase.split(" "))
    if words.isdisjoint(_GAPS):
        return phrase
    return max(words - _GAPS.keys(), key=lambda word: (word == "not", len(word), word))


def _expand(phrase: str) -> Iterator[str]:
    """Every wording of a phrase with alternatives, folded."""
    parts = [part.split("|") for part in re.split(r"[\[\]]", phrase)]
    for words in product(*parts):
        text = " ".join(" ".join(words).split())
        yield " ".join(word if word in _GAPS else fold_alias(word) for word in text.split(" "))


def _inside(trigger: Trigger, hits: Sequence[Hit], starts: list[int]) -> int:
    """Position of the mention of which a trigger is part ("non-contrast"), -1 if there is none."""
    index = bisect_right(starts, trigger.start) - 1
    return index if index >= 0 and hits[index].end >= trigger.end else -1
