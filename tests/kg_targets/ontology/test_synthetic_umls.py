"""Made-up releases of UMLS: the same bytes from the same seed, read whole, and compiled alike in parts of any size."""

from pathlib import Path

import pytest

from kg_targets.ontology import Ontology, names
from kg_targets.ontology.umls import UmlsOptions

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def write_release(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    from synthetic_umls import write_release

    return write_release


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_seed_decides_every_byte(tmp_path, write_release):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert 200 < write_release(tmp_path / folder, 1_500, 3_000, seed, dirty=0.01) < 500
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["MRCONSO.RRF"] != contents(tmp_path / "c")["MRCONSO.RRF"]


def test_a_release_has_several_languages_and_sources_and_every_kind_of_broken_row(tmp_path, write_release):
    write_release(tmp_path, 20_000, 30_000, dirty=0.02)
    lines = [line for line in (tmp_path / "MRCONSO.RRF").read_bytes().split(b"\n") if line]
    assert len(lines) == 20_000
    ontology = Ontology.from_umls(tmp_path, "broad")
    report = ontology.report
    reasons = {reason.partition(": ")[2] for reason in report.skipped if reason.startswith("MRCONSO")}
    assert {
        "identifier of the NCI Metathesaurus (CL…), no CUI of UMLS",
        "line that is not UTF-8",
        "line with a NUL byte",
        "row without 19 columns",
        "name in another language",
        "suppressed name",
    } <= reasons
    assert report.concepts > 3_000 and report.edges["is_a"] > 3_000
    assert report.cycles == ()
    assert len(Ontology.from_umls(tmp_path, options=UmlsOptions("SPA,ENG")).cuis) > report.concepts


def test_names_are_put_in_order_alike_in_parts_of_any_size(tmp_path, write_release, monkeypatch):
    write_release(tmp_path, 3_000, 2_000)
    whole = Ontology.from_umls(tmp_path) | Ontology.seed()
    monkeypatch.setattr(names, "_AT_ONCE", 100)
    parts = Ontology.from_umls(tmp_path) | Ontology.seed()
    assert parts.compiled().names["text"].num_chunks > 10 and whole.compiled().names["text"].num_chunks == 1
    assert (parts.fingerprint, parts.report) == (whole.fingerprint, whole.report)
    assert parts.concept_table() == whole.concept_table() and parts.alias_table() == whole.alias_table()
    assert list(parts.aliases()) == list(whole.aliases())
    assert [parts[cui] for cui in parts.cuis] == [whole[cui] for cui in whole.cuis]
