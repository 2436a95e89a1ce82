"""Concepts that a data set ships (ROCO's ``cuis.txt``), as they are, and the union of several extractors."""

from __future__ import annotations

from collections.abc import Sequence

from kg_targets.concepts.mention import Extractor, Mention, reading_order
from kg_targets.concepts.stop_list import StopList
from kg_targets.errors import ExtractionError
from kg_targets.ontology import Ontology


class ProvidedExtractor:
    """The CUIs that came with each caption: no place in the text (``start = end = -1``, ``text = ""``), never negated.

    Those that UMLS has retired since are given as their successors, where the ontology knows them.

    Args:
        ontology: gives the names; a CUI that it does not know keeps its own CUI as its name.
        stop_list: CUIs to leave out; None for the shipped list.
    """

    name = "provided"

    def __init__(self, ontology: Ontology, stop_list: StopList | None = None) -> None:
        self._ontology = ontology
        self._stop_list = StopList.shipped() if stop_list is None else stop_list

    def extract(
        self, captions: Sequence[str], provided: Sequence[Sequence[str]] | None = None
    ) -> list[list[Mention]]:
        """One mention per distinct CUI of each caption, by CUI.

        Raises:
            ExtractionError: no CUIs are given, or not one list for each caption.
        """
        if provided is None:
            raise ExtractionError(
                "extractor provided: this data set ships no CUIs; use the dictionary extractor"
            )
        if len(provided) != len(captions):
            raise ExtractionError(
                f"extractor provided: {len(captions)} captions but {len(provided)} lists of CUIs"
            )
        current = ({self._ontology.current(cui) for cui in cuis} for cuis in provided)
        return [[self._mention(cui) for cui in sorted(cuis) if self._wanted(cui)] for cuis in current]

    def _wanted(self, cui: str) -> bool:
        return bool(cui) and not self._stop_list.stops_cui(cui)

    def _mention(self, cui: str) -> Mention:
        name = self._ontology[cui].name if cui in self._ontology else cui
        return Mention(cui, name, -1, -1, "", source=self.name)


class UnionExtractor:
    """Everything that any of several extractors finds.

    A provided CUI that another extractor places in the caption is dropped in favour of that mention, so that a negation
    read from the text wins over a data set's bare CUI. Otherwise mentions of different extractors may overlap.
    """

    name = "union"

    def __init__(self, extractors: Sequence[Extractor]) -> None:
        if not extractors:
            raise ExtractionError("extractor union: needs at least one extractor")
        self._extractors = tuple(extractors)

    def extract(
        self, captions: Sequence[str], provided: Sequence[Sequence[str]] | None = None
    ) -> list[list[Mention]]:
        """The united mentions of each caption in reading order; equal place and CUI count once, first wins."""
        results = [extractor.extract(captions, provided) for extractor in self._extractors]
        return [
            _unite([mention for found in caption for mention in found])
            for caption in zip(*results, strict=True)
        ]


def _unite(mentions: list[Mention]) -> list[Mention]:
    located = {mention.cui for mention in mentions if mention.located}
    kept: dict[tuple[int, int, str], Mention] = {}
    for mention in mentions:
        if mention.located or mention.cui not in located:
            kept.setdefault(reading_order(mention), mention)
    return sorted(kept.values(), key=reading_order)
