"""The readers on real files; skipped where they are absent. Figures only, no content of theirs."""

import time

import pytest

from kg_targets.ontology import Ontology, load_ontology


@pytest.fixture(scope="module")
def pair(shared_data):
    return load_ontology(f"tsv:{shared_data / 'ontologies'}")


def test_the_tsv_pair_loads_whole(pair):
    assert len(pair) == 30_330
    assert len(pair.report.cycles) == 24
    assert (pair.report.self_loops, pair.report.dangling_edges) == (0, 0)
    assert pair.report.edges["part_of"] == 9_318  # no mixed pair of UBERON is a strict one
    assert pair.report.verified == 6_198


def test_the_whole_closure_takes_no_time(pair):
    begin = time.perf_counter()
    nodes, matrix = pair.ancestor_matrix(pair.cuis)
    assert time.perf_counter() - begin < 10
    assert nodes == pair.cuis
    assert (matrix.diagonal() == 1).all()


def bearers(ontology):
    """Concepts called pneumothorax, most preferred first."""
    return [cui for name, cui, _ in ontology.aliases(by_preference=True) if name.lower() == "pneumothorax"]


def test_the_seed_settles_the_known_error_about_pneumothorax(pair):
    wrong, right = "C0029850", "C0032326"
    assert set(bearers(pair)) == {wrong, right}
    seed = Ontology.seed()
    if right in seed:
        merged = seed | pair
        assert bearers(merged)[0] == right
        assert merged[right].verified


def test_a_cached_load_is_near_instant(shared_data, tmp_path):
    spec = f"seed|tsv:{shared_data / 'ontologies'}"
    first = load_ontology(spec, tmp_path)
    begin = time.perf_counter()
    second = load_ontology(spec, tmp_path)
    assert time.perf_counter() - begin < 2  # 0.05 s on a quiet machine
    assert second.fingerprint == first.fingerprint


@pytest.mark.parametrize(("name", "concepts"), [("doid_subset", 5_032), ("uberon_subset", 2_789)])
def test_obo_files_load_with_all_their_cuis(shared_data, name, concepts):
    ontology = Ontology.from_obo(shared_data / "ontologies" / f"{name}.obo")
    assert len(ontology) == concepts
    assert ontology.report.dangling_edges == 0


def test_obo_and_tsv_agree_where_they_come_from_the_same_release(shared_data, pair):
    ontology = Ontology.from_obo(shared_data / "ontologies" / "uberon_subset.obo")
    shared = [cui for cui in ontology.cuis if cui in pair]
    assert len(shared) == len(ontology)
    assert sum(set(ontology.parents(cui)) <= set(pair.parents(cui)) for cui in shared) > 0.95 * len(shared)


def test_the_umls_sample_reads_in_both_readings(shared_data):
    strict, broad = (
        Ontology.from_umls(shared_data / "umls_sample", reading) for reading in ("strict", "broad")
    )
    assert len(strict) == len(broad) == 632
    assert strict.report.edges == {}  # its only source, AIR, states no RELA
    assert broad.report.edges == {"is_a": 1_174}
    assert broad.report.skipped["MRCONSO.RRF: malformed CUI"] == 1
