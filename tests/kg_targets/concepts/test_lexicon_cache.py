"""A lexicon is built once and then mapped; whatever it depends on makes another one; damage is mended."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from kg_targets.concepts import DictionaryExtractor, StopEntry, StopList, lexicon_cache
from kg_targets.concepts.lexicon_build import build_lexicon
from kg_targets.errors import ExtractionError
from kg_targets.ontology import Ontology, load_ontology

CAPTIONS = ["CT: small left pleural effusion, no PTX.", "The heart is not enlarged.", "MRI of the knees"]


@pytest.fixture(scope="module")
def ontology(tmp_path_factory: pytest.TempPathFactory) -> Ontology:
    return load_ontology("seed", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each lexicon that is built."""
    count: list[int] = []

    def counted(*arguments: object) -> object:
        count.append(1)
        return build_lexicon(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(lexicon_cache, "build_lexicon", counted)
    yield count


def entries(ontology: Ontology) -> list[Path]:
    assert ontology.cache_dir is not None
    return sorted(ontology.cache_dir.glob("lexicon-*"))


def test_a_second_extractor_maps_what_the_first_built(ontology: Ontology, built: list[int]) -> None:
    first = DictionaryExtractor(ontology)
    second = DictionaryExtractor(ontology)
    assert len(built) == 1 and len(entries(ontology)) == 1
    assert (
        second.extract(CAPTIONS)
        == first.extract(CAPTIONS)
        == DictionaryExtractor(Ontology.seed()).extract(CAPTIONS)
    )
    columns = [*second.lexicon.index, *second.lexicon.columns, second.lexicon.concepts.names.data]
    assert all(isinstance(column.base, np.memmap) for column in columns)
    assert second.lexicon.skipped == first.lexicon.skipped != {}


def test_stop_list_options_and_code_make_a_lexicon_of_their_own(
    ontology: Ontology, built: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    DictionaryExtractor(ontology)
    built.clear()
    stop = StopList((StopEntry("effusion", "", "a reason"),))
    for count, options in enumerate(
        [{"stop_list": stop}, {"kinds": {"organ"}}, {"semantic_types": ()}, {"trusted": {"C0040405"}}],
        start=1,
    ):
        for _ in range(2):
            DictionaryExtractor(ontology, **options)  # type: ignore[arg-type]
            assert len(built) == count
    DictionaryExtractor(ontology, StopList((StopEntry("effusion", "", "another reason"),)))
    assert len(built) == 4
    monkeypatch.setattr(lexicon_cache, "_code", lambda: ["other code"])
    DictionaryExtractor(ontology)
    assert len(built) == 5


def test_workers_that_start_together_build_once(tmp_path: Path, built: list[int]) -> None:
    ontology = load_ontology("seed", tmp_path)
    with ThreadPoolExecutor(3) as pool:  # a lock belongs to an open file, not to a process
        found = list(pool.map(lambda _: DictionaryExtractor(ontology).extract(CAPTIONS), range(3)))
    assert len(built) == 1 and found[0] == found[1] == found[2]


@pytest.mark.parametrize("damage", ["meta.json", "index-hashes.npy", "shorter", "rolled", "zeroed"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, damage: str, built: list[int]) -> None:
    ontology = load_ontology("seed", tmp_path)
    expected = DictionaryExtractor(ontology).extract(CAPTIONS)
    (entry,) = entries(ontology)
    if damage == "shorter":
        file = entry / "index-text.npy"
        file.write_bytes(file.read_bytes()[:-1])
    elif damage in ("rolled", "zeroed"):  # as many bytes as before
        column = np.load(file := entry / "senses-concept.npy")
        np.save(file, np.roll(column, 1) if damage == "rolled" else np.zeros_like(column))
    else:
        (entry / damage).unlink()
    assert DictionaryExtractor(ontology).extract(CAPTIONS) == expected
    assert len(built) == 2
    assert entries(ontology) == [entry]


def test_an_extractor_travels_as_the_path_of_its_lexicon(tmp_path: Path) -> None:
    ontology = load_ontology("seed", tmp_path)
    extractor = DictionaryExtractor(ontology)
    sent = pickle.dumps(extractor)
    assert len(sent) < 200_000 < sum(file.stat().st_size for file in entries(ontology)[0].iterdir())
    assert pickle.loads(sent).extract(CAPTIONS) == extractor.extract(CAPTIONS)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(extractor.extract, CAPTIONS).result() == extractor.extract(CAPTIONS)


def test_an_entry_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match=r"none: gone or damaged; run the command again"):
        lexicon_cache.opened_lexicon(tmp_path / "none")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ontology = load_ontology("seed", tmp_path)

    def refused(*_: object, **__: object) -> str:
        raise PermissionError("no")

    monkeypatch.setattr("kg_targets.ontology.cache.tempfile.mkdtemp", refused)
    with pytest.raises(ExtractionError, match="choose a folder that can be written"):
        DictionaryExtractor(ontology)
    assert not entries(ontology)
