"""What a run would need, estimated before anything is downloaded or decoded: memory of a card, steps, size of the data.

Memory is that of weights, gradients and AdamW's two moments, 4 bytes each, and of what a step keeps for its backward
pass. The latter is counted for two and for four examples on the CPU, from random weights under the
run's precision, and drawn out as a line to the batch of a card. Left out: pairs of a large batch (B² numbers), one
block's activations while ``grad_checkpointing`` computes them again, workspaces, fragments.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MB = 10**6


@dataclass(frozen=True)
class Outline:
    """A run before it is built."""

    model: nn.Module
    """With random weights, frozen as configured, on the CPU."""
    loss: Callable[[int], Tensor]
    """The forward pass of so many examples of the longest kind."""
    examples: int
    """Shown in an epoch."""
    unit: str
    """Name of them, in the plural."""
    images: int
    """Decoded for training and selection."""
    side: int
    """Of an image, pixels."""
    in_memory: bool | None
    """Whether they are kept; None: as far as a limit allows."""
    at_once: int | None = None
    """Examples in a forward pass, where the batch goes through in pieces."""


@dataclass(frozen=True)
class Memory:
    """Of one card, bytes."""

    weights: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.moments + self.activations


def estimate_memory(outline: Outline, precision: str, examples: int) -> Memory:
    """Memory of a card that is shown so many examples at once.

    Args:
        outline: of the run.
        precision: fp32, bf16 or fp16.
        examples: of one process's share of a batch.
    """
    least = 2  # a contrastive loss of one pair has nothing to keep
    few, more = (_kept_bytes(outline, precision, count) for count in (least, 2 * least))
    slope = (more - few) / least
    parameters = list(outline.model.parameters())
    weights = 4 * sum(value.numel() for value in parameters)
    learning = 4 * sum(value.numel() for value in parameters if value.requires_grad)
    at_once = min(examples, outline.at_once or examples)
    return Memory(weights, learning, 2 * learning, max(0, round(few + slope * (at_once - least))))


def _kept_bytes(outline: Outline, precision: str, count: int) -> int:
    """Bytes of the tensors that a forward pass keeps for the backward pass; storages that are shared count once."""
    own = {value.untyped_storage().data_ptr() for value in outline.model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(value: Tensor) -> Tensor:
        if (place := value.untyped_storage().data_ptr()) not in own:
            kept[place] = value  # held, so that no other tensor gets its place
        return value

    outline.model.train()
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value), half:
        outline.loss(count)
    return sum(value.untyped_storage().nbytes() for value in kept.values())
