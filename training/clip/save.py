"""Writes a model as a folder that open_clip loads by ``local-dir:``."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from training.clip.load import HF_CONFIG, OPEN_CLIP_CONFIG, Clip
from training.weights import saved_weights

WEIGHTS = "open_clip_model.safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"


def write_model_folder(folder: Path, model: nn.Module, clip: Clip) -> None:
    """Write weights, architecture, preprocessing and, where the text tower or tokenizer is Hugging Face's, their files.

    Nothing in the folder names a path of this machine. The caller replaces a former folder atomically.

    Args:
        folder: a new or empty folder.
        model: what is saved: ``clip.model`` or an unwrapped, trained copy of it.
        clip: what belongs to the model.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        save_file(saved_weights(model), folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:  # how a full disk comes out of safetensors
        raise OSError(str(error)) from error
    _write_json(folder / OPEN_CLIP_CONFIG, _portable(clip.config))
    # safetensors lets nobody else read its file, whatever the umask: the folder is made to be shared.
    shutil.copymode(folder / OPEN_CLIP_CONFIG, folder / WEIGHTS)
    text_config = getattr(getattr(model, "text", None), "config", None)
    if text_config is not None:
        _write_json(folder / HF_CONFIG, _without_paths(text_config.to_dict()))
    save_tokenizer = getattr(clip.tokenizer, "save_pretrained", None)
    if save_tokenizer is not None:
        save_tokenizer(folder)
        path = folder / TOKENIZER_CONFIG
        _write_json(path, _without_paths(json.loads(path.read_text(encoding="utf-8"))))


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """The content of open_clip_config.json; a text tower named by a local path is named by the folder itself."""
    portable = deepcopy(config)
    text_cfg = portable["model_cfg"]["text_cfg"]
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if text_cfg.get(key) and Path(text_cfg[key]).is_dir():
            text_cfg[key] = "."
    return portable


def _without_paths(content: dict[str, Any]) -> dict[str, Any]:
    """Less where this machine loaded it from."""
    return {key: value for key, value in content.items() if key not in ("_name_or_path", "name_or_path")}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
