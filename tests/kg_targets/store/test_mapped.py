"""A large store reads like a small one, from files that processes share."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kg_targets.errors import StoreError
from kg_targets.store import TargetStore, mapped, with_labels
from tests.builds import RICH, build

READ: dict[str, Callable[[TargetStore], Any]] = {
    "image_ids": lambda store: list(store.image_ids),
    "a slice": lambda store: store.captions[2:9:3] + store.captions[-2:],
    "one": lambda store: (store.captions[-1], store.group_ids[np.int64(3)]),
    "cuis": lambda store: list(store.cuis),
    "cases": lambda store: store.cases.tolist(),
    "known": lambda store: store.known.tolist(),
    "label": lambda store: list(store.label("region")),
    "block": lambda store: store.block([3, 1, 1, 7], ["train002", "train000"] * 2).tolist(),
    "rows": lambda store: store.rows(["train007", "train001"]).tolist(),
    "neighbors": lambda store: store.neighbors(0, k=5).to_dict("list"),
    "explain": lambda store: str(store.explain(0, 8)),
    "array": lambda store: np.asarray(store.group_ids, dtype=object).tolist(),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("store"), RICH * 3, rows_per_shard=5).path


@pytest.fixture
def large(path: Path, monkeypatch: pytest.MonkeyPatch) -> TargetStore:
    monkeypatch.setattr(mapped, "MAPPED_FROM", 1)
    return TargetStore.open(path)


@pytest.mark.parametrize("what", READ)
def test_a_large_store_gives_what_a_small_one_gives(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    small = READ[what](TargetStore.open(path))
    monkeypatch.setattr(mapped, "MAPPED_FROM", 1)
    assert READ[what](TargetStore.open(path)) == small


def test_its_columns_and_factors_lie_in_files_that_are_mapped(large: TargetStore) -> None:
    for array in (large.factors.data, large.factors.indices, large.factors.indptr, large.cases, large.known):
        base = array
        while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)
    assert large.captions == TargetStore.open(large.path).captions
    assert not any("partial" in file.name for file in (large.path / mapped.FOLDER).rglob("*"))


@pytest.mark.parametrize("damage", ["zeroed", "shorter", "unnoted"])
def test_a_damaged_copy_is_made_again(large: TargetStore, damage: str) -> None:
    expected = large.block([1, 2, 3])
    (file,) = (large.path / mapped.FOLDER).rglob("factor_value.npy")
    whole = file.read_bytes()
    if damage == "unnoted":
        file.with_name(f"{file.name}.sha256").unlink()
    file.write_bytes(whole[:130] if damage == "shorter" else whole[:128] + bytes(len(whole) - 128))
    np.testing.assert_array_equal(TargetStore.open(large.path).block([1, 2, 3]), expected)
    assert file.read_bytes() == whole


def test_opening_it_reads_nothing_but_the_manifest(
    large: TargetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrow.parquet.read_table", None)
    assert len(TargetStore.open(large.path)) == len(RICH) * 3


def test_pickled_it_is_its_path_and_joined_labels(large: TargetStore, tmp_path: Path) -> None:
    large.block([0, 1])
    assert len(pickle.dumps(large)) < 500
    again = pickle.loads(pickle.dumps(large))
    assert type(again) is TargetStore
    np.testing.assert_array_equal(again.block([0, 1]), large.block([0, 1]))
    table = tmp_path / "labels.csv"
    table.write_text("image_id,site\ntrain000,here\n")
    labelled, _ = with_labels(large, table)
    assert pickle.loads(pickle.dumps(labelled)).label("site")[0] == "here"
    assert "site" not in large.labels


def test_a_misspelt_id_is_named_with_the_one_that_is_meant(large: TargetStore) -> None:
    with pytest.raises(StoreError, match=r"no image 'train00O' \(did you mean 'train0"):
        large.rows(["train000", "train00O"])


def test_copies_of_another_content_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MAPPED_FROM", 1)
    before = list(build(tmp_path, RICH).captions)
    after = build(tmp_path, RICH[::-1])
    assert list(after.captions) == before[::-1]
