"""Concepts, their coarse kinds by vocabulary or UMLS semantic type, and the report on how an ontology was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kg_targets.errors import OntologyError

ALL_CUIS = 10**7
"""Numbers that seven digits can write."""


def parse_cui(text: str) -> int | None:
    """Number of a UMLS identifier: ``"C0040405"`` and ``"c0040405"`` give 40405, anything else None."""
    # No regular expression: this runs for every row of the Metathesaurus.
    text = text.strip()
    if len(text) == 8 and text[0] in "Cc" and text.isascii() and text[1:].isdigit():
        return int(text[1:])
    return None


def format_cui(number: int) -> str:
    """Write a CUI's number in the form that UMLS prints: 40405 gives ``"C0040405"``."""
    return f"C{number:07d}"


def require_cui(text: str) -> int:
    """Number of a UMLS identifier, as by `parse_cui`, for callers that cannot go on without one.

    Raises:
        OntologyError: the text is not the letter C and seven digits.
    """
    number = parse_cui(text)
    if number is None:
        raise OntologyError(
            f"ontology: {text!r} is not a CUI; write the letter C and seven digits, as in C0040405"
        )
    return number


@dataclass(frozen=True, slots=True)
class Concept:
    """One UMLS concept as the ontology knows it.

    Attributes:
        cui: identifier, ``C`` and seven digits.
        name: preferred name (that of the leftmost source of a merge).
        kind: coarse group such as ``modality``, ``organ`` or ``finding``; empty where no source tells.
        semantic_types: UMLS semantic type identifiers (TUIs), sorted.
        synonyms: other names, matched without regard to case.
        abbreviations: names that only count in exactly this case (``ALL`` is a leukaemia, ``all`` is not).
        verified: two vocabularies agree on one of its names, or a source that answers for its CUIs says so.
        sources: terms it was read from, such as ``HP:0002107``.
    """

    cui: str
    name: str
    kind: str = ""
    semantic_types: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    abbreviations: tuple[str, ...] = ()
    verified: bool = True
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OntologyReport:
    """Report on reading an ontology: its content, and what was left out and why.

    Attributes:
        concepts: number of concepts.
        verified: how many of them are verified.
        names: rows of names, over all sources.
        ambiguous_aliases: aliases that more than one concept carries.
        edges: distinct edges per relation.
        cycles: groups of CUIs that ``is_a`` makes ancestors of one another, each sorted, in order.
        equivalence_classes: groups of CUIs that one source term carries together.
        self_loops: edges from a concept to itself, dropped.
        dangling_edges: edges with an end that is no concept here, dropped.
        retired: retired CUIs that have a successor here.
        skipped: rows left out, by reason.
    """

    concepts: int = 0
    verified: int = 0
    names: int = 0
    ambiguous_aliases: int = 0
    edges: Mapping[str, int] = field(default_factory=dict)
    cycles: tuple[tuple[str, ...], ...] = ()
    equivalence_classes: int = 0
    self_loops: int = 0
    dangling_edges: int = 0
    retired: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report in a few lines of plain text."""
        edges = ", ".join(f"{count:,} {relation}" for relation, count in sorted(self.edges.items())) or "none"
        out = [
            f"{self.concepts:,} concepts ({self.verified:,} verified), {self.names:,} names, "
            f"{self.ambiguous_aliases:,} aliases with more than one concept",
            f"edges: {edges}; dropped: {self.self_loops:,} self-loops, {self.dangling_edges:,} dangling",
            f"{len(self.cycles):,} is_a cycles, {self.equivalence_classes:,} groups of CUIs on one term",
        ]
        if self.retired:
            out.append(f"{self.retired:,} retired CUIs are followed to their successors")
        return out + [f"skipped {count:,}: {reason}" for reason, count in sorted(self.skipped.items())]


def cui_strings(numbers: npt.NDArray[np.int32] | Iterable[int]) -> list[str]:
    """Format many CUI numbers."""
    return [format_cui(int(number)) for number in numbers]


KIND_OF_VOCABULARY = {"DOID": "finding", "MONDO": "finding", "HP": "finding", "UBERON": "organ"}
"""Vocabularies with one subject; others (EFO) have none to tell."""

_FINDING = ("T019", "T020", "T033", "T034", "T037", "T046", "T047", "T048", "T049", "T184", "T190", "T191")
_ORGAN = ("T017", "T018", "T021", "T022", "T023", "T024", "T025")
KIND_OF_TYPE = {
    **dict.fromkeys(_FINDING, "finding"),
    **dict.fromkeys(_ORGAN, "organ"),
    **dict.fromkeys(("T029", "T030"), "region"),
    **dict.fromkeys(("T058", "T059", "T060", "T061"), "procedure"),
    **dict.fromkeys(("T074", "T203"), "device"),
    **dict.fromkeys(("T079", "T080", "T081", "T082"), "qualifier"),
    "T130": "contrast",
}
"""UMLS semantic types (Semantic Network) by the kinds that the seed uses."""


def kind_of_types(types: Iterable[str]) -> str:
    """Kind of a concept with these TUIs: that of the smallest TUI that has one, else empty."""
    return next((KIND_OF_TYPE[type_] for type_ in sorted(types) if type_ in KIND_OF_TYPE), "")


KIND_GROUPS = {
    "modality": ("modality", "sequence"),
    "anatomy": ("region", "organ"),
    "finding": ("finding",),
}
"""Kinds whose coverage says whether captions were understood: how, where, and what is seen."""
