"""Attention, gate and co-attention against float64 loops written from the formulas."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from training.med_vqa.model.attention import Attention, CoAttention, GatedCrossAttention, attend

Array = np.ndarray[Any, np.dtype[np.float64]]
WIDTH, HEADS, FFN = 12, 3, 20


def random(module: nn.Module, seed: int = 0) -> nn.Module:
    """float64, eval mode, weights and norms far from their initial values."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    for value in module.parameters():
        value.data = torch.randn(value.shape, generator=generator, dtype=torch.float64) * 0.7
    return module


def states(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def array(value: torch.Tensor) -> Array:
    return value.detach().numpy()


def linear(layer: Any, x: Array) -> Array:
    out = x @ array(layer.weight).T
    return out if layer.bias is None else out + array(layer.bias)


def norm(layer: Any, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * array(layer.weight) + array(layer.bias)


def reference_attention(layer: Any, query: Array, other: Array, real: list[bool] | None = None) -> Array:
    """LN(q + MHA(q, k, k)) for one example, head by head and word by word."""
    q, k, v = linear(layer.query, query), linear(layer.key, other), linear(layer.value, other)
    width = WIDTH // HEADS
    mixed = np.zeros_like(query)
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        for t in range(len(query)):
            seen = [s for s in range(len(other)) if real is None or real[s]]
            weights = [math.exp(q[t, part] @ k[s, part] / math.sqrt(width)) for s in seen]
            for s, weight in zip(seen, weights, strict=True):
                mixed[t, part] += weight / sum(weights) * v[s, part]
    return norm(layer.norm, query + linear(layer.output, mixed))


def reference_feed_forward(layer: Any, x: Array) -> Array:
    inner = linear(layer.inner, x)
    gelu = np.vectorize(lambda value: 0.5 * value * (1 + math.erf(value / math.sqrt(2))))(inner)
    return norm(layer.norm, x + linear(layer.output, gelu))


def reference_gate(gate: Any, x: Array, knowledge: Array) -> Array:
    y = reference_attention(gate.knowledge_attention, knowledge, knowledge)
    y = reference_feed_forward(gate.knowledge_feed_forward, y)
    x1 = reference_attention(gate.attention, x, y)
    g = 1 / (1 + np.exp(-(x1 @ array(gate.gate.weight).T)))
    return reference_feed_forward(gate.feed_forward, g * x1 + (1 - g) * x)


def reference_co_attention(module: Any, text: Array, image: Array, real: list[bool]) -> tuple[Array, Array]:
    text, image = text + array(module.modality)[0], image + array(module.modality)[1]
    for of_text, of_image in zip(module.text, module.image, strict=True):
        new_text = reference_attention(of_text.self_attention, text, text, real)
        new_text = reference_attention(of_text.cross_attention, new_text, image)
        new_image = reference_attention(of_image.self_attention, image, image)
        new_image = reference_attention(of_image.cross_attention, new_image, text, real)
        text = reference_feed_forward(of_text.feed_forward, new_text)
        image = reference_feed_forward(of_image.feed_forward, new_image)
    return text, image


def test_the_gate_is_the_formula_of_the_supplement() -> None:
    gate = random(GatedCrossAttention(WIDTH, HEADS, FFN, dropout=0.3))
    x, knowledge = states(2, 5), states(4, seed=2)
    found = gate(x, knowledge)
    for row in range(2):
        np.testing.assert_allclose(
            array(found[row]), reference_gate(gate, array(x[row]), array(knowledge)), atol=1e-10
        )


def test_co_attention_is_two_parallel_blocks_per_layer() -> None:
    module = random(CoAttention(WIDTH, 2, HEADS, FFN, dropout=0.3))
    text, image = states(2, 4), states(2, 5, seed=2)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    new_text, new_image = module(text, image, mask)
    for row in range(2):
        real = mask[row].tolist()
        expected = reference_co_attention(module, array(text[row]), array(image[row]), real)
        np.testing.assert_allclose(array(new_text[row])[real], expected[0][real], atol=1e-10)
        np.testing.assert_allclose(array(new_image[row]), expected[1], atol=1e-10)


def test_the_order_of_the_knowledge_means_nothing() -> None:
    gate = random(GatedCrossAttention(WIDTH, HEADS, FFN, dropout=0.0))
    x, knowledge = states(2, 5), states(4, seed=2)
    torch.testing.assert_close(gate(x, knowledge), gate(x, knowledge.flip(0)))


def test_image_places_have_no_order_beyond_what_the_tower_gave_them() -> None:
    module = random(CoAttention(WIDTH, 2, HEADS, FFN, dropout=0.0))
    text, image = states(2, 4), states(2, 5, seed=2)
    mask = torch.ones(2, 4, dtype=torch.bool)
    order = torch.tensor([3, 0, 4, 1, 2])
    (text_a, image_a), (text_b, image_b) = module(text, image, mask), module(text, image[:, order], mask)
    torch.testing.assert_close(text_a, text_b)
    torch.testing.assert_close(image_a[:, order], image_b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_attention_to_nothing_is_zero_and_so_is_its_gradient(dtype: torch.dtype) -> None:
    query, keys, values = (
        torch.randn(2, HEADS, 3, 4, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()
        for seed in range(3)
    )
    mask = torch.tensor([[False] * 3, [True, False, True]])[:, None, None, :]
    out = attend(query, (keys, values), mask)
    out.float().sum().backward()
    assert not out[0].any() and out[1].abs().sum() > 0
    for value in (query, keys, values):
        assert value.grad is not None and torch.isfinite(value.grad).all() and not value.grad[0].any()


def test_keys_are_split_like_queries() -> None:
    layer = random(Attention(WIDTH, HEADS, dropout=0.0))
    query, other = states(1, 3), states(1, 5, seed=2)
    found = layer(query, layer.keys_values(other))  # type: ignore[operator]
    expected = reference_attention(layer, array(query[0]), array(other[0]))
    np.testing.assert_allclose(array(found[0]), expected, atol=1e-10)
