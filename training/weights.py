"""Files of weights: what is saved, what is read (tensors only), and why a model could not be built, on one line."""

import logging
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers.utils import logging as transformers_logging


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
        Exception: one of ``training.weights.LOAD_ERRORS``, where the file cannot be read.
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


# What open_clip lets through when a file that it takes for weights is something else; StopIteration: an empty dict.
LOAD_ERRORS = (
    pickle.UnpicklingError, RuntimeError, ValueError, OSError, EOFError, KeyError, TypeError, AttributeError,
    AssertionError, ImportError, StopIteration, SafetensorError,
)  # fmt: skip

_SIZE = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((\[.*?\])\).*?torch\.Size\((\[.*?\])\)")
_MISSING = re.compile(r'Missing key\(s\) in state_dict: "([^"]+)"')
_UNEXPECTED = re.compile(r'Unexpected key\(s\) in state_dict: "([^"]+)"')


def explain(error: BaseException) -> str:
    """The reason, one line, at most about 300 characters; weights that do not fit are told by their first parameter."""
    if isinstance(error, pickle.UnpicklingError):
        return (
            "not a file of weights; it takes .safetensors or a torch state_dict, and no other pickled object is "
            "loaded"
        )
    text = " ".join(str(error).split())
    if isinstance(error, SafetensorError):
        return f"the .safetensors file is truncated or damaged ({text[:300]})"
    other = "the weights are of another architecture"
    if match := _SIZE.search(text):
        name, found, expected = match.groups()
        return f'{other}: parameter "{name}" is {found} in the file and {expected} in the model'
    if match := _MISSING.search(text):
        return f'{other}: parameter "{match.group(1)}" is missing from the file'
    if match := _UNEXPECTED.search(text):
        return f'{other}: parameter "{match.group(1)}" of the file is not in the model'
    return text[:300] or type(error).__name__


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No tables and bars about weights on stderr: what matters is raised.

    open_clip warns on the root logger that random weights are random, and logs there what it then raises; transformers
    reports every weight that a text tower leaves out on purpose.
    """
    root = logging.getLogger()
    noise: Any = transformers_logging  # its functions are not typed
    level, verbosity = root.level, noise.get_verbosity()
    bars = noise.is_progress_bar_enabled()
    root.setLevel(logging.CRITICAL)
    noise.set_verbosity_error()
    noise.disable_progress_bar()
    try:
        yield
    finally:
        root.setLevel(level)
        noise.set_verbosity(verbosity)
        if bars:
            noise.enable_progress_bar()
