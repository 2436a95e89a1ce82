"""Named sizes of the model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Sizes that a run starts from; a text start brings its own widths, and single fields can be set."""

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
        vision="ViT-B-16",
        image_size=288,
        text_width=768,
        text_heads=12,
        text_ffn=3072,
        text_layers=12,
        decoder_layers=12,
        cross_attention_layers=6,
        hidden_size=768,
        co_attention_layers=6,
        heads=12,
        ffn=3072,
    ),
    # EfficientNet-lite0 and MiniLM: trains on two CPU cores.
    "small": Preset(
        vision="lite0-tiny-text",
        image_size=None,
        text_width=384,
        text_heads=12,
        text_ffn=1536,
        text_layers=3,
        decoder_layers=4,
        cross_attention_layers=2,
        hidden_size=384,
        co_attention_layers=2,
        heads=12,
        ffn=1536,
    ),
    # For tests: milliseconds.
    "tiny": Preset(
        vision="test-vit",
        image_size=None,
        text_width=32,
        text_heads=2,
        text_ffn=64,
        text_layers=2,
        decoder_layers=2,
        cross_attention_layers=1,
        hidden_size=32,
        co_attention_layers=1,
        heads=2,
        ffn=64,
    ),
}
