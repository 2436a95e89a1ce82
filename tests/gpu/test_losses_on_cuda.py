"""Losses, policies and blocks computed on a GPU, beside float64 on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from kg_targets.losses.contrastive import ContrastiveBatch
from kg_targets.losses.registry import LOSSES
from kg_targets.store import TargetStore
from training.nb_clip.batch_targets import DeviceBlocks, HostBlocks, TargetBuilder, make_blocks
from training.nb_clip.config import LossConfig, PolicyConfig

IMAGES, CONCEPTS, BATCH = 3000, 700, 512


def make_store(kind: str = "sparse") -> TargetStore:
    """Unit factors; every 9th image knows nothing, and cases have two images."""
    rng = np.random.default_rng(0)
    share = np.where(np.arange(CONCEPTS) < 6, 0.7, 0.03)
    factors = rng.uniform(0.2, 1, (IMAGES, CONCEPTS)) * (rng.random((IMAGES, CONCEPTS)) < share)
    factors[::9] = 0
    factors /= np.maximum(np.linalg.norm(factors, axis=1, keepdims=True), 1e-12)
    dense = factors.astype(np.float32)
    store = TargetStore(Path("fake"), {"rows": IMAGES, "similarity": {"fit_p95": 0.3}})
    store.__dict__.update(
        factors=sparse.csr_array(dense) if kind == "sparse" else dense,
        known=factors.any(axis=1),
        group_ids=[f"case{row // 2}" for row in range(IMAGES)],
    )
    return store


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_blocks_from_factors_on_the_gpu_equal_those_of_the_store(kind: str) -> None:
    store, device = make_store(kind), torch.device("cuda")
    rows = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))[:BATCH]
    blocks = make_blocks(store, device, budget_mb=100)
    assert isinstance(blocks, DeviceBlocks)
    assert isinstance(make_blocks(store, device, budget_mb=0), HostBlocks)
    for local, everyone in ((rows, rows), (rows[100:200], rows)):
        for found, expected in zip(
            blocks(local, everyone), HostBlocks(store, torch.device("cpu"))(local, everyone), strict=True
        ):
            assert found.is_cuda and found.dtype == torch.float32
            torch.testing.assert_close(found.cpu(), expected, atol=1e-6, rtol=0)
    again, _ = blocks(rows, rows)
    assert torch.equal(again, blocks(rows, rows)[0])  # sums in a fixed order


@pytest.mark.parametrize("policy", ["softmax", "fixed_mass", "evidence"])
def test_targets_on_the_gpu_equal_those_on_the_cpu(policy: str) -> None:
    store = make_store()
    rows = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(1))[:BATCH]
    config = PolicyConfig(name=policy, temperature=0.1)
    on_gpu = TargetBuilder(store, LossConfig(), config, torch.device("cuda"))(rows[64:128], rows, 64, 0.1)
    on_cpu = TargetBuilder(store, LossConfig(), config)(rows[64:128], rows, 64, 0.1)
    for found, expected in ((on_gpu.i2t, on_cpu.i2t), (on_gpu.t2i, on_cpu.t2i)):
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), expected, atol=2e-5, rtol=0)
    assert on_gpu.mask is not None and on_cpu.mask is not None
    assert torch.equal(on_gpu.mask.cpu(), on_cpu.mask)


def reference(name: str, logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """The loss of one block of logits (both directions its own transpose) from methods.md §1.4, in float64."""
    size = len(logits)
    if name == "mse":
        return ((logits - targets).square() * ~mask).sum() / size**2
    if name == "sigmoid":
        graded = targets.clamp(0, 1)
        terms = graded * torch.sigmoid(logits).log() + (1 - graded) * torch.sigmoid(-logits).log()
        return -(terms * ~mask).sum() / size
    total = torch.zeros((), dtype=torch.float64)
    for rows in (logits, logits.T):
        weights = rows.exp() * ~mask
        total = total - 0.5 * (targets * (rows - weights.sum(1, keepdim=True).log())).sum() / size
    return total


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients_on_the_gpu_equal_float64_on_the_cpu(name: str) -> None:
    store = make_store()
    rows = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(2))[:BATCH]
    targets = TargetBuilder(store, LossConfig(name=name), PolicyConfig(), torch.device("cuda"))(rows, rows, 0)
    assert targets.mask is not None
    generator = torch.Generator().manual_seed(3)
    image, text = (
        torch.nn.functional.normalize(
            torch.randn(BATCH, 64, generator=generator, dtype=torch.float64), dim=-1
        )
        for _ in range(2)
    )
    scale = 1.0 if name == "mse" else 12.0

    def score(compute: Callable[[Tensor], Tensor], image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        image = image.clone().requires_grad_()
        value = compute(scale * image @ text.T)
        (gradient,) = torch.autograd.grad(value, image)
        return value.detach().cpu().double(), gradient.cpu().double()

    def on_gpu(logits: Tensor) -> Tensor:
        batch = ContrastiveBatch(logits, logits.T, targets.i2t, targets.t2i, 0, targets.mask)
        return LOSSES[name].compute(batch)

    def on_cpu(logits: Tensor) -> Tensor:
        assert targets.mask is not None
        return reference(name, logits, targets.i2t.cpu().double(), targets.mask.cpu())

    found: Any = score(on_gpu, image.float().cuda(), text.float().cuda())
    expected = score(on_cpu, image, text)
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
    assert (found[1] - expected[1]).norm() <= 1e-4 * expected[1].norm()
