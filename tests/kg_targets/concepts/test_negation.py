"""Negation: which findings a caption denies, phrase by phrase, and the gold set's tuning half."""

from __future__ import annotations

from pathlib import Path

import pytest

from kg_targets.concepts import DictionaryExtractor, StopList
from kg_targets.concepts.context import ContextRules
from kg_targets.concepts.evaluate import read_jsonl
from kg_targets.concepts.text import boundaries
from kg_targets.errors import ExtractionError
from tests import REPOSITORY
from tests.kg_targets.concepts.fakes import FakeConcept, FakeOntology

GOLD = REPOSITORY / "tests" / "gold" / "captions.jsonl"
FINDINGS = ["fracture", "pneumothorax", "effusion", "mass", "edema", "hematoma", "pneumonia", "swelling"]
ONTOLOGY = FakeOntology(
    [FakeConcept(f"C{index:07d}", name, "finding") for index, name in enumerate(FINDINGS)]
    + [FakeConcept(f"C1{index:06d}", name, "organ") for index, name in enumerate(["kidney", "liver", "lung"])]
    + [
        FakeConcept("C2000000", "CT", "modality", (), ("CT",)),
        FakeConcept("C3000000", "contrast", "contrast"),
    ]
    + [FakeConcept("C4000000", "drain", "device")]
)
EXTRACTOR = DictionaryExtractor(ONTOLOGY, StopList())


def denied(caption: str) -> list[str]:
    return [mention.text.lower() for mention in EXTRACTOR.extract([caption])[0] if mention.negated]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("No fracture.", ["fracture"]),
        ("No fracture, effusion, or mass.", ["fracture", "effusion", "mass"]),
        ("no fracture, effusion or mass in the liver", ["fracture", "effusion", "mass"]),
        ("No fracture, and effusion is seen", ["fracture"]),
        ("No fracture is seen, effusion persists", ["fracture"]),
        ("No fracture but effusion", ["fracture"]),
        ("No fracture. Effusion.", ["fracture"]),
        ("No fracture; effusion", ["fracture"]),
        ("effusion without evidence of pneumonia", ["pneumonia"]),
        ("CT negative for fracture", ["fracture"]),
        ("absence of edema", ["edema"]),
        ("free of mass", ["mass"]),
        ("Pneumonia was ruled out", ["pneumonia"]),
        ("CT ruled out pneumonia", ["pneumonia"]),
        ("The effusion has resolved", ["effusion"]),
        ("complete resolution of the hematoma", ["hematoma"]),
        ("Fracture, swelling and effusion are not seen", ["fracture", "swelling", "effusion"]),
        ("mass; pneumothorax is not.", ["pneumothorax"]),
        ("The effusion, seen before, has resolved", ["effusion"]),
        ("After the hematoma, the shunt is no longer visible", []),
        ("Swelling on other images (not shown)", []),
        ("no leakage around the edema", []),
        ("Pneumothorax: none", ["pneumothorax"]),
        ("neither fracture nor effusion", ["fracture", "effusion"]),
        ("CT without contrast", ["contrast"]),
        ("non-contrast CT", ["contrast"]),
        ("Fracture seen at approx. 3.5 cm without edema", ["edema"]),
        ("(a) no fracture (b) effusion", ["fracture"]),
        ("absence of the left kidney", ["kidney"]),
        ("The liver is absent", ["liver"]),
        ("no mass in the liver", ["mass"]),
        ("no edema around the drain", ["edema"]),
        ("no leak around the drain", []),
        ("absence of kidney function", []),
        ("not only fracture but also effusion", []),
        ("no change in effusion", []),
        ("no significant interval change of the mass", []),
        ("pneumonia cannot be excluded", []),
        ("radiograph to rule out fracture", []),
        ("unchanged effusion", []),
        ("with and without contrast", []),
        ("without doubt a fracture", []),
        ("Case no. 5, fracture", []),
        ("partial resolution of the effusion", []),
        ("knot of effusion, northern mass", []),
        ("No effusion\nMass", ["effusion"]),
        ("No effusion\r\nMass\r\n", ["effusion"]),
        ("No pneumothorax\n- large effusion\n- fracture", ["pneumothorax"]),
        ("\u2022 No effusion\n\u2022 fracture", ["effusion"]),
        ("1. No effusion\n2. fracture", ["effusion"]),
        ("No effusion,\nMass or fracture", ["effusion", "mass", "fracture"]),
        ("no evidence of\nMass", ["mass"]),
        ("no effusion\nor mass", ["effusion", "mass"]),
        ("NO\nPNEUMOTHORAX OR\nMASS", ["pneumothorax", "mass"]),
        ("there is no evidence in either of the two lungs of a rather large\nMass", ["mass"]),
    ],
)
def test_a_phrase_denies_what_it_speaks_of_and_no_more(caption: str, expected: list[str]) -> None:
    assert denied(caption) == expected


def test_ways_of_imaging_and_places_are_not_denied_by_a_finding() -> None:
    assert denied("No CT shows mass of the lung") == []


def test_scope_survives_the_folding_of_double_blanks_and_combining_marks() -> None:
    assert denied("cafe\u0301  no   fracture.  Effusion") == ["fracture"]


@pytest.mark.parametrize(
    ("caption", "parts"),
    [
        ("Fig. 1 shows a mass. No edema.", ["Fig. 1 shows a mass.", " No edema."]),
        ("A 3.5 cm mass on T2. No edema", ["A 3.5 cm mass on T2.", " No edema"]),
        ("approx. two, e.g. three. Four", ["approx. two, e.g. three.", " Four"]),
        ("case no. 5 here", ["case no. 5 here"]),
        ("There was no. Next", ["There was no.", " Next"]),
        ("fracture.No effusion", ["fracture.", "No effusion"]),
        ("E. coli abscess", ["E. coli abscess"]),
        ("one; two", ["one;", " two"]),
        ("", [""]),
    ],
)
def test_sentences_end_where_a_reader_ends_them(caption: str, parts: list[str]) -> None:
    ends = boundaries(caption)
    assert [caption[start:end] for start, end in zip([0, *ends], ends, strict=False)] == parts


def test_negation_of_gold_mentions_is_right_nearly_always() -> None:
    captions = read_jsonl(GOLD, "tune")
    wordings = {
        m.text: {"anatomy": "organ"}.get(m.type, m.type) for caption in captions for m in caption.mentions
    }
    ontology = FakeOntology(
        [FakeConcept(f"C{i:07d}", text, kind) for i, (text, kind) in enumerate(wordings.items())]
    )
    extractor = DictionaryExtractor(ontology, StopList())
    right = total = 0
    for caption, mentions in zip(captions, extractor.extract([c.text for c in captions]), strict=True):
        polarity = {(m.start, m.end): m.negated for m in mentions}
        for gold in caption.mentions:
            if (gold.start, gold.end) in polarity:
                total += 1
                right += polarity[gold.start, gold.end] == gold.negated
    assert total > 300
    assert right / total > 0.99


def test_a_malformed_trigger_table_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "triggers.tsv"
    path.write_text(
        "phrase\tstatus\trole\nno\tnegated\tbefore\nnever\tnegated\tsometimes\n", encoding="utf-8"
    )
    with pytest.raises(ExtractionError, match=r"triggers.tsv:3"):
        ContextRules.read(path)
