"""A model's weights as files of them take them, and what such files hold."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn


def saved_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict on the CPU, contiguous, no two tensors in one storage: safetensors refuses shared memory."""
    weights: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for name, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        weights[name] = tensor
    return weights


def read_tensors(path: Path) -> dict[str, torch.Tensor] | torch.Tensor | None:
    """The weights in a ``.safetensors`` or torch file, on the CPU; nothing else that was pickled is loaded.

    Returns:
        The state dict, also where it stands below ``state_dict`` or ``model``, names without ``module.`` before them;
        a tensor, where the file holds one alone; None for anything else.

    Raises:
        Exception: one of ``training.clip.failures.LOAD_ERRORS``, where the file cannot be read.
    """
    found: Any = (
        load_file(path)
        if path.suffix == ".safetensors"
        else torch.load(path, map_location="cpu", weights_only=True)
    )
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if isinstance(found, torch.Tensor):
        return found
    if not isinstance(found, dict) or not found:
        return None
    if not all(isinstance(value, torch.Tensor) for value in found.values()):
        return None
    return {name.removeprefix("module."): value for name, value in found.items()}
