"""Dictionary extractor: every alias of an ontology, found in many captions at once.

The search (`kg_targets.concepts.matcher`) reports all occurrences on word boundaries, overlapping ones too. Then, per
caption: case of abbreviations, longest match first without overlap, context.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise

import numpy as np

from kg_targets.concepts.abbreviations import may_define, with_definitions
from kg_targets.concepts.context import ContextRules, Phrases
from kg_targets.concepts.fuzzy import FUZZY_SCORE, FuzzyWords
from kg_targets.concepts.lexicon import ADJECTIVE, CASED, NOTHING, SHORT, Hit, Lexicon, Sense
from kg_targets.concepts.lexicon_build import LexiconOptions
from kg_targets.concepts.lexicon_cache import cached_lexicon
from kg_targets.concepts.matcher import Matches, TextBatch
from kg_targets.concepts.mention import Mention, marked
from kg_targets.concepts.predicates import DOUBTING, subjects
from kg_targets.concepts.shorthand import Shorthand, read_here
from kg_targets.concepts.stop_list import StopList
from kg_targets.concepts.text import (
    SOFT_HYPHEN,
    ZERO_WIDTH_SPACE,
    CodePoints,
    Folded,
    Ints,
    code_points,
    fold_all,
    kept_spans,
    surface,
    without_overlap,
)
from kg_targets.ontology import Ontology

_new = tuple.__new__  # makes a named tuple in half the time of its class
_as_hit = partial(_new, Hit)
_AT_ONCE = 2048  # captions
_CODE_POINTS = 1 << 18  # of captions that are searched at once


class DictionaryExtractor:
    """Exact matching of an ontology's aliases, their plurals and spellings; picklable.

    Args:
        ontology: whose aliases to look for; where it has a cache, the lexicon made of them is kept there.
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
        self.lexicon: Lexicon = cached_lexicon(
            ontology, stop_list, LexiconOptions(kinds, semantic_types, trusted)
        )
        self._rules = ContextRules.shipped() if context else None
        self._fuzzy = FuzzyWords(self.lexicon) if fuzzy else None

    def extract(
        self, captions: Sequence[str], provided: Sequence[Sequence[str]] | None = None
    ) -> list[list[Mention]]:
        """Mentions of each caption in reading order; ``provided`` is not looked at."""
        collecting = gc.isenabled()
        gc.disable()  # no cycles are made here, and each pass over so many tuples would cost
        try:
            return [mentions for part in _parts(captions) for mentions in self._extract(part)]
        finally:
            if collecting:
                gc.enable()

    def _extract(self, captions: Sequence[str]) -> Iterator[list[Mention]]:
        """Mentions of each of the captions that are searched at once."""
        if not _may_be_broken("\0".join(captions)):
            yield from self._read([(caption, caption) for caption in captions])
            return
        readings = [_readings(caption) for caption in captions]
        found = self._read(
            [(caption, text) for caption, texts in zip(captions, readings, strict=True) for text in texts]
        )
        for texts in readings:
            mentions = next(found)
            if len(texts) > 1:
                both = dict.fromkeys([*mentions, *next(found)])
                spans = [(mention.start, mention.end, mention) for mention in both]
                mentions = [mention for _, _, mention in without_overlap(spans)]
            yield mentions

    def _read(self, readings: list[tuple[str, str]]) -> Iterator[list[Mention]]:
        """Mentions of some readings of captions: the caption, whose wording mentions have, and what is searched."""
        captions = [text for _, text in readings]
        folded = fold_all(captions)
        batch = TextBatch.of([text.text for text in folded])
        matches = self.lexicon.index.find(batch)
        phrases = self._rules.find(batch) if self._rules else [None] * len(readings)
        written = _written(captions, folded)
        defines = may_define(batch, written)
        rows, special = self._senses(captions, folded, matches, written)
        kept = _longest(matches, rows)
        columns = (matches.start.take(kept), matches.end.take(kept), rows.take(kept))
        starts, ends, chosen = (column.tolist() for column in columns)
        hits = zip(starts, ends, self.lexicon.read(chosen), strict=True)
        bounds = np.searchsorted(matches.text, np.arange(len(captions) + 1))
        spans = zip(pairwise(bounds.tolist()), pairwise(np.searchsorted(kept, bounds).tolist()), strict=True)
        for text, ((low, high), (first, last)) in enumerate(spans):
            original, caption = readings[text]
            places = islice(hits, last - first)
            if not (
                text in special
                or phrases[text] is not None
                or text in defines
                or folded[text].origin is not None
                or self._fuzzy
            ):
                yield self._stated(original, places)  # most captions
                continue
            found = list(map(_as_hit, places))
            every = partial(self._every, matches, rows, slice(low, high))
            if text in special:
                some = self._special(caption, folded[text], every(), matches, special[text])
                found, every = without_overlap(some), partial(list, some)
            if text in defines:
                found = with_definitions(caption, folded[text], found, every)
            yield self._mentions(original, caption, folded[text], found, phrases[text])

    def _every(self, matches: Matches, rows: Ints, part: slice) -> list[Hit]:
        """The hits of one caption, those that overlap as well."""
        columns = [column[part].tolist() for column in (matches.start, matches.end, rows)]
        known = [place for place in zip(*columns, strict=True) if place[2] != NOTHING]
        senses = self.lexicon.read(row for _, _, row in known)
        return [Hit(start, end, sense) for (start, end, _), sense in zip(known, senses, strict=True)]

    def _stated(self, original: str, places: Iterable[tuple[int, int, Sense]]) -> list[Mention]:
        """Mentions that are found as they are written, and stated, without those that mean nothing."""
        source = self.name
        return [
            _new(Mention, (
                sense.cui, sense.name, start, end, original[start:end],
                1.0, False, False, False, False, False, source,
            ))
            for start, end, sense in places
            if sense.cui
        ]  # fmt: skip

    def _mentions(
        self, original: str, caption: str, folded: Folded, found: list[Hit], phrases: Phrases | None
    ) -> list[Mention]:
        """Mentions of one caption.

        Args:
            original: whose wording the mentions have; as long as ``caption``, which was searched.
            folded: the caption as it was searched.
            found: its hits without overlap, those that mean nothing as well.
            phrases: of the rules; None if they say nothing.
        """
        hits = [hit for hit in found if hit[2].cui]
        misspelled = self._fuzzy.hits(folded, found) if self._fuzzy else []
        if misspelled:
            hits = sorted(hits + misspelled)
        if not hits:
            return []
        places = hits
        if folded.origin is not None:
            places = [Hit(*folded.span(start, end), sense) for start, end, sense in hits]
        mentions = self._stated(original, places)
        if misspelled:
            for index in (index for index, hit in enumerate(hits) if hit in misspelled):
                mentions[index] = mentions[index]._replace(score=FUZZY_SCORE)
        if phrases is not None and self._rules is not None:
            for index, given in self._rules.statuses(caption, folded, hits, phrases).items():
                mentions[index] = marked(mentions[index], given)
        return mentions

    def _senses(
        self, captions: list[str], folded: list[Folded], matches: Matches, written: CodePoints
    ) -> tuple[Ints, dict[int, list[int]]]:
        """The sense of each match, by its row in the lexicon, `NOTHING` if it has not the case that all need; and for
        captions to look at by `_special`, which matches are why.
        """
        lexicon = self.lexicon
        marks = lexicon.marks.take(matches.pattern)
        rows = lexicon.columns.starts.take(matches.pattern)
        second = marks & (ADJECTIVE | SHORT) > 0
        cased = np.flatnonzero(marks & CASED)
        rows[cased] = chosen = self._as_written(
            captions, folded, Matches(*(column.take(cased) for column in matches)), written
        )
        second[cased] |= lexicon.columns.needs_name.take(chosen) & (chosen != NOTHING)
        special: dict[int, list[int]] = {}
        places = np.flatnonzero(second)
        for text, match in zip(matches.text.take(places).tolist(), places.tolist(), strict=True):
            special.setdefault(text, []).append(match)
        return rows, special

    def _as_written(
        self, captions: list[str], folded: list[Folded], cased: Matches, written: CodePoints
    ) -> Ints:
        """The rows of the senses that have the case in which each match is written."""
        lexicon = self.lexicon
        length, end = cased.bare_end - cased.start, cased.place + (cased.end - cased.start)
        small = np.minimum(written.take(cased.place + length), written.take(end - 1)) >= ord("a")
        length[(cased.end > cased.bare_end) & ~small] = 0  # "CTS" is no plural as "CTs" is
        rows = lexicon.as_written(cased.pattern, written, cased.place, length)
        other = np.flatnonzero((written > 127) | (written == ord("\n")))
        reads = np.searchsorted(other, cased.place) < np.searchsorted(other, end)
        for at in np.flatnonzero(reads).tolist():
            text, start, bare_end, behind, pattern = (int(column[at]) for column in cased[1:])
            exact = _as_surface(captions[text], folded[text], start, bare_end, behind)
            first, last = lexicon.columns.starts[pattern : pattern + 2].tolist()
            senses = zip(range(first, last), lexicon.senses(pattern), strict=True)
            rows[at] = next((row for row, sense in senses if sense.exact in ("", exact)), NOTHING)
        return rows

    def _special(
        self, caption: str, folded: Folded, hits: list[Hit], matches: Matches, why: list[int]
    ) -> list[Hit]:
        """The hits of a caption with shorthand, adjectives and their subjects, and abbreviations that may not count.

        Args:
            why: the matches that are one of these.
        """
        lexicon = self.lexicon
        short: list[tuple[Shorthand, Hit]] = []
        for match in why:
            start, bare_end, end, pattern = (int(column[match]) for column in matches[2:])
            if pattern in lexicon.shorthand:
                line, meant = lexicon.shorthand[pattern]
                if line.exact in ("", _as_surface(caption, folded, start, bare_end, end)):
                    short.append((line, Hit(start, end, meant)))
            if pattern in lexicon.predicates:
                hits.extend(self._said_of(lexicon.predicates[pattern], folded.text, start, end))
        if short:
            hits = _with_shorthand(hits, short, folded)
        if any(hit.sense.needs_name for hit in hits):
            spelled_out = {hit.sense.cui for hit in hits if not hit.sense.needs_name}
            hits = [hit for hit in hits if not hit.sense.needs_name or hit.sense.cui in spelled_out]
        return hits

    def _said_of(self, readings: dict[str, int], text: str, start: int, end: int) -> list[Hit]:
        """The hit of an adjective with its subject: "heart is mildly enlarged"; none if of something else."""
        for subject, subject_start in subjects(text, start):
            if subject in readings:
                meant = self.lexicon.apart(readings[subject])
                behind = text.index(" ", subject_start + len(subject)) + 1
                if DOUBTING.isdisjoint(text[behind:start].split(" ")):
                    return [Hit(subject_start, end, meant)]
                return [Hit(behind, end, meant)]  # the nodule that is not calcified is there
        return []


def _parts(captions: Sequence[str]) -> Iterator[Sequence[str]]:
    """Captions to be searched at once."""
    low = size = 0
    for high, caption in enumerate(captions):
        if high - low == _AT_ONCE or (size + len(caption) > _CODE_POINTS and high > low):
            yield captions[low:high]
            low, size = high, 0
        size += len(caption)
    if low < len(captions):
        yield captions[low:]


def _may_be_broken(text: str) -> bool:
    """Whether characters stand in a text that may stand within words or between them."""
    return ZERO_WIDTH_SPACE in text or SOFT_HYPHEN in text or "-\n" in text


def _readings(caption: str) -> list[str]:
    """A caption; or two, in one of which words go on over characters without width and hyphens at a line's end."""
    if not _may_be_broken(caption):
        return [caption]
    broken = caption.replace("-\n", 2 * ZERO_WIDTH_SPACE).replace(SOFT_HYPHEN, ZERO_WIDTH_SPACE)
    return [broken.replace(ZERO_WIDTH_SPACE, other) for other in ("\u2060", " ")]


def _longest(matches: Matches, rows: Ints) -> Ints:
    """Positions of the matches that have a sense, the longest where they overlap."""
    known = np.flatnonzero(rows != NOTHING)
    start = matches.place.take(known)
    return known.take(kept_spans(start, start + (matches.end - matches.start).take(known)))


def _written(captions: list[str], folded: list[Folded]) -> CodePoints:
    """The captions in a batch's places; line breaks for one whose length is another when folded."""
    texts = [
        caption if text.origin is None else "\n" * len(text.text)
        for caption, text in zip(captions, folded, strict=True)
    ]
    return code_points("\n".join(["", *texts, ""]))


def _as_surface(caption: str, folded: Folded, start: int, bare_end: int, end: int) -> str:
    """A match in the case in which it is written; empty for "CTS", which is no plural as "CTs" is."""
    first, last = folded.span(start, bare_end)
    if end > bare_end and not caption[last : last + end - bare_end].islower():
        return ""
    return surface(caption[first:last])


def _with_shorthand(hits: list[Hit], short: list[tuple[Shorthand, Hit]], folded: Folded) -> list[Hit]:
    """The hits with the shorthand that this text may use."""
    read = read_here({line for line, _ in short}, folded)
    found = [hit for line, hit in short if line in read]
    spans = {(hit.start, hit.end) for hit in found}
    return [hit for hit in hits if (hit.start, hit.end) not in spans] + found
