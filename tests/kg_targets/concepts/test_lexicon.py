"""The columns of a lexicon say what a plain reading of the ontology, alias by alias, says."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kg_targets.concepts import DictionaryExtractor, StopEntry, StopList
from kg_targets.concepts.lexicon import ADJECTIVE, SHORT, Lexicon
from kg_targets.concepts.lexicon_build import LexiconOptions, build_lexicon, exact_form, roles
from kg_targets.concepts.matcher import TextBatch
from kg_targets.concepts.shorthand import shorthand_lines
from kg_targets.concepts.text import fold, fold_alias, fold_aliases, fold_all
from kg_targets.concepts.variants import variants
from kg_targets.ontology import Ontology
from tests.kg_targets.concepts.fakes import FakeConcept, FakeOntology

Reading = tuple[str, str, bool, bool, bool]
"""CUI, wording, negatable, place, needs a name."""
STOPPED = StopList.shipped() | StopList((StopEntry("lung", "", ""), StopEntry("", "C0032227", "")))


def plainly(
    ontology: Ontology | FakeOntology, stop_list: StopList, trusted: Collection[str] | None
) -> dict[str, list[Reading]]:
    """Each pattern's readings, best first, one alias after the other; without what means nothing by itself."""
    aliases = list(ontology.aliases(by_preference=True))
    names: dict[str, set[str]] = {}
    for alias, cui, _ in aliases:
        names.setdefault(cui, set()).add(fold_alias(alias))
    held: dict[str, dict[tuple[str, str], tuple[tuple[object, ...], Reading]]] = {}
    for place_in_order, (alias, cui, flagged) in enumerate(aliases):
        concept, folded = ontology[cui], fold_alias(alias)
        exact = exact_form(alias, flagged, lambda cui=cui: names[cui])  # type: ignore[misc]
        if len(folded) < 2 or not any(map(str.isalpha, folded)):
            continue
        if " " not in folded and f"{folded} syndrome" in names[cui]:
            continue
        if stop_list.stops(folded, cui, bool(exact)):
            continue
        negatable, place = roles(concept.kind, concept.semantic_types, concept.sources)
        doubtful = bool(exact) and len(exact) <= 4 and trusted is not None and cui not in trusted
        forms = [(folded, 0, exact, doubtful)]
        if not exact:
            forms += [
                (form, 1, "", False) for form in variants(folded) if not stop_list.stops(form, cui, False)
            ]
        for form, derived, wording, needs in forms:
            rank = (not wording, not place, derived, place_in_order)
            found = rank, (cui, wording, negatable, place, needs)
            readings = held.setdefault(form, {})
            readings[cui, wording] = min(found, readings.get((cui, wording), found))
    return {form: [reading for _, reading in sorted(readings.values())] for form, readings in held.items()}


def told(lexicon: Lexicon) -> dict[str, list[Reading]]:
    """The same of a lexicon."""
    found = {
        pattern: [
            (sense.cui, sense.exact, sense.negatable, sense.place, sense.needs_name)
            for sense in lexicon.senses(position)
            if sense.cui
        ]
        for position, pattern in enumerate(lexicon.patterns())
    }
    return {pattern: readings for pattern, readings in found.items() if readings}


@pytest.mark.parametrize("stop_list", [StopList(), STOPPED])
@pytest.mark.parametrize("trusted", [None, {"C0040405"}])
def test_every_reading_of_every_pattern_is_there_in_order(
    stop_list: StopList, trusted: Collection[str] | None
) -> None:
    ontology = Ontology.seed()
    lexicon = build_lexicon(ontology, stop_list, LexiconOptions(trusted=trusted))
    assert told(lexicon) == plainly(ontology, stop_list, trusted)
    assert all(
        sense.name == ontology.name(sense.cui)
        for senses in map(lexicon.senses, range(500))
        for sense in senses
        if sense.cui
    )


def test_hashes_that_clash_make_the_same_lexicon(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["left lung", "lung", "Lung, left", "LUL", "left lungs", "lul", "lunge"]
    concepts = [
        FakeConcept(f"C000000{n}", name, "organ", (names[-n],)) for n, name in enumerate(names, start=1)
    ]
    ontology = FakeOntology(concepts)
    whole = TextBatch.hashes
    monkeypatch.setattr(TextBatch, "hashes", lambda self, start, end: whole(self, start, end) & np.uint64(2))
    lexicon = build_lexicon(ontology, StopList(), LexiconOptions())  # type: ignore[arg-type]
    assert told(lexicon) == plainly(ontology, StopList(), None)
    assert len(list(lexicon.patterns())) == len(set(lexicon.patterns()))


def test_what_means_nothing_by_itself_is_marked() -> None:
    lexicon = build_lexicon(Ontology.seed(), StopList.shipped(), LexiconOptions())
    short, adjective, phrase = lexicon.index.positions(["fx", "enlarged", "mass effect"]).tolist()
    assert lexicon.marks[short] & SHORT and lexicon.marks[adjective] & ADJECTIVE and not lexicon.marks[phrase]
    assert [sense.cui for sense in lexicon.senses(phrase)] == [""]
    assert lexicon.senses(phrase)[0].name == "mass effect"
    assert len(lexicon.shorthand) == len(set(shorthand_lines()))
    heart = lexicon.predicates[adjective]["heart"]
    assert lexicon.apart(heart).apart and lexicon.apart(heart).cui == lexicon.senses(heart)[0].cui


def test_the_ontologys_order_decides_an_ambiguous_alias() -> None:
    ontology = FakeOntology(
        [
            FakeConcept("C0000002", "Fundus A", "finding", ("dome",)),
            FakeConcept("C0000001", "B", "finding", ("dome",)),
        ]
    )
    extractor = DictionaryExtractor(ontology)
    assert [mention.cui for mention in extractor.extract(["the dome"])[0]] == ["C0000002"]
    (dome,) = extractor.lexicon.index.positions(["dome"]).tolist()
    assert [sense.cui for sense in extractor.lexicon.senses(dome)] == ["C0000002", "C0000001"]


def test_an_ontology_without_names_finds_nothing() -> None:
    assert DictionaryExtractor(FakeOntology([])).extract(["CT"]) == [[]]


def test_senses_that_are_kept_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kg_targets.concepts.lexicon._REMEMBERED", 2)
    lexicon = build_lexicon(Ontology.seed(), StopList(), LexiconOptions())
    assert [lexicon.senses(3), lexicon.senses(4), lexicon.senses(5)] == [*map(lexicon.senses, (3, 4, 5))]
    assert len(lexicon._known) <= 2


def test_many_aliases_are_folded_as_each_alone() -> None:
    aliases = [
        "Left  Lung",
        " X-ray / CT ",
        "",
        "\n",
        "a\nb",
        "Œsophage",
        "é",
        "- -",
        "ﬁbrosis",
        "T2\u200b-w",
    ]
    assert fold_aliases(aliases) == [fold_alias(alias) for alias in aliases]
    assert fold_aliases([]) == []


@given(
    st.lists(st.text(st.sampled_from("Ab -/\n\u0153\ufb01\u00e9\u200b\ud800\u65e5"), max_size=12), max_size=6)
)
def test_many_captions_are_folded_as_each_alone(captions: list[str]) -> None:
    assert fold_all(captions) == [fold(caption) for caption in captions]


WORDS = ["CT", "ct", "CTs", "CTS", "Cts", "PET-CT", "PET–CT", "pet ct", "é", "(", "-s", "\n"]


@given(st.lists(st.sampled_from(WORDS)))
def test_case_counts_alike_in_captions_that_are_read_at_once_and_alone(words: list[str]) -> None:
    ontology = FakeOntology(
        [
            FakeConcept("C0000001", "Tomography", "procedure", (), ("CT",)),
            FakeConcept("C0000002", "Hybrid tomography", "procedure", ("PET-CT",)),
        ]
    )
    caption = " ".join(words)
    extractor = DictionaryExtractor(ontology)
    at_once = extractor.extract(["a CT", caption, "\u00e9", caption])
    assert at_once[1] == at_once[3]
    # Two blanks are closed; where lengths change each match is read alone.
    assert at_once[1] == extractor.extract([caption + ".  \u200b"])[0]
