"""S computed from factors kept on a device, on the CPU as that device, beside the store's own block."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from scipy import sparse

from kg_targets.store import TargetStore
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
EVERYONE = torch.cat([torch.arange(20, 60), LOCAL, torch.tensor([5, 1])])


def make_store(kind: str) -> TargetStore:
    """A store of unit factors, sparse with a few concepts that most images have, or dense; every 7th row is empty."""
    rng = np.random.default_rng(0)
    share = np.where(np.arange(CONCEPTS) < 5, 0.8, 0.06)
    factors = rng.normal(size=(IMAGES, CONCEPTS)) * (rng.random((IMAGES, CONCEPTS)) < share)
    factors[::7] = 0
    factors /= np.maximum(np.linalg.norm(factors, axis=1, keepdims=True), 1e-12)
    store = TargetStore(Path("fake"), {"rows": IMAGES, "similarity": {"fit_p95": 0.2}})
    known = factors.any(axis=1)
    dense = factors.astype(np.float32)
    store.__dict__["factors"] = sparse.csr_array(dense) if kind == "sparse" else dense
    store.__dict__.update(known=known, group_ids=[f"case{row // 2}" for row in range(IMAGES)])
    return store


def reference(store: TargetStore, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """S in float64 from the definition."""
    factors = store.factors
    dense = (factors if isinstance(factors, np.ndarray) else factors.toarray()).astype(np.float64)
    block = torch.from_numpy(dense[rows.numpy()] @ dense[columns.numpy()].T)
    return torch.where(rows[:, None] == columns[None, :], 1.0, block.clamp(-1, 1))


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("scratch", [1 << 28, 4 * CONCEPTS * 10, 1])
@pytest.mark.parametrize("everyone", [LOCAL, EVERYONE])
def test_blocks_from_the_devices_factors_equal_the_definition_and_the_stores_block(
    kind: str, scratch: int, everyone: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_SCRATCH_BYTES", scratch)  # the whole width at once, ten columns, one column
    store = make_store(kind)
    found = DeviceBlocks(store.factors, CPU)(LOCAL, everyone)
    host = HostBlocks(store, CPU)(LOCAL, everyone)
    for device_block, host_block in zip(found, host, strict=True):
        assert device_block.dtype == host_block.dtype == torch.float32
        torch.testing.assert_close(
            device_block.double(), reference(store, LOCAL, everyone), atol=1e-6, rtol=0
        )
        torch.testing.assert_close(device_block, host_block, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
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
    for device, budget in ((CPU, 1000), (torch.device("cuda"), 0)):
        assert isinstance(make_blocks(store, device, budget), HostBlocks)
