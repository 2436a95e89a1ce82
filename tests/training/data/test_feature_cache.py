"""Frozen features on disk: computed once, shared, and never wrong without saying so."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.data.feature_cache import FeatureCache, content_key, module_key
from training.errors import CheckpointError, DataError


def filled(folder: Path, keys: list[str], calls: list[int], share: slice = slice(None)) -> FeatureCache:
    cache = FeatureCache(folder, "a" * 64)

    def compute(position: int) -> Tensor:
        calls.append(position)
        return torch.full((2, 3), float(position))

    cache.complete(keys, compute, "numbers", share)
    return cache


def test_what_is_there_is_not_computed_again_and_comes_in_the_order_asked_for(tmp_path: Path) -> None:
    calls: list[int] = []
    keys = [content_key(torch.tensor([n])) for n in range(4)]
    filled(tmp_path, keys[:2], calls)
    cache = filled(tmp_path, keys, calls)
    assert sorted(calls) == [0, 1, 2, 3]
    found = cache.load([keys[3], keys[0], keys[3]])
    assert found.dtype == torch.float16 and found.shape == (3, 2, 3)
    assert found[:, 0, 0].tolist() == [3, 0, 3]
    assert not list(tmp_path.rglob("*.part"))


def test_processes_share_the_work(tmp_path: Path) -> None:
    keys = [content_key(torch.tensor([n])) for n in range(5)]
    calls: list[int] = []
    first = filled(tmp_path / "a", keys, calls, slice(0, None, 2))
    assert len(calls) == 3
    with pytest.raises(DataError, match="remove"):
        first.load(keys)  # what the other process has not written yet
    filled(tmp_path / "a", keys, calls, slice(0, None, 2)), filled(tmp_path / "a", keys, calls)
    assert sorted(calls) == [0, 1, 2, 3, 4]


def cut_off(content: bytes) -> bytes:
    return content[:-3]


def other_values(content: bytes) -> bytes:
    return content[:-20] + bytes(4) + content[-16:]


@pytest.mark.parametrize("damage", [cut_off, other_values, lambda content: b"", lambda content: b"x" * 200])
def test_a_damaged_file_is_named_with_what_to_do(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    keys = [content_key(torch.tensor([number])) for number in (1, 2)]
    cache = filled(tmp_path, keys, [])
    (file,) = tmp_path.rglob(f"{keys[1]}.npy")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=f"{keys[1]}.npy cannot be used .*: remove it, it is only a cache"):
        cache.load(keys)


def test_features_are_computed_on_one_thread_whatever_the_run_has(tmp_path: Path) -> None:
    threads, seen = torch.get_num_threads(), []

    def compute(position: int) -> Tensor:
        seen.append(torch.get_num_threads())
        return torch.zeros(1)

    torch.set_num_threads(3)
    try:
        FeatureCache(tmp_path, "c" * 64).complete(["k" * 64], compute, "numbers")
        assert seen == [1] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_a_folder_that_cannot_be_written_is_named_by_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"--data\.cache .*cannot be written"):
        filled(tmp_path / "file", [content_key(torch.tensor([1]))], [])


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "b" * 64)
    with pytest.raises(DataError, match="float16"):
        cache.complete(["k" * 64], lambda _: torch.tensor([1e6]), "numbers")


def test_keys_tell_contents_weights_and_settings_apart() -> None:
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    assert content_key(image) == content_key(image.clone()) != content_key(image.view(3, 2, 8))
    layer = nn.Linear(2, 2)
    key = module_key(layer, views=2)
    assert key == module_key(layer, views=2) != module_key(layer, views=3)
    with torch.no_grad():
        layer.weight[0, 0] += 1
    assert module_key(layer, views=2) != key
