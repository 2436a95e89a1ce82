"""A model in parts ("FSDP"): between its layers' turns each process holds its share of weights, gradients and moments.

Torch's ``fully_shard`` does it where ``accelerate launch`` asks, by training/configs/accelerate/fsdp.yaml. We call it
ourselves, since Accelerate would not on a CPU, where this is tested, and since ``fully_shard`` takes no scalars: CLIP's
logit scale stays whole on every process. Losses and gradients are DDP's; what is written to disk is whole, in the same
files, so that either kind of launch goes on from the other's state.
"""

import copy
import os
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from training.clip.freeze import learning_batch_norm
from training.errors import ConfigError

M = TypeVar("M", bound=nn.Module)
ASKED = "ACCELERATE_USE_FSDP"
"""Environment variable by which ``accelerate launch`` asks for it."""
DDP = "training/configs/accelerate/ddp.yaml, where each process holds the whole model"
CONTAINERS = (nn.ModuleList, nn.Sequential)


def sharding_asked() -> bool:
    """Whether the launcher asks for it. It does not ask again: Accelerate would shard too, in its own way."""
    return os.environ.pop(ASKED, "").lower() in ("true", "1")


class ShardingAccelerator(Accelerator):  # type: ignore[misc]  # it is not typed
    """An accelerator whose prepared model lies in parts on its processes; with one process it is the usual one."""

    _blank: nn.Module | None = None

    def prepare_model(
        self, model: M, device_placement: bool | None = None, evaluation_mode: bool = False
    ) -> M:
        """The model under autocast, in parts.

        Raises:
            ConfigError: it would not have DDP's numbers.
        """
        if self.num_processes > 1:
            self._check(model)
            model = model.to(memory_format=torch.contiguous_format)  # what fully_shard takes
            self._blank = _without_weights(model)
            shard(model, self.device.type)
            evaluation_mode = True  # autocast, and no DDP around it
        prepared: M = super().prepare_model(model, device_placement, evaluation_mode)
        return prepared

    def whole(self, model: M) -> M:
        """A copy of the unwrapped model with all its weights, on this device; every process has to ask."""
        if self._blank is None:
            return model
        found: Any = copy.deepcopy(self._blank)
        # assign: the blank's parameters are on the meta device, where nothing can be copied to.
        found.load_state_dict({name: whole(value) for name, value in model.state_dict().items()}, assign=True)
        return found  # type: ignore[no-any-return]

    def _check(self, model: nn.Module) -> None:
        backend = self.state.dynamo_plugin.backend
        refused = {
            "precision fp16: use bf16": self.scaler is not None,
            "compilation: leave out --dynamo_backend": str(getattr(backend, "value", backend)).upper()
            != "NO",
            "BatchNorm that learns: set --model.freeze_batch_norm=true": bool(
                learning_batch_norm(model.train())
            ),
        }
        for what, found in refused.items():
            if found:
                raise ConfigError(f"FSDP does not go with {what}, or launch with {DDP}")


def shard(model: nn.Module, device: str) -> None:
    """Split a model in place: each repeated layer is gathered for its turn; what is outside of them, for the step."""
    mesh = init_device_mesh(device, (distributed.get_world_size(),))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    scalars = {parameter for parameter in model.parameters() if parameter.ndim == 0}
    fully_shard(model, mesh=mesh, ignored_params=scalars)
    for scalar in scalars:
        if scalar.requires_grad:
            scalar.register_post_accumulate_grad_hook(_average)  # type: ignore[no-untyped-call]


def whole(value: Tensor) -> Tensor:
    """A tensor with all its parts; every process has to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_moments(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state dict with whole tensors, those in parts on the CPU; every process has to ask."""

    def gathered(value: Any) -> Any:
        return whole(value).cpu() if isinstance(value, DTensor) else value

    moments = {
        index: {name: gathered(value) for name, value in entry.items()}
        for index, entry in state["state"].items()
    }
    return {**state, "state": moments}


def part_like(value: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a whole tensor that belongs to a parameter, in the layout of its memory.

    A fused optimizer goes through parameters and moments side by side as they lie in memory, ``channels_last`` or not.
    """
    if value.shape != parameter.shape:
        return value
    if not isinstance(parameter, DTensor):
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    there = value.to(parameter.device).contiguous()
    return distribute_tensor(there, parameter.device_mesh, parameter.placements, src_data_rank=None)


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load a whole state dict into a model, in parts or not."""
    own = model.state_dict()
    model.load_state_dict(
        {name: part_like(value, own[name]) if name in own else value for name, value in weights.items()}
    )


def load_moments(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's whole state dict, in parts or not as its parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        index: {name: part_like(value, parameters[index]) for name, value in entry.items()}
        for index, entry in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})


def _layers(module: nn.Module) -> list[nn.Module]:
    """The outermost members with parameters of containers: a transformer's blocks, a convolutional tower's stages."""
    found = []
    for child in module.children():
        if isinstance(module, CONTAINERS) and not isinstance(child, CONTAINERS):
            found += [child] if any(True for _ in child.parameters()) else []
        else:
            found += _layers(child)
    return found


def _without_weights(model: M) -> M:
    """A copy whose parameters are on the meta device; buffers are as they were."""
    memo = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, memo)


def _average(scalar: Tensor) -> None:
    """The mean gradient of all processes, as fully_shard takes it of what it splits."""
    if scalar.grad is not None:
        distributed.all_reduce(scalar.grad)
        scalar.grad /= distributed.get_world_size()
