"""Dictionary extractor: every alias of an ontology, found in one pass of an Aho-Corasick automaton.

The automaton reports all occurrences, overlapping ones too (a leftmost-longest automaton would swallow a valid shorter
match inside a longer one that fails at a word's end). Then, per caption: word boundaries, regular plurals, case of
abbreviations, longest match first without overlap, negation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ahocorasick_rs import AhoCorasick, Implementation

from kg_targets.concepts.abbreviations import with_definitions
from kg_targets.concepts.folding import Folded, break_words, fold, surface
from kg_targets.concepts.lexicon import Ambiguity, Hit, Lexicon, LexiconOptions, Sense, build_lexicon
from kg_targets.concepts.mention import ConceptSource, Mention
from kg_targets.concepts.negation import NegationRules
from kg_targets.concepts.spans import without_overlap
from kg_targets.concepts.stop_list import StopList


class DictionaryExtractor:
    """Exact matching of an ontology's aliases, their plurals and spellings; picklable.

    Args:
        ontology: whose aliases to look for.
        stop_list: strings and CUIs to leave alone; None for the shipped list, ``StopList()`` for none.
        kinds: only concepts of these kinds; None for all.
        semantic_types: only concepts with one of these TUIs; None for all.
        trusted: CUIs whose abbreviations count by themselves; short ones of other concepts count only in captions that
            also spell the concept out. None trusts all. Large disease ontologies have acronyms for everything.
        negation: mark absent concepts; without it every mention counts as asserted.
    """

    name = "dictionary"

    def __init__(
        self,
        ontology: ConceptSource,
        stop_list: StopList | None = None,
        *,
        kinds: Collection[str] | None = None,
        semantic_types: Collection[str] | None = None,
        trusted: Collection[str] | None = None,
        negation: bool = True,
    ) -> None:
        stop_list = StopList.shipped() if stop_list is None else stop_list
        self.lexicon: Lexicon = build_lexicon(
            ontology, stop_list, LexiconOptions(kinds, semantic_types, trusted)
        )
        self._rules = NegationRules.shipped() if negation else None
        self._automaton = _automaton(self.lexicon)

    def __getstate__(self) -> dict[str, object]:
        return {"lexicon": self.lexicon, "_rules": self._rules}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._automaton = _automaton(self.lexicon)

    def ambiguities(self) -> list[Ambiguity]:
        """Strings that name several concepts, with the one chosen and why."""
        return self.lexicon.ambiguities()

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
        absent = self._rules.absent(caption, folded, hits) if self._rules is not None else frozenset()
        mentions = []
        for index, (start, end, sense) in enumerate(hits):
            start, end = folded.span(start, end)
            text = caption[start:end]
            mentions.append(Mention(sense.cui, sense.name, start, end, text, 1.0, index in absent, self.name))
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
        hits = []
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


def _choose(
    senses: tuple[Sense, ...], caption: str, folded: Folded, start: int, bare_end: int, end: int
) -> Sense | None:
    """The best reading of a match: an abbreviation in its own case first, then what needs no case."""
    for sense in senses:
        if not sense.exact:
            return sense
        first, last = folded.span(start, bare_end)
        if surface(caption[first:last]) != sense.exact:
            continue
        if end > bare_end and not caption[last : last + end - bare_end].islower():
            continue  # "CTs" is a plural, "CTS" another abbreviation
        return sense
    return None
