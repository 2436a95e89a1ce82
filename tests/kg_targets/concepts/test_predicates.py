"""What a name says before its noun, a sentence may say behind it; nouns may be turned round."""

from __future__ import annotations

import pytest

from kg_targets.concepts import DictionaryExtractor
from kg_targets.concepts.predicates import split_alias, subjects
from kg_targets.ontology import Ontology
from tests.kg_targets.concepts.fakes import FakeConcept, FakeOntology

EXTRACTOR = DictionaryExtractor(Ontology.seed())


def found(text: str) -> list[tuple[str, str]]:
    return [(mention.name, mention.text) for mention in EXTRACTOR.extract([text])[0]]


@pytest.mark.parametrize(
    ("text", "name", "span"),
    [
        ("The heart is mildly enlarged.", "Cardiomegaly", "heart is mildly enlarged"),
        ("Heart size is borderline enlarged", "Cardiomegaly", "Heart size is borderline enlarged"),
        ("The cardiac silhouette remains moderately enlarged", "Cardiomegaly", None),
        ("Enlargement of the cardiac silhouette", "Cardiomegaly", "Enlargement of the cardiac silhouette"),
        ("The liver appears  enlarged", "Hepatomegaly", "liver appears  enlarged"),
        ("Lymph nodes are again enlarged", "Lymphadenopathy", "Lymph nodes are again enlarged"),
        ("The spleen has been enlarged", "Splenomegaly", "spleen has been enlarged"),
        ("The lateral ventricles are dilated", "Ventriculomegaly", "lateral ventricles are dilated"),
        ("a fracture of the femur", "Femoral fracture", "fracture of the femur"),
        ("thrombosis of the portal vein", "Portal vein thrombosis", "thrombosis of the portal vein"),
    ],
)
def test_a_sentence_says_what_the_name_says(text: str, name: str, span: str | None) -> None:
    assert [(given, words) for given, words in found(text) if given == name and span in (None, words)]


def test_a_subject_is_there_though_what_is_said_of_it_is_denied() -> None:
    nodule, calcified = EXTRACTOR.extract(["The nodules are not calcified."])[0]
    assert (nodule.name, nodule.stated, nodule.text) == ("Nodule", True, "nodules")
    assert (calcified.name, calcified.negated, calcified.text) == (
        "Calcified nodule",
        True,
        "are not calcified",
    )


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("The heart is enlarged", "stated"),
        ("The heart is not enlarged", "negated"),
        ("The heart isn't enlarged", "negated"),
        ("The heart is no longer enlarged", "negated"),
        ("The heart does not appear enlarged", "negated"),
        ("Heart may be enlarged", "uncertain"),
        ("Heart is possibly enlarged", "uncertain"),
    ],
)
def test_what_stands_between_is_said_of_the_finding(text: str, status: str) -> None:
    *subject, mention = EXTRACTOR.extract([text])[0]
    assert mention.name == "Cardiomegaly"
    assert [one.name for one in subject if one.stated] == ([] if status == "stated" else ["Heart"])
    assert [name for name in ("stated", "negated", "uncertain") if getattr(mention, name)] == [status]


@pytest.mark.parametrize(
    "text",
    [
        "heart, no enlarged nodes",
        "heart is " + "very " * 20 + "enlarged",
        "The heart is normal, enlarged nodes",
        "The heart is seen. Enlarged thyroid",
        "The heart and enlarged",
        "The heart failure is enlarged",
        "enlarged",
        "is enlarged",
    ],
)
def test_an_adjective_of_something_else_makes_no_name(text: str) -> None:
    assert "Cardiomegaly" not in [name for name, _ in found(text)]


def test_any_ontology_is_read_so_and_a_lone_adjective_yields_nothing() -> None:
    ontology = FakeOntology([FakeConcept("C0000001", "Torn tendon", "finding")])
    extractor = DictionaryExtractor(ontology)
    texts = ["The tendon was completely torn.", "Tendons are torn", "A torn page", "The torn tendon"]
    assert [[mention.text for mention in row] for row in extractor.extract(texts)] == [
        ["tendon was completely torn"],
        ["Tendons are torn"],
        [],
        ["torn tendon"],
    ]


def test_aliases_are_taken_apart_only_at_a_predicative_adjective() -> None:
    assert split_alias("enlarged lymph node") == ("enlarged", "lymph node")
    assert split_alias("enlarged") is None
    assert split_alias("left lung") is None


def test_subjects_begin_where_they_stand_in_the_text() -> None:
    text = "so the left lung is very markedly enlarged"
    for subject, start in subjects(text, text.index("enlarged")):
        assert text[start:].startswith(subject)
