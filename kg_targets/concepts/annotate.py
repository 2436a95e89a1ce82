"""Mentions of a text or of many, in one call: what a person tries first, and what a notebook shows."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import overload

from kg_targets.concepts import EXTRACTORS
from kg_targets.concepts.mention import STATUSES, Extractor, Mention
from kg_targets.concepts.text import fold_alias, surface
from kg_targets.concepts.variants import plural_suffix, variants
from kg_targets.errors import ExtractionError
from kg_targets.ontology import Concept, Ontology, load_ontology

_STYLES = {
    "": "background:#0072b22e;border-bottom:2px solid #0072b2",
    "negated": "text-decoration:line-through;opacity:.6",
    "uncertain": "background:#e69f002e;border-bottom:2px dotted #e69f00",
    "hypothetical": "opacity:.6;border-bottom:2px dotted #7a7a7a",
    "historical": "opacity:.6;border-bottom:2px solid #7a7a7a",
    "family": "opacity:.6;border-bottom:2px dashed #7a7a7a",
}


class Annotation(list[Mention]):
    """The mentions of one text, in reading order; a notebook shows them in it."""

    def __init__(self, text: str, mentions: Iterable[Mention], ontology: Ontology) -> None:
        super().__init__(mentions)
        self.text = text
        self._ontology = ontology

    def reasons(self) -> list[str]:
        """Why each mention has its concept: by which of its names, or by what the text says."""
        return [
            _reason(mention, self._ontology[mention.cui])
            if mention.cui in self._ontology
            else "not in the ontology"
            for mention in self
        ]

    def pieces(self) -> Iterator[tuple[str, Mention | None]]:
        """The text cut where mentions begin and end; of mentions that overlap, the first."""
        done = 0
        for mention in self:
            if mention.located and mention.start >= done:
                yield self.text[done : mention.start], None
                yield self.text[mention.start : mention.end], mention
                done = mention.end
        yield self.text[done:], None

    def _repr_html_(self) -> str:
        parts = []
        for text, mention in self.pieces():
            shown = html.escape(text)
            if mention is not None:
                given = statuses(mention)
                title = html.escape(f"{mention.name} ({mention.cui}) {', '.join(given)}".strip(), quote=True)
                shown = f"<span title='{title}' style='{_STYLES[given[0] if given else '']}'>{shown}</span>"
            parts.append(shown)
        return f"<p style='max-width:60em'>{''.join(parts)}</p>"


class Annotations(list[Annotation]):
    """The annotations of several texts."""

    def _repr_html_(self) -> str:
        legend = " &nbsp; ".join(
            f"<span style='{style}'>{name or 'stated'}</span>" for name, style in _STYLES.items()
        )
        shown = "".join(annotation._repr_html_() for annotation in self[:_SHOWN])
        rest = f"<p>… and {len(self) - _SHOWN:,} more</p>" if len(self) > _SHOWN else ""
        return f"<div>{shown}{rest}<p style='font-size:90%'>{legend}</p></div>"


_SHOWN = 50


def statuses(mention: Mention) -> list[str]:
    """What the text says of a mention besides stating it; empty where it states it."""
    return [status for status in STATUSES if getattr(mention, status)]


@overload
def annotate(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
    texts: str, ontology: str | Ontology = "seed", extractor: str | Extractor = "dictionary"
) -> Annotation: ...
@overload
def annotate(
    texts: Iterable[str], ontology: str | Ontology = "seed", extractor: str | Extractor = "dictionary"
) -> Annotations: ...
def annotate(
    texts: str | Iterable[str], ontology: str | Ontology = "seed", extractor: str | Extractor = "dictionary"
) -> Annotation | Annotations:
    """Find the concepts that texts mention, and what they say of each.

    Args:
        texts: one text, or several.
        ontology: as for ``kg-targets build --ontology``, or one that is loaded.
        extractor: as for ``--extractor``, or one that is made.

    Returns:
        The mentions of one text, or a list of them for several: each with ``cui, name, start, end, text, score,
        negated, uncertain, hypothetical, historical, family``; offsets are Unicode code points.

    Raises:
        KGTargetsError: the ontology or the extractor cannot be had.
    """
    loaded = _loaded(ontology) if isinstance(ontology, str) else ontology
    finder = _made(extractor, loaded) if isinstance(extractor, str) else extractor
    one = isinstance(texts, str)
    captions = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, Iterable) else [texts]
    wrong = next((text for text in captions if not isinstance(text, str)), None)
    if wrong is not None or None in captions:
        raise ExtractionError(f"annotate takes a text or several, not {type(wrong).__name__}")
    found = [
        Annotation(caption, mentions, loaded)
        for caption, mentions in zip(captions, finder.extract(captions), strict=True)
    ]
    return found[0] if one else Annotations(found)


def named_extractor(name: str, ontology: Ontology, **options: object) -> Extractor:
    """Make an extractor as builds do: disease ontologies abbreviate everything, so only the seed's do so alone.

    Raises:
        ExtractionError: no extractor has that name.
    """
    if name not in EXTRACTORS:
        raise ExtractionError(f"extractor {name} is not one of {', '.join(sorted(EXTRACTORS))}")
    if name in ("dictionary", "union"):
        options.setdefault("trusted", frozenset(Ontology.seed().cuis))
    return EXTRACTORS[name](ontology, **options)


_loaded = lru_cache(2)(load_ontology)
_made = lru_cache(4)(named_extractor)


def _reason(mention: Mention, concept: Concept) -> str:
    if not mention.located:
        return "came with the data set"
    if mention.score < 1:
        return f"like one of its names, score {mention.score:.2f}"
    wording = fold_alias(mention.text)
    if wording == fold_alias(concept.name):
        return "its name"
    if surface(mention.text) in map(surface, concept.abbreviations):
        return "its abbreviation"
    for name in (concept.name, *concept.synonyms):
        alias = fold_alias(name)
        if wording == alias:
            return "a synonym"
        if wording == alias + plural_suffix(alias) or wording in variants(alias):
            return f"a form of {name!r}"
    return "as this text defines, abbreviates or words it"
