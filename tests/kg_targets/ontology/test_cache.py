"""The cache of ontologies: same answers, no second reading, nothing trusted that is damaged."""

import json
import os
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kg_targets.errors import OntologyError
from kg_targets.ontology import cache, compiled, load_ontology, registry
from kg_targets.store import digest
from kg_targets.store.digest import file_sha256
from tests.kg_targets.ontology.fixtures import BODY, LUNG, ORGAN, mrconso, term, write_tsv, write_umls


@pytest.fixture
def spec(tmp_path):
    terms = [term(LUNG, "lung", synonyms="pulmo"), term(LUNG, "lung", "UBERON"), term(ORGAN, "organ")]
    edges = [
        [LUNG, ORGAN, "HP"],
        [ORGAN, LUNG, "HP"],
        [LUNG, BODY, "HP"],
        [LUNG, LUNG, "HP"],
        ["C1", LUNG, "HP"],
    ]
    write_tsv(tmp_path / "source", terms, edges)
    return f"seed|tsv:{tmp_path / 'source'}"


@pytest.fixture
def readings(monkeypatch):
    """Counts how often sources are really read."""
    count = []
    source = registry.SOURCES["tsv"]

    def read(path):
        count.append(path)
        return source.read(path)

    monkeypatch.setitem(registry.SOURCES, "tsv", registry.Source(source.files, read))
    return count


def entries(folder):
    return sorted(path for path in folder.iterdir() if path.name.startswith("ontology-"))


def test_a_second_load_answers_the_same_without_reading_again(tmp_path, spec, readings):
    plain = load_ontology(spec)
    first, second = (load_ontology(spec, tmp_path / "cache") for _ in range(2))
    assert len(readings) == 2  # once without the cache, once for it
    for ontology in (first, second):
        assert ontology.fingerprint == plain.fingerprint
        assert ontology.release == plain.release
        assert ontology.report == plain.report
        assert list(ontology.aliases(by_preference=True)) == list(plain.aliases(by_preference=True))
        assert [ontology[cui] for cui in ontology.cuis] == [plain[cui] for cui in plain.cuis]
        assert ontology.ancestors(LUNG) == plain.ancestors(LUNG)
        assert ontology.edges(ontology.cuis) == plain.edges(plain.cuis)
    assert (second | second).report.self_loops == 2 * plain.report.self_loops
    assert [path.suffix for path in entries(tmp_path / "cache")] == [""]


@pytest.mark.parametrize(
    "victim", ["names.arrow", "concepts.arrow", "meta.json", "report", "release", "missing"]
)
def test_a_damaged_entry_is_built_again(tmp_path, spec, readings, victim):
    fresh = load_ontology(spec, tmp_path / "cache")
    (entry,) = entries(tmp_path / "cache")
    if victim == "missing":
        (entry / "edges.arrow").unlink()
    elif victim in ("report", "release"):
        meta = json.loads((entry / "meta.json").read_text())
        changed = {"report": {"cycles": 5}, "release": "another release"}[victim]
        (entry / "meta.json").write_text(json.dumps({**meta, victim: changed}))
    else:
        data = bytearray((entry / victim).read_bytes())
        data[len(data) // 2 :] = b"?" * 9
        (entry / victim).write_bytes(bytes(data))
    assert load_ontology(spec, tmp_path / "cache").fingerprint == fresh.fingerprint
    assert load_ontology(spec, tmp_path / "cache").release == fresh.release
    assert len(readings) == 2


def test_changed_sources_and_another_reader_get_entries_of_their_own(tmp_path, spec, readings, monkeypatch):
    first = load_ontology(spec, tmp_path / "cache")
    assert ORGAN in first
    path = tmp_path / "source" / "cui_terms.tsv"
    before = path.stat()
    path.write_text(path.read_text().replace("pulmo", "pulmi"))  # as many bytes as before
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert "pulmi" in load_ontology(spec, tmp_path / "cache")[LUNG].synonyms
    monkeypatch.setattr(cache, "READER_VERSION", cache.READER_VERSION + 1)
    load_ontology(spec, tmp_path / "cache")
    assert len(readings) == 3
    assert len(entries(tmp_path / "cache")) == 3


def test_an_edited_file_with_its_old_time_stamp_is_read_again(tmp_path, spec, readings, monkeypatch):
    monkeypatch.setattr(digest, "_SETTLED_NS", -1)  # as if the file had been lying there for long
    path = tmp_path / "source" / "cui_terms.tsv"
    load_ontology(spec, tmp_path / "cache")
    hashed = []
    monkeypatch.setattr(digest, "file_sha256", lambda path: hashed.append(path) or file_sha256(path))
    load_ontology(spec, tmp_path / "cache")
    assert hashed == [] or {file.suffix for file in hashed} == {
        ".arrow"
    }  # the sources' digests are remembered
    hashed.clear()
    load_ontology(spec, tmp_path / "cache")
    assert hashed == [] and len(readings) == 1  # and by now the entry's
    before = path.stat()
    time.sleep(0.02)  # a tick of the kernel's clock
    path.write_text(path.read_text().replace("pulmo", "pulmi"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert "pulmi" in load_ontology(spec, tmp_path / "cache")[LUNG].synonyms
    assert hashed[0] == path and len(readings) == 2


def test_a_file_that_has_just_changed_is_hashed_every_time(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("one")
    assert digest.remembered_sha256(path, tmp_path) == file_sha256(path)
    assert list(tmp_path.glob("digest-*")) == []


def test_workers_open_the_entry_by_its_path(tmp_path, spec):
    kept = load_ontology(spec, tmp_path / "cache")
    sent = pickle.dumps(kept)
    assert len(sent) < 5_000 < len(pickle.dumps(load_ontology(spec)))
    copy = pickle.loads(sent)
    assert [copy[cui] for cui in copy.cuis] == [kept[cui] for cui in kept.cuis]
    assert copy.ancestors(LUNG) == kept.ancestors(LUNG) and copy.alias_table() == kept.alias_table()
    (entry,) = entries(tmp_path / "cache")
    (entry / "names.arrow").unlink()
    with pytest.raises(OntologyError, match=r"cannot be opened .*; run the command again"):
        pickle.loads(sent)


def test_loads_that_start_together_read_once_and_all_open_the_entry(tmp_path, spec, readings):
    with ThreadPoolExecutor(4) as pool:  # a lock belongs to an open file, not to a process
        found = list(pool.map(lambda _: load_ontology(spec, tmp_path / "cache"), range(4)))
    assert len(readings) == 1 and all(LUNG in ontology for ontology in found)


def test_a_copy_of_a_release_has_the_name_of_its_own_folder(tmp_path):
    write_umls(tmp_path / "2024AA" / "META", [mrconso(LUNG, "lung")])
    shutil.copytree(tmp_path / "2024AA", tmp_path / "2025ZZ")
    for name in ("2024AA", "2025ZZ", "2024AA"):
        assert (
            f"UMLS {name}," in load_ontology(f"umls:{tmp_path / name / 'META'}", tmp_path / "cache").release
        )
    assert len(entries(tmp_path / "cache")) == 2


def test_options_that_read_alike_have_entries_of_their_own():
    alike = "umls:META?sources=A&term_types=X", "umls:META?sources=A,term types X"
    (one,), (other,) = (registry.parse_spec(spec) for spec in alike)
    assert str(one.options[0]) == str(other.options[0]) and one.key() != other.key()


def test_a_killed_writer_leaves_nothing_under_the_entrys_name(tmp_path, spec, monkeypatch):
    def killed(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compiled.pa, "OSFile", killed)
        with pytest.raises(KeyboardInterrupt):
            load_ontology(spec, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []
    assert LUNG in load_ontology(spec, tmp_path / "cache")


def test_a_folder_that_cannot_be_written_and_a_missing_source_are_named(tmp_path, spec):
    (tmp_path / "file").touch()
    with pytest.raises(OntologyError, match="choose a folder that can be written"):
        load_ontology(spec, tmp_path / "file")
    with pytest.raises(OntologyError, match=r"nowhere.*does not exist"):
        load_ontology(f"tsv:{tmp_path / 'nowhere'}", tmp_path / "cache")
