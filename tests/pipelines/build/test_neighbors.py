"""Neighbours of a build: none, exact or approximate; a killed search goes on where it was."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from kg_targets.errors import ConfigError, StoreError
from kg_targets.inspect.card import write_card
from kg_targets.scoring import DENSE, Factors, candidates
from kg_targets.scoring import neighbors as scoring_neighbors
from kg_targets.scoring.neighbors import id_angles
from kg_targets.store import TargetStore, verify_store
from pipelines.build import neighbors
from pipelines.build.config import BuildConfig
from pipelines.build.executors import map_in_order
from pipelines.build.neighbors import find_neighbors
from pipelines.cli import main
from tests.builds import RICH, build, digests


def random_factors(rows: int) -> Factors:
    """Sparse factors with repeats: every row is one of ``rows`` / 2 drawn ones."""
    generator = np.random.default_rng(0)
    drawn = sparse.random_array((rows // 2, 40), density=0.15, format="csr", dtype=np.float32, rng=generator)
    return Factors(sparse.csr_array(drawn[generator.integers(0, rows // 2, rows)]), np.ones(rows, dtype=bool))


def found(
    tmp_path: Path, rows: int = 600, way: str = "exact", workers: int = 1
) -> tuple[np.ndarray, list[str]]:
    said: list[str] = []
    angles = id_angles([f"image{row}" for row in range(rows)])
    places = {"folder": tmp_path / "folder", "state": tmp_path / "state"}
    result, _ = find_neighbors(
        random_factors(rows), angles, k=8, way=way, **places, workers=workers, say=said.append
    )
    assert result is not None
    return np.array(result[0]), said


def test_without_neighbours_the_columns_are_not_there_and_everything_else_is(tmp_path: Path) -> None:
    with_them, store = build(tmp_path / "with", RICH), build(tmp_path / "without", RICH, top_k=0)
    names = pq.read_schema(store.path / "targets" / "part-00000.parquet").names
    assert not {"neighbor_rows", "neighbor_scores"} & set(names)
    np.testing.assert_array_equal(store.block(range(len(store))), with_them.block(range(len(store))))
    assert "no neighbours are kept (--top-k 0)" in verify_store(store.path)


def test_the_lists_that_are_looked_through_do_not_grow_with_the_rows() -> None:
    longest = []
    for rows in (10_000, 40_000):
        factors = random_factors(rows).matrix
        index = candidates.Candidates(sparse.csr_array(factors))
        longest.append(int(np.diff(index._lists.indptr).max()))
    assert max(longest) <= 2_048


def test_readers_of_a_store_without_neighbours_say_how_to_make_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = build(tmp_path, RICH, top_k=0)
    for ask in (lambda: store.neighbors(0), lambda: store.column("neighbor_rows")):
        with pytest.raises(StoreError, match=r"keeps no neighbours .*build it with --top-k 64"):
            ask()
    assert main(["explain", str(store.path), "train000"]) == 2
    assert "name a second image, or build it with --top-k 64" in capsys.readouterr().err
    assert main(["explain", str(store.path), "train000", "train001"]) == 0
    page = write_card(store, tmp_path / "card.html").read_text()
    assert "keeps no\nneighbours (--top-k 0)" in page


@pytest.mark.parametrize("damage", ["none", "zeroed", "shorter"])
def test_a_killed_search_resumes_and_ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(scoring_neighbors, "_QUERIES", 16)
    monkeypatch.setattr(neighbors, "_QUICK", 2)
    whole, _ = found(tmp_path / "whole")
    do, done = neighbors._find, []

    def killed(number: int) -> None:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(do(number))

    monkeypatch.setattr(neighbors, "_find", killed)
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path / "killed")
    monkeypatch.setattr(neighbors, "_find", do)
    (file,) = (tmp_path / "killed").rglob("rows.npy")
    if damage != "none":
        file.write_bytes(file.read_bytes()[:128] + bytes(600 * 8 * 4 if damage == "zeroed" else 9))
    resumed, said = found(tmp_path / "killed", workers=2)
    assert [line.partition(" of ")[0] for line in said] == ["neighbours: 5"] * (damage == "none")
    np.testing.assert_array_equal(resumed, whole)


@pytest.mark.parametrize("way", ["exact", "approximate"])
def test_the_number_of_processes_plays_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    for name, value in {"_LONGEST": 8, "_FOUND": 32}.items():
        monkeypatch.setattr(candidates, name, value)
    one, two = (found(tmp_path / str(workers), way=way, workers=workers)[0] for workers in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("way", ["exact", "approximate"])
def test_verify_looks_at_the_neighbours_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    store = build(tmp_path, RICH, neighbors=way)
    assert any(line.startswith("neighbours ") for line in verify_store(store.path))
    column = TargetStore.column
    for rows in (lambda line: [0] * len(line), lambda line: [10**6] * len(line), lambda line: line[::-1]):

        def changed(self: TargetStore, name: str, rows: Any = rows) -> Any:
            found = column(self, name)
            return pa.chunked_array([[*map(rows, found.to_pylist())]]) if name == "neighbor_rows" else found

        monkeypatch.setattr(TargetStore, "column", changed)
        with pytest.raises(StoreError, match=r"are not its nearest|a row that there is not is named"):
            verify_store(store.path)


def test_a_worker_that_is_killed_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"a worker process was killed, .* take fewer --workers"):
        list(map_in_order(_kill_itself, range(3), workers=2))


def _kill_itself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_approximate_neighbours_tell_their_recall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_LONGEST": 2, "_FOUND": 4}.items():
        monkeypatch.setattr(candidates, name, value)
    exact, store = (
        build(tmp_path / "exact", RICH * 2),
        build(tmp_path / "near", RICH * 2, neighbors="approximate"),
    )
    told = store.manifest["neighbors"]
    assert told["way"] == "approximate" and 0 < told["recall"] <= 1
    here, there = (each.column("neighbor_rows").to_pylist() for each in (store, exact))
    hits = sum(len({*few} & {*all_of}) for few, all_of in zip(here, there, strict=True))
    assert told["recall"] == pytest.approx(hits / sum(map(len, there)), abs=1e-4)
    assert any(line.startswith("neighbours are approximate") for line in verify_store(store.path))
    assert "neighbors" not in exact.manifest


def test_exact_and_auto_are_the_same_store_up_to_the_option(tmp_path: Path) -> None:
    auto, exact = build(tmp_path / "auto", RICH), build(tmp_path / "exact", RICH, neighbors="exact")
    one, two = digests(auto.path), digests(exact.path)
    assert one.pop("manifest.json") != two.pop("manifest.json")
    assert one == two
    assert TargetStore.open(auto.path).manifest["config"].get("neighbors") is None


@pytest.mark.parametrize("scorer", DENSE)
def test_approximate_search_of_dense_factors_is_refused_before_anything_is_read(scorer: str) -> None:
    with pytest.raises(ConfigError, match=f"those of {scorer} are dense"):
        BuildConfig("roco", scorer=scorer, neighbors="approximate")
    BuildConfig("roco", scorer=scorer, neighbors="approximate", top_k=0)
