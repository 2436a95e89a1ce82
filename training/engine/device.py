"""How a run uses its device: which kernels it may take, and what it says about that on its first line.

On a CPU torch always takes algorithms that give the same bits every time. On a GPU those cost time and memory, so
``deterministic`` asks for them (docs/gpu.md).
"""

import os

import torch
from accelerate import Accelerator
from torch import nn
from torch.backends import cuda, cudnn

from training.engine.config import RunConfig
from training.engine.sharding import ShardingAccelerator
from training.errors import ConfigError

SHARDING = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""Environment variables by which ``accelerate launch`` asks for other ways to split a model over processes."""


def set_up_device(config: RunConfig, device: str) -> None:
    """Choose torch's kernels for this process.

    Args:
        config: the run's; ``tf32`` and ``deterministic`` count on a GPU.
        device: its type, such as ``cpu`` or ``cuda``.
    """
    on_gpu = device != "cpu"
    same_bits = config.deterministic or not on_gpu
    torch.use_deterministic_algorithms(same_bits, warn_only=True)
    # Its help to find bugs writes every new tensor once more: a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if not on_gpu:
        return
    cuda.matmul.allow_tf32 = cudnn.allow_tf32 = config.tf32
    cudnn.benchmark, cudnn.deterministic = not config.deterministic, config.deterministic
    # The backward passes of these two add in whatever order their threads arrive.
    cuda.enable_mem_efficient_sdp(not config.deterministic)
    cuda.enable_cudnn_sdp(not config.deterministic)


def to_device(model: nn.Module, device: torch.device) -> None:
    """Take a model to its device; on a GPU convolutions lie as tensor cores want them, ``channels_last``."""
    if device.type != "cpu":
        model.to(memory_format=torch.channels_last)
    model.to(device)


def check_launcher() -> None:
    """Refuse launches that split a model in other ways: one process saves a run's state, and would wait for the rest.

    Raises:
        ConfigError: the launcher was told to.
    """
    for name, kind in SHARDING.items():
        if os.environ.get(name, "").lower() in ("true", "1"):
            raise ConfigError(
                f"accelerate's {kind} is not supported, since saving a state would hang: launch with "
                "training/configs/accelerate/ddp.yaml, where each process holds the whole model, or fsdp.yaml beside it"
            )


def attention_kernels(device: str) -> list[str]:
    """Kernels that ``scaled_dot_product_attention`` may choose from; a mask or dtype may rule some of them out."""
    kinds = {"flash": cuda.flash_sdp_enabled, "math": cuda.math_sdp_enabled}
    if device != "cpu":
        kinds |= {"memory-efficient": cuda.mem_efficient_sdp_enabled, "cuDNN": cuda.cudnn_sdp_enabled}
    return [name for name, allowed in kinds.items() if allowed()]  # type: ignore[no-untyped-call]


def describe_device(config: RunConfig, accelerator: Accelerator, precision: str) -> str:
    """The first line of a run: device, processes, precision, attention kernels, compilation."""
    device, processes = accelerator.device, accelerator.num_processes
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    share = f"{processes} process{'es' if processes > 1 else ''} of {torch.get_num_threads()} CPU threads"
    if processes > 1 and isinstance(accelerator, ShardingAccelerator):
        share += ", the model in parts (FSDP)"
    plugin = accelerator.state.dynamo_plugin
    backend = str(getattr(plugin.backend, "value", plugin.backend)).lower()
    parts = [
        f"{device}{name}",
        share,
        precision,
        f"attention SDPA ({', '.join(attention_kernels(device.type))})",
    ]
    parts.append("compile off" if backend == "no" else f"compile {backend}")
    if device.type != "cpu":
        parts += [
            f"TF32 {'on' if config.tf32 else 'off'}",
            f"deterministic {'on' if config.deterministic else 'off'}",
        ]
    return "device: " + ", ".join(parts)
