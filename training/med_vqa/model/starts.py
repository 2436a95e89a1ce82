"""What a Med-VQA model starts from: an open_clip image tower, and a BERT for question encoder, decoder, tokenizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, BertConfig, BertForMaskedLM, PreTrainedTokenizerBase

from training.clip.config import ModelConfig, is_folder
from training.clip.load import build_clip, model_config
from training.clip.starts import MINILM, text_weights_path
from training.errors import ConfigError
from training.med_vqa.model.config import VQAModelConfig
from training.med_vqa.model.modeling import MedVQAModel
from training.med_vqa.model.presets import PRESETS
from training.med_vqa.model.vision import VisionTower, square
from training.weights import LOAD_ERRORS, explain, quiet_loading

Content = dict[str, Any]

# What a BERT's computation depends on; the rest of its configuration is about files, versions and other tasks.
_ARCHITECTURE = (
    "vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "hidden_act", "max_position_embeddings",
    "type_vocab_size", "initializer_range", "layer_norm_eps", "pad_token_id",
)  # fmt: skip

# Fields of ModelConfig, in whose words the image tower's errors are told, and ours.
_FIELDS = (
    ("model.image_weights", "model.vision_weights"),
    ("model.text_weights", "model.text"),
    ("model.pretrained", "model.vision_pretrained"),
    ("model.name", "model.vision"),
)


@dataclass(frozen=True)
class TextStart:
    """A BERT to start from."""

    config: BertConfig
    """Its architecture, with all of its layers."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer."""
    model: BertForMaskedLM | None
    """Its weights; None: random ones are wanted."""
    has_head: bool = False
    """Whether the weights include the head that predicts words."""

    def fill(self, model: MedVQAModel) -> None:
        """Copy the weights: first layers to the question encoder, last ones to the decoder, embeddings to both.

        The decoder's cross-attention stays as it is, and so does its head where the start has none.
        """
        if self.model is None:
            return
        bert = self.model.bert
        model.text.embeddings.load_state_dict(bert.embeddings.state_dict())
        model.decoder.embeddings.load_state_dict(bert.embeddings.state_dict())
        layers: list[Any] = list(bert.encoder.layer)
        decoder: list[Any] = list(model.decoder.layers)
        for source, target in zip(layers, model.text.encoder.layer, strict=False):
            target.load_state_dict(source.state_dict())
        for source, target in zip(layers[-len(decoder) :], decoder, strict=True):
            target.bert.load_state_dict(source.state_dict())
        if self.has_head:
            head = self.model.cls.predictions
            model.decoder.transform.load_state_dict(head.transform.state_dict())
            model.decoder.bias.data.copy_(head.bias.data)


def bert_of(bert: BertConfig, layers: int, dropout: float) -> Content:
    """``BertConfig`` arguments of a BERT of the same kind with so many layers."""
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    same = {name: getattr(bert, name) for name in _ARCHITECTURE}
    return {"model_type": "bert", **same, **rates, "num_hidden_layers": layers}


def text_start(config: VQAModelConfig) -> TextStart:
    """What ``model.text``, or the preset with ``model.tokenizer``, stands for.

    Raises:
        ConfigError: it does not exist, is no BERT, or has no usable tokenizer.
    """
    if config.text is None:
        tokenizer = _tokenizer(str(config.tokenizer), f'model.tokenizer "{config.tokenizer}"')
        preset = PRESETS[config.preset]
        sizes = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=preset.text_width,
            num_hidden_layers=max(preset.text_layers, preset.decoder_layers),
            num_attention_heads=preset.text_heads,
            intermediate_size=preset.text_ffn,
            pad_token_id=tokenizer.pad_token_id,
        )
        return TextStart(sizes, tokenizer, None)
    where = f'model.text "{config.text}"'
    source = _source(config.text, where)
    with _told(where):
        bert = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if bert.model_type != "bert":
        raise ConfigError(f"{where} is a {bert.model_type}; question encoder and decoder need a BERT")
    tokenizer = _tokenizer(source, where)
    if len(tokenizer) > bert.vocab_size:
        raise ConfigError(
            f"{where}: its tokenizer has {len(tokenizer)} words and the model {bert.vocab_size}: they do not belong "
            "together"
        )
    if not config.text_weights:
        return TextStart(bert, tokenizer, None)
    with _told(where):
        loaded: Any = BertForMaskedLM.from_pretrained(source, output_loading_info=True)
    model, info = loaded
    missing = sorted(name for name in info["missing_keys"] if name.startswith("bert."))
    if missing:
        raise ConfigError(f'{where}: parameter "{missing[0]}" is missing from its weights')
    return TextStart(bert, tokenizer, model, not info["missing_keys"])


def vision_start(config: VQAModelConfig) -> tuple[Content, VisionTower]:
    """The image tower: its description, as ``MedVQAConfig.clip``, and the tower with the weights that it starts from.

    Raises:
        ConfigError: it does not exist, or the weights do not fit.
        CheckpointError: a ``local-dir:`` folder is not a model.
    """
    preset = PRESETS[config.preset]
    name = config.vision or preset.vision
    size = config.image_size if config.vision or config.image_size else preset.image_size
    with _renamed():
        clip = build_clip(
            ModelConfig(
                name=name,
                pretrained=config.vision_pretrained,
                image_weights=config.vision_weights,
                text_weights=_unused_text(config, name),
                image_size=size,
            )
        )
    model_cfg = clip.config["model_cfg"]
    kept = {key: model_cfg[key] for key in ("embed_dim", "quick_gelu") if key in model_cfg}
    vision_cfg = dict(model_cfg["vision_cfg"])
    if "timm_model_name" in vision_cfg:
        vision_cfg["timm_model_pretrained"] = False
    side = square(clip.config["preprocess_cfg"]["size"])
    vision_cfg["image_size"] = side
    description = {
        "model_cfg": {**kept, "vision_cfg": vision_cfg},
        "preprocess_cfg": clip.config["preprocess_cfg"],
    }
    return description, VisionTower(clip.model.visual, side)


def _unused_text(config: VQAModelConfig, name: str) -> str | None:
    """A text tower for a CLIP whose own one would come from the hub: only its image tower is wanted."""
    if is_folder(name) or config.vision_pretrained is not None or config.text is None:
        return None
    hub_text = "hf_model_name" in model_config(name)["text_cfg"]
    local = config.text == MINILM or Path(config.text).is_dir()
    return config.text if hub_text and local else None


def _source(text: str, where: str) -> str:
    if text.startswith("hf-hub:"):
        return text.removeprefix("hf-hub:")
    with _renamed():
        folder = text_weights_path(text)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{where} is not a Hugging Face model folder: it has no config.json; a model of the hub is written "
            "hf-hub:NAME"
        )
    return str(folder)


def _tokenizer(source: str, where: str) -> PreTrainedTokenizerBase:
    with _told(where):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    needed = ("pad_token_id", "cls_token_id", "sep_token_id")
    absent = [name.removesuffix("_id") for name in needed if getattr(tokenizer, name, None) is None]
    if absent or not tokenizer.is_fast:
        raise ConfigError(f"{where}: its tokenizer has no {absent[0] if absent else 'fast version'}")
    return tokenizer


@contextmanager
def _told(where: str) -> Iterator[None]:
    """What transformers raises, on one line."""
    try:
        with quiet_loading():
            yield
    except LOAD_ERRORS as error:
        raise ConfigError(f"{where}: {explain(error)}") from error


@contextmanager
def _renamed() -> Iterator[None]:
    """Errors about the image tower in the words of ``VQAModelConfig``."""
    try:
        yield
    except ConfigError as error:
        text = str(error)
        for theirs, ours in _FIELDS:
            text = text.replace(theirs, ours)
        raise ConfigError(text) from error
