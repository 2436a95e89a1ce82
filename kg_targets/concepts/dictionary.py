"""Dictionary extractor: every alias of an ontology, found in one pass of an Aho-Corasick automaton.

The automaton reports all occurrences, overlapping ones too (a leftmost-longest automaton would swallow a valid shorter
match inside a longer one that fails at a word's end). Then, per caption: word boundaries, regular plurals, case of
abbreviations, longest match first without overlap, context.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Sequence

from ahocorasick_rs import AhoCorasick, Implementation

from kg_targets.concepts.abbreviations import with_definitions
from kg_targets.concepts.context import ContextRules
from kg_targets.concepts.fuzzy import FUZZY_SCORE, FuzzyWords
from kg_targets.concepts.lexicon import (
    Hit,
    Lexicon,
    LexiconOptions,
    Sense,
    StopList,
    build_lexicon,
    read_table,
)
from kg_targets.concepts.mention import Mention, marked
from kg_targets.concepts.predicates import DOUBTING, subjects
from kg_targets.concepts.shorthand import COLUMNS, SHIPPED, Shorthand, read_here, shorthand
from kg_targets.concepts.text import (
    SOFT_HYPHEN,
    ZERO_WIDTH_SPACE,
    Folded,
    break_words,
    fold,
    surface,
    without_overlap,
)
from kg_targets.ontology import Ontology

_new = tuple.__new__  # makes a named tuple in half the time of its class
_STATED = (1.0, False, False, False, False, False)
"""Score and statuses of a mention that is found as it is written and stated."""


class DictionaryExtractor:
    """Exact matching of an ontology's aliases, their plurals and spellings; picklable.

    Args:
        ontology: whose aliases to look for.
        stop_list: strings and CUIs to leave alone; None for the shipped list, ``StopList()`` for none.
        kinds: only concepts of these kinds; None for all.
        semantic_types: only concepts with one of these TUIs; None for all.
        trusted: CUIs whose abbreviations count by themselves; short ones of other concepts count only in captions that
            also spell the concept out. None trusts all. Large disease ontologies have acronyms for everything.
        context: read what is negated, uncertain, hypothetical, …; without it every mention counts as stated.
        fuzzy: read misspelled names, too; see `kg_targets.concepts.fuzzy`. Their score is `FUZZY_SCORE`.
    """

    name = "dictionary"

    def __init__(
        self,
        ontology: Ontology,
        stop_list: StopList | None = None,
        *,
        kinds: Collection[str] | None = None,
        semantic_types: Collection[str] | None = None,
        trusted: Collection[str] | None = None,
        context: bool = True,
        fuzzy: bool = False,
    ) -> None:
        stop_list = StopList.shipped() if stop_list is None else stop_list
        self.lexicon: Lexicon = build_lexicon(
            ontology,
            stop_list,
            LexiconOptions(kinds, semantic_types, trusted),
            map(shorthand, read_table(SHIPPED, COLUMNS)),
        )
        self._rules = ContextRules.shipped() if context else None
        self._fuzzy = FuzzyWords(self.lexicon) if fuzzy else None
        self._prepare()

    def __getstate__(self) -> dict[str, object]:
        return {"lexicon": self.lexicon, "_rules": self._rules, "_fuzzy": self._fuzzy}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def _prepare(self) -> None:
        """Make the automaton, and the tables that spare most matches a second look."""
        lexicon = self.lexicon
        needles = [" " + break_words(pattern) for pattern in lexicon.patterns]
        self._automaton = None
        if needles:
            self._automaton = AhoCorasick(
                needles, implementation=Implementation.ContiguousNFA, store_patterns=False
            )
        self._special = lexicon.predicates.keys() | lexicon.shorthand.keys()
        self._endings = [suffix and suffix + " " for suffix in lexicon.suffixes]
        self._plain = [
            readings[0] if needle.rfind(" ") == 0 and not readings[0].exact else None
            for needle, readings in zip(needles, lexicon.senses, strict=True)
        ]  # of patterns of one word: what they mean whatever their case
        for index in self._special:
            self._plain[index] = None

    def extract(
        self, captions: Sequence[str], provided: Sequence[Sequence[str]] | None = None
    ) -> list[list[Mention]]:
        """Mentions of each caption in reading order; ``provided`` is not looked at."""
        collecting = gc.isenabled()
        gc.disable()  # no cycles are made here, and each pass over the lexicon's many objects would cost
        try:
            return [self._extract(caption, caption) for caption in captions]
        finally:
            if collecting:
                gc.enable()

    def _extract(self, original: str, caption: str) -> list[Mention]:
        """Mentions of one caption.

        Args:
            original: whose wording the mentions have; as long as ``caption``, which is searched.
        """
        if ZERO_WIDTH_SPACE in caption or SOFT_HYPHEN in caption or "-\n" in caption:
            return self._read_both(original, caption.replace("-\n", 2 * ZERO_WIDTH_SPACE))
        folded = fold(caption)
        found = self._hits(caption, folded)
        hits = [hit for hit in found if hit.sense.cui]
        misspelled = self._fuzzy.hits(folded, found) if self._fuzzy else []
        if misspelled:
            hits = sorted(hits + misspelled)
        if not hits:
            return []
        places = hits
        if folded.origin is not None:
            places = [Hit(*folded.span(start, end), sense) for start, end, sense in hits]
        mentions = [
            _new(Mention, (sense.cui, sense.name, start, end, original[start:end], *_STATED, self.name))
            for start, end, sense in places
        ]
        for index in (index for index, hit in enumerate(hits) if misspelled and hit in misspelled):
            mentions[index] = mentions[index]._replace(score=FUZZY_SCORE)
        if self._rules is not None:
            for index, given in self._rules.statuses(caption, folded, hits).items():
                mentions[index] = marked(mentions[index], given)
        return mentions

    def _read_both(self, original: str, caption: str) -> list[Mention]:
        """Mentions where characters without width, and hyphens at a line's end, stand within words or between them."""
        readings = [
            mention
            for other in ("\u2060", " ")
            for mention in self._extract(
                original, caption.replace(ZERO_WIDTH_SPACE, other).replace(SOFT_HYPHEN, other)
            )
        ]
        spans = [(mention.start, mention.end, mention) for mention in dict.fromkeys(readings)]
        return [mention for _, _, mention in without_overlap(spans)]

    def _hits(self, caption: str, folded: Folded) -> list[Hit]:
        """The matches on word boundaries, with the plural ending included, the longest where they overlap.

        Patterns begin with the blank that ``folded.search`` has before every word, so the automaton itself checks the
        left boundary, and a match's start there is its start in ``folded.text``.
        """
        if self._automaton is None:
            return []
        text, _, search = folded
        patterns, senses = self.lexicon.patterns, self.lexicon.senses
        predicates, meanings = self.lexicon.predicates, self.lexicon.shorthand
        special, plain, endings = self._special, self._plain, self._endings
        hits = []
        short: list[tuple[Shorthand, Hit]] = []
        doubtful = False
        for index, start, after in self._automaton.find_matches_as_indexes(search, overlapping=True):
            end = bare_end = after - 1
            if search[after] != " ":
                ending = endings[index]
                if not ending or search[after] != ending[0] or not search.startswith(ending, after):
                    continue
                end += len(ending) - 1
            if (sense := plain[index]) is not None:
                hits.append(_new(Hit, (start, end, sense)))
                continue
            if text[start:bare_end] != patterns[index]:
                continue  # its words are divided by other punctuation: "lung, left"
            sense = senses[index][0]
            if sense.exact:
                sense = _choose(senses[index], caption, folded, start, bare_end, end)
            if sense is not None:
                hits.append(Hit(start, end, sense))
                doubtful = doubtful or sense.needs_name
            if index not in special:
                continue
            if index in meanings:
                line, meant = meanings[index]
                if _in_its_case(line.exact, caption, folded, start, bare_end, end):
                    short.append((line, Hit(start, end, meant)))
            if index in predicates:
                hits.extend(_said_of(predicates[index], text, start, end))
        if short:
            hits = _with_shorthand(hits, short, folded)
        if doubtful:
            spelled_out = {hit.sense.cui for hit in hits if not hit.sense.needs_name}
            hits = [hit for hit in hits if not hit.sense.needs_name or hit.sense.cui in spelled_out]
        return with_definitions(caption, folded, hits)


def _said_of(readings: dict[str, Sense], text: str, start: int, end: int) -> list[Hit]:
    """The hit of an adjective with its subject: "heart is mildly enlarged"; none where it is said of something else."""
    for subject, subject_start in subjects(text, start):
        if subject in readings:
            behind = text.index(" ", subject_start + len(subject)) + 1
            if DOUBTING.isdisjoint(text[behind:start].split(" ")):
                return [Hit(subject_start, end, readings[subject])]
            return [Hit(behind, end, readings[subject])]  # the nodule that is not calcified is there
    return []


def _choose(
    senses: tuple[Sense, ...], caption: str, folded: Folded, start: int, bare_end: int, end: int
) -> Sense | None:
    """The best reading of a match: an abbreviation in its own case first, then what needs no case."""
    for sense in senses:
        if _in_its_case(sense.exact, caption, folded, start, bare_end, end):
            return sense
    return None


def _in_its_case(exact: str, caption: str, folded: Folded, start: int, bare_end: int, end: int) -> bool:
    """Whether a match has the case that an abbreviation needs; what is no abbreviation needs none."""
    if not exact:
        return True
    first, last = folded.span(start, bare_end)
    if surface(caption[first:last]) != exact:
        return False
    # "CTs" is a plural, "CTS" another abbreviation
    return end == bare_end or caption[last : last + end - bare_end].islower()


def _with_shorthand(hits: list[Hit], short: list[tuple[Shorthand, Hit]], folded: Folded) -> list[Hit]:
    """The hits with the shorthand that this text may use."""
    read = read_here({line for line, _ in short}, folded)
    found = [hit for line, hit in short if line in read]
    spans = {(hit.start, hit.end) for hit in found}
    return [hit for hit in hits if (hit.start, hit.end) not in spans] + found
