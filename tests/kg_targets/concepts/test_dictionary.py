"""Dictionary extraction: offsets, boundaries, variants, case, ambiguity, and strings nobody expects."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.concepts import EXTRACTORS, DictionaryExtractor, StopEntry, StopList
from kg_targets.ontology import Ontology
from tests.kg_targets.concepts.fakes import FakeConcept, FakeOntology

ONTOLOGY = FakeOntology(
    [
        FakeConcept("C0040405", "Computed tomography", "modality", ("ct scan",), ("CT",)),
        FakeConcept("C0041618", "Ultrasonography", "modality", ("ultrasound",), ("US",)),
        FakeConcept("C1306645", "Plain X-ray", "modality", ("x-ray",)),
        FakeConcept("C0032227", "Pleural effusion", "finding"),
        FakeConcept("C0013687", "Effusion", "finding"),
        FakeConcept("C0027627", "Metastasis", "finding"),
        FakeConcept("C0087086", "Thrombus", "finding"),
        FakeConcept("C0018944", "Hematoma", "finding"),
        FakeConcept("C0010346", "Crohn's disease", "finding"),
        FakeConcept("C0024109", "Lung", "organ"),
        FakeConcept("C0225730", "Left lung", "organ"),
        FakeConcept("C0205091", "Left", "laterality"),
        FakeConcept("C0023884", "Liver", "organ", ("liver structure",)),
        FakeConcept("C0037303", "Skull", "organ", ("café bone",)),
    ]
)
EXTRACTOR = DictionaryExtractor(ONTOLOGY)


def found(caption: str, extractor: DictionaryExtractor = EXTRACTOR) -> list[tuple[str, str]]:
    return [(mention.cui, mention.text) for mention in extractor.extract([caption])[0]]


@pytest.mark.parametrize(
    ("caption", "cui", "text"),
    [
        ("Multiple metastases.", "C0027627", "metastases"),
        ("Two thrombi", "C0087086", "thrombi"),
        ("Pleural effusions", "C0032227", "Pleural effusions"),
        ("PLEURAL  EFFUSION", "C0032227", "PLEURAL  EFFUSION"),
        ("pleural\neffusion", "C0032227", "pleural\neffusion"),
        ("pleural\u2010effusion", "C0032227", "pleural\u2010effusion"),
        ("a haematoma", "C0018944", "haematoma"),
        ("Xray of", "C1306645", "Xray"),
        ("x\u2013rays", "C1306645", "x\u2013rays"),
        ("Crohn\u2019s disease", "C0010346", "Crohn\u2019s disease"),
        ("Crohn disease", "C0010346", "Crohn disease"),
        ("the lung's border", "C0024109", "lung"),
        ("(CTs)", "C0040405", "CTs"),
        ("CT\u68c0\u67e5", "C0040405", "CT"),
        ("cafe\u0301 bone", "C0037303", "cafe\u0301 bone"),
        ("pleural\u00ad effusion", "C0032227", "pleural\u00ad effusion"),
        ("\U0001f600CT\U0001f600", "C0040405", "CT"),
    ],
)
def test_variants_of_an_alias_are_found_with_the_captions_own_wording(
    caption: str, cui: str, text: str
) -> None:
    assert found(caption) == [(cui, text)]


@pytest.mark.parametrize(
    "caption",
    [
        "",
        " ",
        "...!?",
        "ct",
        "show us the way",
        "CTS",
        "lunge",
        "slung",
        "pleural. Effusive",
        "fluct",
        "a\x00b",
        "\ud800",
    ],
)
def test_other_words_and_other_case_are_no_mentions(caption: str) -> None:
    assert found(caption) == []


def test_words_divided_by_punctuation_are_not_one_name() -> None:
    assert found("left, lung") == [("C0205091", "left"), ("C0024109", "lung")]


def test_the_longest_match_wins_without_overlap() -> None:
    assert found("left lung with pleural effusion") == [
        ("C0225730", "left lung"),
        ("C0032227", "pleural effusion"),
    ]


def test_a_longer_match_that_fails_its_boundary_does_not_hide_a_shorter_one() -> None:
    assert found("left lungworm") == [("C0205091", "left")]


def test_abbreviations_count_only_in_their_own_case() -> None:
    assert found("US showed us the CT, not a ct") == [("C0041618", "US"), ("C0040405", "CT")]


def test_a_lower_case_acronym_of_a_rare_disease_is_no_everyday_word() -> None:
    ontology = FakeOntology([FakeConcept("C0000001", "Bornholm eye disease", "finding", ("bed",))])
    assert found("a patient in bed", DictionaryExtractor(ontology)) == []
    assert found("a case of BED", DictionaryExtractor(ontology)) == [("C0000001", "BED")]


def test_untrusted_short_abbreviations_need_the_spelled_out_name_in_the_caption() -> None:
    ontology = FakeOntology([FakeConcept("C0000001", "Spinal muscular atrophy", "finding", (), ("SMA",))])
    extractor = DictionaryExtractor(ontology, trusted=())
    assert found("SMA stenosis", extractor) == []
    assert found("Spinal muscular atrophy (SMA)", extractor) == [
        ("C0000001", "Spinal muscular atrophy"),
        ("C0000001", "SMA"),
    ]


@pytest.mark.parametrize(
    "caption",
    [
        "portal vein (PV). PV",
        "portal vein\n (PV). PV",
        "portal vein\u2009(PV). PV",
        "portal vein\u3000 [PV] PV",
        "portal vein [PV] PV",
        "PV = portal vein; PV",
        "PV:   portal vein; PV",
        "PV, portal vein; PV",
        "the PV (portal vein) PV",
    ],
)
def test_an_abbreviation_means_what_the_caption_says_it_means(caption: str) -> None:
    ontology = FakeOntology(
        [
            FakeConcept("C0000001", "Pemphigus vulgaris", "finding", (), ("PV",)),
            FakeConcept("C0000002", "Portal vein", "organ"),
        ]
    )
    extractor = DictionaryExtractor(ontology)
    assert found("PV", extractor) == [("C0000001", "PV")]
    assert {cui for cui, _ in found(caption, extractor)} == {"C0000002"}
    assert len(found(caption, extractor)) == 3


@pytest.mark.parametrize(
    "caption",
    [
        "Block with local anesthetic (LA). LA spreads",
        "BP = brachial plexus; LA = local anesthetics",
        "LA: left arm",
        "LA, long axis; XV, more",
        "the left adrenal gland (LA)",
        "LA (local anesthetic) was given, LA spreads",
        "local anesthetic, LA, was given",
    ],
)
def test_a_long_form_that_is_no_concept_takes_the_usual_meaning_from_its_abbreviation(caption: str) -> None:
    extractor = DictionaryExtractor(
        FakeOntology([FakeConcept("C0000001", "Left atrium", "organ", (), ("LA",))])
    )
    assert found("The LA is large", extractor) == [("C0000001", "LA")]
    assert found(caption, extractor) == []


def test_an_abbreviation_means_what_was_last_said_before_it() -> None:
    concepts = [
        FakeConcept("C0000001", "Right atrium", "organ", (), ("RA",)),
        FakeConcept("C0000002", "Rheumatoid arthritis"),
    ]
    extractor = DictionaryExtractor(FakeOntology(concepts))
    caption = "RA is large. Right atrium (RA), RA; rheumatoid arthritis (RA), RA, and RAs"
    assert [cui for cui, _ in found(caption, extractor)] == ["C0000001"] * 4 + ["C0000002"] * 4


def test_a_long_form_is_looked_for_in_few_words() -> None:
    extractor = DictionaryExtractor(
        FakeOntology([FakeConcept("C0000001", "Left atrium", "organ", (), ("LA",))])
    )
    assert found("the lobes and all of the very big (LA)", extractor) == [("C0000001", "LA")]


@pytest.mark.parametrize(
    "caption",
    [
        "pleural\u200beffusion and pneu\u200bmonia",
        "pleural\u00adeffusion, pneu\u00admonia",
        "pleural effusion, pneu-\nmonia",
    ],
)
def test_what_breaks_a_line_stands_within_words_or_between_them(caption: str) -> None:
    concepts = [FakeConcept("C0000001", "Pleural effusion"), FakeConcept("C0000002", "Pneumonia")]
    assert [cui for cui, _ in found(caption, DictionaryExtractor(FakeOntology(concepts)))] == [
        "C0000001",
        "C0000002",
    ]


def test_an_imaging_method_in_a_list_is_not_defined_by_what_stands_before_it() -> None:
    extractor = DictionaryExtractor(FakeOntology([FakeConcept("C0000001", "CT", "modality", (), ("CT",))]))
    assert found("after chest trauma, CT, and ultrasound", extractor) == [("C0000001", "CT")]


def test_a_short_form_that_is_an_everyday_word_elsewhere_means_what_the_caption_says() -> None:
    extractor = DictionaryExtractor(FakeOntology([FakeConcept("C0000001", "Toe", "region")]))
    assert found("Trans-oesophageal echocardiographic (TOE) image", extractor) == []
    assert found("TOE", extractor) == [("C0000001", "TOE")]


@pytest.mark.parametrize(
    "caption",
    [
        "left atrial view (LA)",
        "large left atrium, the LA",
        "view of the liver (LA)",
        "a dilated (LA) chamber",
    ],
)
def test_another_wording_of_the_same_concept_leaves_its_abbreviation_alone(caption: str) -> None:
    extractor = DictionaryExtractor(
        FakeOntology([FakeConcept("C0000001", "Left atrium", "organ", (), ("LA",))])
    )
    assert ("C0000001", "LA") in found(caption, extractor)


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("Lung \ufb01brosis.", "\ufb01brosis"),
        ("\ufb01brosis", "\ufb01brosis"),
        ("A\u0301cute  \ufb01bro\u00adsis, \ufb02uid", "\ufb01bro\u00adsis"),
        ("\u0153dema of the \u0152sophagus", "\u0153dema"),
        ("C\u00e6cal wall", "C\u00e6cal"),
        ("Pleural\u200beffusion.", "Pleural\u200beffusion"),
        ("pleural \u200b effusion", "pleural \u200b effusion"),
        ("pleu\u200bral effu\u200bsion", "pleu\u200bral effu\u200bsion"),
        ("pleural\ufeff effu\u200dsion", "pleural\ufeff effu\u200dsion"),
    ],
)
def test_ligatures_and_blanks_without_width_leave_concepts_and_offsets_as_they_are(
    caption: str, text: str
) -> None:
    ontology = FakeOntology(
        [
            FakeConcept("C0000001", "Fibrosis", "finding"),
            FakeConcept("C0000002", "Edema", "finding"),
            FakeConcept("C0000003", "Cecal", "organ"),
            FakeConcept("C0000004", "Pleural effusion", "finding"),
        ]
    )
    first = DictionaryExtractor(ontology).extract([caption])[0][0]
    assert first.text == text == caption[first.start : first.end]


def test_an_abbreviation_with_a_ligature_keeps_its_case() -> None:
    extractor = DictionaryExtractor(
        FakeOntology([FakeConcept("C0000001", "Aortic event", "finding", (), ("AE",))])
    )
    assert found("\u00c6 and \u00e6", extractor) == [("C0000001", "\u00c6")]


def test_a_figure_letter_or_a_foreign_abbreviation_is_no_definition() -> None:
    ontology = FakeOntology([FakeConcept("C0000002", "Portal vein", "organ")])
    assert (
        found("portal vein (P), portal vein (XV), XV and P", DictionaryExtractor(ontology))
        == [("C0000002", "portal vein")] * 2
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodular opacity", "Opacity"),
        ("granulomatous disease", "Granulomatous disease"),
        ("disc herniation", "Intervertebral disc herniation"),
        ("esophageal perforation", "Esophageal perforation"),
        ("interstitial edema", "Pulmonary edema"),
        ("bilateral pneumothoraces", "Pneumothorax"),
        ("subcutaneous emphysema", "Subcutaneous emphysema"),
        ("adrenal gland", "Adrenal gland"),
        ("a leiomyosarcoma", "Leiomyosarcoma"),
        ("cord compression", "Spinal cord compression"),
        ("PICC line", "Peripherally inserted central catheter"),
        ("a port-a-cath", "Central venous catheter"),
        ("transoesophageal echocardiogram", "Transesophageal echocardiography"),
        ("scarring", "Scar"),
    ],
)
def test_what_radiologists_write_is_in_the_seed(text: str, expected: str) -> None:
    mentions = DictionaryExtractor(Ontology.seed()).extract([text])[0]
    assert expected in [mention.name for mention in mentions]
    assert not {"Nodule", "Granuloma", "Hernia", "Esophagus", "Pulmonary emphysema"} & {
        m.name for m in mentions
    }


@pytest.mark.parametrize("text", ["mass-like", "a mass effect", "hardware fracture"])
def test_comparisons_and_broken_devices_are_no_findings(text: str) -> None:
    found_names = {m.name for m in DictionaryExtractor(Ontology.seed()).extract([text])[0]}
    assert not {"Mass", "Fracture"} & found_names


def test_stop_list_kinds_and_semantic_types_leave_concepts_out() -> None:
    assert found("CT of the lung", DictionaryExtractor(ONTOLOGY, StopList((StopEntry("lung", "", ""),)))) == [
        ("C0040405", "CT")
    ]
    assert found("CT of the lung", DictionaryExtractor(ONTOLOGY, kinds={"organ"})) == [("C0024109", "lung")]
    assert found("CT of the lung", DictionaryExtractor(ONTOLOGY, semantic_types={"T023"})) == []


def test_the_shipped_stop_list_keeps_arrows_from_becoming_narrow_faces() -> None:
    ontology = FakeOntology([FakeConcept("C1837463", "Narrow face", "finding", ("arrow",))])
    assert found("an arrow on a narrow face", DictionaryExtractor(ontology)) == []


def test_a_pickled_extractor_finds_the_same() -> None:
    caption = "No pleural effusion on CT of the left lung."
    again = pickle.loads(pickle.dumps(EXTRACTOR))
    assert again.extract([caption]) == EXTRACTOR.extract([caption])


def test_a_caption_of_a_million_characters_takes_linear_time() -> None:
    caption = "no left lung lung, " * 55_000
    assert len(EXTRACTOR.extract([caption])[0]) == 110_000


def test_the_registry_builds_extractors_by_name() -> None:
    extractor = EXTRACTORS["dictionary"](ONTOLOGY, context=False)
    assert not extractor.extract(["no pleural effusion"])[0][0].negated


_PIECES = st.sampled_from(
    [
        "pleural",
        "effusion",
        "Left",
        "lung",
        "CT",
        "US",
        "no",
        "without",
        " ",
        "  ",
        "-",
        ",",
        ".",
        "é",
        "é",
        "İ",
        "ß",
        "�",
        "\u200b",
        "\x00",
        "\n",
        "is absent",
        "but",
        "(a)",
        ":",
        "中",
        "😀",
        "s",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(_PIECES, max_size=25).map("".join), st.text(max_size=60)))
def test_mentions_slice_back_stay_in_order_and_never_overlap_whatever_the_caption(caption: str) -> None:
    mentions = EXTRACTOR.extract([caption])[0]
    reach = 0
    for mention in mentions:
        assert caption[mention.start : mention.end] == mention.text != ""
        assert mention.start >= reach
        reach = mention.end
    assert EXTRACTOR.extract([caption])[0] == mentions


def test_a_stopped_phrase_takes_its_words_with_it_and_plurals_too() -> None:
    ontology = FakeOntology(
        [FakeConcept("C0000001", "Mass", "finding"), FakeConcept("C0000002", "Head", "region")]
    )
    extractor = DictionaryExtractor(ontology)
    found = extractor.extract(
        ["Mass effect on the head.", "A mass (arrow heads) of the head.", "Mass, effect unclear."]
    )
    assert [[mention.text for mention in mentions] for mentions in found] == [
        ["head"],
        ["mass", "head"],
        ["Mass"],
    ]
