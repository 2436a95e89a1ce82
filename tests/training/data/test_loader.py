"""Batches decoded in the background: the same as without, whatever is broken, and no thread is left behind."""

import json
import logging
import threading
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.images import first_pixels, plain_clip, plain_store, write_images
from training.data.dataset import Batch, CaptionedImages
from training.data.loader import Loader
from training.data.samplers import make_sampler
from training.data.sources import open_source
from training.errors import DataError

COUNT, SIZE = 50, 8
BROKEN = (4, 17, 18, 33)


def images(root: Path, broken: tuple[int, ...] = (), **options: Any) -> CaptionedImages:
    store = plain_store(COUNT)
    if not root.exists():
        write_images(root, store, broken)
    return CaptionedImages(store, open_source(root, store), plain_clip(), **{"in_memory": False, **options})


def loader(data: CaptionedImages, workers: int = 0, rank: int = 0, world: int = 1, **options: Any) -> Loader:
    sampler = make_sampler(
        "random", data.store, data.rows, batch_size=SIZE, seed=3, rank=rank, world_size=world
    )
    return Loader(data, sampler, workers, **{"prefetch": 2, **options})


def rows(batches: list[Batch]) -> list[list[int]]:
    for batch in batches:
        assert first_pixels(batch.pixels) == batch.rows.tolist() == batch.tokens[:, 0].tolist()
    return [batch.rows.tolist() for batch in batches]


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.parametrize("prefetch", [1, 5])
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_threads_change_neither_order_nor_content(workers: int, prefetch: int, tmp_path: Path) -> None:
    expected = rows(list(loader(images(tmp_path / "a")).epoch(2)))
    plan = loader(images(tmp_path / "a")).sampler.epoch(2)
    assert expected == [positions.tolist() for positions in plan]
    assert rows(list(loader(images(tmp_path / "a"), workers, prefetch=prefetch).epoch(2))) == expected


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("in_memory", [True, False])
def test_an_epoch_can_be_entered_at_any_step(workers: int, in_memory: bool, tmp_path: Path) -> None:
    data = images(tmp_path / "a", in_memory=in_memory)
    whole = rows(list(loader(data, workers).epoch(1)))
    for skip in (1, 5, 6):
        assert rows(list(loader(data, workers).epoch(1, skip))) == whole[skip:]


def test_skipped_steps_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = images(tmp_path / "a")
    decoded: list[int] = []
    read = data.source.read
    monkeypatch.setattr(data.source, "read", lambda row: (decoded.append(row), read(row))[1])
    [last] = loader(data, 2).epoch(1, skip=5)
    assert sorted(decoded) == sorted(last.rows.tolist())


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("workers", [0, 3])
def test_broken_images_are_skipped_counted_once_and_named(
    in_memory: bool, workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        data = images(tmp_path / "a", BROKEN, in_memory=in_memory, max_broken=len(BROKEN))
        batches = loader(data, workers)
        for epoch in (1, 2, 3):
            for batch in rows(list(batches.epoch(epoch))):
                assert not set(batch) & set(BROKEN) and len(set(batch)) == SIZE
    assert len(data.broken) == len(BROKEN)
    for row in BROKEN:
        assert sum(f"case{row:03d}.png" in name for name in data.broken) == 1
    assert f"case{BROKEN[0]:03d}.png" in caplog.text


def test_a_broken_image_is_replaced_by_the_same_one_whatever_threads_and_processes_there_are(
    tmp_path: Path,
) -> None:
    def run(workers: int, world: int = 1) -> list[list[int]]:
        parts = [
            rows(list(loader(images(tmp_path / "a", BROKEN, max_broken=4), workers, rank, world).epoch(1)))
            for rank in range(world)
        ]
        return [list(chain.from_iterable(step)) for step in zip(*parts, strict=True)]

    expected = run(0)
    assert run(1) == run(2) == run(5) == run(0, world=2) == run(3, world=4) == expected
    plan = [positions.tolist() for positions in loader(images(tmp_path / "a", max_broken=4)).sampler.epoch(1)]
    for step, (shown, planned) in enumerate(zip(expected, plan, strict=True)):
        for place, (row, wanted) in enumerate(zip(shown, planned, strict=True)):
            following = [plan[(step + later) % len(plan)][place] for later in range(len(plan))]
            assert row == next(other for other in following if other not in BROKEN), wanted


def test_more_broken_images_than_allowed_are_an_error_that_names_them(tmp_path: Path) -> None:
    for workers in (0, 2):
        data = images(tmp_path / "a", BROKEN, max_broken=2)
        with pytest.raises(DataError, match=r"^3 broken image\(s\), 2 allowed \(data.max_broken\)") as caught:
            for epoch in (1, 2, 3):
                list(loader(data, workers).epoch(epoch))
        assert str(caught.value).count(".png") == 3 and "\n" not in str(caught.value)
        assert loader_threads() == []


def test_a_continued_run_counts_and_replaces_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole = loader(images(tmp_path / "a", BROKEN, max_broken=4), 2)
    expected = [*rows(list(whole.epoch(1))), *rows(list(whole.epoch(2)))]
    first = loader(images(tmp_path / "a", BROKEN, max_broken=4), 2)
    shown, steps = [], first.epoch(1)
    for _ in range(4):
        shown.append(next(steps))
    state = json.loads(json.dumps(first.state()))
    steps.close()
    second = loader(images(tmp_path / "a", BROKEN, max_broken=4), 1)
    second.load_state(state)
    shown += [*second.epoch(1, skip=4), *second.epoch(2)]
    assert rows(shown) == expected
    assert second.state() == whole.state() and second.images.broken == whole.images.broken


def test_an_epoch_of_one_step_repeats_an_image_of_the_batch(tmp_path: Path) -> None:
    store = plain_store(4)
    write_images(tmp_path / "a", store, broken=[2])
    data = CaptionedImages(
        store, open_source(tmp_path / "a", store), plain_clip(), in_memory=False, max_broken=1
    )
    [batch] = Loader(data, make_sampler("random", data.store, data.rows, batch_size=4, seed=0), 2).epoch(1)
    assert set(batch.rows.tolist()) == {0, 1, 3}


@pytest.mark.parametrize("workers", [0, 2])
def test_no_readable_image_at_all_is_an_error_and_not_a_loop(workers: int, tmp_path: Path) -> None:
    data = images(tmp_path / "a", tuple(range(COUNT)), max_broken=COUNT)
    with pytest.raises(DataError, match="no image can be read"):
        list(loader(data, workers).epoch(1))


@pytest.mark.parametrize("leave", ["break", "error", "interrupt", "close"])
def test_leaving_early_stops_the_threads(leave: str, tmp_path: Path) -> None:
    batches = loader(images(tmp_path / "a"), 3).epoch(1)
    errors = {"error": RuntimeError, "interrupt": KeyboardInterrupt}
    if leave in errors:
        with pytest.raises(errors[leave]):
            for _ in batches:
                assert loader_threads()
                raise errors[leave]
    for _ in batches:
        break
    batches.close()
    assert loader_threads() == []


def test_an_error_of_a_thread_reaches_the_consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = images(tmp_path / "a")

    def read(row: int) -> Any:
        raise DataError("pydicom is not installed")

    monkeypatch.setattr(data.source, "read", read)
    with pytest.raises(DataError, match="pydicom is not installed"):
        next(loader(data, 2).epoch(1))
    assert loader_threads() == []


def test_decoding_goes_on_while_the_consumer_works_and_stays_within_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = images(tmp_path / "a")
    read, decoded = data.source.read, []
    monkeypatch.setattr(data.source, "read", lambda row: (decoded.append(row), read(row))[1])
    batches = loader(data, 2, prefetch=2)
    steps = batches.epoch(1)
    next(steps)
    deadline = time.monotonic() + 20
    while len(decoded) < 3 * SIZE and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(decoded) == 3 * SIZE  # the batch in use and two ahead, and no more
    assert batches.waited > 0
    steps.close()


def test_a_gallery_can_be_streamed_once_its_broken_images_are_known(tmp_path: Path) -> None:
    data = images(tmp_path / "a", BROKEN, max_broken=4, verify=True)
    assert not data.in_memory and len(data) == COUNT - 4 and len(data.broken) == 4
    assert first_pixels(data.batch(range(len(data))).pixels) == data.rows.tolist()
    unknown = images(tmp_path / "a", max_broken=4)
    with pytest.raises(DataError, match=r"case004\.png .*it cannot be skipped here"):
        unknown.batch(range(len(unknown)))


def test_in_memory_and_streamed_pixels_are_the_same(tmp_path: Path) -> None:
    first, second = (images(tmp_path / "a", in_memory=keep) for keep in (True, False))
    for positions in ([1, 2, 3], np.array([49, 0])):
        assert torch.equal(first.batch(positions).pixels, second.batch(positions).pixels)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_file_that_vanishes_while_training_is_a_broken_image(
    damage: Callable[[Path], Any], tmp_path: Path
) -> None:
    data = images(tmp_path / "a", max_broken=1)
    damage(tmp_path / "a" / data.store.image_paths[9])
    for batch in rows(list(loader(data, 2).epoch(1)) + list(loader(data, 2).epoch(2))):
        assert 9 not in batch
    assert ["case009.png" in name for name in data.broken] == [True]


def test_messages_name_the_option_of_the_command_that_reads(tmp_path: Path) -> None:
    named = {"option": "--max-broken"}
    with pytest.raises(DataError, match=r"^4 broken image\(s\), 1 allowed \(--max-broken\)"):
        images(tmp_path / "a", BROKEN, max_broken=1, verify=True, **named)
    with pytest.raises(DataError, match=r"allow for it \(--max-broken\)$"):
        images(tmp_path / "a", **named).batch([BROKEN[0]])
    with pytest.raises(DataError, match=r"allow for it \(data\.max_broken\)$"):
        images(tmp_path / "a").batch([BROKEN[0]])


def test_images_too_large_to_be_kept_are_decoded_at_each_use_which_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = images(tmp_path / "a", in_memory=None)
    assert kept.in_memory and not kept.streamed
    monkeypatch.setattr("training.data.dataset.IN_MEMORY_BYTES", 1000)
    streamed = images(tmp_path / "a", in_memory=None)
    assert not streamed.in_memory
    assert "50 images take" in streamed.streamed and "--data.in_memory true keeps them" in streamed.streamed
    assert images(tmp_path / "a", in_memory=True).in_memory
    assert rows(list(loader(streamed, 2).epoch(1))) == rows(list(loader(kept).epoch(1)))


def test_left_alone_there_is_a_thread_for_each_core_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.loader.own_cores", lambda: 3)
    coming = loader(images(tmp_path / "a"), None).epoch(1)
    next(coming)
    assert len(loader_threads()) == 3
    coming.close()


@pytest.mark.parametrize(("in_memory", "workers"), [(True, 0), (False, 0), (False, 2)])
def test_pixels_for_a_gpu_are_written_into_pinned_memory(
    in_memory: bool, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = images(tmp_path / "a", in_memory=in_memory)
    pinned: list[Tensor] = []
    empty = CaptionedImages.empty

    def recording(self: CaptionedImages, count: int, pin: bool = False) -> Tensor:
        made = empty(self, count)
        pinned.extend([made] if pin else [])
        return made

    monkeypatch.setattr(CaptionedImages, "empty", recording)
    batches = list(loader(data, workers, pin=True).epoch(1))
    assert [one.data_ptr() for one in pinned] == [batch.pixels.data_ptr() for batch in batches]
