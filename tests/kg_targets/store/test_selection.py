"""Images are named by ids or by row numbers, and the type alone decides: an id that looks like a number is an id."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kg_targets.errors import StoreError
from kg_targets.store import TargetStore
from tests.builds import CAPTIONS, build

IDS = ["2", "0", "1", "7", "3", "6", "5", "4"]
"""Ids that look like row numbers, each of another row."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("selection"), CAPTIONS).path


@pytest.fixture
def store(path: Path) -> TargetStore:
    store = TargetStore.open(path)
    store.image_ids = IDS  # type: ignore[assignment]
    return store


@pytest.mark.parametrize(
    "named",
    [
        ["1", "2"],
        ("1", "2"),
        [np.str_("1"), "2"],
        np.array(["1", "2"]),
        np.array(["1", "2"], dtype=object),
        pd.Series(["1", "2"], index=[7, 3]),
        pd.Series(["1", "2"], dtype="category"),
        pd.Index(["1", "2"]),
        pa.array(["1", "2"]),
    ],
    ids=lambda named: type(named).__name__,
)
def test_ids_are_looked_up_whatever_holds_them(named: Any, store: TargetStore) -> None:
    assert store.rows(named).tolist() == [2, 0]
    np.testing.assert_array_equal(store.block(named), store.block([2, 0]))
    np.testing.assert_array_equal(store.block([3, 2, 0], named), store.block([3, 2, 0], [2, 0]))


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 2],
        range(1, 3),
        [np.int32(1), 2],
        np.array([1, 2], dtype=np.uint8),
        np.array([1, 2], dtype=object),
        pd.Series([1, 2], index=["a", "b"]),
        pd.Series([1, 2], dtype="Int64"),
        pd.Index([1, 2]),
        pa.array([1, 2]),
    ],
    ids=lambda numbers: type(numbers).__name__,
)
def test_integers_are_row_numbers_whatever_holds_them(numbers: Any, store: TargetStore) -> None:
    rows = store.rows(numbers)
    assert rows.tolist() == [1, 2] and rows.dtype == np.int64


def test_every_question_takes_an_id_and_its_row_number_alike(store: TargetStore) -> None:
    for name, row in (("2", 0), (np.str_("2"), np.int64(0))):
        pd.testing.assert_frame_equal(store.neighbors(name, 3), store.neighbors(row, 3))
        assert store.explain(name, "0") == store.explain(row, 1) != store.explain("1", "0")
        assert dict(store.to_networkx(name).nodes) == dict(store.to_networkx(row).nodes)
        assert store.block(name, "0") == store.block(row, 1)
        assert store.row(name) == store.row(row) == 0 and "2" in store.to_networkx(row)
    assert store.explain(0, 1).first == "2" and store.block("2").tolist() == [[1.0]]


@pytest.mark.parametrize(
    "nothing", [[], (), range(0), np.array([]), np.array([], dtype=str), pd.Series([], dtype=object)]
)
def test_nothing_selected_gives_an_empty_block(nothing: Any, store: TargetStore) -> None:
    assert store.block(nothing).shape == (0, 0) and store.block(nothing, ["1", "2"]).shape == (0, 2)
    assert store.block([0, 1], nothing).shape == (2, 0) and store.block(nothing).dtype == np.float32


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["1", 2], "all ids (str) or all row numbers (int); got int, str"),
        ([True, False], "not booleans: take numpy.flatnonzero(mask)"),
        (np.array([True, False]), "not booleans: take numpy.flatnonzero(mask)"),
        (True, "not booleans"),
        ([1.0, 2.0], "got float"),
        (np.array([1.0]), "got float"),
        ([1, None], "got NoneType, int"),
        (["1", None], "got NoneType, str"),
        (pd.Series(["1", None]), "got"),
        ({"1"}, "got set"),
        ([b"1"], "got bytes"),
        ([[1, 2]], "shape (1, 2)"),
        (np.eye(2, dtype=int), "shape (2, 2)"),
        ([0, 8], "row numbers must be between 0 and 7; got 0–8"),
        ([-1], "row numbers must be between 0 and 7; got -1–-1"),
        (2**70, "row numbers must be between 0 and 7"),
        (["1", "9"], "has no image '9'"),
        ("11", "has no image '11' (did you mean '1'?)"),
        ("chest", "has no image 'chest' (its first is '2')"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_neither_is_refused_in_one_line(wrong: Any, message: str, store: TargetStore) -> None:
    asked: tuple[Callable[[Any], Any], ...] = (
        store.rows,
        store.block,
        lambda images: store.block([0], images),
    )
    for ask in asked:
        with pytest.raises(StoreError) as caught:
            ask(wrong)
        assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_image_is_not_the_first(store: TargetStore) -> None:
    with pytest.raises(StoreError, match="got NoneType"):
        store.block(None)  # type: ignore[arg-type]


def test_a_number_in_quotes_that_is_no_id_is_told_how_to_name_the_row(path: Path) -> None:
    with pytest.raises(StoreError, match=r"has no image '3' \(row 3 is the integer 3, not the text"):
        TargetStore.open(path).block(["3"])


@pytest.mark.parametrize("several", [["1"], [0], np.array([0, 1]), []])
def test_one_image_is_not_a_list_of_images(several: Any, store: TargetStore) -> None:
    for ask in (store.row, store.neighbors, store.to_networkx, lambda image: store.explain(image, "0")):
        with pytest.raises(StoreError, match="one image was asked for"):
            ask(several)


def test_row_numbers_do_not_read_the_ids(path: Path) -> None:
    store = TargetStore.open(path)
    store.block([0, 1])
    assert "image_ids" not in vars(store)


def test_cases_are_numbered_and_an_image_without_one_is_its_own(path: Path) -> None:
    store = TargetStore.open(path)
    assert store.cases.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    store = TargetStore.open(path)
    store.group_ids = ["b", "", "b", ""] * 2  # type: ignore[assignment]
    assert len(set(store.cases.tolist())) == 5 and store.cases[0] == store.cases[2]
