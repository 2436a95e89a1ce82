"""Merging sources, what two of them confirm about one another, and which concept an alias is to mean."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.errors import OntologyError
from kg_targets.ontology import Ontology, load_ontology
from kg_targets.ontology.concept import cui_strings
from kg_targets.ontology.registry import parse_spec
from tests.kg_targets.ontology.fixtures import BODY, LUNG, ORGAN, THORAX, mrconso, term, write_tsv, write_umls


@pytest.fixture
def pair(tmp_path):
    count = iter(range(99))

    def build(terms, edges=()):
        return Ontology.from_tsv(*write_tsv(tmp_path / str(next(count)), terms, edges))

    return build


def test_the_left_side_wins_on_name_and_kind_and_the_rest_is_united(pair):
    left = pair([term(LUNG, "Lung", "UBERON", synonyms="pulmo"), term(ORGAN, "Organ")], [[LUNG, ORGAN, "HP"]])
    right = pair([term(LUNG, "lung structure", "HP"), term(THORAX, "Thorax")], [[LUNG, THORAX, "HP"]])
    merged = left | right
    assert merged.cuis == [LUNG, ORGAN, THORAX]
    assert merged[LUNG].name == "Lung"
    assert merged[LUNG].kind == "organ"
    assert merged[LUNG].synonyms == ("lung structure", "pulmo")
    assert merged.parents(LUNG) == [ORGAN, THORAX]
    assert (right | left)[LUNG].name == "lung structure"
    assert (right | left)[LUNG].kind == "finding"
    assert merged.release == f"{left.release} | {right.release}"


def test_an_edge_that_dangles_on_one_side_finds_its_end_in_the_other(pair):
    left = pair([term(LUNG, "Lung")], [[LUNG, ORGAN, "HP"], [LUNG, LUNG, "HP"]])
    assert (left.parents(LUNG), left.report.dangling_edges) == ([], 1)
    merged = left | pair([term(ORGAN, "Organ")])
    assert (merged.parents(LUNG), merged.report.dangling_edges, merged.report.self_loops) == ([ORGAN], 0, 1)


def test_two_vocabularies_that_agree_on_a_name_verify_a_concept(pair):
    ontology = pair(
        [
            term(LUNG, "Lung-tissue", "HP"),
            term(LUNG, "pulmo", "UBERON", synonyms="LUNG TISSUE"),
            term(ORGAN, "organ", "HP"),
            term(ORGAN, "body part", "UBERON"),
            term(THORAX, "thorax", "HP", "HP:1"),
            term(THORAX, "thorax", "HP", "HP:2"),
        ]
    )
    assert [ontology[cui].verified for cui in (LUNG, ORGAN, THORAX)] == [True, False, False]
    assert ontology.report.verified == 1


def test_verification_comes_from_a_merge_only_if_the_vocabularies_differ(pair):
    once, again, other = (pair([term(LUNG, "lung", source)]) for source in ("HP", "HP", "UBERON"))
    assert not (once | again)[LUNG].verified
    assert (once | other)[LUNG].verified
    assert (once | again | other)[LUNG].verified


def bearers(ontology: Ontology, alias: str) -> list[str]:
    """The concepts that have a name, most preferred first."""
    return [cui for name, cui, _ in ontology.aliases(by_preference=True) if name.lower() == alias]


def test_the_confirmed_reading_of_an_alias_is_preferred_to_one_sources_error(pair):
    # The error that the shared data has: one vocabulary gives "pneumothorax" the CUI of something else.
    ontology = pair(
        [
            term(LUNG, "pneumothorax", "DOID"),
            term(LUNG, "something else", "HP"),
            term(LUNG, "something else", "MONDO"),
            term(BODY, "Pneumothorax", "HP"),
            term(BODY, "air in the chest", "MONDO", synonyms="pneumothorax"),
        ]
    )
    assert ontology[LUNG].verified
    assert bearers(ontology, "pneumothorax") == [BODY, LUNG]
    assert ontology.report.ambiguous_aliases == 1


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (
            [term(THORAX, "x", "HP"), term(THORAX, "y", "HP"), term(THORAX, "y", "DOID")],
            [term(LUNG, "x", "HP")],
        ),
        ([term(THORAX, "x", "HP")], [term(LUNG, "z", "HP", synonyms="x")]),
        ([term(LUNG, "x", "HP")], [term(THORAX, "x", "HP")]),
        (
            [term(THORAX, "x", "HP"), term(THORAX, "x", "DOID"), term(THORAX, "x", "EFO")],
            [term(LUNG, "x", "HP"), term(LUNG, "x", "DOID")],
        ),
    ],
    ids=["verified concept", "preferred name", "smaller CUI", "more vocabularies"],
)
def test_ties_between_concepts_are_broken_in_the_declared_order(pair, better, worse):
    ontology = pair(worse + better)
    assert bearers(ontology, "x") == [better[0][0], worse[0][0]]


def test_the_left_part_of_a_merge_is_preferred_between_equals(pair):
    merged = pair([term(THORAX, "x")]) | pair([term(LUNG, "x")])
    assert bearers(merged, "x") == [THORAX, LUNG]


def test_aliases_come_by_concept_with_the_preferred_name_first(pair):
    ontology = pair(
        [
            term(ORGAN, "organ", synonyms="body part|Organ|ORG"),
            term(LUNG, "lung", "HP", synonyms="pulmo"),
            term(LUNG, "Lung", "UBERON"),
        ]
    )
    assert list(ontology.aliases()) == [
        ("Lung", LUNG, False),
        ("pulmo", LUNG, False),
        ("organ", ORGAN, False),
        ("body part", ORGAN, False),
        ("ORG", ORGAN, True),
    ]


def test_tables_of_aliases_and_concepts_say_the_same_as_the_objects(pair):
    left = pair(
        [
            term(ORGAN, "organ", "UBERON", synonyms="body part|Organ|ORG"),
            term(LUNG, "lung", "HP", "HP:1", synonyms="pulmo"),
            term(LUNG, "Lung", "UBERON", ""),
            term(LUNG, "lung", "HP", "HP:1"),
        ]
    )
    merged = left | pair([term(THORAX, "lung", "EFO"), term(LUNG, "lung", "HP", "HP:1")]) | Ontology.seed()
    aliases = merged.alias_table()
    assert aliases.schema.names == ["text", "cui", "abbreviation"]
    columns = (
        aliases["text"].to_pylist(),
        cui_strings(aliases["cui"].to_pylist()),
        aliases["abbreviation"].to_pylist(),
    )
    assert list(zip(*columns, strict=True)) == list(merged.aliases(by_preference=True))
    table = merged.concept_table()
    assert cui_strings(table["cui"].to_pylist()) == merged.cuis
    for row, concept in zip(table.to_pylist(), map(merged.__getitem__, merged.cuis), strict=True):
        assert (row["name"], row["kind"], row["verified"]) == (concept.name, concept.kind, concept.verified)
        assert (tuple(row["semantic_types"]), tuple(row["sources"])) == (
            concept.semantic_types,
            concept.sources,
        )


def test_names_without_a_letter_confirm_nothing(pair):
    ontology = pair([term(LUNG, "+", "HP"), term(LUNG, "-", "DOID")])
    assert not ontology[LUNG].verified


def test_umls_answers_for_its_cuis(tmp_path, pair):
    umls = Ontology.from_umls(write_umls(tmp_path / "umls", [mrconso(LUNG, "Lung")]))
    assert umls[LUNG].verified
    merged = umls | pair([term(THORAX, "lung")])
    assert bearers(merged, "lung") == [LUNG, THORAX]


def test_an_ontology_travels_to_another_process_unchanged(pair):
    ontology = pair([term(LUNG, "lung"), term(ORGAN, "organ")], [[LUNG, ORGAN, "HP"]])
    copy = pickle.loads(pickle.dumps(ontology))
    assert copy.fingerprint == ontology.fingerprint
    assert copy.report == ontology.report
    assert copy.ancestors(LUNG) == [ORGAN]
    assert copy[LUNG] == ontology[LUNG]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no source ''"),
        ("sed", "there are seed"),
        ("seed|", "no source ''"),
        ("tsv", "needs a path"),
        ("obo:", "needs a path"),
        ("seed:here", "takes no path"),
    ],
)
def test_a_wrong_specification_says_what_there_is(spec, message):
    with pytest.raises(OntologyError, match=message.replace("|", r"\|")):
        parse_spec(spec)


def test_a_specification_merges_its_sources_from_left_to_right(tmp_path):
    terms = [term("C0024109", "whatever"), term(BODY, "a concept that the seed lacks")]
    write_tsv(tmp_path, terms, [[BODY, "C0024109", "HP"]])
    seed_first = load_ontology(f"seed | tsv:{tmp_path}")
    assert seed_first.name("C0024109") == Ontology.seed().name("C0024109")
    assert load_ontology(f"tsv:{tmp_path}|seed").name("C0024109") == "whatever"
    assert seed_first.parents(BODY) == ["C0024109"]


cuis = st.sampled_from([LUNG, ORGAN, THORAX, BODY])
rows = st.lists(
    st.tuples(cuis, st.sampled_from(["HP", "DOID"]), cuis, st.sampled_from("abcd"), st.sampled_from("abcd")),
    min_size=1,
)
edges = st.lists(st.tuples(cuis, cuis, st.just("HP")))


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.tuples(rows, edges)] * 3))
def test_merging_is_associative_where_each_term_has_one_cui(tmp_path_factory, parts):
    parts = [
        ([(cui, source, cui, *names) for cui, source, _, *names in rows], edges) for rows, edges in parts
    ]
    a, b, c = (Ontology.from_tsv(*write_tsv(tmp_path_factory.mktemp("part"), *part)) for part in parts)
    left, right = (a | b) | c, a | (b | c)
    assert left.fingerprint == right.fingerprint
    assert left.report == right.report
    assert set(left.cuis) == {*a.cuis, *b.cuis, *c.cuis}
    assert all(left.name(cui) == a.name(cui) for cui in a.cuis)


def test_concepts_that_the_left_side_keeps_apart_are_not_made_one_by_the_right(tmp_path):
    left = Ontology.from_tsv(
        *write_tsv(
            tmp_path / "left",
            [("C0000001", "HP", "HP:1", "aneurysm", ""), ("C0000002", "HP", "HP:2", "vascular disease", "")],
            [("C0000001", "C0000002", "HP")],
        )
    )
    one_term = [(cui, "DOID", "DOID:9", "aneurysm", "") for cui in ("C0000001", "C0000002", "C0000003")]
    right = Ontology.from_tsv(*write_tsv(tmp_path / "right", one_term, []))
    assert right.equivalents("C0000001") == ["C0000002", "C0000003"]
    merged = left | right
    assert merged.equivalents("C0000001") == merged.equivalents("C0000002") == []
    assert merged.ancestors("C0000001") == ["C0000002"]
    assert any("keep apart" in reason for reason in merged.report.skipped)


def test_hpo_modifiers_are_qualifiers_and_no_findings(tmp_path):
    rows = [
        ("C0000001", "HP", "HP:0012823", "clinical modifier", ""),
        ("C0000002", "HP", "HP:0012828", "severe", ""),
        ("C0000003", "HP", "HP:0002202", "pleural effusion", ""),
    ]
    ontology = Ontology.from_tsv(*write_tsv(tmp_path / "hpo", rows, [("C0000002", "C0000001", "HP")]))
    assert [ontology[cui].kind for cui in ontology.cuis] == ["qualifier", "qualifier", "finding"]
