"""Misspelled names are read when asked for, and real words that resemble a name are left alone."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kg_targets.concepts import DictionaryExtractor
from kg_targets.concepts.fuzzy import FUZZY_SCORE, one_slip
from kg_targets.ontology import Ontology
from tests.kg_targets.concepts.fakes import FakeConcept, FakeOntology

EXTRACTOR = DictionaryExtractor(Ontology.seed(), fuzzy=True)


@pytest.mark.parametrize(
    ("text", "name", "word"),
    [
        ("A pnemothorax on the left", "Pneumothorax", "pnemothorax"),
        ("Sagittel MRI", "Sagittal plane", "Sagittel"),
        ("left pleural effusion and atlectasis", "Atelectasis", "atlectasis"),
        ("a radoigraph of the hand", "Plain X-ray", "radoigraph"),
        ("spondylodiskitis", "Discitis", "spondylodiskitis"),
        ("hémorragie, hematomma.", "Hematoma", "hematomma"),
    ],
)
def test_one_slip_is_forgiven(text: str, name: str, word: str) -> None:
    mention = next(mention for mention in EXTRACTOR.extract([text])[0] if mention.name == name)
    assert (mention.text, mention.score) == (word, FUZZY_SCORE)
    assert text[mention.start : mention.end] == word


@pytest.mark.parametrize(
    "text",
    [
        "injection of contrast",
        "contusion",
        "topography",
        "perianal",
        "interior",
        "a fibroso",
        "abcess",
        "tumorr",
        "xneumothorax",
        "Radiographie du thorax avec des opacités",
        "submucosa",
    ],
)
def test_real_words_short_words_and_first_letters_are_left_alone(text: str) -> None:
    assert not [mention for mention in EXTRACTOR.extract([text])[0] if mention.score < 1]


def test_names_spelled_right_keep_full_confidence_and_context_holds_for_both() -> None:
    mentions = EXTRACTOR.extract(["No pneumothorax, no atlectasis, but a fracture."])[0]
    assert [(m.name, m.score, m.negated) for m in mentions] == [
        ("Pneumothorax", 1.0, True),
        ("Atelectasis", FUZZY_SCORE, True),
        ("Fracture", 1.0, False),
    ]


def test_a_word_near_two_concepts_means_neither() -> None:
    ontology = FakeOntology(
        [
            FakeConcept("C0000001", "Ablepharia", "finding"),
            FakeConcept("C0000002", "Ablepharon", "finding"),
            FakeConcept("C0000003", "Macrognathia", "finding"),
        ]
    )
    extractor = DictionaryExtractor(ontology, fuzzy=True)
    texts = ["ablepharin", "ablepharie", "macrognatia"]
    assert [[m.cui for m in row] for row in extractor.extract(texts)] == [[], ["C0000001"], ["C0000003"]]


def test_without_the_option_a_misspelled_name_is_no_mention_and_with_it_survives_pickling() -> None:
    text = ["pnemothorax"]
    assert DictionaryExtractor(Ontology.seed()).extract(text) == [[]]
    assert pickle.loads(pickle.dumps(EXTRACTOR)).extract(text) == EXTRACTOR.extract(text) != [[]]


def _distance(left: str, right: str) -> int:
    """The optimal string alignment distance, by its table."""
    table = [[max(i, j) if 0 in (i, j) else 0 for j in range(len(right) + 1)] for i in range(len(left) + 1)]
    for i, a in enumerate(left, 1):
        for j, b in enumerate(right, 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_one_slip_is_an_optimal_string_alignment_distance_of_one(left: str, right: str) -> None:
    assert one_slip(left, right) == (_distance(left, right) == 1)
