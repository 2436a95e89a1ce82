"""The two towers by open_clip: building, loading and saving them (``local-dir:``), and what belongs to them.

open_clip is used through ``create_model_and_transforms``, ``get_tokenizer``, ``get_model_config``,
``add_model_config``, ``list_pretrained_tags_by_model`` and its ``HFTokenizer``.
"""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from training.clip.config import ModelConfig, is_folder
from training.clip.freeze import freeze
from training.clip.pretrained import (
    check_image_size,
    check_named_weights,
    load_image_weights,
    text_weights_folder,
    timm_normalisation,
)
from training.errors import CheckpointError, ConfigError, KGTargetsError
from training.folders import write_json
from training.weights import LOAD_ERRORS, explain, quiet_loading, saved_weights

MODEL_CONFIGS = Path(__file__).parent / "model_configs"
open_clip.add_model_config(MODEL_CONFIGS)
OPEN_CLIP_CONFIG = "open_clip_config.json"
HF_CONFIG = "config.json"


@dataclass(frozen=True)
class Clip:
    """A model with all that belongs to it."""

    model: nn.Module
    """Called with (image, text) it returns image_features, text_features (L2-normalised) and logit_scale."""
    preprocess: Callable[[Image.Image], Tensor]
    """open_clip's evaluation transform: PIL image to float32 [3, size, size]."""
    tokenizer: Callable[[list[str]], Tensor]
    """Captions to int64 [N, context_length]."""
    config: dict[str, Any]
    """Content of open_clip_config.json: model_cfg and preprocess_cfg."""

    @property
    def mean(self) -> Tensor:
        """Per-channel mean of the preprocessing, [3, 1, 1]."""
        return torch.tensor(self.config["preprocess_cfg"]["mean"]).view(3, 1, 1)

    @property
    def std(self) -> Tensor:
        """Per-channel standard deviation of the preprocessing, [3, 1, 1]."""
        return torch.tensor(self.config["preprocess_cfg"]["std"]).view(3, 1, 1)


def build_clip(config: ModelConfig, *, logit_bias: float | None = None) -> Clip:
    """The model that a run begins to train: weights, frozen parts and gradient checkpointing as configured.

    Args:
        config: the two towers.
        logit_bias: as for ``load_clip``.

    Raises:
        ConfigError: an architecture, weights or a way of freezing that does not exist or does not fit.
        CheckpointError: a ``local-dir:`` folder is not a model.
    """
    options: dict[str, Any] = {}
    model_cfg = model_config(config.name)
    check_named_weights(config, model_cfg)
    if config.image_size is not None:
        model_cfg["vision_cfg"]["image_size"] = options["force_image_size"] = config.image_size
    if config.image_weights is not None:
        options |= timm_normalisation(model_cfg)
    folder = text_weights_folder(config.text_weights) if config.text_weights is not None else None
    clip = _create(config.name, config.pretrained, model_cfg, logit_bias, folder, options)
    if config.image_size is not None:
        check_image_size(clip.model, config.image_size)
    if config.image_weights is not None:
        load_image_weights(clip.model, config.image_weights)
    freeze(clip.model, config)
    return clip


def load_clip(name: str, pretrained: str | None = None, *, logit_bias: float | None = None) -> Clip:
    """Build a model by name, with random weights unless ``pretrained``, ``local-dir:`` or ``hf-hub:`` brings some.

    Args:
        name: architecture shipped here, built into open_clip, ``local-dir:PATH`` or ``hf-hub:ORG/REPO``.
        pretrained: open_clip weights tag or file.
        logit_bias: give a model without a logit bias a learnable one that starts here, as the sigmoid loss needs;
            a model that has one (SigLIP, or a run of ours with that loss) keeps its own.

    Raises:
        ConfigError: there is no such architecture or weights.
        CheckpointError: a ``local-dir:`` folder is not a model.
    """
    return _create(name, pretrained, model_config(name), logit_bias)


def _create(
    name: str,
    pretrained: str | None,
    model_cfg: dict[str, Any],
    logit_bias: float | None,
    text_folder: Path | None = None,
    options: dict[str, Any] | None = None,
) -> Clip:
    """The model by open_clip.

    Args:
        name: as for ``load_clip``.
        pretrained: as for ``load_clip``.
        model_cfg: the architecture, as the folder of a trained model will record it.
        logit_bias: as for ``load_clip``.
        text_folder: Hugging Face folder with weights and tokenizer of the text tower.
        options: further arguments of open_clip's ``create_model_and_transforms``.
    """
    given = dict(options or {})
    hf_folder = text_folder or _own_text_folder(name, model_cfg)
    if hf_folder is not None:
        # Beside a model's own weights only the architecture is read from there.
        given["text_cfg"] = {
            **model_cfg["text_cfg"],
            "hf_model_name": str(hf_folder),
            "hf_model_pretrained": text_folder is not None,
        }
    if is_folder(name):
        # open_clip would go on with random weights, or those of the text tower alone.
        given |= {"require_pretrained": True, "pretrained_text": False}
    try:
        with quiet_loading():
            model, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained=pretrained, output_dict=True, weights_only=True, **given
            )
            tokenizer = (
                open_clip.get_tokenizer(name) if text_folder is None else _tokenizer(text_folder, model_cfg)
            )
    except LOAD_ERRORS as error:
        raise _failure(name, pretrained, error) from error
    if logit_bias is not None and getattr(model, "logit_bias", None) is None:
        # Not by open_clip's init_logit_bias argument: it loads weights that have no bias as a bias of 0.
        # The config still names it, so that open_clip builds the parameter when it loads our checkpoint.
        model.logit_bias = nn.Parameter(torch.full_like(model.logit_scale.data, logit_bias))
        model_cfg["init_logit_bias"] = logit_bias
    preprocess_cfg = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dict(model.visual.preprocess_cfg).items()
    }
    return Clip(model, preprocess, tokenizer, {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg})


def model_config(name: str) -> dict[str, Any]:
    """The architecture as JSON; open_clip's ``local-dir:`` needs it beside the weights.

    Raises:
        ConfigError: there is no such architecture.
        CheckpointError: a ``local-dir:`` folder is not a model.
    """
    if name.startswith("local-dir:"):
        return _folder_config(Path(name.removeprefix("local-dir:")))
    try:
        with quiet_loading():
            config = open_clip.get_model_config(name)
    except LOAD_ERRORS as error:
        raise ConfigError(f'model.name "{name}": {explain(error)}') from error
    if config is None:
        shipped = ", ".join(sorted(path.stem for path in MODEL_CONFIGS.glob("*.json")))
        raise ConfigError(f'model.name: open_clip has no architecture "{name}"; shipped here: {shipped}')
    return dict(config)


def _folder_config(folder: Path) -> dict[str, Any]:
    path = folder / OPEN_CLIP_CONFIG
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8"))["model_cfg"])
        usable = isinstance(config["vision_cfg"], dict) and isinstance(config["text_cfg"], dict)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} is not an open_clip model folder: {path.name} is missing or damaged"
        ) from error
    if not usable:
        raise CheckpointError(f"{folder} is not an open_clip model folder: {path.name} is damaged")
    return config


def _own_text_folder(name: str, model_cfg: dict[str, Any]) -> Path | None:
    """A ``local-dir:`` folder that holds the Hugging Face configuration of its text tower: no hub is asked then."""
    folder = Path(name.removeprefix("local-dir:"))
    own = name.startswith("local-dir:") and "hf_model_name" in model_cfg["text_cfg"]
    return folder if own and (folder / HF_CONFIG).is_file() else None


def _tokenizer(folder: Path, model_cfg: dict[str, Any]) -> Callable[[list[str]], Tensor]:
    text_cfg = model_cfg["text_cfg"]
    tokenizer: Callable[[list[str]], Tensor] = HFTokenizer(
        str(folder),
        context_length=text_cfg.get("context_length", 77),
        tokenizer_mode=text_cfg.get("tokenizer_mode"),
        **text_cfg.get("tokenizer_kwargs", {}),
    )
    return tokenizer


def _failure(name: str, pretrained: str | None, error: BaseException) -> KGTargetsError:
    reason = explain(error)
    if name.startswith("local-dir:"):
        return CheckpointError(f"{name.removeprefix('local-dir:')} cannot be loaded by open_clip: {reason}")
    hint = ""
    if "is not a known tag" in reason:
        tags = open_clip.list_pretrained_tags_by_model(name)
        hint = f"; its tags: {', '.join(tags)}" if tags else "; it has no tags"
    elif "huggingface.co" in reason and not is_folder(name):
        hint = "; without the hub, name a local folder or minilm-l6-v2 by --model.text_weights"
    given = f'model.name "{name}"' + ("" if pretrained is None else f', model.pretrained "{pretrained}"')
    return ConfigError(f"{given}: {reason}{hint}")


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
    write_json(folder / OPEN_CLIP_CONFIG, _portable(clip.config))
    # safetensors lets nobody else read its file, whatever the umask: the folder is made to be shared.
    shutil.copymode(folder / OPEN_CLIP_CONFIG, folder / WEIGHTS)
    text_config = getattr(getattr(model, "text", None), "config", None)
    if text_config is not None:
        write_json(folder / HF_CONFIG, _without_paths(text_config.to_dict()))
    save_tokenizer = getattr(clip.tokenizer, "save_pretrained", None)
    if save_tokenizer is not None:
        save_tokenizer(folder)
        path = folder / TOKENIZER_CONFIG
        write_json(path, _without_paths(json.loads(path.read_text(encoding="utf-8"))))


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
