"""The TSV pair and the seed's tables: what is read, what is skipped and counted, what is refused."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.errors import OntologyError
from kg_targets.ontology import Ontology, load_ontology
from kg_targets.ontology.seed import CONCEPTS_HEADER, read_seed
from kg_targets.ontology.tables import looks_like_abbreviation
from tests.kg_targets.ontology.fixtures import (
    BODY,
    IS_A_HEADER,
    LUNG,
    ORGAN,
    TERMS_HEADER,
    THORAX,
    term,
    write_tsv,
)

ROWS = [
    term(LUNG, "lung", "UBERON", synonyms="pulmo|lungs"),
    term(ORGAN, "organ", "UBERON"),
    term(THORAX, "thorax", "UBERON", synonyms="chest"),
    term(BODY, "body", "UBERON"),
]
EDGES = [
    [LUNG, ORGAN, "UBERON_is_a_strict"],
    [LUNG, ORGAN, "UBERON_is_a_or_part_of"],
    [LUNG, THORAX, "UBERON_is_a_or_part_of"],
    [ORGAN, BODY, "HP"],
]


def test_a_pair_gives_names_parents_and_ancestors_nearest_first(tmp_path):
    ontology = Ontology.from_tsv(*write_tsv(tmp_path, ROWS, EDGES))
    assert len(ontology) == 4
    assert ontology.cuis == [LUNG, ORGAN, THORAX, BODY]
    assert ontology.name(LUNG) == "lung"
    assert ontology[LUNG].synonyms == ("lungs", "pulmo")
    assert ontology[LUNG].kind == "organ"
    assert ontology[LUNG].sources == (f"UBERON:{LUNG}",)
    assert ontology.parents(LUNG) == [ORGAN]
    assert ontology.ancestors(LUNG) == [ORGAN, BODY]
    assert ontology.ancestors(LUNG, max_hops=1) == [ORGAN]


def test_mixed_links_that_are_not_strictly_is_a_are_kept_apart_as_part_of(tmp_path):
    ontology = Ontology.from_tsv(*write_tsv(tmp_path, ROWS, EDGES))
    assert ontology.report.edges == {"is_a": 2, "part_of": 1}
    everything = [LUNG, ORGAN, THORAX, BODY]
    assert ontology.edges(everything) == [(LUNG, "is_a", ORGAN), (ORGAN, "is_a", BODY)]
    assert ontology.edges(everything, relations=("part_of",)) == [(LUNG, "part_of", THORAX)]
    nodes, matrix = ontology.ancestor_matrix([LUNG], relations=("is_a", "part_of"))
    assert nodes == everything
    assert matrix.toarray().tolist() == [[1, 2, 2, 3]]


def test_the_ancestor_matrix_holds_hops_plus_one_in_the_order_asked_for(tmp_path):
    ontology = Ontology.from_tsv(*write_tsv(tmp_path, ROWS, EDGES))
    nodes, matrix = ontology.ancestor_matrix([ORGAN, LUNG, LUNG])
    assert nodes == [LUNG, ORGAN, BODY]
    assert matrix.dtype == "int32"
    assert matrix.toarray().tolist() == [[0, 1, 2], [1, 2, 3], [1, 2, 3]]


def test_a_concept_that_the_ontology_lacks_stands_for_itself_in_the_matrix(tmp_path):
    ontology = Ontology.from_tsv(*write_tsv(tmp_path, ROWS, EDGES))
    nodes, matrix = ontology.ancestor_matrix(["C9999999", LUNG, "C0000000"])
    assert nodes == ["C0000000", LUNG, ORGAN, BODY, "C9999999"]
    assert matrix.toarray().tolist() == [[0, 0, 0, 0, 1], [0, 1, 2, 3, 0], [1, 0, 0, 0, 0]]
    assert ontology.ancestor_matrix([])[1].shape == (0, 0)
    assert ontology.edges(["C9999999", "no CUI", LUNG]) == []


def test_questions_that_cannot_be_answered_say_so(tmp_path):
    ontology = Ontology.from_tsv(*write_tsv(tmp_path, ROWS, EDGES))
    assert "C9999999" not in ontology
    assert "pneumonia" not in ontology
    assert 7 not in ontology and ["C0000001"] not in ontology
    assert "C0000005" not in ontology and f" {LUNG.lower()} " in ontology
    with pytest.raises(OntologyError, match="no concept 'C9999999'"):
        ontology.name("C9999999")
    with pytest.raises(OntologyError, match="max_hops"):
        ontology.ancestors(LUNG, max_hops=-1)
    with pytest.raises(OntologyError, match="no relation 'isa'"):
        ontology.ancestor_matrix([LUNG], relations=("isa",))
    with pytest.raises(OntologyError, match="not a CUI"):
        ontology.ancestor_matrix(["lung"])


def test_gzip_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    plain = Ontology.from_tsv(*write_tsv(tmp_path / "plain", ROWS, EDGES))
    odd = write_tsv(tmp_path / "odd", ROWS, EDGES)
    for path in odd:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert Ontology.from_tsv(*odd).fingerprint == plain.fingerprint
    for path in odd:
        (tmp_path / "odd" / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert load_ontology(f"tsv:{tmp_path / 'odd'}").fingerprint == plain.fingerprint


def test_broken_rows_are_skipped_and_counted_by_reason(tmp_path):
    terms, is_a = write_tsv(tmp_path, ROWS, EDGES)
    with terms.open("ab") as stream:
        stream.write(b"C0000005\tHP\tHP:5\n")  # too few columns
        stream.write(b"C00005\tHP\tHP:5\tshort\t\n")  # malformed CUI
        stream.write(b"C0000005\tHP\tHP:5\tcaf\xe9\t\n")  # Latin-1
        stream.write(b"C0000005\tHP\tHP:5\ta\0b\t\n")
        stream.write(b"C0000006\tHP\tHP:6\t \t\n")  # no name at all
        stream.write(b"c0000007\tHP\tHP:7\t\tseventh\n")  # lower case, and a synonym only
    with is_a.open("ab") as stream:
        stream.write(f"{LUNG}\t{LUNG}\tHP\n{LUNG}\tC7777777\tHP\n{LUNG}\n".encode())
    report = (ontology := Ontology.from_tsv(terms, is_a)).report
    assert report.skipped == {
        "cui_terms.tsv: row without 5 columns": 1,
        "cui_terms.tsv: malformed CUI": 1,
        "cui_terms.tsv: line that is not UTF-8": 1,
        "cui_terms.tsv: line with a NUL byte": 1,
        "cui_terms.tsv: term without a name": 1,
        "cui_isa.tsv: row without 3 columns": 1,
    }
    assert (report.self_loops, report.dangling_edges) == (1, 1)
    assert ontology.name("C0000007") == "seventh"
    assert any("malformed CUI" in line for line in report.lines())


def test_cycles_are_kept_and_reported(tmp_path):
    edges = [[LUNG, ORGAN, "HP"], [ORGAN, LUNG, "HP"], [ORGAN, BODY, "HP"]]
    ontology = Ontology.from_tsv(*write_tsv(tmp_path, ROWS, edges))
    assert ontology.report.cycles == ((LUNG, ORGAN),)
    assert ontology.ancestors(LUNG) == [ORGAN, BODY]
    assert ontology.ancestors(ORGAN) == [LUNG, BODY]


def test_cuis_on_one_term_are_equivalent_and_share_ancestors(tmp_path):
    rows = [
        term(LUNG, "lung", source_id="HP:1"),
        term(THORAX, "lung", source_id="HP:1"),
        term(BODY, "body", source_id="HP:2"),
    ]
    ontology = Ontology.from_tsv(*write_tsv(tmp_path, rows, [[THORAX, BODY, "HP"]]))
    assert ontology.equivalents(LUNG) == [THORAX]
    assert ontology.equivalents(BODY) == []
    assert ontology.parents(LUNG) == []
    assert ontology.ancestors(LUNG) == [THORAX, BODY]
    assert ontology.ancestors(LUNG, max_hops=1) == [THORAX, BODY]
    assert (LUNG, "same_as", THORAX) in ontology.edges([LUNG, THORAX])
    assert ontology.report.equivalence_classes == 1
    assert ontology.report.cycles == ()


@pytest.mark.parametrize("content", ["", "a\tb\n", TERMS_HEADER + "\n", TERMS_HEADER + "\nx\ty\n"])
def test_a_terms_table_without_one_valid_row_is_refused(tmp_path, content):
    terms, is_a = write_tsv(tmp_path, [], [])
    terms.write_text(content)
    with pytest.raises(OntologyError, match=r"cui_terms\.tsv"):
        Ontology.from_tsv(terms, is_a)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(OntologyError, match=r"cui_terms\.tsv\.gz does not exist"):
        load_ontology(f"tsv:{tmp_path}")
    terms, is_a = write_tsv(tmp_path, ROWS)
    terms.write_bytes(gzip.compress(terms.read_bytes())[:40])
    with pytest.raises(OntologyError, match="cannot be read"):
        Ontology.from_tsv(terms, is_a)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.binary(max_size=30), max_size=8))
def test_no_bytes_whatever_bring_a_traceback(tmp_path_factory, terms_lines, edge_lines):
    terms, is_a = write_tsv(tmp_path_factory.mktemp("fuzz"), ROWS, EDGES)
    terms.write_bytes(terms.read_bytes() + b"\n".join(terms_lines))
    is_a.write_bytes(IS_A_HEADER.encode() + b"\n" + b"\n".join(edge_lines))
    ontology = Ontology.from_tsv(terms, is_a)
    assert len(ontology) == ontology.report.concepts >= 4


cuis = st.sampled_from([f"C000000{digit}" for digit in range(8)])
names = st.sampled_from(["lung", "Lung", "chest", "CT", "heart", "α-1"])
term_rows = st.lists(
    st.tuples(cuis, st.sampled_from(["HP", "DOID"]), st.sampled_from(["HP:1", "HP:2", "X:3"]), names, names),
    min_size=1,
    max_size=12,
)
edge_rows = st.lists(st.tuples(cuis, cuis, st.sampled_from(["HP", "UBERON_is_a_or_part_of"])), max_size=15)


@settings(max_examples=60, deadline=None)
@given(term_rows, edge_rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_neither_content_nor_fingerprint(tmp_path_factory, terms, edges, random):
    first = Ontology.from_tsv(*write_tsv(tmp_path_factory.mktemp("a"), terms, edges))
    shuffled_terms, shuffled_edges = terms + terms[:1], list(edges)
    random.shuffle(shuffled_terms)
    random.shuffle(shuffled_edges)
    second = Ontology.from_tsv(*write_tsv(tmp_path_factory.mktemp("b"), shuffled_terms, shuffled_edges))
    assert first.fingerprint == second.fingerprint
    assert [first[cui] for cui in first.cuis] == [second[cui] for cui in second.cuis]
    assert list(first.aliases(by_preference=True)) == list(second.aliases(by_preference=True))
    assert first.report.cycles == second.report.cycles


def test_a_changed_name_changes_the_fingerprint(tmp_path):
    first = Ontology.from_tsv(*write_tsv(tmp_path / "a", ROWS, EDGES))
    changed = [term(LUNG, "Lung", "UBERON", synonyms="pulmo|lungs"), *ROWS[1:]]
    assert Ontology.from_tsv(*write_tsv(tmp_path / "b", changed, EDGES)).fingerprint != first.fingerprint
    fewer = Ontology.from_tsv(*write_tsv(tmp_path / "c", ROWS, EDGES[:-1]))
    assert fewer.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("text", "expected"),
    [("ALL", True), ("AIDS", True), ("HbA1c", False), ("IgA", True), ("All", False), ("lung", False), ("A", False),
     ("T2", True), ("CNS PNET", False), ("HYPERTENSION", False)],
)  # fmt: skip
def test_short_capital_words_are_taken_for_abbreviations(text, expected):
    assert looks_like_abbreviation(text) is expected


def write_seed(folder, concepts, relations):
    header = "\t".join(CONCEPTS_HEADER)
    (folder / "concepts.tsv").write_text("\n".join([header, *("\t".join(row) for row in concepts)]) + "\n")
    (folder / "relations.tsv").write_text(
        "\n".join(["child\trelation\tparent", *("\t".join(row) for row in relations)]) + "\n"
    )
    return folder


SEED = [
    [LUNG, "Lung", "organ", "T023", "lungs|pulmo", "", "true", "UBERON:1|HP:1", ""],
    [ORGAN, "Chest organ", "organ", "T023", "", "", "false", "UBERON:2", ""],
    [THORAX, "Chest", "region", "T029", "thorax", "CXX", "true", "UBERON:3|HP:3", ""],
    [BODY, "Body", "region", "T029", "", "", "yes", "", ""],
]
SEED_EDGES = [[LUNG, "is_a", ORGAN], [ORGAN, "part_of", THORAX], [ORGAN, "is_a", ORGAN], [LUNG, "has", BODY]]


def test_unverified_seed_rows_stay_out_of_the_strict_reading_and_their_children_are_bridged(tmp_path):
    tables = read_seed(write_seed(tmp_path, SEED, SEED_EDGES), include_unverified=False)
    ontology = Ontology.from_tables(tables)
    assert ontology.cuis == [LUNG, THORAX]
    assert ontology[THORAX].abbreviations == ("CXX",)
    assert ontology[THORAX].semantic_types == ("T029",)
    assert ontology[LUNG].sources == ("HP:1", "UBERON:1")
    assert ontology.edges([LUNG, THORAX], relations=("part_of",)) == [(LUNG, "part_of", THORAX)]
    assert ontology.report.skipped == {
        "concepts.tsv: unverified concept": 1,
        "concepts.tsv: verified is neither true nor false": 1,
        "relations.tsv: relation is neither is_a nor part_of": 1,
    }


def test_unverified_seed_rows_are_read_by_default_and_say_so(tmp_path):
    ontology = Ontology.from_tables(read_seed(write_seed(tmp_path, SEED, SEED_EDGES)))
    assert not ontology[ORGAN].verified
    assert ontology[LUNG].verified
    assert ontology.parents(LUNG) == [ORGAN]
    assert ontology.report.self_loops == 1


def test_an_alias_of_two_seed_rows_belongs_to_the_unverified_one_where_that_is_read(tmp_path):
    rows = [
        [
            LUNG,
            "Radiographic imaging",
            "modality",
            "T060",
            "fluoroscopy|x-ray imaging",
            "FL",
            "true",
            "HP:1|A",
            "",
        ],
        [ORGAN, "Fluoroscopy", "modality", "T060", "", "FL", "false", "HP:2", ""],
    ]
    folder = write_seed(tmp_path, rows, [[ORGAN, "is_a", LUNG]])
    wide = Ontology.from_tables(read_seed(folder))
    strict = Ontology.from_tables(read_seed(folder, include_unverified=False))
    assert (wide[LUNG].synonyms, wide[LUNG].abbreviations) == (("x-ray imaging",), ())
    assert wide[ORGAN].abbreviations == ("FL",)
    assert strict[LUNG].synonyms == ("fluoroscopy", "x-ray imaging")
    assert strict[LUNG].abbreviations == ("FL",)


def test_the_shipped_seed_is_sound():
    ontology, strict = load_ontology("seed"), load_ontology("seed-strict")
    report = ontology.report
    assert len(ontology) >= 1_200
    assert report.cycles == ()
    assert (report.self_loops, report.dangling_edges) == (0, 0)
    assert report.skipped == {}
    assert strict.report.verified == len(strict) == report.verified
    assert strict.report.skipped == {"concepts.tsv: unverified concept": len(ontology) - len(strict)}
    assert load_ontology("seed-all").fingerprint == Ontology.seed().fingerprint == ontology.fingerprint
