"""The scispaCy extractor on a pipeline, a knowledge base and an index that are made here."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scispacy", reason="the [scispacy] extra is not installed")
spacy = pytest.importorskip("spacy")

from kg_targets.concepts import EXTRACTORS  # noqa: E402
from kg_targets.concepts.scispacy import ScispacyExtractor, check_installed  # noqa: E402
from kg_targets.errors import ExtractionError  # noqa: E402
from tests.kg_targets.concepts.fakes import FakeConcept, FakeOntology  # noqa: E402

ONTOLOGY = FakeOntology([FakeConcept("C0149871", "Deep vein thrombosis", "finding")])
ENTITIES = [
    ("C0149871", "Deep Vein Thrombosis", ["deep vein thrombosis", "deep venous thrombosis"], ["T046"]),
    ("C0032227", "Pleural effusion", ["pleural effusion", "effusion, pleural"], ["T047"]),
    ("C0023884", "Liver", ["liver", "hepatic structure"], ["T023"]),
    ("C1837463", "Narrow face", ["arrow"], ["T033"]),
]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler", config={"phrase_matcher_attr": "LOWER"})
    words = [
        "deep vein thrombosis",
        "DVT",
        "pleural effusion",
        "pleural effusions",
        "liver",
        "arrow",
        "x",
        "zebra",
    ]
    ruler.add_patterns([{"label": "ENTITY", "pattern": word} for word in words])
    return nlp


@pytest.fixture(scope="module")
def knowledge_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kb") / "kb.jsonl"
    fields = ("concept_id", "canonical_name", "aliases", "types")
    path.write_text(
        "\n".join(json.dumps(dict(zip(fields, entity, strict=True))) for entity in ENTITIES), "utf-8"
    )
    return path


@pytest.fixture(scope="module")
def extractor(pipeline: Any, knowledge_base: Path) -> ScispacyExtractor:
    return ScispacyExtractor(ONTOLOGY, pipeline, knowledge_base)


def test_mentions_are_linked_named_and_negated_with_exact_offsets(extractor: ScispacyExtractor) -> None:
    caption = "Liver without pleural effusion (arrow), x and zebra."
    (mentions,) = extractor.extract([caption])
    assert [(m.cui, m.text, m.negated, m.source) for m in mentions] == [
        ("C0023884", "Liver", False, "scispacy"),
        ("C0032227", "pleural effusion", True, "scispacy"),
    ]
    assert all(caption[m.start : m.end] == m.text for m in mentions)


def test_a_cui_that_umls_has_retired_is_given_as_its_successor(pipeline: Any, knowledge_base: Path) -> None:
    ontology = FakeOntology([FakeConcept("C7777777", "Liver today", "organ")], {"C0023884": "C7777777"})
    ((found,),) = ScispacyExtractor(ontology, pipeline, knowledge_base).extract(["Liver."])
    assert (found.cui, found.name) == ("C7777777", "Liver today")


def test_abbreviations_are_resolved_to_the_long_form_that_the_caption_defines(
    extractor: ScispacyExtractor,
) -> None:
    caption = "Deep vein thrombosis (DVT) of the leg. The DVT is old."
    (mentions,) = extractor.extract([caption])
    assert [(m.cui, m.text, m.name) for m in mentions] == [
        ("C0149871", text, "Deep vein thrombosis") for text in ("Deep vein thrombosis", "DVT", "DVT")
    ]


def test_scores_below_the_threshold_link_nothing(pipeline: Any, knowledge_base: Path) -> None:
    strict = ScispacyExtractor(ONTOLOGY, pipeline, knowledge_base, threshold=0.97)
    lenient = ScispacyExtractor(ONTOLOGY, pipeline, knowledge_base, threshold=0.7)
    assert strict.extract(["pleural effusions"]) == [[]]
    (mention,) = lenient.extract(["no pleural effusions"])[0]
    assert mention.cui == "C0032227" and 0.7 <= mention.score < 0.97 and mention.negated


@pytest.mark.parametrize("caption", ["", " ", "\ud800 liver", "\x00", "\U0001f600 liver \u4e2d"])
def test_strange_captions_do_not_break_it(extractor: ScispacyExtractor, caption: str) -> None:
    (mentions,) = extractor.extract([caption])
    assert [caption[m.start : m.end] for m in mentions] == [m.text for m in mentions]


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, pipeline: Any) -> None:
    command = r"pip install https://\S+/v0\.5\.4/en_core_sci_none-0\.5\.4\.tar\.gz$"
    with pytest.raises(ExtractionError, match=rf"'en_core_sci_none' is not installed; run: {command}"):
        EXTRACTORS["scispacy"](ONTOLOGY, model="en_core_sci_none")
    for check in (check_installed, partial(EXTRACTORS["scispacy"], ONTOLOGY)):
        with pytest.raises(ExtractionError, match=r"run: python -m spacy download de_none$"):
            check(model="de_none")
    with pytest.raises(ExtractionError, match=r"none\.jsonl does not exist"):
        check_installed(model="spacy", knowledge_base=tmp_path / "none.jsonl")
    check_installed(model=str(tmp_path), threshold=0.9)
    with pytest.raises(ExtractionError, match=r"none\.jsonl"):
        ScispacyExtractor(ONTOLOGY, pipeline, tmp_path / "none.jsonl")
    with pytest.raises(ExtractionError, match="threshold"):
        ScispacyExtractor(ONTOLOGY, pipeline, tmp_path / "none.jsonl", threshold=1.5)
