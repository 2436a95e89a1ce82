"""Which coarse kind of thing a concept is, told from its vocabulary or its UMLS semantic types."""

from __future__ import annotations

from collections.abc import Iterable

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
