"""PMC-CLIP's checkpoints, as published (Lin et al., 2023), in either form:

    checkpoint.pt                    visual.* (CLIP's ResNet-50), text_encoder.* (PubMedBERT), text_projection,
                                     logit_scale, and the parts for masked language, which a teacher does not need
    image_encoder(resnet50).pth      the same three parts in files of their own, without the scale
    text_encoder.pth
    text_projection_layer.pth

Captions: the [CLS] state of 77 tokens, padding attended to as in its own training code, times the projection.
"""

import math
from pathlib import Path
from typing import Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn

from training.errors import CheckpointError
from training.teachers.checkpoints import (
    Weights,
    bert_of,
    count,
    fill,
    find_weights,
    part,
    read_tokenizer,
    read_weights,
    required,
)
from training.teachers.encoder import Encoder, configuration

WHOLE = ("checkpoint.safetensors", "checkpoint.pt")
PARTS = {
    "visual.": "image_encoder(resnet50).pth",
    "text_encoder.": "text_encoder.pth",
    "text_projection": "text_projection_layer.pth",
}
LOGIT_SCALE = 4.4292
"""ln of the published model's scale (R: stated by users of its three files, which lack it)."""
CONTEXT = 77


class PmcClip(nn.Module):
    """The two towers, as large as the weights say.

    Raises:
        CheckpointError: the weights are not a PMC-CLIP's.
    """

    def __init__(self, weights: Weights, where: str) -> None:
        super().__init__()
        visual = part(weights, "visual.")
        stem = required(visual, "conv3.weight", where)
        grid = required(visual, "attnpool.positional_embedding", where)
        projected = required(visual, "attnpool.c_proj.weight", where)
        self.visual = ModifiedResNet(
            layers=[count(visual, f"layer{stage}.") for stage in (1, 2, 3, 4)],
            output_dim=projected.shape[0],
            heads=max(1, stem.shape[0] * 32 // 64),
            image_size=32 * math.isqrt(grid.shape[0] - 1),
            width=stem.shape[0],
        )
        fill(self.visual, visual, where)
        self.text = bert_of(part(weights, "text_encoder."), where)
        self.text_projection = nn.Parameter(required(weights, "text_projection", where).float())
        self.logit_scale = nn.Parameter(weights.get("logit_scale", torch.tensor(LOGIT_SCALE)).float())
        if self.text_projection.shape != (self.text.config.hidden_size, projected.shape[0]):
            raise CheckpointError(f"{where}: image and text towers end in spaces of different width")

    def architecture(self) -> list[Any]:
        """Configuration that was read off the weights and their names do not say, as JSON."""
        return [configuration(self.text.config), {"heads": int(self.visual.attnpool.num_heads)}]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Float ``[B, 3, S, S]`` to ``[B, D]``, after the attention pool, which projects."""
        features: Tensor = self.visual(pixels)
        return features

    def encode_text(self, input_ids: Tensor) -> Tensor:
        """int64 ``[B, 77]`` to ``[B, D]``."""
        features: Tensor = self.text(input_ids=input_ids).last_hidden_state[:, 0] @ self.text_projection
        return features


class PmcClipTeacher(Encoder):
    """PMC-CLIP with CLIP's preprocessing, captions padded and truncated to 77 tokens.

    Args:
        source: folder of its weights, with PubMedBERT's ``vocab.txt`` beside them.
        name: see ``Teacher``.
        device: where it runs.

    Raises:
        CheckpointError: the folder does not hold PMC-CLIP's checkpoint or no vocabulary.
    """

    kind = "pmc_clip"
    inputs = ("input_ids",)

    def __init__(self, source: str, name: str, device: torch.device) -> None:
        model = PmcClip(_weights(Path(source)), source)
        preprocessing: dict[str, Any] = {
            "size": int(model.visual.image_size),
            "mean": list(OPENAI_DATASET_MEAN),
            "std": list(OPENAI_DATASET_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        }
        self._transform = image_transform_v2(PreprocessCfg(**preprocessing), is_train=False)
        preprocessing["context_length"] = CONTEXT
        tokenizer = read_tokenizer(Path(source), "pmc_clip")
        super().__init__(name, model, preprocessing, [model.architecture()], tokenizer, device)

    def prepare(self, image: Image.Image) -> Tensor:
        """Shorter side to the tower's size, centre crop."""
        pixels: Tensor = self._transform(image)
        return pixels


def _weights(folder: Path) -> Weights:
    if not (folder / PARTS["visual."]).is_file():
        return read_weights(find_weights(folder, (*WHOLE, PARTS["visual."]), "pmc_clip"))
    found: Weights = {}
    for prefix, file in PARTS.items():
        values = read_weights(find_weights(folder, (file,), "pmc_clip"))
        found |= {prefix + name: value for name, value in values.items()}
    return found
