"""Concepts that a data set gives with its rows, as texts, lists or objects, with or without places in the caption."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kg_targets.manifest.values import plain_text

NO_PLACE = (-1, -1)
"""Place of a concept that is given without one."""
_CUI_KEYS = ("umls_cui", "cui", "CUI", "code")


def concepts_of(value: Any, caption: str = "") -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """CUIs, and their places in the caption, of ``"C1|C2@3-9"``, a list of CUIs, or objects with CUI and offsets.

    MedConcept-23M counts offsets in a text with blanks around punctuation: where its ``tokens`` are not at the offsets,
    the nearest place where they are is taken.

    Returns:
        CUIs, and a place for each where one at least has a place, else no places.
    """
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)):
        parts = [part.partition("@") for part in re.split(r"[|;,\s]+", plain_text(value)) if part]
        spans = [re.fullmatch(r"(\d+)-(\d+)", place) for _, _, place in parts]
        value = [
            {"cui": cui, **({"start": int(span[1]), "end": int(span[2])} if span else {})}
            for (cui, _, _), span in zip(parts, spans, strict=True)
        ]
    cuis, places = [], []
    for part in value:
        fields = part if isinstance(part, Mapping) else {"cui": part}
        cui = next((plain_text(fields[key]) for key in _CUI_KEYS if key in fields), "")
        if cui:
            cuis.append(cui)
            places.append(_place(fields, caption))
    return tuple(cuis), tuple(places) if any(place != NO_PLACE for place in places) else ()


def _place(fields: Mapping[str, Any], caption: str) -> tuple[int, int]:
    start, end = fields.get("start_char", fields.get("start")), fields.get("end_char", fields.get("end"))
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end):
        return NO_PLACE
    tokens = fields.get("tokens")
    if not isinstance(tokens, list) or not tokens:
        return (start, end) if end <= len(caption) else NO_PLACE
    pattern = r"\s*".join(re.escape(str(token)) for token in tokens)
    found = [match.span() for match in re.finditer(pattern, caption, re.IGNORECASE)]
    return min(found, key=lambda span: (abs(span[0] - start), span), default=NO_PLACE)


def concepts_text(cuis: Sequence[str], places: Sequence[tuple[int, int]]) -> str:
    """The text of which ``concepts_of`` makes these concepts."""
    spans = places or [NO_PLACE] * len(cuis)
    return "|".join(
        cui if place == NO_PLACE else f"{cui}@{place[0]}-{place[1]}"
        for cui, place in zip(cuis, spans, strict=True)
    )
