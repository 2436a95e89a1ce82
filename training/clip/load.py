"""The two towers by open_clip: building, what has to be remembered to load them again, and features.

open_clip is used through ``create_model_and_transforms``, ``get_tokenizer``, ``get_model_config``,
``add_model_config`` and ``local-dir:`` only.
"""

import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from training.errors import CheckpointError, ConfigError

MODEL_CONFIGS = Path(__file__).parent / "model_configs"
OPEN_CLIP_CONFIG = "open_clip_config.json"

# What open_clip lets through when a file that it takes for weights is something else; StopIteration: an empty dict.
_LOAD_ERRORS = (
    RuntimeError, ValueError, OSError, EOFError, KeyError, TypeError, AttributeError, StopIteration, SafetensorError,
)  # fmt: skip


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


def load_clip(name: str, pretrained: str | None = None, *, logit_bias: float | None = None) -> Clip:
    """Build a model by name, with random weights unless ``pretrained`` or ``local-dir:`` brings some.

    Args:
        name: architecture shipped here, built into open_clip, or ``local-dir:PATH``.
        pretrained: open_clip weights tag or file.
        logit_bias: give a model without a logit bias a learnable one that starts here, as the sigmoid loss needs;
            a model that has one (SigLIP, or a run of ours with that loss) keeps its own.

    Raises:
        ConfigError: there is no such architecture or weights.
        CheckpointError: a ``local-dir:`` folder is not a model.
    """
    _register_model_configs()
    model_cfg = _model_config(name)
    root = logging.getLogger()
    level = root.level
    # open_clip warns on the root logger that random weights are random, and logs there what it then raises.
    root.setLevel(logging.CRITICAL)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=pretrained, output_dict=True, weights_only=True
        )
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f'model.name "{name}", model.pretrained "{pretrained}": not a file of weights; it takes .safetensors or '
            "a torch state_dict, and no other pickled object is loaded"
        ) from error
    except _LOAD_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f'model.name "{name}", model.pretrained "{pretrained}": {reason[:300]}') from error
    finally:
        root.setLevel(level)
    if logit_bias is not None and getattr(model, "logit_bias", None) is None:
        # Not by open_clip's init_logit_bias argument: it loads weights that have no bias as a bias of 0.
        # The config still names it, so that open_clip builds the parameter when it loads our checkpoint.
        model.logit_bias = nn.Parameter(torch.full_like(model.logit_scale.data, logit_bias))
        model_cfg["init_logit_bias"] = logit_bias
    preprocess_cfg = {key: _plain(value) for key, value in dict(model.visual.preprocess_cfg).items()}
    return Clip(
        model=model,
        preprocess=preprocess,
        tokenizer=open_clip.get_tokenizer(name),
        config={"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg},
    )


@cache
def _register_model_configs() -> None:
    open_clip.add_model_config(MODEL_CONFIGS)


def _model_config(name: str) -> dict[str, Any]:
    """The architecture as JSON; open_clip's ``local-dir:`` needs it beside the weights."""
    if name.startswith("local-dir:"):
        path = Path(name.removeprefix("local-dir:")) / OPEN_CLIP_CONFIG
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["model_cfg"])
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path.parent} is not an open_clip model folder: {path.name} is missing or damaged"
            ) from error
    config = open_clip.get_model_config(name)
    if config is None:
        shipped = ", ".join(sorted(path.stem for path in MODEL_CONFIGS.glob("*.json")))
        raise ConfigError(f'model.name: open_clip has no architecture "{name}"; shipped here: {shipped}')
    return dict(config)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
