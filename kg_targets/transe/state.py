"""What a killed fit continues from: one file for each seed, written whole or not at all.

The tensors and the JSON that belongs to them (epoch, history, checksum) are one safetensors file, so that they cannot
come from two moments. A file of other inputs, settings or versions, or a damaged one, is not used, and that is told.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kg_targets.errors import StoreError


def save_state(path: Path, key: str, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able progress by atomic rename.

    Args:
        key: what the fit follows from; another key makes the file useless.
    """
    whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    state = {"key": key, "sha256": _digest(whole), "progress": progress}
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(save(whole, metadata={"state": json.dumps(state)}))
        os.replace(partial, path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror}): free space or choose another --out"
        ) from error


def load_state(
    path: Path, key: str, say: Callable[[str], None]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and progress of a saved state; None where there is none that is whole and has this key."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {}).get("state", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, ValueError) as error:
        say(f"warning: {path} is damaged ({' '.join(str(error).split())}): the fit starts again")
        return None
    if state.get("sha256") != _digest(tensors):
        say(f"warning: {path} is damaged (its checksum is another): the fit starts again")
        return None
    if state["key"] != key:
        say(f"{path} belongs to other captions, settings or versions: the fit starts again")
        return None
    return tensors, state["progress"]


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].view(torch.uint8).numpy().data)
    return digest.hexdigest()
