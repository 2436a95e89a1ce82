"""From an ontology's aliases to a lexicon: which string means which concept, and the choice where two do.

Aliases are read in chunks and put in columns at once; an object for each would take gigabytes with the whole UMLS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kg_targets.concepts.lexicon import (
    ADJECTIVE,
    NEGATABLE,
    NOTHING,
    PLACE,
    SHORT,
    Concepts,
    Lexicon,
    Strings,
)
from kg_targets.concepts.lexicon_columns import NEEDS_NAME, PAIR, Rows, assemble
from kg_targets.concepts.predicates import ADJECTIVES, split_alias
from kg_targets.concepts.shorthand import shorthand_lines
from kg_targets.concepts.stop_list import StopList
from kg_targets.concepts.text import fold_alias, fold_aliases, surface
from kg_targets.concepts.variants import variants
from kg_targets.ontology import Ontology
from kg_targets.ontology.concept import format_cui, parse_cui

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_CHUNK = 1 << 14  # aliases
_SHORT_ALIAS = 4
_LONGEST_ACRONYM = 6
# What a caption can say is absent. Places and ways of imaging stay: "no lesion in the liver" still shows a liver.
_NEGATABLE_KINDS = frozenset({"finding", "device", "procedure", "contrast"})
_PLACE_KINDS = frozenset({"region", "organ"})
# Semantic types of places, of imaging and of quality, for concepts that come without a kind
_PLACE_TYPES = frozenset(
    ["T017", "T018", "T021", "T022", "T023", "T024", "T025", "T026", "T029", "T030", "T031"]
)
_OTHER_TYPES = frozenset(["T060", "T077", "T078", "T079", "T080", "T081", "T082"])
_CASELESS, _UNPLACED, _MEANINGLESS, _DERIVED = 1 << 40, 1 << 39, 2 << 36, 1 << 36
"""Added to the place of an alias in the ontology's order of preference: an abbreviation in its own case first; a place
before a finding ("skin" is no short name of its neoplasms); an alias before a derived spelling."""


@dataclass(frozen=True, slots=True)
class LexiconOptions:
    """Choice of the concepts and abbreviations that take part."""

    kinds: Collection[str] | None = None
    """Only concepts of these kinds; None for all."""
    semantic_types: Collection[str] | None = None
    """Only concepts with at least one of these TUIs; None for all."""
    trusted: Collection[str] | None = None
    """CUIs whose abbreviations count by themselves. Those of other concepts, up to four characters long, count only in
    captions that also spell the concept out. None trusts all."""


def build_lexicon(ontology: Ontology, stop_list: StopList, options: LexiconOptions) -> Lexicon:
    """Collect and decide all patterns of an ontology; shorthand for what it lacks is left out."""
    concepts = _Concepts.of(ontology, stop_list, options)
    aliases = _Aliases(ontology.alias_table(), concepts.cuis)
    readings = _Readings(concepts, aliases, stop_list)
    for chunk in aliases:
        readings.take(chunk)
    readings.take_meaningless()
    return readings.lexicon()


def roles(kind: str, semantic_types: Collection[str], sources: Iterable[str]) -> tuple[bool, bool]:
    """``(negatable, place)`` of a concept, from its kind, else from its semantic types, else from its sources."""
    if kind:
        return kind in _NEGATABLE_KINDS, kind in _PLACE_KINDS
    types = set(semantic_types)
    place = bool(types & _PLACE_TYPES) or any(source.startswith("UBERON") for source in sources)
    return not place and not (types and types <= _OTHER_TYPES), place


def exact_form(alias: str, flagged: bool, names: Callable[[], Collection[str]]) -> str:
    """The wording of an abbreviation, whose case counts; ``""`` for an ordinary alias.

    An abbreviation is flagged by the ontology, or a short word without lower case (CT, T2WI, LUL), or the initials of
    another name of its concept: some sources lower-case their acronyms ("lad", "soft", "child"), and everyday words
    must not link to rare diseases.
    """
    if flagged or (len(alias) <= _SHORT_ALIAS and alias.isalnum() and alias.isupper()):
        return surface(alias)
    if len(alias) <= _LONGEST_ACRONYM and alias.isalpha():
        folded = fold_alias(alias)
        if any(_spells(folded, name) for name in names()):
            return alias.upper()
    return ""


def _spells(acronym: str, name: str) -> bool:
    """Whether all letters of an acronym, or all but one from four on, are initials of a name's words, in order."""
    words = name.replace("'", "").split(" ")
    if len(words) < 2 or acronym[0] != words[0][:1] or acronym in words:
        return False
    needed = len(acronym) - (len(acronym) >= _SHORT_ALIAS)
    initials = iter(word[:1] for word in words)
    matched = 0
    remaining = list(initials)
    for letter in acronym:
        if letter in remaining:
            del remaining[: remaining.index(letter) + 1]
            matched += 1
    return matched >= needed


@dataclass(frozen=True)
class _Concepts:
    """What decides over a concept's aliases; ``[C]`` each."""

    cuis: npt.NDArray[np.int32]
    names: pa.Array
    roles: Bytes
    refused: list[str]
    """Reason why none of its aliases takes part, else ``""``."""
    trusted: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, ontology: Ontology, stop_list: StopList, options: LexiconOptions) -> _Concepts:
        """Decide over all concepts of an ontology."""
        table = ontology.concept_table().combine_chunks()
        cuis = np.asarray(table["cui"].to_numpy(), dtype=np.int32)
        sources = pc.list_flatten(table["sources"])
        uberon = np.zeros(len(cuis), bool)
        owners = np.asarray(pc.list_parent_indices(table["sources"]).to_numpy())
        uberon[owners[np.asarray(pc.starts_with(sources, "UBERON").to_numpy(), dtype=bool)]] = True
        types = pc.binary_join(table["semantic_types"], "|")
        traits = pc.binary_join_element_wise(
            table["kind"], types, pc.if_else(pa.array(uberon), "UBERON", ""), "\t"
        )
        encoded = traits.combine_chunks().dictionary_encode()
        which = np.asarray(encoded.indices.to_numpy(), dtype=np.int64)
        role, refused = [], []
        for kind, joined, source in (trait.split("\t") for trait in encoded.dictionary.to_pylist()):
            held = joined.split("|") if joined else []
            negatable, place = roles(kind, held, [source])
            role.append(NEGATABLE * negatable + PLACE * place)
            refused.append(_refusal(kind, held, options))
        reasons = np.array(refused, object)[which] if refused else np.zeros(0, object)
        stopped = [number for cui in stop_list.cuis if (number := parse_cui(cui)) is not None]
        reasons[np.isin(cuis, stopped) & (reasons == "")] = "stop list"
        trusted = np.ones(len(cuis), bool)
        if options.trusted is not None:
            trusted = np.isin(cuis, [parse_cui(cui) or 0 for cui in options.trusted])
        return cls(
            cuis,
            table["name"].combine_chunks(),
            np.array(role, np.uint8)[which] if role else np.zeros(0, np.uint8),
            reasons.tolist(),
            trusted,
        )


def _refusal(kind: str, semantic_types: Collection[str], options: LexiconOptions) -> str:
    if options.kinds is not None and kind not in options.kinds:
        return "kind"
    if options.semantic_types is not None and not set(semantic_types) & set(options.semantic_types):
        return "semantic type"
    return ""


class _Chunk(NamedTuple):
    """Some aliases, most preferred first."""

    first: int
    """Place of the first of them in the order of preference."""
    texts: list[str]
    owners: list[int]
    """Position of each one's concept."""
    flagged: list[bool]
    """Whether the ontology says that it is an abbreviation."""


class _Aliases:
    """An ontology's aliases, in chunks and by concept."""

    def __init__(self, table: pa.Table, cuis: npt.NDArray[np.int32]) -> None:
        self._table = table
        self._owner = np.searchsorted(cuis, table["cui"].to_numpy()).astype(np.int32)
        self._order = np.argsort(self._owner, kind="stable")
        self._starts = np.searchsorted(self._owner, np.arange(len(cuis) + 1), sorter=self._order)
        self.names = lru_cache(64)(self._names)

    def __iter__(self) -> Iterator[_Chunk]:
        for first in range(0, len(self._owner), _CHUNK):
            part = self._table.slice(first, _CHUNK)
            owners = self._owner[first : first + _CHUNK].tolist()
            yield _Chunk(first, part["text"].to_pylist(), owners, part["abbreviation"].to_pylist())

    def _names(self, owner: int) -> frozenset[str]:
        """All folded names of a concept."""
        rows = self._order[self._starts[owner] : self._starts[owner + 1]]
        return frozenset(fold_aliases(self._table["text"].take(pa.array(rows)).to_pylist()))

    def syndromes(self) -> frozenset[tuple[int, str]]:
        """Concept and word, for names like "Down syndrome"."""
        tail = " syndrome"
        return frozenset(
            (owner, name.removesuffix(tail))
            for chunk in self
            for owner, name in zip(chunk.owners, fold_aliases(chunk.texts), strict=True)
            if name.endswith(tail) and name.find(" ") == len(name) - len(tail)
        )


class _Readings:
    """Collects the readings of patterns, chunk by chunk."""

    def __init__(self, concepts: _Concepts, aliases: _Aliases, stop_list: StopList) -> None:
        self._concepts = concepts
        self._aliases = aliases
        self._syndromes = aliases.syndromes()
        self._stop_list = stop_list
        self._stopped = stop_list.aliases
        self._unplaced = [0 if place & PLACE else _UNPLACED for place in concepts.roles.tolist()]
        self._lines = shorthand_lines()
        self._longs = frozenset(line.long for line in self._lines)
        self._present: set[str] = set()
        self._adjectives: set[str] = set()
        self._exacts: dict[str, int] = {"": 0}
        self._rows = [Rows.of([], [()] * 4)]
        self._skipped: Counter[str] = Counter()

    def take(self, chunk: _Chunk) -> None:
        """Add what some aliases, and the spellings derived from them, can mean."""
        patterns: list[str] = []
        readings: list[tuple[int, int, int, int]] = []
        folded = fold_aliases(chunk.texts)
        rows = zip(folded, chunk.texts, chunk.owners, chunk.flagged, strict=True)
        for position, (alias, text, owner, flagged) in enumerate(rows, start=chunk.first):
            exact, reason = "", self._skip_reason(alias, owner)
            if not reason:
                if flagged or len(text) <= _LONGEST_ACRONYM:
                    exact = exact_form(text, flagged, partial(self._aliases.names, owner))
                if alias in self._stopped and self._stops(alias, owner, bool(exact)):
                    reason = "stop list"
            if reason:
                self._skipped[reason] += 1
                continue
            needs_name = bool(exact) and len(exact) <= _SHORT_ALIAS and not self._concepts.trusted[owner]
            number = self._exacts.setdefault(exact, len(self._exacts)) if exact else 0
            preference = position + self._unplaced[owner]
            patterns.append(alias)
            readings.append(
                (owner, number, preference + (0 if exact else _CASELESS), NEEDS_NAME * needs_name)
            )
            if not exact:
                forms = variants(alias)
                if not self._stopped.isdisjoint(forms):
                    forms = [form for form in forms if not self._stops(form, owner, False)]
                patterns += forms
                readings += [(owner, 0, preference + _CASELESS + _DERIVED, 0)] * len(forms)
        for row, pattern in enumerate(patterns):
            if pattern.partition(" ")[0] in ADJECTIVES and (pair := split_alias(pattern)):
                self._adjectives.add(pair[0])
                readings[row] = (*readings[row][:-1], readings[row][-1] | PAIR)
        self._present |= self._longs.intersection(patterns)
        self._add(patterns, readings)

    def take_meaningless(self) -> None:
        """Add what must be found and means nothing by itself: stopped phrases, adjectives, shorthand."""
        shorts = {line.short for line in self._lines if line.long in self._present}
        phrases = {phrase for phrase in self._stop_list.phrases() if any(map(str.isalnum, phrase))}
        marks = {
            pattern: SHORT * (pattern in shorts) + ADJECTIVE * (pattern in self._adjectives)
            for pattern in sorted(shorts | phrases | self._adjectives)
        }
        preference = _CASELESS + _UNPLACED + _MEANINGLESS
        self._add(list(marks), [(NOTHING, 0, preference, mark) for mark in marks.values()])

    def _skip_reason(self, alias: str, owner: int) -> str:
        """Reason why an alias takes no part, whatever its case; ``""`` if it does."""
        if len(alias) < 2:
            return "one character"
        if not (alias.isascii() and alias.islower()) and not any(map(str.isalpha, alias)):
            return "no letter"
        if " " not in alias and (owner, alias) in self._syndromes:
            return "first word of a syndrome"
        return self._concepts.refused[owner]

    def _stops(self, alias: str, owner: int, is_abbreviation: bool) -> bool:
        return self._stop_list.stops(alias, format_cui(int(self._concepts.cuis[owner])), is_abbreviation)

    def _add(self, patterns: list[str], readings: list[tuple[int, int, int, int]]) -> None:
        if patterns:
            self._rows.append(Rows.of(patterns, zip(*readings, strict=True)))

    def lexicon(self) -> Lexicon:
        """Put everything in order."""
        concepts = self._concepts
        names = Strings.of(concepts.names)
        about = Concepts(
            concepts.cuis, concepts.roles, names, Strings.of(pa.array(self._exacts, pa.large_string()))
        )
        return assemble(self._rows, about, dict(sorted(self._skipped.items())))
