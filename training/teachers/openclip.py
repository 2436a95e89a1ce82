"""Teachers that open_clip loads: CLIP, BiomedCLIP, and what our own NB-CLIP runs have learned."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from training.clip.features import text_features
from training.clip.load import Clip, load_clip
from training.engine.checkpoint import CHECKPOINT, FINISHED
from training.errors import CheckpointError, ConfigError
from training.teachers.encoder import Encoder, configuration

_PLACES = ("hf_model_name", "hf_tokenizer_name", "hf_model_pretrained", "timm_model_pretrained")
"""Entries on where towers came from; the configuration of a Hugging Face tower is stated in full beside them."""


class OpenClipTeacher(Encoder):
    """The two towers of an open_clip model, projected into their shared space.

    Args:
        source: ``ARCHITECTURE,WEIGHTS`` (a tag of open_clip's or a file), ``hf-hub:ORG/REPO``, ``local-dir:FOLDER`` or
            just the folder.
        name: see ``Teacher``.
        device: where it runs.

    Raises:
        ConfigError: there is no such model, or no weights are named: a random model teaches nothing.
        CheckpointError: the folder is not an open_clip model.
    """

    kind = "open_clip"

    def __init__(self, source: str, name: str, device: torch.device) -> None:
        self.clip = clip = self._load(source, name)
        context = {"context_length": int(getattr(clip.tokenizer, "context_length", 0))}
        preprocessing = {**clip.config["preprocess_cfg"], **context}
        super().__init__(name, clip.model, preprocessing, _architecture(clip), clip.tokenizer, device)

    def _load(self, source: str, name: str) -> Clip:
        if source.startswith(("hf-hub:", "local-dir:")):
            return load_clip(source)
        if Path(source).is_dir():
            return load_clip(f"local-dir:{source}")
        architecture, comma, weights = source.partition(",")
        if "/" in architecture:
            raise CheckpointError(f"teacher {name}: there is no folder {architecture}")
        if not comma or not weights:
            raise ConfigError(
                f"teacher open_clip:{source} names no weights: write open_clip:{architecture},TAG or a file, "
                "hf-hub:ORG/REPO, or a model's folder"
            )
        return load_clip(architecture, weights)

    def prepare(self, image: Image.Image) -> Tensor:
        """open_clip's evaluation transform."""
        return self.clip.preprocess(image)

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Padded and truncated to the model's context length."""
        return {"input_ids": self.clip.tokenizer(list(texts))}

    def encode_text(self, tokens: dict[str, Tensor]) -> Tensor:
        """After the projection."""
        return text_features(self.model, tokens["input_ids"])


class RunTeacher(OpenClipTeacher):
    """The model that a finished NB-CLIP run of ours kept; ``source`` is the run's folder.

    Raises:
        CheckpointError: there is no finished run of NB-CLIP.
    """

    kind = "run"

    def _load(self, source: str, name: str) -> Clip:
        folder = Path(source)
        if not (folder / FINISHED).is_file():
            raise CheckpointError(
                f"teacher run:{source} is not a finished training run (no {FINISHED}): train it with training/run.py"
            )
        return load_clip(f"local-dir:{folder / CHECKPOINT}")


def _architecture(clip: Clip) -> list[Any]:
    model_cfg = {
        part: {key: value for key, value in stated.items() if key not in _PLACES}
        if isinstance(stated, dict)
        else stated
        for part, stated in clip.config["model_cfg"].items()
    }
    text_config = getattr(getattr(clip.model, "text", None), "config", None)
    return [model_cfg, text_config and configuration(text_config)]
