"""Names of the seed in texts: what a word beside a name makes of it."""

from __future__ import annotations

import pytest

from kg_targets.concepts import DictionaryExtractor
from kg_targets.ontology import Ontology

EXTRACTOR = DictionaryExtractor(Ontology.seed())


def names(text: str) -> list[str]:
    return [mention.name for mention in EXTRACTOR.extract([text])[0]]


@pytest.mark.parametrize(
    ("text", "name", "other"),
    [
        ("emphysematous changes of both apices", "Pulmonary emphysema", "Emphysematous"),
        ("emphysematous cystitis", "Emphysematous", "Pulmonary emphysema"),
        ("a sub-cutaneous swelling", "Subcutaneous tissue", "Skin"),
        ("a lesion of the T1 vertebral body", "Thoracic vertebra", "Magnetic resonance imaging"),
        ("disc bulge at C7-T1", "Thoracic vertebra", "Magnetic resonance imaging"),
        ("an axial T1 image", "Magnetic resonance imaging", "Thoracic vertebra"),
        ("the choroid fissure of the brain", "Brain", "Choroid"),
        ("mild pelvic dilatation of the left kidney", "Renal pelvis", "Pelvis"),
        ("disc bulge at L4-5", "Lumbar vertebra", ""),
        ("the inferior mesenteric vein", "Inferior mesenteric vein", "Vein"),
        ("the bowel is not obstructed", "Intestinal obstruction", "Obstruction"),
        ("bony destruction and bone loss", "Osteolysis", "Bone structure"),
        ("a tree-in-bud pattern", "Lung opacity", "Bud"),
        ("lead pellets in the thigh", "Opaque foreign body", ""),
    ],
)
def test_a_neighbouring_word_settles_what_a_name_means(text: str, name: str, other: str) -> None:
    found = names(text)
    assert other not in found
    assert name in found
