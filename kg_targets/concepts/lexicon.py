"""From an ontology's aliases to search patterns: which string means which concept, and the choice where two do.

The stop list names aliases and CUIs that must not be matched, each with its reason. A stopped alias of several words is
matched all the same, and yields nothing: "mass effect" then is no mass.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from kg_targets.concepts.predicates import split_alias
from kg_targets.concepts.shorthand import Shorthand
from kg_targets.concepts.text import fold_alias, surface
from kg_targets.concepts.variants import plural_suffix, variants
from kg_targets.errors import ExtractionError
from kg_targets.ontology import Concept, Ontology

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
    _stopped: frozenset[tuple[str, str]] = field(init=False, repr=False)
    """Folded alias and CUI; one of them is empty where the other is stopped whatever goes with it."""

    def __post_init__(self) -> None:
        stopped = frozenset((fold_alias(entry.alias), entry.cui) for entry in self.entries)
        object.__setattr__(self, "_stopped", stopped)

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
        rows = enumerate(read_table(path, _COLUMNS), start=2)
        return cls(tuple(_entry(path, number, row) for number, row in rows if any(row)))

    def __or__(self, other: StopList) -> StopList:
        return StopList(tuple(dict.fromkeys(self.entries + other.entries)))

    def stops(self, folded_alias: str, cui: str, is_abbreviation: bool) -> bool:
        """Whether this reading of an alias must not be matched."""
        if self.stops_cui(cui) or (folded_alias, cui) in self._stopped:
            return True
        return (folded_alias, "") in self._stopped and not is_abbreviation

    def phrases(self) -> list[str]:
        """Folded aliases of several words that stand for no concept and whose words must not yield one either."""
        return sorted(alias for alias, cui in self._stopped if " " in alias and not cui)

    def stops_cui(self, cui: str) -> bool:
        """Whether a CUI must not be used, whatever its wording (also when a data set ships it)."""
        return ("", cui) in self._stopped


def read_table(path: str | Path, header: list[str]) -> list[list[str]]:
    """The rows of a tab-separated file below its header line.

    Raises:
        ExtractionError: the file is missing or not UTF-8, or its first line is not the header.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            first, *rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
    except (OSError, ValueError) as error:
        raise ExtractionError(f"{path}: cannot be read as a UTF-8 table ({error})") from error
    if first != header:
        raise ExtractionError(f"{path}: the first line must be the header {' '.join(header)}, tab-separated")
    return rows


def _entry(path: str | Path, number: int, row: list[str]) -> StopEntry:
    alias, cui, reason = [*row, "", "", ""][:3]
    if len(row) > len(_COLUMNS) or not (alias.strip() or cui.strip()):
        raise ExtractionError(f"{path}:{number}: each line needs an alias, a CUI or both, then a reason")
    return StopEntry(alias.strip(), cui.strip(), reason.strip())


_SHORT = 4
_LONGEST_ACRONYM = 6
# What a caption can say is absent. Places and ways of imaging stay: "no lesion in the liver" still shows a liver.
_NEGATABLE_KINDS = frozenset({"finding", "device", "procedure", "contrast"})
_PLACE_KINDS = frozenset({"region", "organ"})
# Semantic types of places, of imaging and of quality, for concepts that come without a kind
_PLACE_TYPES = frozenset(
    ["T017", "T018", "T021", "T022", "T023", "T024", "T025", "T026", "T029", "T030", "T031"]
)
_OTHER_TYPES = frozenset(["T060", "T077", "T078", "T079", "T080", "T081", "T082"])


@dataclass(frozen=True, slots=True)
class Sense:
    """One reading of a pattern."""

    cui: str
    """Empty for a stopped phrase, which takes its place in the text and yields no mention."""
    name: str
    exact: str
    """The wording with its upper and lower case where that matters (abbreviations), else ``""``."""
    rank: tuple[int, int]
    """Order of preference, smallest first: an alias before a derived spelling, then the ontology's preference."""
    negatable: bool
    """Absence can be said of it: findings, devices, procedures, contrast."""
    place: bool
    """A region or an organ: absent only when directly named so ("absent left kidney")."""
    needs_name: bool = False
    """A short abbreviation that counts only where the caption also spells the concept out."""
    apart: bool = False
    """An adjective with its subject before it, and what is said of both in between; see `predicates`."""


class Hit(NamedTuple):
    """A match on word boundaries, in offsets of the folded text."""

    start: int
    end: int
    sense: Sense


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Search patterns (folded, distinct, in a fixed order) and the readings of each, best first."""

    patterns: list[str]
    senses: list[tuple[Sense, ...]]
    suffixes: list[str]
    """Regular plural ending that may follow each pattern, ``""`` for none."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Aliases left out, counted by reason."""
    shorthand: dict[int, tuple[Shorthand, Sense]] = field(default_factory=dict)
    """For the positions of shorthand in ``patterns``: its line and what it means in a report."""
    predicates: dict[int, dict[str, Sense]] = field(default_factory=dict)
    """For the position of each adjective in ``patterns``: what it means of which subject; see `predicates`."""


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


def build_lexicon(
    ontology: Ontology, stop_list: StopList, options: LexiconOptions, shorthand: Iterable[Shorthand] = ()
) -> Lexicon:
    """Collect and decide all patterns of an ontology; shorthand for what it lacks is left out."""
    aliases = list(ontology.aliases(by_preference=True))
    names = _names(aliases)
    senses: dict[str, dict[tuple[str, str], Sense]] = {}
    skipped: Counter[str] = Counter()
    derived: list[tuple[str, Sense]] = []
    concepts = {cui: ontology[cui] for cui in names}
    for position, (alias, cui, flagged) in enumerate(aliases):
        folded = fold_alias(alias)
        exact = exact_form(alias, flagged, names[cui])
        concept = concepts[cui]
        reason = _skip_reason(folded, concept, names[cui], options)
        if not reason and stop_list.stops(folded, cui, bool(exact)):
            reason = "stop list"
        if reason:
            skipped[reason] += 1
            continue
        negatable, place = roles(concept)
        doubtful = (
            bool(exact)
            and len(exact) <= _SHORT
            and options.trusted is not None
            and cui not in options.trusted
        )
        _add(senses, folded, Sense(cui, concept.name, exact, (0, position), negatable, place, doubtful))
        if not exact:
            variant = Sense(cui, concept.name, "", (1, position), negatable, place)
            derived.extend(
                (form, variant) for form in variants(folded) if not stop_list.stops(form, cui, False)
            )
    for form, variant in derived:
        _add(senses, form, variant)
    in_reports = [
        (line, min(senses[line.long].values(), key=_preference)) for line in shorthand if line.long in senses
    ]
    for line, _ in in_reports:
        _nothing(senses, line.short)
    taken_apart = [(pair, senses[alias]) for alias in senses if (pair := split_alias(alias))]
    for (adjective, _), _ in taken_apart:
        _nothing(senses, adjective)
    for phrase in stop_list.phrases():
        _nothing(senses, phrase)
    patterns = sorted(senses)
    ordered = [tuple(sorted(senses[pattern].values(), key=_preference)) for pattern in patterns]
    positions = {pattern: index for index, pattern in enumerate(patterns)}
    predicates: dict[int, dict[str, Sense]] = {}
    for (adjective, subject), readings in taken_apart:
        best = min(readings.values(), key=_preference)
        if not best.exact:
            predicates.setdefault(positions[adjective], {})[subject] = replace(best, apart=True)
    suffixes = [plural_suffix(pattern) for pattern in patterns]
    meanings = {positions[line.short]: (line, sense) for line, sense in in_reports}
    return Lexicon(patterns, ordered, suffixes, dict(sorted(skipped.items())), meanings, predicates)


def _nothing(senses: dict[str, dict[tuple[str, str], Sense]], pattern: str) -> None:
    """Have a pattern looked for that means nothing by itself."""
    _add(senses, pattern, Sense("", pattern, "", (2, 0), False, False))


def _preference(sense: Sense) -> tuple[bool, bool, tuple[int, int]]:
    """An abbreviation in its own case first; a place before a finding: "skin" is no short name of its neoplasms."""
    return not sense.exact, not sense.place, sense.rank


def _names(aliases: Iterable[tuple[str, str, bool]]) -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for alias, cui, _ in aliases:
        names.setdefault(cui, set()).add(fold_alias(alias))
    return names


def exact_form(alias: str, flagged: bool, names: Collection[str]) -> str:
    """The wording of an abbreviation, whose case counts; ``""`` for an ordinary alias.

    An abbreviation is flagged by the ontology, or a short word without lower case (CT, T2WI, LUL), or the initials of
    another name of its concept: some sources lower-case their acronyms ("lad", "soft", "child"), and everyday words
    must not link to rare diseases.
    """
    if flagged or (len(alias) <= _SHORT and alias.isalnum() and alias.isupper()):
        return surface(alias)
    if len(alias) <= _LONGEST_ACRONYM and alias.isalpha():
        folded = fold_alias(alias)
        if any(_spells(folded, name) for name in names):
            return alias.upper()
    return ""


def _spells(acronym: str, name: str) -> bool:
    """Whether all letters of an acronym, or all but one from four on, are initials of a name's words, in order."""
    words = name.replace("'", "").split(" ")
    if len(words) < 2 or acronym[0] != words[0][:1] or acronym in words:
        return False
    needed = len(acronym) - (len(acronym) >= _SHORT)
    initials = iter(word[:1] for word in words)
    matched = 0
    remaining = list(initials)
    for letter in acronym:
        if letter in remaining:
            del remaining[: remaining.index(letter) + 1]
            matched += 1
    return matched >= needed


def _skip_reason(folded: str, concept: Concept, names: Collection[str], options: LexiconOptions) -> str:
    """Reason why an alias takes no part, ``""`` if it does."""
    if len(folded) < 2:
        return "one character"
    if not any(char.isalpha() for char in folded):
        return "no letter"
    if " " not in folded and f"{folded} syndrome" in names:
        return "first word of a syndrome"
    if options.kinds is not None and concept.kind not in options.kinds:
        return "kind"
    if options.semantic_types is not None and not set(concept.semantic_types) & set(options.semantic_types):
        return "semantic type"
    return ""


def roles(concept: Concept) -> tuple[bool, bool]:
    """``(negatable, place)`` of a concept, from its kind, else from its semantic types, else from its sources."""
    if concept.kind:
        return concept.kind in _NEGATABLE_KINDS, concept.kind in _PLACE_KINDS
    types = set(concept.semantic_types)
    place = bool(types & _PLACE_TYPES) or any(source.startswith("UBERON") for source in concept.sources)
    return not place and not (types and types <= _OTHER_TYPES), place


def _add(senses: dict[str, dict[tuple[str, str], Sense]], pattern: str, sense: Sense) -> None:
    """Keep the best-ranked sense per (pattern, CUI, wording)."""
    held = senses.setdefault(pattern, {})
    key = (sense.cui, sense.exact)
    if key not in held or sense.rank < held[key].rank:
        held[key] = sense
