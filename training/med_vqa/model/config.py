"""The configuration of a Med-VQA model: named sizes, what it is initialised from and which part of it learns."""

from dataclasses import dataclass

from training.checks import all_within, one_of
from training.clip.config import MAX_IMAGE_SIZE, resolve_precision
from training.data.config import ViewsConfig
from training.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """Default sizes; a pretrained BERT brings its own widths, and single fields can be set."""

    vision: str
    """open_clip architecture of the image tower."""
    image_size: int | None
    """Side of the square input in pixels; None: the architecture's."""
    text_width: int
    """Width of question encoder and decoder."""
    text_heads: int
    """Attention heads of question encoder and decoder."""
    text_ffn: int
    """Inner width of their feed-forward layers."""
    text_layers: int
    """Layers of the question encoder."""
    decoder_layers: int
    """Layers of the answer decoder."""
    cross_attention_layers: int
    """Last layers of the decoder that see the encoder states."""
    hidden_size: int
    """Width d of co-attention and gate."""
    co_attention_layers: int
    """Layers of the co-attention, each with a block for the text and one for the image."""
    heads: int
    """Attention heads of co-attention and gate."""
    ffn: int
    """Inner width of the feed-forward layers of co-attention and gate."""


PRESETS = {
    # AMiF's supplement: CLIP ViT-B/16 at 288 pixels, ClinicalBERT (BERT-base cased) twice.
    "paper": Preset(
        vision="ViT-B-16", image_size=288,
        text_width=768, text_heads=12, text_ffn=3072, text_layers=12, decoder_layers=12, cross_attention_layers=6,
        hidden_size=768, co_attention_layers=6, heads=12, ffn=3072,
    ),
    # EfficientNet-lite0 and MiniLM: trains on two CPU cores.
    "small": Preset(
        vision="lite0-tiny-text", image_size=None,
        text_width=384, text_heads=12, text_ffn=1536, text_layers=3, decoder_layers=4, cross_attention_layers=2,
        hidden_size=384, co_attention_layers=2, heads=12, ffn=1536,
    ),
    # For tests: milliseconds.
    "tiny": Preset(
        vision="test-vit", image_size=None,
        text_width=32, text_heads=2, text_ffn=64, text_layers=2, decoder_layers=2, cross_attention_layers=1,
        hidden_size=32, co_attention_layers=1, heads=2, ffn=64,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class VQAModelConfig:
    """The parts of a Med-VQA model; null takes the preset's value."""

    init_from: str | None = None
    """Pre-training run or checkpoint folder whose towers, projections and co-attention are taken; null: none."""
    preset: str = "small"
    """Sizes: paper (AMiF's, 445 M parameters), small (two CPU cores) or tiny (tests)."""
    vision: str | None = None
    """Image tower: open_clip architecture, local-dir:PATH (an NB-CLIP checkpoint) or hf-hub:NAME; null: preset's."""
    vision_pretrained: str | None = None
    """Its weights by open_clip: a tag, or a .safetensors or state_dict file of a whole CLIP; null: none."""
    vision_weights: str | None = None
    """Weights of the image tower alone: efficientnet-lite0 (ImageNet, extra [benchmarks]) or a file; null: none."""
    image_size: int | None = None
    """Side of the square input in pixels, in [16, 4096]; null: the preset's, or that of the named vision."""
    text: str | None = "minilm-l6-v2"
    """BERT of question encoder, decoder, tokenizer: minilm-l6-v2, BERT folder or hf-hub:NAME; null: preset's sizes."""
    text_weights: bool = True
    """Take the weights of text, too; false: its sizes and tokenizer only, the weights are random."""
    tokenizer: str | None = None
    """Folder with a Hugging Face tokenizer; needed where text is null, and only there."""
    text_layers: int | None = None
    """Layers of the question encoder, in [1, 96]: the first ones of text; null: preset's."""
    decoder_layers: int | None = None
    """Layers of the answer decoder, in [1, 96]: the last ones of text; null: preset's."""
    cross_attention_layers: int | None = None
    """Last layers of the decoder that see the encoder states, in [1, decoder_layers]; null: preset's."""
    co_attention_layers: int | None = None
    """Layers of the co-attention between question and image, in [0, 96]; null: preset's."""
    hidden_size: int | None = None
    """Width d of co-attention and gate, in [8, 8192], a multiple of the preset's heads; null: preset's."""
    dropout: float = 0.1
    """Dropout of every part but the image tower, in [0, 0.9]."""
    lock_vision: bool = False
    """Freeze the image tower: weights, BatchNorm statistics and dropout; its tokens can be computed once."""
    lock_text: bool = False
    """Freeze the question encoder, and with it the word embeddings of the answer knowledge."""
    precision: str = "auto"
    """fp32, bf16 or fp16 (GPU only), losses float32 in all; auto: as accelerate launch --mixed_precision says."""

    def __post_init__(self) -> None:
        one_of("model.preset", self.preset, tuple(PRESETS))
        object.__setattr__(self, "precision", resolve_precision(self.precision))
        layers = (1, 96)
        all_within("model.", self, dropout=(0, 0.9), image_size=(16, MAX_IMAGE_SIZE), text_layers=layers)
        all_within("model.", self, decoder_layers=layers, cross_attention_layers=layers)
        all_within("model.", self, co_attention_layers=(0, 96), hidden_size=(8, 8192))
        if self.init_from == "":
            raise ConfigError("model.init_from is empty: name a run's folder, or leave it out")
        preset = PRESETS[self.preset]
        if self.hidden_size is not None and self.hidden_size % preset.heads:
            raise ConfigError(
                f"model.hidden_size: {self.hidden_size} must be a multiple of {preset.heads}, the heads of "
                f"model.preset {self.preset}"
            )
        if self.text is None and self.tokenizer is None:
            raise ConfigError(
                "model.text null needs model.tokenizer, a folder with a Hugging Face tokenizer; or set "
                "--model.text minilm-l6-v2"
            )
        if self.text is not None and self.tokenizer is not None:
            raise ConfigError("model.text brings its own tokenizer: leave model.tokenizer out")


def check_cached(data: ViewsConfig, model: VQAModelConfig) -> None:
    """Refuse to keep what an image tower gives that learns.

    Raises:
        ConfigError: it would be kept.
    """
    if data.cached_views and not model.lock_vision:
        raise ConfigError(
            "data.cached_views keeps what the image tower gives: set --model.lock_vision true, "
            "or --data.cached_views 0"
        )
