"""CUIs that a data set ships, their union with the text, and stop lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from kg_targets.concepts import EXTRACTORS, DictionaryExtractor, ProvidedExtractor, StopList, UnionExtractor
from kg_targets.errors import ExtractionError
from tests.kg_targets.concepts.fakes import FakeConcept, FakeOntology

ONTOLOGY = FakeOntology(
    [FakeConcept("C0032227", "Pleural effusion", "finding"), FakeConcept("C0024109", "Lung", "organ")]
)


def test_provided_cuis_have_no_place_in_the_text_and_count_once() -> None:
    (mentions,) = ProvidedExtractor(ONTOLOGY).extract(
        ["x"], [["C0032227", "C9999999", "C0032227", "C1837463"]]
    )
    assert [(m.cui, m.name, m.start, m.end, m.text, m.negated, m.source) for m in mentions] == [
        ("C0032227", "Pleural effusion", -1, -1, "", False, "provided"),
        ("C9999999", "C9999999", -1, -1, "", False, "provided"),
    ]


def test_a_retired_cui_is_given_as_its_successor() -> None:
    ontology = FakeOntology([FakeConcept("C0024109", "Lung", "organ")], {"C0000009": "C0024109"})
    (found,) = ProvidedExtractor(ontology).extract(["x"], [["C0000009", "C0024109"]])
    assert [(mention.cui, mention.name) for mention in found] == [("C0024109", "Lung")]


def test_provided_needs_one_list_of_cuis_per_caption() -> None:
    with pytest.raises(ExtractionError, match="ships no CUIs"):
        ProvidedExtractor(ONTOLOGY).extract(["x"])
    with pytest.raises(ExtractionError, match="2 captions but 1"):
        ProvidedExtractor(ONTOLOGY).extract(["x", "y"], [["C0032227"]])


def test_in_a_union_the_text_decides_about_a_shipped_cui_so_that_its_negation_counts() -> None:
    extractor = EXTRACTORS["union"](ONTOLOGY)
    (mentions,) = extractor.extract(["no pleural effusion"], [["C0032227", "C0024109"]])
    assert [(m.cui, m.source, m.negated) for m in mentions] == [
        ("C0024109", "provided", False),
        ("C0032227", "dictionary", True),
    ]


def test_a_union_counts_equal_mentions_once() -> None:
    twice = UnionExtractor([DictionaryExtractor(ONTOLOGY), DictionaryExtractor(ONTOLOGY)])
    assert len(twice.extract(["lung"])[0]) == 1
    with pytest.raises(ExtractionError):
        UnionExtractor([])


def test_stop_lists_are_read_united_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "stop.tsv"
    path.write_text(
        "alias\tcui\treason\nlung\t\tour reason\n\tC0032227\tnoise\nliver\tC1\tonly this pair\n", "utf-8"
    )
    stop = StopList.read(path) | StopList.shipped()
    assert stop.stops("lung", "C0024109", is_abbreviation=False)
    assert not stop.stops("lung", "C0024109", is_abbreviation=True)
    assert stop.stops("anything", "C0032227", is_abbreviation=True)
    assert stop.stops("liver", "C1", False) and not stop.stops("liver", "C2", False)
    assert stop.stops_cui("C1837463")


@pytest.mark.parametrize("content", [b"", b"a\tb\n", b"alias\tcui\treason\n\t\tnothing\n", b"\xff\xfe\x00"])
def test_a_malformed_stop_list_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "stop.tsv"
    path.write_bytes(content)
    with pytest.raises(ExtractionError, match=r"stop\.tsv"):
        StopList.read(path)


def test_what_a_linker_made_of_words_that_say_nothing_of_the_image_is_left_out() -> None:
    extractor = ProvidedExtractor(ONTOLOGY)
    shipped = [
        "C1837463",
        "C0376152",
        "C0423899",
        "C1696103",
        "C9999999",
    ]  # three of "arrow", "right" and "image"
    assert [mention.cui for mention in extractor.extract(["caption"], [shipped])[0]] == ["C9999999"]
