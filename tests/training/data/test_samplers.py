"""What samplers guarantee, for any data set, batch size, seed and number of processes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.store.block import case_codes
from tests.builds import CAPTIONS, build
from training.data.config import DataConfig
from training.data.samplers import SAMPLERS, make_sampler
from training.data.samplers.base import Sampler
from training.data.samplers.neighbour_aware import NEAREST, neighbour_table
from training.errors import ConfigError


def data_set(cases: list[int], neighbours: list[list[int]], rows: list[int] | None = None) -> Any:
    """As much of the images as a sampler asks for."""
    lists = pa.chunked_array([pa.array(neighbours, pa.list_(pa.int32()))])
    store = SimpleNamespace(
        cases=case_codes([f"c{case}" for case in cases]),
        column={"neighbor_rows": lists}.__getitem__,
    )
    used = np.arange(len(cases)) if rows is None else np.array(rows)

    class Images(SimpleNamespace):
        def __len__(self) -> int:
            return len(used)

    return Images(store=store, rows=used)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Any, int, int, int]:
    """A data set with cases and neighbours, a global batch size, a number of processes, a seed."""
    world = draw(st.integers(1, 4))
    batch = world * draw(st.integers(2, 6))
    count = draw(st.integers(batch, batch * 6))
    cases = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    near = st.lists(st.integers(0, count - 1), max_size=5, unique=True)
    return (
        data_set(cases, draw(st.lists(near, min_size=count, max_size=count))),
        batch,
        world,
        draw(st.integers(0, 99)),
    )


def make(
    name: str, data: Any, batch: int, seed: int = 0, rank: int = 0, world: int = 1, **fields: Any
) -> Sampler:
    return make_sampler(
        name, data.store, data.rows, batch_size=batch, seed=seed, rank=rank, world_size=world, **fields
    )


@pytest.mark.parametrize("name", SAMPLERS)
@given(world=worlds())
@settings(max_examples=60, deadline=None)
def test_an_epoch_is_full_batches_without_repeats_whatever_the_world_size(name: str, world: Any) -> None:
    data, batch, processes, seed = world
    whole = list(make(name, data, batch, seed).epoch(2))
    assert len(whole) == len(data) // batch and all(len(step) == batch for step in whole)
    shown = np.concatenate(whole)
    assert len(set(shown.tolist())) == len(shown) and shown.min() >= 0 and shown.max() < len(data)
    parts = [list(make(name, data, batch, seed, rank, processes).epoch(2)) for rank in range(processes)]
    for step, images in enumerate(whole):
        assert np.concatenate([part[step] for part in parts]).tolist() == images.tolist()
    again = list(make(name, data, batch, seed).epoch(2))
    assert all((a == b).all() for a, b in zip(again, whole, strict=True))


@pytest.mark.parametrize("name", SAMPLERS)
def test_epochs_and_seeds_differ_and_what_sits_out_differs(name: str) -> None:
    data = data_set([row // 2 for row in range(103)], [[(row + 1) % 103] for row in range(103)])
    first, second, other = (
        np.concatenate(list(make(name, data, 10, seed).epoch(epoch)))
        for seed, epoch in ((0, 1), (0, 2), (1, 1))
    )
    assert first.tolist() != second.tolist() != other.tolist() != first.tolist()
    assert set(first.tolist()) != set(second.tolist())


@given(world=worlds())
@settings(max_examples=100, deadline=None)
def test_cases_are_spread_as_evenly_as_possible(world: Any) -> None:
    data, batch, _, seed = world
    cases = data.store.cases
    steps = list(make("case_aware", data, batch, seed).epoch(1))
    in_epoch = np.bincount(cases[np.concatenate(steps)], minlength=cases.max() + 1)
    for step in steps:
        in_batch = np.bincount(cases[step], minlength=cases.max() + 1)
        assert (in_batch <= -(-in_epoch // len(steps))).all()


def test_case_aware_batches_hold_one_image_of_a_case_where_random_ones_hold_more() -> None:
    data = data_set([row // 5 for row in range(200)], [[]] * 200)
    cases = data.store.cases

    def pairs(name: str) -> int:
        return sum(len(step) - len(set(cases[step].tolist())) for step in make(name, data, 20).epoch(1))

    assert pairs("case_aware") == 0 and pairs("random") > 10


def test_neighbours_meet_far_more_often_than_by_chance() -> None:
    count, group = 2000, 5  # families of five, each image its own case
    neighbours = [
        [r for r in range(row - row % group, row - row % group + group) if r != row] for row in range(count)
    ]
    data = data_set(list(range(count)), neighbours)

    def meetings(name: str, **fields: float) -> int:
        steps = make(name, data, 40, **fields).epoch(1)
        return sum(len(step) - len(set((step // group).tolist())) for step in steps)

    chance = meetings("random")
    assert meetings("neighbour_aware", neighbour_share=0.5) > 4 * chance
    assert abs(meetings("neighbour_aware", neighbour_share=0.0) - chance) < 60
    first = next(make("neighbour_aware", data, 40, neighbour_share=0.5).epoch(1))
    assert 40 - len(set((first // group).tolist())) >= 18  # all of the share, while there are enough


def test_every_process_gets_of_seeds_and_neighbours() -> None:
    data = data_set(list(range(400)), [[row ^ 1] for row in range(400)])
    parts = [next(make("neighbour_aware", data, 40, rank=rank, world=2).epoch(1)) for rank in range(2)]
    together = [{int(row) for row in part} for part in parts]
    split = sum((row ^ 1) in together[1] for row in together[0])
    assert 0 < split < 20  # some pairs are in one process, some across


def test_neighbours_of_the_same_case_or_not_in_use_are_not_looked_at() -> None:
    lists = pa.chunked_array(
        [pa.array([[1, 2, 3], [0]], pa.list_(pa.int32())), pa.array([[3, 0], [2, 1]], pa.list_(pa.int32()))]
    )
    table = neighbour_table(lists, np.array([0, 2, 3]), np.array([7, 7, 8]))
    assert table.shape == (3, NEAREST)
    assert [row[row >= 0].tolist() for row in table] == [[2], [2], [1]]  # by position: 0, 2, 3 are 0, 1, 2


def test_a_sliced_column_keeps_its_neighbours() -> None:
    lists = pa.chunked_array([pa.array([[9], [1, 2], [0], [1]], pa.list_(pa.int32()))[1:]])
    table = neighbour_table(lists, np.arange(3), np.arange(3))
    assert [row[row >= 0].tolist() for row in table] == [[1, 2], [0], [1]]


def test_the_neighbours_of_a_real_store_are_its_own(tmp_path: Path) -> None:
    store = build(tmp_path, CAPTIONS * 2)
    cases = store.cases
    table = neighbour_table(store.column("neighbor_rows"), np.arange(len(store)), cases)
    for row, image_id in enumerate(store.image_ids):
        near = store.neighbors(image_id, k=store.manifest["config"]["top_k"], exclude_case=True)
        expected = [store.row(other) for other in near["image_id"]][:NEAREST]
        assert table[row][table[row] >= 0].tolist() == expected


def test_images_without_a_case_are_cases_of_their_own() -> None:
    first, second, third, fourth, fifth = case_codes(["a", "", "b", "", "a"]).tolist()
    assert first == fifth and sorted([first, second, third, fourth]) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", SAMPLERS)
def test_batches_that_do_not_fit_are_errors(name: str) -> None:
    data = data_set(list(range(40)), [[]] * 40)
    with pytest.raises(ConfigError, match="9 is not a multiple of the 2 processes"):
        make(name, data, 9, world=2)
    with pytest.raises(ConfigError, match="leaves 4 processes one image each"):
        make(name, data, 4, world=4)
    with pytest.raises(ConfigError, match="exceeds the 40 images"):
        make(name, data, 41)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampler": "best"}, 'data.sampler: "best" is not one of random, case_aware, neighbour_aware'),
        ({"neighbour_share": 1.0}, "data.neighbour_share: 1.0 must be at least 0 and at most 0.9"),
        ({"workers": -1}, "data.workers: -1"),
        ({"prefetch": 0}, "data.prefetch: 0"),
    ],
)
def test_fields_out_of_range_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**fields)
    assert message in str(caught.value)
