"""A large store reads like a small one, from files that processes share."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kg_targets.errors import StoreError
from kg_targets.store import TargetStore, mapped, verify_store, with_labels
from kg_targets.store.digest import file_sha256
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


def zeroed(path: Path) -> None:
    np.lib.format.open_memmap(path, "r+")[:] = 0


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize("name", ["factor_value.npy", "cases.npy", "id_index.npy"])
def test_verify_compares_copies_with_the_shards(large: TargetStore, name: str) -> None:
    verify_store(large.path)
    [copy] = large.path.glob(f"{mapped.FOLDER}/*/{name}")
    zeroed(copy)
    copy.with_name(f"{name}.sha256").write_text(
        f"{large.fingerprint} {file_sha256(copy)}\n"
    )  # with a digest that fits
    with pytest.raises(StoreError, match=f"{name} was not what the shards hold and has been made again"):
        verify_store(large.path)
    assert verify_store(large.path)[-1].startswith("mapped copies are what the shards hold")


def test_verify_compares_copies_of_columns_that_no_check_reads(large: TargetStore) -> None:
    list(large.label("region"))
    [copy] = large.path.glob(f"{mapped.FOLDER}/*/label_region.arrow")
    truncated(copy)
    with pytest.raises(StoreError, match=r"label_region\.arrow was not what the shards hold"):
        verify_store(large.path)


@pytest.fixture
def read_only(large: TargetStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TargetStore:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return TargetStore.open(large.path)


def test_copies_of_a_read_only_store_lie_where_nobody_else_can_write(
    read_only: TargetStore, tmp_path: Path
) -> None:
    read_only.block([1, 2])
    [folder] = tmp_path.glob("kg-targets-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [*folder.rglob("factor_value.npy")]


@pytest.mark.parametrize("others", ["link", "open", "file"])
def test_a_folder_that_others_could_have_made_is_not_used(
    read_only: TargetStore, tmp_path: Path, others: str
) -> None:
    place, elsewhere = tmp_path / f"kg-targets-{os.getuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if others == "link":
        place.symlink_to(elsewhere)
    elif others == "open":
        place.mkdir()
        place.chmod(0o777)
    else:
        place.touch()
    with pytest.warns(UserWarning, match=r"read into memory"):
        block = read_only.block([1, 2, 3])
    assert block.shape == (3, 3) and read_only.captions[0]
    assert not [*tmp_path.rglob("*.npy"), *tmp_path.rglob("*.arrow")]


def test_ids_are_found_by_an_index_and_compared_in_full(
    large: TargetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrow.compute.index_in", None)
    ids = list(large.image_ids)
    assert large.rows(ids[::-1]).tolist() == list(range(len(ids)))[::-1]
    assert TargetStore.open(large.path).row(ids[3]) == 3


def test_ids_of_one_key_are_told_apart(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = shutil.copytree(path, tmp_path / "store", ignore=shutil.ignore_patterns(mapped.FOLDER))
    monkeypatch.setattr(mapped, "MAPPED_FROM", 1)
    monkeypatch.setattr(
        "kg_targets.store.reader.key64", lambda names: np.array([len(name) for name in names], np.uint64)
    )
    store = TargetStore.open(folder)
    ids = list(store.image_ids)
    assert store.rows(ids).tolist() == list(range(len(ids)))
    with pytest.raises(StoreError, match="no image 'train999'"):
        store.rows(["train999"])
