"""From store rows to targets: similarities from the store or from factors kept on a device, ids, cases and policies."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from scipy import sparse

from kg_targets.losses.contrastive import gather_rows
from kg_targets.losses.policies import evidence_policy
from kg_targets.losses.registry import LOSSES
from kg_targets.store import TargetStore
from kg_targets.store.block import case_codes
from kg_targets.store.factors import MixedFactors, parts_of
from tests.training.nb_clip.fakes import builder, fake_store
from training.errors import ConfigError, ShapeError
from training.nb_clip import batch_targets as blocks
from training.nb_clip.batch_targets import (
    Blocks,
    DeviceBlocks,
    HostBlocks,
    TargetBuilder,
    factor_bytes,
    make_blocks,
)
from training.nb_clip.config import LossConfig, PolicyConfig

CPU = torch.device("cpu")
IMAGES, CONCEPTS = 300, 90
LOCAL = torch.tensor([5, 0, 299, 7, 42, 7, 11])  # 7 twice; rows 0, 7, 14, … know nothing
GLOBAL = torch.cat([torch.arange(20, 60), LOCAL, torch.tensor([5, 1])])


def make_store(kind: str) -> TargetStore:
    """A store of unit factors, sparse with a few concepts that most images have, dense or half each.

    Every 7th row is empty.
    """
    rng = np.random.default_rng(0)
    share = np.where(np.arange(CONCEPTS) < 5, 0.8, 0.06)
    factors = rng.normal(size=(IMAGES, CONCEPTS)) * (rng.random((IMAGES, CONCEPTS)) < share)
    factors[::7] = 0
    factors /= np.maximum(np.linalg.norm(factors, axis=1, keepdims=True), 1e-12)
    store = TargetStore(Path("fake"), {"rows": IMAGES, "similarity": {"fit_p95": 0.2}})
    known = factors.any(axis=1)
    dense = factors.astype(np.float32)
    half = CONCEPTS // 2
    store.__dict__["factors"] = {
        "sparse": sparse.csr_array(dense),
        "dense": dense,
        "mixed": MixedFactors(sparse.csr_array(dense[:, :half]), dense[:, half:]),
    }[kind]
    store.__dict__.update(known=known, group_ids=[f"case{row // 2}" for row in range(IMAGES)])
    return store


def reference(store: TargetStore, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """S in float64 from the definition."""
    parts = [part if isinstance(part, np.ndarray) else part.toarray() for part in parts_of(store.factors)]
    dense = np.hstack(parts).astype(np.float64)
    block = torch.from_numpy(dense[rows.numpy()] @ dense[columns.numpy()].T)
    return torch.where(rows[:, None] == columns[None, :], 1.0, block.clamp(-1, 1))


@pytest.mark.parametrize("kind", ["sparse", "dense", "mixed"])
@pytest.mark.parametrize("scratch", [1 << 28, 4 * CONCEPTS * 10, 1])
@pytest.mark.parametrize("rows_global", [LOCAL, GLOBAL])
def test_blocks_from_the_devices_factors_equal_the_definition_and_the_stores_block(
    kind: str, scratch: int, rows_global: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_SCRATCH_BYTES", scratch)  # the whole width at once, ten columns, one column
    store = make_store(kind)
    found = DeviceBlocks(store.factors, CPU)(LOCAL, rows_global)
    host = HostBlocks(store, CPU)(LOCAL, rows_global)
    for device_block, host_block in zip(found, host, strict=True):
        assert device_block.dtype == host_block.dtype == torch.float32
        torch.testing.assert_close(
            device_block.double(), reference(store, LOCAL, rows_global), atol=1e-6, rtol=0
        )
        torch.testing.assert_close(device_block, host_block, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["sparse", "dense", "mixed"])
def test_a_batch_of_images_without_concepts_is_the_identity(kind: str) -> None:
    rows = torch.tensor([0, 7, 14])
    image_text, _ = DeviceBlocks(make_store(kind).factors, CPU)(rows, rows)
    assert torch.equal(image_text, torch.eye(3))


@pytest.mark.parametrize("name", ["semantic_matching", "mse", "sigmoid"])
def test_targets_are_the_same_from_the_device_and_from_the_host(name: str) -> None:
    builder = TargetBuilder(make_store("sparse"), LossConfig(name=name), PolicyConfig(), CPU)
    assert isinstance(builder.blocks, HostBlocks)
    rows = torch.arange(3, 60)
    expected = builder(rows[20:40], rows, 20, 0.1)
    builder.blocks = cast(Blocks, DeviceBlocks(make_store("sparse").factors, CPU))
    found = builder(rows[20:40], rows, 20, 0.1)
    torch.testing.assert_close(found.i2t, expected.i2t, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.t2i, expected.t2i, atol=1e-5, rtol=0)
    assert found.t2i is found.i2t  # S is symmetric by construction: one policy serves both directions
    assert found.mask is not None and expected.mask is not None and torch.equal(found.mask, expected.mask)


def test_factors_beyond_the_budget_stay_on_the_host() -> None:
    store = make_store("sparse")
    assert factor_bytes(store.factors) == 8 * store.factors.nnz
    assert factor_bytes(make_store("dense").factors) == 4 * IMAGES * CONCEPTS
    mixed = make_store("mixed").factors
    assert factor_bytes(mixed) == 8 * mixed.sparse.nnz + 4 * IMAGES * CONCEPTS // 2
    for device, budget in ((CPU, 1000), (torch.device("cuda"), 0)):
        assert isinstance(make_blocks(store, device, budget), HostBlocks)


def test_targets_follow_the_rows_of_the_batch_and_the_stores_threshold() -> None:
    store = fake_store(cases=10)
    rows = torch.tensor([7, 1, 9])
    targets = builder(store)(rows, rows, 0)
    block = torch.from_numpy(store.similarity[np.ix_([7, 1, 9], [7, 1, 9])])
    torch.testing.assert_close(targets.i2t, evidence_policy(block, store.threshold))
    torch.testing.assert_close(targets.t2i, evidence_policy(block.T, store.threshold))
    assert targets.mask is None


def test_a_later_process_gets_the_same_targets_as_its_rows_of_the_whole_batch() -> None:
    store = fake_store()
    rows = torch.tensor([7, 1, 9, 3, 0, 8])
    whole = builder(store)(rows, rows, 0)
    part = builder(store)(rows[3:], rows, 3)
    torch.testing.assert_close(part.i2t, whole.i2t[3:])
    torch.testing.assert_close(part.t2i, whole.t2i[3:])
    assert whole.mask is not None and part.mask is not None
    assert torch.equal(part.mask, whole.mask[3:])


@pytest.mark.parametrize("loss", LOSSES)
def test_pairs_of_one_case_are_masked_in_every_method(loss: str) -> None:
    store = fake_store(cases=8)  # images 0 and 8 share a case, 1 and 9 too
    rows = torch.tensor([0, 8, 5])
    targets = builder(store, loss)(rows, rows, 0)
    assert targets.mask is not None
    assert targets.mask.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert targets.i2t[0, 1] == 0 and targets.t2i[1, 0] == 0


def test_info_nce_does_not_ask_the_store_for_similarities(monkeypatch: pytest.MonkeyPatch) -> None:
    store = fake_store()
    monkeypatch.setattr(store, "block", None)
    targets = builder(store, "info_nce")(torch.tensor([2, 4]), torch.tensor([2, 4]), 0)
    assert torch.equal(targets.i2t, torch.eye(2))


def test_images_without_a_case_id_are_cases_of_their_own() -> None:
    assert case_codes(["a", "", "a", ""]).tolist() == [2, 0, 2, 1]


def test_a_threshold_that_leaves_no_room_is_an_error() -> None:
    store = fake_store()
    store.threshold = 1.0
    with pytest.raises(ConfigError, match=r"policy\.threshold"):
        builder(store)
    builder(store, threshold=0.3)
    builder(store, "info_nce")


@pytest.mark.parametrize("loss", ["semantic_matching", "mse", "sigmoid"])
def test_identity_mix_of_one_turns_soft_targets_into_the_true_pairs(loss: str) -> None:
    rows = torch.tensor([5, 3, 2, 6])
    make = builder(fake_store(), loss)
    for targets in (make(rows, rows, 0, 1.0).i2t, make(rows, rows, 0, 1.0).t2i):
        assert torch.equal(targets, torch.eye(4))
    half, none = make(rows, rows, 0, 0.5), make(rows, rows, 0)
    torch.testing.assert_close(half.i2t, 0.5 * none.i2t + 0.5 * torch.eye(4))
    torch.testing.assert_close(half.t2i, 0.5 * none.t2i + 0.5 * torch.eye(4))


def test_rows_that_are_not_the_agreed_share_are_an_error_before_features_are_gathered() -> None:
    assert gather_rows(torch.tensor([7, 5]), 2).tolist() == [7, 5]
    for rows in (torch.tensor([7]), torch.tensor([7, 5, 3])):
        with pytest.raises(ShapeError, match=rf"hold {len(rows)} images of this batch, not 2 each"):
            gather_rows(rows, 2)


def test_targets_built_in_threads_are_those_built_one_after_another() -> None:
    make = builder(fake_store(images=200, cases=150))
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randperm(200, generator=generator)[:64] for _ in range(32)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda rows: make(rows, rows, 0, 0.1), batches))
    for rows, found in zip(batches, together, strict=True):
        expected = make(rows, rows, 0, 0.1)
        assert torch.equal(found.i2t, expected.i2t) and torch.equal(found.t2i, expected.t2i)
        assert found.mask is not None and expected.mask is not None and torch.equal(found.mask, expected.mask)
