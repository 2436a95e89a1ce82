"""Dictionary extractor: every alias of an ontology, found in one pass of an Aho-Corasick automaton.

The automaton reports all occurrences, overlapping ones too (a leftmost-longest automaton would swallow a valid shorter
match inside a longer one that fails at a word's end). Then, per caption: word boundaries, regular plurals, case of
abbreviations, longest match first without overlap, context.

Abbreviations that a caption defines itself: "portal vein (PV)", "PV = portal vein", "PV (portal vein)".

In such a caption PV means the portal vein, whatever an ontology says of PV elsewhere. The long form must be a concept
already found; whether the short form fits it is decided as by Schwartz & Hearst (A Simple Algorithm for Identifying
Abbreviation Definitions in Biomedical Text, PSB 2003): its characters occur in the long form in order, the first of
them at its beginning.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ahocorasick_rs import AhoCorasick, Implementation

from kg_targets.concepts.context import ContextRules
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
from kg_targets.concepts.predicates import subjects
from kg_targets.concepts.shorthand import COLUMNS, SHIPPED, Shorthand, looks_like_report, shorthand
from kg_targets.concepts.text import Folded, break_words, fold, surface, without_overlap
from kg_targets.ontology import Ontology


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
    ) -> None:
        stop_list = StopList.shipped() if stop_list is None else stop_list
        self.lexicon: Lexicon = build_lexicon(
            ontology,
            stop_list,
            LexiconOptions(kinds, semantic_types, trusted),
            map(shorthand, read_table(SHIPPED, COLUMNS)),
        )
        self._rules = ContextRules.shipped() if context else None
        self._automaton = _automaton(self.lexicon)

    def __getstate__(self) -> dict[str, object]:
        return {"lexicon": self.lexicon, "_rules": self._rules}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._automaton = _automaton(self.lexicon)

    def extract(
        self, captions: Sequence[str], provided: Sequence[Sequence[str]] | None = None
    ) -> list[list[Mention]]:
        """Mentions of each caption in reading order; ``provided`` is not looked at."""
        return [self._extract(caption) for caption in captions]

    def _extract(self, caption: str) -> list[Mention]:
        folded = fold(caption)
        hits = [hit for hit in without_overlap(self._hits(caption, folded)) if hit.sense.cui]
        if not hits:
            return []
        statuses = self._rules.statuses(caption, folded, hits) if self._rules is not None else {}
        mentions = []
        for index, (start, end, sense) in enumerate(hits):
            start, end = folded.span(start, end)
            mention = Mention(sense.cui, sense.name, start, end, caption[start:end], source=self.name)
            if given := statuses.get(index):
                mention = marked(mention, given)
            mentions.append(mention)
        return mentions

    def _hits(self, caption: str, folded: Folded) -> list[Hit]:
        """All matches on word boundaries, with the plural ending included.

        Patterns begin with the blank that ``folded.search`` has before every word, so the automaton itself checks the
        left boundary, and a match's start there is its start in ``folded.text``.
        """
        if self._automaton is None:
            return []
        text, search = folded.text, folded.search
        patterns, senses, suffixes = self.lexicon.patterns, self.lexicon.senses, self.lexicon.suffixes
        predicates, meanings = self.lexicon.predicates, self.lexicon.shorthand
        hits = []
        short: list[tuple[Shorthand, Hit]] = []
        doubtful = False
        for index, start, after in self._automaton.find_matches_as_indexes(search, overlapping=True):
            end = bare_end = after - 1
            if search[after] != " ":
                suffix = suffixes[index]
                if not suffix or not search.startswith(suffix + " ", after):
                    continue
                end += len(suffix)
            if text[start:bare_end] != patterns[index]:
                continue  # its words are divided by other punctuation: "lung, left"
            sense = _choose(senses[index], caption, folded, start, bare_end, end)
            if sense is not None:
                hits.append(Hit(start, end, sense))
                doubtful = doubtful or sense.needs_name
            if index in meanings:
                line, meant = meanings[index]
                if _in_its_case(line.exact, caption, folded, start, bare_end, end):
                    short.append((line, Hit(start, end, meant)))
            if index in predicates:
                hits.extend(_said_of(predicates[index], text, start, end))
        if short:
            hits = _with_shorthand(hits, short, folded)
        if hits:
            hits = with_definitions(caption, folded, hits)
        if doubtful:
            spelled_out = {hit.sense.cui for hit in hits if not hit.sense.needs_name}
            hits = [hit for hit in hits if not hit.sense.needs_name or hit.sense.cui in spelled_out]
        return hits


def _automaton(lexicon: Lexicon) -> AhoCorasick | None:
    if not lexicon.patterns:
        return None
    needles = [" " + break_words(pattern) for pattern in lexicon.patterns]
    return AhoCorasick(needles, implementation=Implementation.ContiguousNFA, store_patterns=False)


def _said_of(readings: dict[str, Sense], text: str, start: int, end: int) -> list[Hit]:
    """The hit of an adjective with its subject: "heart is mildly enlarged"; none where it is said of something else."""
    for subject, subject_start in subjects(text, start):
        if subject in readings:
            return [Hit(subject_start, end, readings[subject])]
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
    """The hits with shorthand read, if the text is a report."""
    if not looks_like_report(folded, len({line.short for line, _ in short if not line.needs})):
        return hits
    read = [
        hit
        for line, hit in short
        if not line.needs or any(f" {word} " in folded.search for word in line.needs)
    ]
    spans = {(hit.start, hit.end) for hit in read}
    return [hit for hit in hits if (hit.start, hit.end) not in spans] + read


_SHORT = r"([A-Z][A-Za-z0-9]{1,7})"
_BEHIND = re.compile(rf"\s*[(\[]{_SHORT}[)\],;]")  # portal vein (PV)
_BEFORE = re.compile(rf"(?<![A-Za-z0-9]){_SHORT}\s*[=:,(\u2013-]\s*$")  # PV = portal vein
_CLOSED = re.compile(r"\s*(?:$|[.,;:)\]\n])")
_REACH = 16  # code points in which a short form and its sign can stand before a long form
_SIGNS = re.compile(r"[(\[=:,\u2013-]\s?[A-Z][A-Za-z0-9]|[A-Z]\s?[=:,(\u2013-]")


def with_definitions(caption: str, folded: Folded, hits: list[Hit]) -> list[Hit]:
    """The hits, with every occurrence of a defined abbreviation read as defined."""
    if not _SIGNS.search(caption):
        return hits
    defined: dict[str, Sense] = {}
    for hit in without_overlap(hits):  # "pulmonary artery", not the "pulmonary" in it
        if hit.end - hit.start > 3 and not hit.sense.exact:
            for short in _short_forms(caption, *folded.span(hit.start, hit.end)):
                defined.setdefault(short, hit.sense)
    if not defined:
        return hits
    spans = {
        folded.locate(match.start(1), match.end(1)): sense
        for short, sense in defined.items()
        for match in re.finditer(rf"(?<![A-Za-z0-9])({short})s?(?![A-Za-z0-9])", caption)
    }
    kept = [hit for hit in hits if (hit.start, hit.end) not in spans]
    return kept + [Hit(start, end, sense) for (start, end), sense in spans.items()]


def _short_forms(caption: str, start: int, end: int) -> list[str]:
    """Short forms given right behind or right before ``caption[start:end]`` that fit it."""
    found = []
    if behind := _BEHIND.match(caption, end):
        found.append(behind.group(1))
    before = _BEFORE.search(caption[max(0, start - _REACH) : start])
    if before and _CLOSED.match(caption, end):  # "AD, abdominal diameter" does not define the abdomen
        found.append(before.group(1))
    return [short for short in found if fits(short, caption[start:end])]


def fits(short: str, long: str) -> bool:
    """Whether a short form can abbreviate a long form; the long form has to be longer by half at least."""
    if len(long) < 1.5 * len(short) + 1 or sum(char.isupper() for char in short) < 2:
        return False
    short, long = short.lower(), long.lower()
    if long[0] != short[0]:
        return False
    rest = iter(long)
    return all(char in rest for char in short)
