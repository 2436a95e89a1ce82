"""What a teacher's vectors follow from, as one sha256: weights do not say how many heads attend, or where it pools."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_VOLATILE = ("_name_or_path", "name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
"""What a configuration also says: where it lay, who wrote it, and how it was stored; teachers run in float32."""


def digest_of(stated: Any, tensors: Mapping[str, Tensor]) -> str:
    """sha256 of JSON and tensors, whatever their order.

    Args:
        stated: JSON.
        tensors: by name, of any dtype, shape and device.
    """
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        content = value.detach().cpu().contiguous()
        digest.update(f"{name} {content.dtype} {list(content.shape)}\n".encode())
        digest.update(content.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def configuration(config: Any) -> Any:
    """All fields of a transformers configuration, those that its file leaves to the library too, as JSON.

    Args:
        config: a ``PretrainedConfig``.
    """
    return _kept(json.loads(config.to_json_string(use_diff=False)))


def vocabulary(tokenizer: Any) -> Any:
    """All that a tokenizer makes tokens by, but for the length that it is asked for, as JSON.

    Args:
        tokenizer: one of transformers, or one of open_clip, which holds such a one or CLIP's own.
    """
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    sides = [getattr(inner, f"{what}_side", None) for what in ("padding", "truncation")]
    if hasattr(inner, "backend_tokenizer"):
        rules = json.loads(inner.backend_tokenizer.to_str())
        # Both are as the last call asked.
        return [sides, {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}]
    if hasattr(inner, "bpe_ranks"):
        return [sides, inner.encoder, list(inner.bpe_ranks)]
    return [sides, inner.get_vocab(), inner.all_special_tokens]


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _kept(inner) for name, inner in value.items() if name not in _VOLATILE}
    return [_kept(inner) for inner in value] if isinstance(value, list) else value
