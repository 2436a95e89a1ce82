"""Building a Med-VQA model for training: its sizes, and what it is initialised from.

| part                                 | initialised from                                         | fields          |
|--------------------------------------|----------------------------------------------------------|-----------------|
| image tower                          | open_clip weights of a whole CLIP, or of a tower alone   | model.vision…   |
| question encoder, decoder, tokenizer | a BERT: its first layers, its last layers                | model.text…     |
| towers, projections, co-attention    | a pre-training: the parts that it trained, and no others | model.init_from |
| the same and the gate                | a fine-tuned model: everything but its decoder           | model.init_from |
| all else                             | random numbers of torch's global generator               |                 |

Decoder and tokenizer are always those of ``model.text``.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from training.arguments import flat
from training.clip.config import ModelConfig, is_folder
from training.clip.freeze import hold_in_eval
from training.clip.load import build_clip, model_config
from training.clip.pretrained import MINILM, text_weights_path, weights_digest
from training.errors import CheckpointError, ConfigError
from training.med_vqa.model.config import PRESETS, VQAModelConfig
from training.med_vqa.model.history import PretrainingRecord, read_pretraining
from training.med_vqa.model.modeling import MedVQAConfig, MedVQAModel
from training.med_vqa.model.saving import MedVQA, folder_digest, load_med_vqa, model_folder
from training.med_vqa.model.vision import VisionTower, square
from training.weights import LOAD_ERRORS, explain, quiet_loading

# Fields that a BERT's computation depends on; the others are about files, versions and other tasks.
_ARCHITECTURE = (
    "vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "hidden_act", "max_position_embeddings",
    "type_vocab_size", "initializer_range", "layer_norm_eps", "pad_token_id",
)  # fmt: skip

# Fields of ModelConfig, which errors about the image tower name, and ours.
_FIELDS = (
    ("model.image_weights", "model.vision_weights"),
    ("model.text_weights", "model.text"),
    ("model.pretrained", "model.vision_pretrained"),
    ("model.name", "model.vision"),
)

# Fields that the parts taken from a trained model depend on, and entries below them that no shape or output depends on.
_COMPARED = (
    "clip", "text", "hidden_size", "co_attention_layers", "co_attention_heads", "co_attention_ffn", "gate_heads",
    "gate_ffn",
)  # fmt: skip
_NO_ARCHITECTURE = ("hidden_dropout_prob", "attention_probs_dropout_prob", "timm_model_pretrained")


def build_med_vqa(config: VQAModelConfig) -> MedVQA:
    """The initial model of a training run, in train mode; random weights follow torch's global generator.

    Raises:
        ConfigError: pretrained weights, a size or a way of freezing that does not exist or does not fit.
        CheckpointError: a ``local-dir:`` folder is not a model; ``model.init_from`` is none, or has another
            architecture.
    """
    clip, tower = pretrained_vision(config)
    bert, tokenizer, weights = pretrained_text(config)
    model = MedVQAModel(architecture(config, clip, bert))
    model.vision.load_state_dict(tower.state_dict())
    if weights is not None:
        _fill_text(model, weights)
    built = MedVQA(model, tokenizer)
    if config.init_from is not None:
        _take_trained_parts(built, model_folder(Path(config.init_from)))
    _lock(model, config)
    return built


def untrained_med_vqa(config: VQAModelConfig) -> MedVQAModel:
    """A model of the sizes that a run would have, with random weights; nothing is downloaded for it.

    Of a text model on the hub the preset's sizes are taken.

    Raises:
        ConfigError: a size or a way of freezing that does not exist or does not fit.
    """
    plain = replace(config, init_from=None, vision_pretrained=None, text_weights=False)
    clip, _ = pretrained_vision(plain)
    on_hub = config.text is not None and config.text.startswith("hf-hub:")
    bert = _preset_bert(plain) if on_hub else pretrained_text(plain)[0]
    model = MedVQAModel(architecture(plain, clip, bert))
    _lock(model, config)
    return model


def _lock(model: MedVQAModel, config: VQAModelConfig) -> None:
    for part, locked in ((model.vision, config.lock_vision), (model.text, config.lock_text)):
        if locked:
            part.requires_grad_(False)
            hold_in_eval([part])


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

    def layers(name: str, limit: int, of: str) -> int:
        asked: int | None = getattr(config, name)
        if asked is not None and asked > limit:
            raise ConfigError(f"model.{name}: {asked} must be at most {limit}, the layers of {of}")
        return min(getattr(preset, name), limit) if asked is None else asked

    def like_bert(depth: int) -> dict[str, Any]:
        """``BertConfig`` arguments of a BERT of the same kind with so many layers."""
        rates = {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.dropout}
        same = {name: getattr(bert, name) for name in _ARCHITECTURE}
        return {"model_type": "bert", **same, **rates, "num_hidden_layers": depth}

    source = "the preset" if config.text is None else f'model.text "{config.text}"'
    text_layers = layers("text_layers", bert.num_hidden_layers, source)
    depth = layers("decoder_layers", bert.num_hidden_layers, source)
    seeing = layers("cross_attention_layers", depth, "the decoder")
    co_layers = config.co_attention_layers
    return MedVQAConfig(
        clip=clip,
        text=like_bert(text_layers),
        decoder=like_bert(depth),
        cross_attention_layers=seeing,
        hidden_size=preset.hidden_size if config.hidden_size is None else config.hidden_size,
        co_attention_layers=preset.co_attention_layers if co_layers is None else co_layers,
        co_attention_heads=preset.heads,
        co_attention_ffn=preset.ffn,
        gate_heads=preset.heads,
        gate_ffn=preset.ffn,
        dropout=config.dropout,
    )


def pretrained_vision(config: VQAModelConfig) -> tuple[dict[str, Any], VisionTower]:
    """The image tower: its description, as ``MedVQAConfig.clip``, and the tower with its first weights.

    Raises:
        ConfigError: it does not exist, or the weights do not fit.
        CheckpointError: a ``local-dir:`` folder is not a model.
    """
    preset = PRESETS[config.preset]
    name = config.vision or preset.vision
    size = config.image_size if config.vision or config.image_size else preset.image_size
    with _own_field_names():
        initial = ModelConfig(
            name,
            config.vision_pretrained,
            image_weights=config.vision_weights,
            text_weights=_unused_text(config, name),
            image_size=size,
        )
        clip = build_clip(initial)
    model_cfg, preprocess_cfg = clip.config["model_cfg"], clip.config["preprocess_cfg"]
    kept = {key: model_cfg[key] for key in ("embed_dim", "quick_gelu") if key in model_cfg}
    vision_cfg = dict(model_cfg["vision_cfg"])
    if "timm_model_name" in vision_cfg:
        vision_cfg["timm_model_pretrained"] = False
    side = vision_cfg["image_size"] = square(preprocess_cfg["size"])
    description = {"model_cfg": {**kept, "vision_cfg": vision_cfg}, "preprocess_cfg": preprocess_cfg}
    return description, VisionTower(clip.model.visual, side)


def _unused_text(config: VQAModelConfig, name: str) -> str | None:
    """A text tower for a CLIP whose own one would come from the hub: only its image tower is wanted."""
    if is_folder(name) or config.vision_pretrained is not None or config.text is None:
        return None
    hub_text = "hf_model_name" in model_config(name)["text_cfg"]
    local = config.text == MINILM or Path(config.text).is_dir()
    return config.text if hub_text and local else None


def pretrained_text(
    config: VQAModelConfig,
) -> tuple[BertConfig, PreTrainedTokenizerBase, BertForMaskedLM | None]:
    """The BERT that ``model.text``, or the preset with ``model.tokenizer``, names.

    Returns:
        A BERT's architecture with all of its layers, its tokenizer and its weights; None: random ones are wanted.

    Raises:
        ConfigError: it does not exist, is no BERT, or has no usable tokenizer.
    """
    if config.text is None:
        tokenizer = _tokenizer(str(config.tokenizer), f'model.tokenizer "{config.tokenizer}"')
        return _preset_bert(config, len(tokenizer), tokenizer.pad_token_id), tokenizer, None
    where = f'model.text "{config.text}"'
    source = _text_source(config.text, where)
    with _on_one_line(where):
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
        return bert, tokenizer, None
    with _on_one_line(where):
        loaded: Any = BertForMaskedLM.from_pretrained(source, output_loading_info=True)
    model, info = loaded
    missing = sorted(name for name in info["missing_keys"] if name.startswith("bert."))
    if missing:
        raise ConfigError(f'{where}: parameter "{missing[0]}" is missing from its weights')
    if info["missing_keys"]:
        model.cls = None  # the head that predicts words is not among the weights
    return bert, tokenizer, model


def _preset_bert(config: VQAModelConfig, words: int = 28_996, padding: int = 0) -> BertConfig:
    """A BERT of the preset's sizes, by default with as many words as ClinicalBERT."""
    preset = PRESETS[config.preset]
    return BertConfig(
        hidden_size=preset.text_width,
        num_hidden_layers=max(preset.text_layers, preset.decoder_layers),
        num_attention_heads=preset.text_heads,
        intermediate_size=preset.text_ffn,
        vocab_size=words,
        pad_token_id=padding,
    )


def _fill_text(model: MedVQAModel, weights: BertForMaskedLM) -> None:
    """Copy a BERT: first layers to the question encoder, last ones to the decoder, embeddings to both.

    The decoder's cross-attention stays as it is, and so does its head where the BERT has none.
    """
    bert = weights.bert
    model.text.embeddings.load_state_dict(bert.embeddings.state_dict())
    model.decoder.embeddings.load_state_dict(bert.embeddings.state_dict())
    layers: list[Any] = list(bert.encoder.layer)
    decoder: list[Any] = list(model.decoder.layers)
    for source, target in zip(layers, model.text.encoder.layer, strict=False):
        target.load_state_dict(source.state_dict())
    for source, target in zip(layers[-len(decoder) :], decoder, strict=True):
        target.bert.load_state_dict(source.state_dict())
    if weights.cls is not None:
        head = weights.cls.predictions
        model.decoder.transform.load_state_dict(head.transform.state_dict())
        model.decoder.bias.data.copy_(head.bias.data)


def _text_source(text: str, where: str) -> str:
    if text.startswith("hf-hub:"):
        return text.removeprefix("hf-hub:")
    with _own_field_names():
        folder = text_weights_path(text)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{where} is not a Hugging Face model folder: it has no config.json; a model of the hub is written "
            "hf-hub:NAME"
        )
    return str(folder)


def _tokenizer(source: str, where: str) -> PreTrainedTokenizerBase:
    with _on_one_line(where):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    needed = ("pad_token_id", "cls_token_id", "sep_token_id")
    absent = [name.removesuffix("_id") for name in needed if getattr(tokenizer, name, None) is None]
    if absent or not tokenizer.is_fast:
        raise ConfigError(f"{where}: its tokenizer has no {absent[0] if absent else 'fast version'}")
    return tokenizer


@contextmanager
def _on_one_line(where: str) -> Iterator[None]:
    """Turn errors of transformers into one line."""
    try:
        with quiet_loading():
            yield
    except LOAD_ERRORS as error:
        raise ConfigError(f"{where}: {explain(error)}") from error


@contextmanager
def _own_field_names() -> Iterator[None]:
    """Name fields of ``VQAModelConfig`` in errors about the image tower."""
    try:
        yield
    except ConfigError as error:
        text = str(error)
        for theirs, ours in _FIELDS:
            text = text.replace(theirs, ours)
        raise ConfigError(text) from error


def _take_trained_parts(built: MedVQA, folder: Path) -> None:
    trained, where = load_med_vqa(folder), f"model.init_from {folder}"
    for name, theirs, ours in _differences(trained.model.config, built.model.config):
        raise CheckpointError(
            f"{where}: its {name} is {theirs}, that of this model {ours}: set model.preset and its sizes as in the "
            "pre-training"
        )
    if trained.tokenizer.get_vocab() != built.tokenizer.get_vocab():
        raise CheckpointError(
            f"{where}: its words are not those of this model's tokenizer: set model.text alike"
        )
    for name in (read_pretraining(folder) or PretrainingRecord()).trained:
        part: Any = getattr(trained.model, name)
        getattr(built.model, name).load_state_dict(part.state_dict())


def _differences(theirs: PretrainedConfig, ours: PretrainedConfig) -> Iterator[tuple[str, Any, Any]]:
    """Name and values of the fields that the shared parts' computation depends on and that differ."""
    compared = ({name: getattr(config, name) for name in _COMPARED} for config in (theirs, ours))
    first, second = (flat(json.loads(json.dumps(fields))) for fields in compared)  # with lists for tuples
    for name in dict.fromkeys((*first, *second)):
        if first.get(name) != second.get(name) and name.rpartition(".")[2] not in _NO_ARCHITECTURE:
            yield name, first.get(name), second.get(name)


def initial_digests(config: VQAModelConfig) -> dict[str, str]:
    """Digests of the local files that the initial weights come from; ``build_med_vqa`` says which one is missing.

    Raises:
        CheckpointError: ``model.init_from`` is neither a finished run nor a model folder.
    """
    name, pretrained = config.vision or PRESETS[config.preset].vision, config.vision_pretrained
    fields: dict[str, dict[str, Any]] = {
        "the image tower's local weights": {
            "name": name, "pretrained": pretrained, "image_weights": config.vision_weights,
        },
        "the text model's local weights": {"text_weights": config.text or config.tokenizer},
    }  # fmt: skip
    digests = dict.fromkeys(fields, "")
    for what, of in fields.items():
        with suppress(ConfigError):
            digests[what] = weights_digest(ModelConfig(**of))
    if config.init_from is not None:
        digests["model.init_from"] = folder_digest(model_folder(Path(config.init_from)))
    return digests
