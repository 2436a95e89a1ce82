"""Context: the status that a caption gives each finding, phrase by phrase, and what looks like a status and is none."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from kg_targets.concepts import DictionaryExtractor, StopList
from kg_targets.concepts.context import ContextRules
from kg_targets.concepts.mention import STATUSES
from kg_targets.errors import ExtractionError
from tests.kg_targets.concepts.fakes import FakeConcept, FakeOntology

FINDINGS = (
    "pneumonia", "pneumothorax", "fracture", "effusion", "opacity", "opacities", "nodule", "mass", "atelectasis",
    "scar", "edema", "swelling", "SAH", "PE", "breast cancer", "obstruction", "excretion", "infiltrate", "hematoma",
)  # fmt: skip
ONTOLOGY = FakeOntology(
    [FakeConcept(f"C{index:07d}", name, "finding") for index, name in enumerate(FINDINGS)]
    + [FakeConcept("C1000000", "liver", "organ"), FakeConcept("C1000001", "smoking", "qualifier")]
)
EXTRACTOR = DictionaryExtractor(ONTOLOGY, StopList())
LETTERS = {"negated": "-", "uncertain": "?", "hypothetical": "if", "historical": "past", "family": "kin"}


def read(caption: str) -> str:
    """The mentions of a caption with what it says of each, for instance ``effusion, -fracture``."""
    return ", ".join(
        "".join(f"{LETTERS[status]}:" for status in STATUSES if getattr(mention, status)) + mention.text
        for mention in EXTRACTOR.extract([caption])[0]
    )


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Opacity that may represent pneumonia", "Opacity, ?:pneumonia"),
        ("opacity, which could be atelectasis", "opacity, ?:atelectasis"),
        ("opacities may be due to edema", "opacities, ?:edema"),
        ("This might also represent a scar or atelectasis.", "?:scar, ?:atelectasis"),
        ("may represent scar, atelectasis, or pneumonia", "?:scar, ?:atelectasis, ?:pneumonia"),
        ("Question of pneumonia", "?:pneumonia"),
        ("Possible nodule. Effusion.", "?:nodule, Effusion"),
        ("Possible nodule, effusion is large", "?:nodule, effusion"),
        ("possible nodule and the effusion is large", "?:nodule, effusion"),
        ("Atelectasis versus pneumonia", "?:Atelectasis, ?:pneumonia"),
        ("atelectasis of the whole left lower lobe versus scar", "atelectasis, ?:scar"),
        ("effusion, and atelectasis vs. scar", "effusion, ?:atelectasis, ?:scar"),
        (
            "opacity may represent effusion, atelectasis, and/or pneumonia",
            "opacity, ?:effusion, ?:atelectasis, ?:pneumonia",
        ),
        ("Effusion, question small nodule", "Effusion, ?:nodule"),
        ("a scar would be a consideration", "?:scar"),
        ("suspicious for pneumonia", "?:pneumonia"),
        ("appearance suggests edema", "?:edema"),
        ("suggests a hematoma (arrow) just above the fracture", "?:hematoma, fracture"),
        ("pneumonia is suspected", "?:pneumonia"),
        ("Pneumonia is a consideration", "?:Pneumonia"),
        ("Pneumonia cannot be entirely excluded", "?:Pneumonia"),
        ("Pneumonia can't be excluded", "?:Pneumonia"),
        ("Pneumonia was not definitely ruled out", "?:Pneumonia"),
        ("difficult to completely exclude a fracture", "?:fracture"),
        ("cannot exclude a small effusion", "?:effusion"),
        ("opacity, pneumonia could be considered", "opacity, ?:pneumonia"),
        ("?pneumonia", "?:pneumonia"),
        ("? pneumonia", "?:pneumonia"),
        ("opacity ? pneumonia", "opacity, ?:pneumonia"),
        ("Is it seen? Pneumonia.", "Pneumonia"),
        ("Pneumonia may be present", "?:Pneumonia"),
        ("old fracture might well be present", "?:fracture"),
        ("the mass may be followed", "mass"),
        ("DDx: pneumonia", "?:pneumonia"),
        ("Differential diagnosis: pneumonia, mass or scar", "?:pneumonia, ?:mass, ?:scar"),
        ("the differential includes pneumonia, mass, and scar", "?:pneumonia, ?:mass, ?:scar"),
        ("the differential includes pneumonia, the effusion is large", "?:pneumonia, effusion"),
        ("Diagnosis: pneumonia", "pneumonia"),
        ("Pneumonia is a concern", "?:Pneumonia"),
        ("favoring atelectasis", "?:atelectasis"),
        ("changes in favor of atelectasis", "atelectasis"),
        ("suspected obstruction of the mass", "?:obstruction, mass"),
        ("a pneumonia cannot be ruled out, nor can a mass", "?:pneumonia, ?:mass"),
        ("Pneumonia?", "?:Pneumonia"),
        ("effusion (?) and mass", "?:effusion, mass"),
        # stated all the same; annotators take both of "atelectasis or scar" for findings
        ("atelectasis or scar", "atelectasis, scar"),
        ("atelectasis and/or infiltrate", "atelectasis, infiltrate"),
        ("opacity consistent with pneumonia", "opacity, pneumonia"),
        ("opacity represents pneumonia", "opacity, pneumonia"),
        ("probable atelectasis", "atelectasis"),
        ("old fracture", "fracture"),
        ("Possible opacity consistent with pneumonia", "?:opacity, pneumonia"),
        ("In May 2012 a mass was found", "mass"),
        ("May: effusion", "effusion"),
        ("a mass that is suspected to be an effusion", "mass, ?:effusion"),
        ("A tube can be seen beside the effusion; it may be noted above the mass", "effusion, mass"),
        ("one could see the effusion", "effusion"),
        ("Arrow indicates the mass", "mass"),
        ("The mass could not be resected", "mass"),
    ],
)
def test_what_a_caption_gives_as_a_possibility_is_uncertain(caption: str, expected: str) -> None:
    assert read(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("no focal opacity to suggest a pneumonia", "-:opacity, -:pneumonia"),
        ("no opacity suspicious for pneumonia", "-:opacity, -:pneumonia"),
        ("no suspected fracture", "-:fracture"),
        ("no excretion on the left, very suggestive of obstruction", "-:excretion, obstruction"),
        ("no excretion, very much suggestive of obstruction", "-:excretion, obstruction"),
        ("no excretion, suggesting obstruction", "-:excretion, ?:obstruction"),
        (
            "No visible pneumothorax, focal opacity, or effusion is seen",
            "-:pneumothorax, -:opacity, -:effusion",
        ),
        ("No effusion visible, opacity persists", "-:effusion, opacity"),
        ("No displaced, acute rib fractures are identified", "-:fractures"),
        ("No non-calcified nodules", "-:nodules"),
        ("no definite changes of edema", "-:edema"),
        ("no obstruction of a mass", "-:obstruction, mass"),
        ("no obstruction of a mass, pneumonia or scar", "-:obstruction, mass, -:pneumonia, -:scar"),
        ("no opacity of pneumonia, effusion or scar", "-:opacity, -:pneumonia, -:effusion, -:scar"),
        ("no foci of edema", "-:edema"),
        ("A fracture hasn't been seen", "-:fracture"),
        ("CT failed to show a mass", "-:mass"),
        ("no effusion, large left mass", "-:effusion, -:mass"),
        ("no effusion, large left sided mass", "-:effusion, mass"),
        ("A fracture has been seen", "fracture"),
        ("Pneumothorax - none", "-:Pneumothorax"),
        ("Pneumonia not suspected", "-:Pneumonia"),
        ("Negative radiograph for pneumonia", "-:pneumonia"),
        ("Gram negative pneumonia", "pneumonia"),
        ("A nodule, not seen previously, is present", "nodule"),
        ("New nodule not seen on the prior study", "nodule"),
        ("Nodule not seen on this study", "-:Nodule"),
        ("Denies history of pneumonia", "-:pneumonia"),
        ("no effusion and multiple nodules", "-:effusion, nodules"),
        ("Effusion has increased and pneumothorax has resolved", "Effusion, -:pneumothorax"),
        ("pneumothorax is present and effusion is not seen", "pneumothorax, -:effusion"),
        ("pneumothorax persists and effusion has resolved", "pneumothorax, -:effusion"),
        ("Mass is seen and pneumothorax and effusion are not seen", "Mass, -:pneumothorax, -:effusion"),
        ("Pneumothorax and effusion are not seen", "-:Pneumothorax, -:effusion"),
        ("The effusion was large and has resolved", "-:effusion"),
        ("No pneumothorax and effusion is large", "-:pneumothorax, effusion"),
        ("No effusion and edema persists", "-:effusion, edema"),
        ("No effusion, edema, and mass were found in it", "-:effusion, -:edema, -:mass"),
        ("No pneumothorax and effusion", "-:pneumothorax, -:effusion"),
        ("No pneumothorax and effusion is seen", "-:pneumothorax, -:effusion"),
        ("no change of the edema", "edema"),
        ("A pneumothorax isn't seen", "-:pneumothorax"),
        ("Effusion wasn\u2019t clearly identified", "-:Effusion"),
        ("pneumonia (-)", "-:pneumonia"),
        ("mass, pneumonia (\u2212), effusion", "mass, -:pneumonia, effusion"),
        ("pneumonia ()", "pneumonia"),
        ("No pneumothorax is present and effusion is large", "-:pneumothorax, effusion"),
        ("No pneumothorax and no effusion is seen", "-:pneumothorax, -:effusion"),
        ("No pneumothorax or effusion is seen", "-:pneumothorax, -:effusion"),
        ("The effusion has nearly resolved", "effusion"),
        ("The effusion has almost completely resolved", "effusion"),
        ("The effusion has resolved", "-:effusion"),
        ("follow up to document complete resolution of the pneumonia", "pneumonia"),
        ("Pneumonia is unlikely", "-:Pneumonia"),
        ("opacity, unlikely to represent pneumonia", "opacity, -:pneumonia"),
    ],
)
def test_what_a_caption_denies_is_negated_and_not_uncertain(caption: str, expected: str) -> None:
    assert read(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("CT to rule out fracture", "if:fracture"),
        ("r/o PE", "if:PE"),
        ("fracture should be excluded", "if:fracture"),
        ("if clinically suspected pneumonia", "?:if:pneumonia"),
        ("6-month history of swelling", "swelling"),
        ("a long history of swelling", "swelling"),
        ("PMH: breast cancer", "past:breast cancer"),
        ("History: swelling", "swelling"),
        ("remote history of breast cancer and numerous nodules", "past:breast cancer, nodules"),
        ("CT to evaluate for fracture shows a mass", "if:fracture, mass"),
        ("If pneumonia is suspected clinically, the mass", "?:if:pneumonia, mass"),
        ("CT if clinically concerned for fracture", "if:fracture"),
        ("Subtle fractures may not be visible", "if:fractures"),
        ("opacity could obscure a nodule", "opacity, if:nodule"),
        ("assess the mass", "mass"),
        ("limited exam for evaluation of fractures", "if:fractures"),
        ("the protocol for measuring the mass", "mass"),
        ("follow up to exclude an underlying mass", "if:mass"),
        ("Correlate clinically for symptoms of pneumonia", "if:pneumonia"),
        ("Hx of SAH", "past:SAH"),
        ("history of breast cancer and pneumonia", "past:breast cancer, past:pneumonia"),
        ("History of smoking presenting with a swelling", "smoking, swelling"),
        ("history of breast cancer, now with effusion", "past:breast cancer, effusion"),
        ("no history of breast cancer", "-:breast cancer"),
        ("Family history of breast cancer. Mass.", "kin:breast cancer, Mass"),
        ("Her mother had breast cancer", "kin:breast cancer"),
        ("her mother and sister breast cancer", "kin:breast cancer"),
        ("at increased risk of pneumonia", "if:pneumonia"),
    ],
)
def test_what_was_looked_for_or_belongs_to_the_past_or_to_relatives(caption: str, expected: str) -> None:
    assert read(caption) == expected


def test_only_what_a_caption_states_or_holds_possible_is_asserted() -> None:
    caption = (
        "Effusion, possible pneumonia. No fracture. r/o PE. History of SAH. Family history of breast cancer."
    )
    mentions = EXTRACTOR.extract([caption])[0]
    assert [m.text for m in mentions if m.asserted] == ["Effusion", "pneumonia"]
    assert {status: [m.text for m in mentions if getattr(m, status)] for status in STATUSES} == {
        "negated": ["fracture"],
        "uncertain": ["pneumonia"],
        "hypothetical": ["PE"],
        "historical": ["SAH"],
        "family": ["breast cancer"],
    }


def test_without_context_every_mention_counts_as_stated() -> None:
    extractor = DictionaryExtractor(ONTOLOGY, StopList(), context=False)
    (mention,) = extractor.extract(["no fracture"])[0]
    assert mention.asserted


def test_rules_survive_pickling() -> None:
    copy = pickle.loads(pickle.dumps(EXTRACTOR))
    captions = ["pneumonia cannot be entirely excluded", "no mass"]
    assert copy.extract(captions) == EXTRACTOR.extract(captions)


@pytest.mark.parametrize(
    "row", ["maybe\tdoubtful\tbefore", "maybe\tuncertain\tstop", "but\t-\tbefore", "maybe\tuncertain"]
)
def test_a_malformed_rule_names_its_line(row: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.tsv"
    path.write_text(f"phrase\tstatus\trole\n{row}\n", encoding="utf-8")
    with pytest.raises(ExtractionError, match=r"rules.tsv:2: needs a phrase"):
        ContextRules.read(path)
