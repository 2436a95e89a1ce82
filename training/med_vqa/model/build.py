"""Building a Med-VQA model for training, and loading a saved one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerBase

from training.clip.freeze import hold_in_eval
from training.errors import CheckpointError, ConfigError
from training.med_vqa.model.config import VQAModelConfig
from training.med_vqa.model.configuration import MedVQAConfig
from training.med_vqa.model.handover import Start
from training.med_vqa.model.modeling import MedVQAModel
from training.med_vqa.model.presets import PRESETS
from training.med_vqa.model.saving import (
    CONFIG,
    WEIGHTS,
    Answers,
    load_answers,
    model_folder,
    read_json,
    save_med_vqa,
)
from training.med_vqa.model.starts import bert_of, text_start, vision_start
from training.weights import LOAD_ERRORS, explain, quiet_loading

__all__ = [
    "Answers",
    "MedVQA",
    "architecture",
    "build_med_vqa",
    "load_answers",
    "load_med_vqa",
    "open_start",
    "save_med_vqa",
]


@dataclass(frozen=True)
class MedVQA:
    """A model with all that belongs to it."""

    model: MedVQAModel
    """The five parts."""
    tokenizer: PreTrainedTokenizerBase
    """Of questions and answers; adds [CLS] and [SEP] unless told not to."""

    @property
    def clip_config(self) -> dict[str, Any]:
        """``model_cfg`` and ``preprocess_cfg`` of the image tower."""
        content: dict[str, Any] = self.model.config.clip
        return content

    @property
    def size(self) -> int:
        """Side of the square input, pixels."""
        return self.model.vision.image_size

    @property
    def mean(self) -> Tensor:
        """Per-channel mean of the preprocessing, [3, 1, 1]."""
        return torch.tensor(self.clip_config["preprocess_cfg"]["mean"]).view(3, 1, 1)

    @property
    def std(self) -> Tensor:
        """Per-channel standard deviation of the preprocessing, [3, 1, 1]."""
        return torch.tensor(self.clip_config["preprocess_cfg"]["std"]).view(3, 1, 1)

    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]:
        """open_clip's evaluation transform: PIL image to float32 [3, size, size]."""
        settings = PreprocessCfg(**self.clip_config["preprocess_cfg"])
        transform: Callable[[Image.Image], Tensor] = image_transform_v2(settings, is_train=False)
        return transform


def build_med_vqa(config: VQAModelConfig) -> MedVQA:
    """The model that a training starts from, in train mode; what is random follows torch's global generator.

    Raises:
        ConfigError: a start, a size or a way of freezing that does not exist or does not fit.
        CheckpointError: a ``local-dir:`` folder is not a model; ``model.start`` is none, or has another architecture.
    """
    clip, tower = vision_start(config)
    start = text_start(config)
    model = MedVQAModel(architecture(config, clip, start.config))
    model.vision.load_state_dict(tower.state_dict())
    start.fill(model)
    built = MedVQA(model, start.tokenizer)
    if config.start is not None:
        open_start(config.start).give(built)
    for part, locked in ((model.vision, config.lock_vision), (model.text, config.lock_text)):
        if locked:
            part.requires_grad_(False)
            hold_in_eval([part])
    return built


def open_start(name: str) -> Start:
    """The trained model that ``model.start`` names.

    Raises:
        CheckpointError: it is neither a finished run nor a model folder.
    """
    folder = model_folder(Path(name))
    return Start(folder, load_med_vqa(folder))


def load_med_vqa(folder: Path) -> MedVQA:
    """A saved model in eval mode, on the CPU, from the folder's files alone.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights are of another configuration.
    """
    kind = read_json(folder, CONFIG).get("model_type")
    if kind != MedVQAConfig.model_type:
        raise CheckpointError(
            f'{folder} holds a model of type "{kind}", not {MedVQAConfig.model_type}: name the checkpoint of a '
            "Med-VQA run"
        )
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder} is not a Med-VQA model folder: it has no {WEIGHTS}")
    try:
        with quiet_loading():
            loaded: Any = MedVQAModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ConfigError, *LOAD_ERRORS) as error:
        raise CheckpointError(f"{folder} cannot be loaded: {explain(error)}") from error
    model, info = loaded
    _must_fit(folder, info)
    if len(tokenizer) > model.text.config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(tokenizer)} words and the model {model.text.config.vocab_size}"
        )
    return MedVQA(model.eval(), tokenizer)


def _must_fit(folder: Path, info: dict[str, Any]) -> None:
    """transformers goes on with random weights for what is missing or of another shape."""
    other = f"{folder} cannot be loaded: the weights are of another configuration: parameter"
    for name, found, expected in sorted(info["mismatched_keys"]):
        raise CheckpointError(
            f'{other} "{name}" is {list(found)} in the file and {list(expected)} in the model'
        )
    for name in sorted(info["missing_keys"]):
        raise CheckpointError(f'{other} "{name}" is missing from the file')
    for name in sorted(info["unexpected_keys"]):
        raise CheckpointError(f'{other} "{name}" of the file is not in the model')


def architecture(config: VQAModelConfig, clip: dict[str, Any], bert: BertConfig) -> MedVQAConfig:
    """The configuration of a model whose towers are known.

    Args:
        config: sizes; null takes the preset's, or all layers of ``bert`` if it has fewer.
        clip: description of the image tower.
        bert: what question encoder and decoder are made like.

    Raises:
        ConfigError: more layers are asked for than there are.
    """
    preset = PRESETS[config.preset]
    available = bert.num_hidden_layers

    def layers(name: str, asked: int | None, usual: int, limit: int, of: str) -> int:
        if asked is not None and asked > limit:
            raise ConfigError(f"model.{name}: {asked} must be at most {limit}, the layers of {of}")
        return min(usual, limit) if asked is None else asked

    source = "the preset" if config.text is None else f'model.text "{config.text}"'
    text_layers = layers("text_layers", config.text_layers, preset.text_layers, available, source)
    depth = layers("decoder_layers", config.decoder_layers, preset.decoder_layers, available, source)
    seeing = layers(
        "cross_attention_layers",
        config.cross_attention_layers,
        preset.cross_attention_layers,
        depth,
        "the decoder",
    )
    width = preset.hidden_size if config.hidden_size is None else config.hidden_size
    co_layers = config.co_attention_layers
    return MedVQAConfig(
        clip=clip,
        text=bert_of(bert, text_layers, config.dropout),
        decoder=bert_of(bert, depth, config.dropout),
        cross_attention_layers=seeing,
        hidden_size=width,
        co_attention_layers=preset.co_attention_layers if co_layers is None else co_layers,
        co_attention_heads=preset.heads,
        co_attention_ffn=preset.ffn,
        gate_heads=preset.heads,
        gate_ffn=preset.ffn,
        dropout=config.dropout,
    )
