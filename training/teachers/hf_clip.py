"""CLIP models as Hugging Face folders: PubMedCLIP and many others."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel

from training.errors import CheckpointError
from training.teachers.checkpoints import find_weights, read_tokenizer
from training.teachers.encoder import Encoder, configuration
from training.weights import LOAD_ERRORS, explain, quiet_loading

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_NAMES = ("image_processor_type", "feature_extractor_type", "processor_class", "auto_map")


class HFClipTeacher(Encoder):
    """``transformers``' CLIPModel with the processor and tokenizer beside it; no hub is asked.

    Args:
        source: folder with config.json, weights, preprocessor_config.json and the tokenizer.
        name: see ``Teacher``.
        device: where it runs.

    Raises:
        CheckpointError: the folder is not a CLIP model, or weights are missing from it.
    """

    kind = "hf"

    def __init__(self, source: str, name: str, device: torch.device) -> None:
        folder = Path(source)
        for names in (("config.json",), WEIGHTS, ("preprocessor_config.json",)):
            find_weights(folder, names, "hf")
        path = os.fspath(folder)
        try:
            with quiet_loading():
                load: Any = CLIPModel.from_pretrained  # typed as if it gave the model alone
                model, info = load(
                    path,
                    local_files_only=True,
                    weights_only=True,
                    output_loading_info=True,
                    dtype=torch.float32,
                )
                self._processor = CLIPImageProcessor.from_pretrained(path, local_files_only=True)
        except LOAD_ERRORS as error:
            raise CheckpointError(f"teacher hf:{source} cannot be loaded: {explain(error)}") from error
        missing = sorted(key for key in info["missing_keys"] if not key.endswith("position_ids"))
        if missing:
            raise CheckpointError(
                f'teacher hf:{source}: parameter "{missing[0]}" is missing: it is not a CLIP model'
            )
        stated = json.loads(self._processor.to_json_string())
        preprocessing = {key: value for key, value in stated.items() if key not in _NAMES} | {
            "context_length": int(model.config.text_config.max_position_embeddings)
        }
        tokenizer = read_tokenizer(folder, "hf")
        super().__init__(name, model, preprocessing, [configuration(model.config)], tokenizer, device)

    def prepare(self, image: Image.Image) -> Tensor:
        """The folder's own processor."""
        pixels: Tensor = self._processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        return pixels

    def encode_image(self, pixels: Tensor) -> Tensor:
        """After the projection."""
        features: Tensor = self.model.visual_projection(
            self.model.vision_model(pixel_values=pixels).pooler_output
        )
        return features

    def encode_text(self, tokens: dict[str, Tensor]) -> Tensor:
        """After the projection."""
        features: Tensor = self.model.text_projection(self.model.text_model(**tokens).pooler_output)
        return features
