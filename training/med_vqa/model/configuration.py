"""The architecture of a saved model, as transformers reads and writes it (config.json)."""

from typing import Any

from transformers import PretrainedConfig

Content = dict[str, Any]


class MedVQAConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Everything that the parameters' shapes depend on; no weights and no paths.

    Args:
        clip: of the image tower, what open_clip_config.json holds: ``model_cfg`` (``embed_dim``, ``vision_cfg``) and
            ``preprocess_cfg`` (``size``, ``mean``, ``std``, …).
        text: ``BertConfig.to_dict()`` of the question encoder.
        decoder: ``BertConfig.to_dict()`` of the answer decoder; the same vocabulary.
        cross_attention_layers: the last layers of the decoder that see the encoder states.
        hidden_size: width d of co-attention and gate.
        co_attention_layers: layers of the co-attention.
        co_attention_heads: its attention heads.
        co_attention_ffn: inner width of its feed-forward layers.
        gate_heads: attention heads of the gate.
        gate_ffn: inner width of its two feed-forward layers.
        dropout: of the co-attention and the gate; ``text`` and ``decoder`` hold their own.
        initializer_range: standard deviation of new weights.
    """

    model_type = "kg_med_vqa"

    def __init__(
        self,
        clip: Content | None = None,
        text: Content | None = None,
        decoder: Content | None = None,
        cross_attention_layers: int = 6,
        hidden_size: int = 768,
        co_attention_layers: int = 6,
        co_attention_heads: int = 12,
        co_attention_ffn: int = 3072,
        gate_heads: int = 12,
        gate_ffn: int = 3072,
        dropout: float = 0.1,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self.clip = clip or {}
        self.text = text or {}
        self.decoder = decoder or {}
        self.cross_attention_layers = cross_attention_layers
        self.hidden_size = hidden_size
        self.co_attention_layers = co_attention_layers
        self.co_attention_heads = co_attention_heads
        self.co_attention_ffn = co_attention_ffn
        self.gate_heads = gate_heads
        self.gate_ffn = gate_ffn
        self.dropout = dropout
        self.initializer_range = initializer_range
        super().__init__(**kwargs)
