"""`annotate`: mentions of one text or of several, why each has its concept, and how a notebook shows them."""

from __future__ import annotations

import pytest

from kg_targets import Ontology, annotate
from kg_targets.concepts import DictionaryExtractor
from kg_targets.concepts.mention import STATUSES, Mention
from kg_targets.errors import ExtractionError

TEXT = "CT: no pneumothorax, possible pneumonia <b>."


def test_one_text_gives_its_mentions_and_several_a_list_of_them() -> None:
    found = annotate(TEXT)
    assert [m.text for m in found] == ["CT", "pneumothorax", "pneumonia"]
    assert all(TEXT[m.start : m.end] == m.text for m in found)
    assert [[s for s in STATUSES if getattr(m, s)] for m in found] == [[], ["negated"], ["uncertain"]]
    assert annotate([TEXT, "nothing"]) == [found, []] and annotate([]) == []
    assert annotate(iter([TEXT]))[0].text == TEXT


def test_an_ontology_and_an_extractor_at_hand_are_taken_as_they_are() -> None:
    ontology = Ontology.seed()
    extractor = DictionaryExtractor(ontology, context=False)
    assert not any(m.negated for m in annotate(TEXT, ontology, extractor))
    assert annotate(TEXT, ontology) == annotate(TEXT)


def test_an_unknown_extractor_is_named_with_those_there_are() -> None:
    with pytest.raises(ExtractionError, match="extractor magic is not one of dictionary, provided"):
        annotate(TEXT, extractor="magic")


def test_each_mention_says_why_it_has_its_concept() -> None:
    reasons = dict(
        (mention.text, reason)
        for found in annotate(
            ["CT, Fractures, pneumothorax, computerised tomography", "pleural effusion (XQ): XQ"]
        )
        for mention, reason in zip(found, found.reasons(), strict=True)
    )
    assert reasons["CT"] == "its abbreviation" and reasons["pneumothorax"] == "its name"
    assert reasons["Fractures"] == "a form of 'Fracture'"
    assert (
        "form of" in reasons["computerised tomography"] or reasons["computerised tomography"] == "a synonym"
    )


def test_the_pieces_of_a_text_are_the_text_whatever_overlaps() -> None:
    found = annotate(TEXT)
    assert "".join(text for text, _ in found.pieces()) == TEXT
    found.append(Mention("C1", "inside", 4, 10, TEXT[4:10]))
    found.append(Mention("C2", "shipped", -1, -1, ""))
    assert "".join(text for text, _ in found.pieces()) == TEXT
    assert found.reasons()[-2:] == ["not in the ontology"] * 2


def test_a_notebook_shows_the_text_with_markup_escaped_and_denied_mentions_struck_through() -> None:
    shown = annotate(TEXT)._repr_html_()
    assert "&lt;b&gt;" in shown and "<b>" not in shown
    assert "line-through" in shown and "(C0032285) uncertain" in shown
    assert (
        "hypothetical" in annotate([TEXT] * 60)._repr_html_()
        and "10 more" in annotate([TEXT] * 60)._repr_html_()
    )


@pytest.mark.parametrize("texts", [None, 5, [None], [1.5], b"CT", ["CT", b"CT"]])
def test_what_is_no_text_is_one_clear_error(texts: object) -> None:
    with pytest.raises(ExtractionError, match="takes a text or several, not"):
        annotate(texts)  # type: ignore[call-overload]
