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
        ("fusion of L5 and S1", "Fifth lumbar vertebra", ""),
        ("a cyst at the C2 level", "Axis vertebra", ""),
        ("wedging of T11 and of Th12", "Thoracic vertebra", "Magnetic resonance imaging"),
        ("a CT KUB without contrast", "Computed tomography", "Plain X-ray"),
        ("anterior-posterior (AP) view of the wrist", "Anteroposterior projection", "Anterior"),
        ("anterior-posterior view of the wrist", "Anteroposterior projection", "Posterior"),
        ("fluid in the paracolic gutter", "Peritoneal cavity", ""),
        ("gas in the rectus sheath", "Abdominal wall", ""),
        ("stenosis of a pancreaticogastrostomy", "Anastomosis", ""),
        ("late gadolinium enhancement (LGE)", "Contrast enhancement", "Gadolinium"),
        ("the superior epigastric artery", "Artery", "Epigastrium"),
        ("lead pellets in the thigh", "Opaque foreign body", ""),
    ],
)
def test_a_neighbouring_word_settles_what_a_name_means(text: str, name: str, other: str) -> None:
    found = names(text)
    assert other not in found
    assert name in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("destruction of the fifth rib", "Destruction"),
        ("ossification of a ligament", "Pathologic mineralization"),
        ("an erosion at its margin", "Bone erosion"),
        ("two air-fluid levels", "Air-fluid level"),
        ("a radiolucent area", "Lesion"),
        ("a tortuous vessel", "Vascular tortuosity"),
        ("migration of the wire and bowing", "Morphologic abnormality"),
        ("engorged veins", "Congestion"),
        ("emphysematous cystitis", "Cystitis"),
        ("a cyst of the left adnexa", "Adnexa"),
        ("condylar prosthesis", "Mandibular condyle"),
        ("pseudomyxoma peritonei", "Pseudomyxoma peritonei"),
        ("an internal fixator", "Implant"),
        ("a swallowed FB", "Foreign body"),
        ("compression of the spine cord", "Spinal cord compression"),
        ("a transseptal puncture", "Puncture"),
        ("an SPGR image", "Magnetic resonance imaging"),
        ("a panoramic view", "Plain X-ray"),
        ("the FAST view was positive", "Ultrasonography"),
    ],
)
def test_plain_words_of_radiologists_are_read(text: str, expected: str) -> None:
    assert expected in names(text)


def test_a_projection_leaves_the_way_of_imaging_to_be_read() -> None:
    for text in (
        "lateral radiograph of the knee",
        "AP radiograph of the knee",
        "PA chest X-ray, lateral film",
    ):
        assert "Plain X-ray" in names(text)
