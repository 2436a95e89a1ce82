"""A model's weights as files of them take them."""

import torch
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
