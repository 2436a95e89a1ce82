"""Clinical shorthand is read in reports, and figure captions keep their own senses of the same letters."""

from __future__ import annotations

import pytest

from kg_targets.concepts import DictionaryExtractor
from kg_targets.concepts.shorthand import COLUMNS, SHIPPED, shorthand
from kg_targets.concepts.stop_list import read_table
from kg_targets.ontology import Ontology

EXTRACTOR = DictionaryExtractor(Ontology.seed())


def names(text: str) -> list[str]:
    return [mention.name for mention in EXTRACTOR.extract([text])[0]]


@pytest.mark.parametrize(
    ("report", "name"),
    [
        ("No PTX. ETT in place.", "Pneumothorax"),
        ("s/p ORIF L hip fx", "Fracture"),
        ("s/p ORIF L hip fx", "Surgery"),
        ("IMPRESSION: small pleural eff.", "Pleural effusion"),
        ("FINDINGS: OA of the knee joint.", "Osteoarthritis"),
        ("NGT and ETT unchanged. Liver mets.", "Metastasis"),
        ("The lungs are clear. No acute disease, no effusion.", "Pleural effusion"),
        ("There is PNA in the right lung, stable.", "Pneumonia"),
        ("FINDINGS: the GB is distended", "Gallbladder"),
    ],
)
def test_shorthand_is_read_in_a_text_that_looks_like_a_report(report: str, name: str) -> None:
    assert name in names(report)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Small PTX.", "Pneumothorax"),
        ("No PTX.", "Pneumothorax"),
        ("Hip fx.", "Fracture"),
        ("Liver mets.", "Metastasis"),
        ("small left pleural eff", "Pleural effusion"),
        ("OA of both knees", "Osteoarthritis"),
        ("CTPA: no PE", "Pulmonary embolism"),
        ("r/o PE", "Pulmonary embolism"),
    ],
)
def test_what_captions_use_in_no_other_sense_is_read_anywhere(text: str, name: str) -> None:
    assert name in names(text)


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("OA: open access group, OB: other", "Osteoarthritis"),
        ("GB = green box on the axial CT", "Gallbladder"),
        ("Echocardiogram with PE around the heart", "Pulmonary embolism"),
        ("Marks of a CAD system on a mammogram. Stable, no acute change.", "Coronary artery disease"),
        ("Sagittal MRI of the knee: effusion (arrow)", "Pleural effusion"),
        ("MRI: the knee is unremarkable. No acute fracture, small effusion.", "Pleural effusion"),
        ("IMPRESSION: the ptx mouse model", "Pneumothorax"),
    ],
)
def test_captions_and_texts_without_the_needed_words_keep_their_own_senses(caption: str, name: str) -> None:
    assert name not in names(caption)


def test_a_name_in_full_stays_what_it_is_in_a_report() -> None:
    assert names("IMPRESSION: no lung lesion, pericardial effusion stable.")[-1] == "Pericardial effusion"


def test_every_line_means_a_concept_of_the_seed_and_names_its_source() -> None:
    rows = read_table(SHIPPED, COLUMNS)
    assert {shorthand(row) for row in rows} == {line for line, _ in EXTRACTOR.lexicon.shorthand.values()}
    assert all(row[-1] for row in rows)


def test_plurals_of_capitals_are_small_letters() -> None:
    assert "Lymph node" in names("FINDINGS: enlarged-looking LNs")
    assert "Lymph node" not in names("FINDINGS: LNS")
