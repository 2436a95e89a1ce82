"""MedCLIP's checkpoints, as published (Wang et al., 2022): one ``pytorch_model.bin`` with

    vision_model.model.*                 Swin (transformers) or ResNet-50 (torchvision, whose ``fc`` is the projection)
    vision_model.projection_head.weight  Swin only
    text_model.model.*                   Bio_ClinicalBERT
    text_model.projection_head.weight    (and .bias in older ones)
    logit_scale

Captions: the mean over tokens of the first, second and last layer's states, projected. Its own code takes the mean over
padding, too, so that a caption's vector depends on its batch; here it is over the caption's own tokens, which is what
its code gives for one caption alone (R).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet
from transformers import SwinConfig, SwinModel

from training.errors import CheckpointError
from training.teachers.checkpoints import (
    Weights,
    bert_of,
    count,
    fill,
    filled,
    find_weights,
    part,
    read_tokenizer,
    read_weights,
    required,
)
from training.teachers.encoder import Encoder, configuration

WEIGHTS = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
SIDE, MEAN, STD = 224, 0.5862785803043838, 0.27950088968644304
CONTEXT = 77
_LARGEST_LOGIT_SCALE = 4.6052  # its code clamps to [0, ln 100] whenever logits are computed


class MedClip(nn.Module):
    """The two towers, as large as the weights say.

    Raises:
        CheckpointError: the weights are not a MedCLIP's.
    """

    def __init__(self, weights: Weights, where: str) -> None:
        super().__init__()
        vision, text = part(weights, "vision_model."), part(weights, "text_model.")
        self.swin = "projection_head.weight" in vision
        self.vision = _swin(vision, where) if self.swin else _resnet(vision, where)
        if self.swin:
            self.vision_projection = _linear(vision, "projection_head", where)
        self.text = bert_of(part(text, "model."), where)
        self.text_projection = _linear(text, "projection_head", where)
        self.logit_scale = nn.Parameter(required(weights, "logit_scale", where).float())

    def architecture(self) -> list[Any]:
        """Configuration that was read off the weights, as JSON; of a ResNet their names say it all."""
        vision: Any = self.vision
        return [configuration(self.text.config), configuration(vision.config) if self.swin else "resnet"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Float ``[B, 3, 224, 224]`` to ``[B, 512]``."""
        if not self.swin:
            projected: Tensor = self.vision(pixels)
            return projected
        features: Tensor = self.vision_projection(self.vision(pixel_values=pixels).pooler_output)
        return features

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 ``[B, L]`` twice to ``[B, 512]``."""
        found = self.text(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        layers = torch.stack([found.hidden_states[index] for index in (1, 2, -1)])  # (3, B, L, H)
        inside = attention_mask[None, :, :, None].to(layers.dtype)
        mean = ((layers * inside).sum(2) / inside.sum(2)).mean(0)  # (B, H)
        features: Tensor = self.text_projection(mean)
        return features


class MedClipTeacher(Encoder):
    """MedCLIP with its preprocessing: grey, padded to a square, 224 pixels, one mean and deviation.

    Args:
        source: folder of its weights, with Bio_ClinicalBERT's ``vocab.txt`` beside them.
        name: see ``Teacher``.
        device: where it runs.

    Raises:
        CheckpointError: the folder does not hold a MedCLIP checkpoint or no vocabulary.
    """

    kind = "medclip"

    def __init__(self, source: str, name: str, device: torch.device) -> None:
        path = find_weights(Path(source), WEIGHTS, "medclip")
        model = MedClip(read_weights(path), str(path))
        tokenizer = read_tokenizer(Path(source), "medclip")
        if len(tokenizer) > model.text.config.vocab_size:
            raise CheckpointError(
                f"teacher medclip:{source}: its vocabulary has {len(tokenizer):,} words, the text tower "
                f"{model.text.config.vocab_size:,}: take Bio_ClinicalBERT's vocab.txt"
            )
        preprocessing = {
            "mode": "grey, padded with black to a square",
            "size": SIDE,
            "mean": MEAN,
            "std": STD,
            "interpolation": "bicubic",
            "context_length": CONTEXT,
        }
        scale = math.exp(min(max(float(model.logit_scale.detach()), 0.0), _LARGEST_LOGIT_SCALE))
        super().__init__(name, model, preprocessing, [model.architecture()], tokenizer, device, scale)

    def prepare(self, image: Image.Image) -> Tensor:
        """As MedCLIP's feature extractor does."""
        grey = image.convert("L")
        side = max(SIDE, *grey.size)
        square = Image.new("L", (side, side), 0)
        square.paste(grey, ((side - grey.width) // 2, (side - grey.height) // 2))
        pixels = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32) / 255.0
        return torch.from_numpy((pixels - MEAN) / STD).float().expand(3, SIDE, SIDE).clone()


def _linear(weights: Weights, name: str, where: str) -> nn.Linear:
    weight = required(weights, f"{name}.weight", where)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=f"{name}.bias" in weights)
    fill(layer, part(weights, f"{name}."), where)
    return layer


def _swin(weights: Weights, where: str) -> SwinModel:
    own = part(weights, "model.")
    patch = required(own, "embeddings.patch_embeddings.projection.weight", where)
    stages = [f"encoder.layers.{stage}.blocks." for stage in range(count(own, "encoder.layers."))]
    table = ".attention.self.relative_position_bias_table"
    tables = [required(own, f"{stage}0{table}", where) for stage in stages]
    if not tables:
        raise CheckpointError(
            f"{where}: its image tower has no Swin stage: it is a checkpoint of another kind"
        )
    config = SwinConfig(
        image_size=SIDE,
        patch_size=patch.shape[-1],
        embed_dim=patch.shape[0],
        depths=[count(own, stage) for stage in stages],
        num_heads=[found.shape[1] for found in tables],
        window_size=(math.isqrt(tables[0].shape[0]) + 1) // 2,
    )
    model: SwinModel = filled(SwinModel, config, own, where)
    return model


def _resnet(weights: Weights, where: str) -> ResNet:
    own = part(weights, "model.")
    projection = required(own, "fc.weight", where)
    model = ResNet(Bottleneck, [count(own, f"layer{stage}.") for stage in (1, 2, 3, 4)])
    model.fc = nn.Linear(projection.shape[1], projection.shape[0], bias="fc.bias" in own)
    fill(model, own, where)
    return model
