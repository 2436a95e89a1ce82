"""Encoders of captions alone: sentence encoders of transformers, and the text towers of teachers.

    e(text) = norm(Σ_t m_t·h_t / Σ_t m_t),  h = the last layer's token vectors, m = the attention mask

Source: Reimers and Gurevych 2019 (mean pooling); other poolings and layers behind the model are left aside.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModel

from training.clip.pretrained import MINILM, text_weights_path
from training.errors import CheckpointError, ConfigError, DataError
from training.teachers.base import Advance, FloatArray, ImageTexts, IntArray, Teacher
from training.teachers.checkpoints import find_weights, read_tokenizer
from training.teachers.encoder import Encoder, configuration
from training.teachers.registry import open_teacher
from training.weights import LOAD_ERRORS, explain, quiet_loading

SENTENCE = "sentence"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
_LIMITS = "sentence_bert_config.json"  # of sentence-transformers: the longest text that it was trained with


def open_text_encoder(spec: str, device: str | torch.device = "auto") -> Teacher:
    """The encoder of captions that a person named; only its ``texts`` is for use.

    Args:
        spec: ``minilm-l6-v2``, ``sentence:FOLDER``, or any teacher, see ``registry``.
        device: where it runs; ``auto``: on the first GPU if there is one.

    Raises:
        ConfigError: there is no such encoder, or it has no vectors of captions.
        CheckpointError: the weights are missing, damaged or of another layout.
    """
    kind, colon, source = spec.partition(":")
    if spec != MINILM and not (kind == SENTENCE and colon):
        teacher = open_teacher(spec, device, also=(MINILM, f"{SENTENCE}:FOLDER"))
        if not teacher.dim:
            raise ConfigError(f"encoder {spec} has no vectors of captions: choose another one")
        return teacher
    if spec != MINILM and not source:
        raise ConfigError(f"encoder {spec}: say where the weights are, {SENTENCE}:FOLDER")
    place = (
        "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    )
    folder = text_weights_path(MINILM, "encoder") if spec == MINILM else Path(source)
    name = MINILM if spec == MINILM else f"{SENTENCE}:{folder.name}"
    return SentenceEncoder(folder, name, torch.device(place))


class SentenceEncoder(Encoder):
    """An encoder of transformers with mean pooling; no hub is asked and no code of the folder is run.

    Args:
        folder: config.json, weights and the tokenizer.
        name: see ``Teacher``.
        device: where it runs.

    Raises:
        CheckpointError: it is not an encoder's folder, or weights are missing from it.
    """

    kind = SENTENCE
    reads_images = False
    truncated = 0
    """Texts so far that were longer than the encoder takes."""

    def __init__(self, folder: Path, name: str, device: torch.device) -> None:
        where = f"encoder {SENTENCE}:{folder}"
        for names in (("config.json",), _WEIGHTS):
            find_weights(folder, names, SENTENCE)
        try:
            with quiet_loading():
                load: Any = AutoModel.from_pretrained  # typed as if it gave the model alone
                model, info = load(
                    os.fspath(folder),
                    local_files_only=True,
                    trust_remote_code=False,
                    weights_only=True,
                    output_loading_info=True,
                    dtype=torch.float32,
                )
        except LOAD_ERRORS as error:
            raise CheckpointError(f"{where} cannot be loaded: {explain(error)}") from error
        missing = sorted(
            key for key in info["missing_keys"] if not key.startswith("pooler.") and "position_ids" not in key
        )
        if missing:
            raise CheckpointError(f'{where}: parameter "{missing[0]}" is missing: it is of another kind')
        if model.config.is_encoder_decoder:
            raise CheckpointError(f"{where} is a {model.config.model_type}, with a decoder: take an encoder")
        if hasattr(model, "pooler"):
            model.pooler = None  # not used, and random where the folder has none
        tokenizer = read_tokenizer(folder, SENTENCE)
        if tokenizer.pad_token is None:
            raise CheckpointError(f"{where}: its tokenizer has no padding token: take an encoder")
        self.inputs = tuple(tokenizer.model_input_names)
        preprocessing = {"context_length": _longest(folder, model.config, tokenizer), "pooling": "mean"}
        super().__init__(
            name, model, preprocessing, [configuration(model.config)], tokenizer, device, scale=1.0
        )

    def prepare(self, image: Image.Image) -> Tensor:
        """Not possible: it has no image tower."""
        raise DataError(f"encoder {self.name} has no image tower")

    def tokens(self, texts: Any) -> dict[str, Tensor]:
        """Texts as the model takes them, as long as the longest of them."""
        length = self.preprocessing["context_length"]
        found = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        return {key: found[key] for key in self.inputs}

    def encode_text(self, tokens: dict[str, Tensor]) -> Tensor:
        """Mean of the last layer's vectors over the attention mask, ``[B, D]``."""
        hidden: Tensor = self.model(**tokens).last_hidden_state  # (B, T, D)
        mask = tokens["attention_mask"][..., None].to(hidden.dtype)  # (B, T, 1)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1)

    def texts(self, pairs: ImageTexts, rows: IntArray, advance: Advance | None = None) -> FloatArray:
        """See ``Teacher``; texts of like lengths share a batch, and those that are truncated are counted."""
        vectors = np.zeros((len(rows), self.dim), dtype=np.float32)
        if not len(rows):
            return vectors
        texts = [pairs.captions[row] for row in rows.tolist()]
        lengths = np.array([len(ids) for ids in self.tokenizer(texts, verbose=False)["input_ids"]])
        self.truncated += int((lengths > self.preprocessing["context_length"]).sum())
        order = np.argsort(lengths, kind="stable")
        vectors[order] = super().texts(pairs, rows[order], advance)
        return vectors


def _longest(folder: Path, config: Any, tokenizer: Any) -> int:
    """Tokens that the encoder takes: the least of what its model, its tokenizer and sentence-transformers state."""
    # RoBERTa and its kin count positions from the padding token's number on.
    offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    limits[1] = None if limits[1] is None else limits[1] - offset
    stated = folder / _LIMITS
    if stated.is_file():
        limits.append(json.loads(stated.read_text(encoding="utf-8")).get("max_seq_length"))
    return min(int(limit) for limit in limits if limit)
