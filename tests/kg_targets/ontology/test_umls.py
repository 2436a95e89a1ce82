"""UMLS RRF files: which rows count, which name is preferred, and the two readings of relations."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.errors import OntologyError
from kg_targets.ontology import Ontology, load_ontology
from kg_targets.ontology.umls import UmlsOptions
from tests.kg_targets.ontology.fixtures import (
    mrconso,
    mrcui,
    mrrank,
    mrrel,
    mrsty,
    term,
    write_tsv,
    write_umls,
)

A, B, C, D, E, F = (f"C000000{digit}" for digit in range(1, 7))
NAMES = [
    mrconso(A, "Lung tumours", status="S", form="PF"),
    mrconso(A, "Tumor of lung", preferred="N"),
    mrconso(A, "Lung tumor"),
    mrconso(A, "tumor, lung", form="VO"),
    mrconso(A, "LTUM", status="S", term_type="ACR", source="SRC_B"),
    mrconso(A, "Lungentumor", language="GER"),
    mrconso(A, "Lung neoplasm, old", suppress="O"),
    mrconso(B, "Lung disease"),
    mrconso(C, "Disease"),
    mrconso(D, "Finding", source="SRC_B"),
    mrconso(E, "nur deutsch", language="GER"),
]


def build(folder, relations, reading="strict", options=None):
    types = [mrsty(A, "T191"), mrsty(A, "T046"), mrsty(B, "T047"), mrsty(E, "T047")]
    return Ontology.from_umls(write_umls(folder, NAMES, relations, types), reading, options)


def test_names_follow_the_preference_that_umls_states(tmp_path):
    concept = build(tmp_path, [])[A]
    assert concept.name == "Lung tumor"
    assert concept.synonyms == ("Lung tumours", "Tumor of lung", "tumor, lung")
    assert concept.abbreviations == ("LTUM",)
    assert concept.semantic_types == ("T046", "T191")
    assert concept.kind == "finding"
    assert concept.verified


def test_other_languages_and_suppressed_rows_are_left_out_and_counted(tmp_path):
    ontology = build(tmp_path, [])
    assert ontology.cuis == [A, B, C, D]
    assert ontology.report.skipped == {
        "MRCONSO.RRF: name in another language": 2,
        "MRCONSO.RRF: suppressed name": 1,
        "concept without a name that the options keep": 1,
    }


@pytest.mark.parametrize(
    ("row", "in_strict", "in_broad"),
    [
        (mrrel(A, "PAR", B, "inverse_isa"), True, True),  # B stands in PAR to A: B is the parent of A
        (mrrel(B, "CHD", A, "isa"), True, True),
        (mrrel(A, "RB", B, "inverse_isa"), True, True),
        (mrrel(B, "RN", A, "isa"), True, True),
        (mrrel(A, "PAR", B), False, True),
        (mrrel(B, "CHD", A), False, True),
        (mrrel(A, "PAR", B, "part_of"), False, True),
        (mrrel(A, "RB", B), False, False),
        (mrrel(B, "RN", A, "mapped_to"), False, False),
        (mrrel(A, "RO", B, "isa"), False, False),
        (mrrel(A, "SY", B), False, False),
        (mrrel(A, "PAR", B, "inverse_isa", suppress="Y"), False, False),
    ],
)
def test_cui2_stands_in_rel_to_cui1_under_both_readings(tmp_path, row, in_strict, in_broad):
    assert build(tmp_path, [row], "strict").parents(A) == ([B] if in_strict else [])
    assert build(tmp_path, [row], "broad").parents(A) == ([B] if in_broad else [])
    assert build(tmp_path, [row], "broad").parents(B) == []


def test_the_reading_is_part_of_the_release_and_of_the_specification(tmp_path):
    folder = write_umls(tmp_path / "2026AA" / "META", NAMES, [mrrel(A, "PAR", B)], [])
    strict_reading, broad_reading = load_ontology(f"umls:{folder}"), load_ontology(f"umls-broad:{folder}")
    assert strict_reading.release == "UMLS 2026AA, strict reading, ENG"
    assert broad_reading.release == "UMLS 2026AA, broad reading, ENG"
    assert (len(strict_reading.ancestors(A)), len(broad_reading.ancestors(A))) == (0, 1)


def test_cycles_self_loops_and_dangling_parents_are_reported(tmp_path):
    rows = [mrrel(*pair, "isa") for pair in ((B, "CHD", A), (A, "CHD", B), (C, "CHD", C), (F, "CHD", C))]
    report = build(tmp_path, rows).report
    assert report.cycles == ((A, B),)
    assert (report.self_loops, report.dangling_edges) == (1, 1)


def test_sources_languages_and_suppressed_rows_can_be_chosen(tmp_path):
    rows = [mrrel(A, "PAR", D, source="SRC_B"), mrrel(A, "PAR", B, source="SRC_A")]
    only = build(tmp_path, rows, "broad", UmlsOptions(sources=frozenset({"SRC_B"})))
    assert only.cuis == [A, D]
    assert only.name(A) == "LTUM"
    assert only.parents(A) == [D]
    assert "SRC_B" in only.release
    german = build(tmp_path, rows, options=UmlsOptions(language="GER"))
    assert german.name(A) == "Lungentumor"
    everything = build(tmp_path, rows, options=UmlsOptions(suppressed=True))
    assert "Lung neoplasm, old" in everything[A].synonyms


def test_a_specification_takes_the_same_filters_and_they_have_entries_of_their_own(tmp_path):
    rows = [mrrel(A, "PAR", D, "inverse_isa", source="SRC_B"), mrrel(A, "PAR", B, "inverse_isa")]
    folder = write_umls(tmp_path / "2026AA" / "META", NAMES, rows)

    def load(options=""):
        return load_ontology(f"umls:{folder}{options}", tmp_path / "cache")

    assert load().cuis == [A, B, C, D]
    only = load("?sources=SRC_B")
    assert (only.cuis, only.name(A), only.parents(A)) == ([A, D], "LTUM", [D])
    assert only.release == "UMLS 2026AA, strict reading, ENG, sources SRC_B"
    assert load("?language=GER").name(A) == "Lungentumor"
    both = load("?language=GER, ENG&suppressed=yes&sources=SRC_B,SRC_A")
    assert both.cuis == [A, B, C, D, E] and {"Lung neoplasm, old", "Lungentumor"} <= set(both[A].synonyms)
    assert both.release == "UMLS 2026AA, strict reading, ENG,GER, sources SRC_A, SRC_B, suppressed rows too"
    short = load("?term_types=ACR")
    assert (short.cuis, short.name(A)) == ([A], "LTUM")
    assert short.report.skipped["MRCONSO.RRF: name of a term type that was not asked for"] == 7
    assert load().cuis == [A, B, C, D]
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("lang=ENG", "no option 'lang'; there are language, sources, term_types, suppressed"),
        ("language=", "give language once, with a value, as in language=ENG,SPA"),
        ("sources=A&sources=B", "give sources once"),
        ("suppressed=maybe", "suppressed is yes or no, not 'maybe'"),
        ("language=XXX", r"MRCONSO.RRF: no language 'XXX'; there are ENG, GER"),
        ("sources=SRC_A,MSH", r"MRCONSO.RRF: no source 'MSH'; there are SRC_A, SRC_B"),
        ("term_types=XX", r"MRCONSO.RRF: no term type 'XX'; there are ACR, PT"),
    ],
)
def test_a_filter_that_the_release_cannot_meet_names_what_there_is(tmp_path, options, message):
    folder = write_umls(tmp_path, NAMES)
    with pytest.raises(OntologyError, match=message) as error:
        load_ontology(f"seed|umls:{folder}?{options}")
    assert "\n" not in str(error.value)


def test_mrrank_chooses_the_preferred_name_among_those_kept(tmp_path):
    names = [
        mrconso(A, "Lung tumor", source="SRC_A"),
        mrconso(A, "Lungs, tumor of", status="S", source="SRC_A", term_type="SY"),
        mrconso(A, "Tumor of the lung", status="S", source="SRC_B"),
        mrconso(A, "Pulmonary tumor", status="S", source="SRC_B", term_type="SY"),
        mrconso(A, "Old tumor of the lung", status="S", source="SRC_C", suppress="O"),
        mrconso(B, "disease, lung", preferred="N", source="SRC_B"),
        mrconso(B, "Lung disease", status="P", source="SRC_B"),
    ]
    ranks = [
        mrrank(9, "SRC_C", "PT"),
        mrrank(4, "SRC_A", "PT"),
        mrrank(3, "SRC_B", "SY"),
        mrrank(2, "SRC_B", "PT"),
    ]
    plain = Ontology.from_umls(write_umls(tmp_path / "plain", names))
    assert plain.name(A) == "Lung tumor"
    folder = write_umls(tmp_path / "ranked", names, ranks=ranks)
    assert Ontology.from_umls(folder).name(A) == "Lung tumor"
    assert Ontology.from_umls(folder, options=UmlsOptions(suppressed=True)).name(A) == "Lung tumor"
    only = UmlsOptions(sources=frozenset({"SRC_B"}))
    assert Ontology.from_umls(folder, options=only).name(A) == "Pulmonary tumor"
    assert (
        Ontology.from_umls(tmp_path / "plain", options=only).name(A) == "Pulmonary tumor"
    )  # by the alphabet
    ranks = [row.replace("0003", "0001") for row in ranks]
    ranked = Ontology.from_umls(write_umls(folder, names, ranks=ranks), options=only)
    assert (ranked.name(A), ranked.name(B)) == (
        "Tumor of the lung",
        "Lung disease",
    )  # UMLS's grades settle ties


def test_files_may_be_compressed_and_have_windows_line_ends(tmp_path):
    plain = build(tmp_path / "a" / "META", [mrrel(A, "PAR", B)], "broad")
    folder = tmp_path / "b" / "META"
    build(folder, [mrrel(A, "PAR", B)])
    for path in list(folder.iterdir()):
        data = b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n")
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(data))
        path.unlink()
    assert Ontology.from_umls(folder, "broad").fingerprint == plain.fingerprint


def test_rows_without_the_last_separator_are_read(tmp_path):
    folder = write_umls(
        tmp_path / "a", NAMES, [mrrel(B, "CHD", A, "isa")], [mrsty(A, "T191")], [mrcui(F, "SY", A)]
    )
    whole = Ontology.from_umls(folder)
    for path in folder.iterdir():
        path.write_text("".join(f"{line[:-1]}\n" for line in path.read_text().splitlines()))
    assert Ontology.from_umls(folder).fingerprint == whole.fingerprint and whole.parents(A) == [B]
    with (folder / "MRCONSO.RRF").open("a") as stream:
        stream.write(mrconso(C, "a row of another width") + "\n")
    assert Ontology.from_umls(folder).report.skipped["MRCONSO.RRF: row without 18 columns"] == 1


def test_a_broken_first_row_does_not_decide_how_rows_end(tmp_path):
    folder = write_umls(tmp_path, [mrconso(A, "cut off").rpartition("|")[0], *NAMES])
    report = Ontology.from_umls(folder).report
    assert report.concepts == 4 and report.skipped["MRCONSO.RRF: row without 19 columns"] == 1


def test_identifiers_of_the_nci_metathesaurus_are_counted_under_their_own_name(tmp_path):
    names = [*NAMES, mrconso("CL412345", "NCI only"), mrconso("CL1", "neither")]
    skipped = Ontology.from_umls(write_umls(tmp_path, names)).report.skipped
    assert skipped["MRCONSO.RRF: identifier of the NCI Metathesaurus (CL…), no CUI of UMLS"] == 1
    assert skipped["MRCONSO.RRF: malformed CUI"] == 1


RETIRED = [f"C00001{number:02d}" for number in range(10)]


def test_a_retired_cui_is_followed_to_its_one_synonym(tmp_path):
    rows = [
        mrcui(RETIRED[0], "SY", A),
        mrcui(RETIRED[1], "SY", RETIRED[0]),  # retired twice
        mrcui(RETIRED[2], "DEL"),
        mrcui(RETIRED[3], "RB", B),
        mrcui(RETIRED[4], "SY", A),
        mrcui(RETIRED[4], "SY", B),  # two meanings
        mrcui(RETIRED[5], "SY", E),  # not among the concepts kept
        mrcui(RETIRED[6], "SY", RETIRED[7]),
        mrcui(RETIRED[7], "SY", RETIRED[6]),  # a circle
        mrcui(C, "SY", A),  # still a concept
    ]
    folder = write_umls(tmp_path, NAMES, retired=rows)
    ontology = Ontology.from_umls(folder)
    assert [ontology.current(cui) for cui in RETIRED[:8]] == [A, A, *RETIRED[2:8]]
    assert (ontology.current(C), ontology.current("not a CUI")) == (C, "not a CUI")
    assert RETIRED[0] not in ontology and ontology.report.dangling_edges == 0
    assert ontology.report.retired == 2
    assert ontology.report.skipped["MRCUI.RRF: retired CUI without one successor among the concepts"] == 6
    assert "2 retired CUIs are followed to their successors" in ontology.report.lines()
    (folder / "MRCUI.RRF").unlink()
    assert Ontology.from_umls(folder).fingerprint != ontology.fingerprint


def test_the_cache_knows_retired_cuis_and_notices_the_file(tmp_path):
    folder = write_umls(tmp_path / "META", NAMES)
    assert load_ontology(f"umls:{folder}", tmp_path / "cache").current(RETIRED[0]) == RETIRED[0]
    write_umls(folder, NAMES, retired=[mrcui(RETIRED[0], "SY", A)])
    for _ in range(2):
        ontology = load_ontology(f"umls:{folder}", tmp_path / "cache")
        assert ontology.current(RETIRED[0]) == A and ontology.report.retired == 1


@pytest.mark.parametrize("umls_first", [True, False])
def test_sources_beside_umls_may_use_cuis_that_it_has_retired(tmp_path, umls_first):
    umls = Ontology.from_umls(write_umls(tmp_path / "umls", NAMES, retired=[mrcui(RETIRED[0], "SY", A)]))
    tables = write_tsv(
        tmp_path / "tsv",
        [term(RETIRED[0], "growth of the lung"), term(C, "Disease")],
        [[RETIRED[0], C, "HP"]],
    )
    other = Ontology.from_tsv(*tables)
    merged = umls | other if umls_first else other | umls
    assert RETIRED[0] not in merged and merged.current(RETIRED[0]) == A
    assert "growth of the lung" in (merged[A].name, *merged[A].synonyms)
    assert merged.parents(A) == [C]


@pytest.mark.parametrize("missing", ["MRCONSO.RRF", "MRREL.RRF", "MRSTY.RRF"])
def test_a_missing_file_says_what_to_point_at(tmp_path, missing):
    folder = write_umls(tmp_path, NAMES)
    (folder / missing).unlink()
    with pytest.raises(OntologyError, match=rf"{missing} does not exist\. Point to the META folder"):
        Ontology.from_umls(folder)


def test_a_file_that_is_something_else_and_an_unknown_reading_are_refused(tmp_path):
    with pytest.raises(
        OntologyError, match=r"no name in ENG .*\(1 rows: MRCONSO.RRF: row without 19 columns\)"
    ):
        Ontology.from_umls(write_umls(tmp_path, ["what|is|this"]))
    with pytest.raises(OntologyError, match="strict and broad"):
        Ontology.from_umls(tmp_path, "loose")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_no_bytes_whatever_bring_a_traceback(tmp_path_factory, lines):
    folder = write_umls(tmp_path_factory.mktemp("fuzz"), NAMES, [mrrel(A, "PAR", B)], [mrsty(A, "T191")])
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes() + b"\n".join(lines) + b"\n" + b"|".join(lines * 4) + b"\n")
    assert len(Ontology.from_umls(folder)) >= 4
