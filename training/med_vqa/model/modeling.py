"""AMiF's model: image and question encoded, mixed, informed by the answers' vocabulary, and answered word by word."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, PretrainedConfig, PreTrainedModel

from training.errors import ConfigError, ShapeError
from training.med_vqa.model.attention import CoAttention, GatedCrossAttention, bert_mask
from training.med_vqa.model.decoder import AnswerDecoder, Memory, check_attention
from training.med_vqa.model.vision import build_tower

CLIP_VIT_B_16: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 512, "quick_gelu": True,
        "vision_cfg": {"image_size": 288, "layers": 12, "width": 768, "patch_size": 16},
    },
    "preprocess_cfg": {
        "size": [288, 288], "mode": "RGB", "mean": list(OPENAI_DATASET_MEAN), "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0,
    },
}  # fmt: skip
"""OpenAI's image tower and preprocessing at the paper's 288 pixels, which are 325 tokens."""
CLINICAL_BERT: dict[str, Any] = {
    "model_type": "bert", "vocab_size": 28_996, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512, "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}  # fmt: skip
"""BERT-base, cased."""


class MedVQAConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Everything that the parameters' shapes depend on; no weights and no paths.

    The defaults are the architecture of AMiF's supplement: 445 M parameters, 326 M of them without the decoder.

    Args:
        clip: of the image tower, what open_clip_config.json holds: ``model_cfg`` (``embed_dim``, ``vision_cfg``) and
            ``preprocess_cfg`` (``size``, ``mean``, ``std``, …); None: CLIP's ViT-B/16 at 288 pixels.
        text: ``BertConfig.to_dict()`` of the question encoder; None: ClinicalBERT's.
        decoder: ``BertConfig.to_dict()`` of the answer decoder, of the same vocabulary; None: ClinicalBERT's.
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
        clip: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
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
        self.clip = deepcopy(CLIP_VIT_B_16) if clip is None else clip
        self.text = dict(CLINICAL_BERT) if text is None else text
        self.decoder = dict(CLINICAL_BERT) if decoder is None else decoder
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


@dataclass(frozen=True)
class Encoded:
    """B questions about B images, encoded for the decoder."""

    states: Tensor
    """``[B, L + N, d]``: question tokens, then image tokens."""
    mask: Tensor
    """bool ``[B, L + N]``: True = real."""
    memory: Memory | None = None
    """The decoder's keys and values of the states, from ``MedVQAModel.precompute_cross_attention_kv``."""

    def __len__(self) -> int:
        return len(self.states)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Encoded":
        """Apply a function over rows to every tensor, such as ``lambda rows: rows[2:5]``."""
        memory = self.memory and tuple((change(keys), change(values)) for keys, values in self.memory)
        return Encoded(change(self.states), change(self.mask), memory)


class MedVQAModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Image tower, question encoder, co-attention, gate and answer decoder. Source: AMiF's supplement.

    Raises:
        ConfigError: the configuration contradicts itself.
    """

    config_class = MedVQAConfig
    _supports_sdpa = True

    def __init__(self, config: MedVQAConfig) -> None:
        super().__init__(config)
        check_attention(config._attn_implementation)
        text, decoder = _bert(config.text, "text"), _bert(config.decoder, "decoder", is_decoder=True)
        if text.vocab_size != decoder.vocab_size:
            raise ConfigError(
                f"text and decoder need one vocabulary: {text.vocab_size} and {decoder.vocab_size} words"
            )
        if not 0 < config.cross_attention_layers <= decoder.num_hidden_layers:
            raise ConfigError(
                f"cross_attention_layers: {config.cross_attention_layers} must be at least 1 and at most "
                f"{decoder.num_hidden_layers}, the decoder's layers"
            )
        width = config.hidden_size
        for name in ("co_attention_heads", "gate_heads"):
            if width % getattr(config, name):
                raise ConfigError(
                    f"hidden_size: {width} must be a multiple of {name} {getattr(config, name)}"
                )
        self.vision = build_tower(config.clip)
        for value in chain(self.vision.parameters(), self.vision.buffers()):
            value._is_hf_initialized = True  # type: ignore[attr-defined]  # transformers would do it again
        self.text = BertModel(text, add_pooling_layer=False)
        self.image_projection = nn.Linear(self.vision.width, width)
        self.text_projection = nn.Linear(text.hidden_size, width)
        layers, heads, ffn = config.co_attention_layers, config.co_attention_heads, config.co_attention_ffn
        self.co_attention = CoAttention(width, layers, heads, ffn, config.dropout)
        self.knowledge_projection = _between(text.hidden_size, width)
        self.gate = GatedCrossAttention(width, config.gate_heads, config.gate_ffn, config.dropout)
        self.decoder_projection = _between(width, decoder.hidden_size)
        self.decoder = AnswerDecoder(decoder, config.cross_attention_layers)
        self.post_init()  # type: ignore[no-untyped-call]

    def set_attn_implementation(self, attn_implementation: Any, *arguments: Any, **options: Any) -> None:
        """Refuse any attention but ``sdpa``; as transformers' method otherwise.

        Raises:
            ConfigError: it is not ``sdpa``.
        """
        check_attention(attn_implementation)
        super().set_attn_implementation(attn_implementation, *arguments, **options)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, CoAttention):
            nn.init.normal_(module.modality, std=self.config.initializer_range)

    def image_tokens(self, images: Tensor) -> Tensor:
        """Normalised images, float ``[B, 3, S, S]``, to tokens ``[B, N, Dv]``: CLS or mean first, then the places.

        A frozen tower gives the same tokens in every epoch: compute them once.
        """
        tokens: Tensor = self.vision(images)
        return tokens

    def knowledge(self, answer_ids: Tensor, answer_mask: Tensor) -> Tensor:
        """Mean word embedding of each answer; the same for every batch, so once per step is enough.

        Args:
            answer_ids: int64 ``[K, La]``, word pieces without special tokens.
            answer_mask: bool or int ``[K, La]``, nonzero = real; an answer without any gets zeros.

        Returns:
            ``[K, d]``.
        """
        real = answer_mask.bool()[..., None]
        words = self.text.embeddings.word_embeddings(answer_ids) * real  # (K, La, Dt)
        mean: Tensor = words.sum(dim=1) / real.sum(dim=1).clamp(min=1)
        projected: Tensor = self.knowledge_projection(mean)
        return projected

    def encode(
        self,
        image_tokens: Tensor,
        question_ids: Tensor,
        question_mask: Tensor,
        knowledge: Tensor | None = None,
    ) -> Encoded:
        """Questions and images to states that the decoder can look at.

        Args:
            image_tokens: ``[B, N, Dv]`` of ``image_tokens``.
            question_ids: int64 ``[B, L]`` with special tokens, L > 0.
            question_mask: bool or int ``[B, L]``, nonzero = real.
            knowledge: ``[K, d]`` of ``knowledge``; None or K = 0 leaves the gate out.

        Raises:
            ShapeError: a question is longer than the text encoder's positions, or the rows do not agree.
        """
        _check_rows(image_tokens, question_ids)
        positions = self.text.config.max_position_embeddings
        if question_ids.shape[1] > positions:
            raise ShapeError(
                f"a question of {question_ids.shape[1]} tokens, and the text encoder has {positions} positions: "
                "truncate it"
            )
        real = question_mask.bool()
        words = self.text(input_ids=question_ids, attention_mask=bert_mask(real)).last_hidden_state
        text, image = self.co_attention(
            self.text_projection(words), self.image_projection(image_tokens), real
        )  # (B, L, d), (B, N, d)
        states = torch.cat([text, image], dim=1)
        if knowledge is not None and len(knowledge):
            states = self.gate(states, knowledge)
        return Encoded(states, torch.cat([real, real.new_ones(image.shape[:2])], dim=1))

    def precompute_cross_attention_kv(self, encoded: Encoded) -> Encoded:
        """Add the decoder's keys and values, once: worth it before several calls about the same questions."""
        if encoded.memory is not None:
            return encoded
        return replace(encoded, memory=self.decoder.memory(self.decoder_projection(encoded.states)))

    def decode(self, input_ids: Tensor, encoded: Encoded) -> Tensor:
        """Score the next word piece after each position of B answers, which sees the positions before it.

        Args:
            input_ids: int64 ``[B, T]``.
            encoded: of the same B questions.

        Returns:
            Logits ``[B, T, V]``.

        Raises:
            ShapeError: the rows do not agree, or the answer is longer than the decoder's positions.
        """
        logits: Tensor = self.decoder.scores(self._decoded(input_ids, encoded))
        return logits

    def next_token_logits(self, input_ids: Tensor, encoded: Encoded) -> Tensor:
        """Logits of ``decode`` after the last position only, ``[B, V]``."""
        logits: Tensor = self.decoder.scores(self._decoded(input_ids, encoded)[:, -1])
        return logits

    def _decoded(self, input_ids: Tensor, encoded: Encoded) -> Tensor:
        """States ``[B, T, D]`` that the decoder's head turns into scores."""
        _check_rows(encoded.states, input_ids)
        length, limit = input_ids.shape[1], self.decoder.config.max_position_embeddings
        if length > limit:
            raise ShapeError(
                f"an answer of {length} tokens, and the decoder has {limit} positions: truncate it"
            )
        positions = torch.arange(length, device=input_ids.device)
        memory = self.precompute_cross_attention_kv(encoded).memory
        states: Tensor = self.decoder(
            input_ids, positions[:, None] >= positions, positions, memory, encoded.mask
        )
        return states

    def forward(
        self,
        images: Tensor | None = None,
        image_tokens: Tensor | None = None,
        question_ids: Tensor | None = None,
        question_mask: Tensor | None = None,
        answer_ids: Tensor | None = None,
        answer_mask: Tensor | None = None,
        knowledge_ids: Tensor | None = None,
        knowledge_mask: Tensor | None = None,
        with_logits: bool = True,
    ) -> dict[str, Tensor]:
        """Teacher forcing: after ``[CLS] a b c`` the decoder should say ``a b c [SEP]``.

        Args:
            images: float ``[B, 3, S, S]``, or
            image_tokens: ``[B, N, Dv]`` in their place.
            question_ids: int64 ``[B, L]`` with special tokens.
            question_mask: ``[B, L]``, nonzero = real.
            answer_ids: int64 ``[B, La]``: [CLS], word pieces, [SEP], padding.
            answer_mask: ``[B, La]``, nonzero = real.
            knowledge_ids: int64 ``[K, Lk]`` without special tokens; None leaves the gate out.
            knowledge_mask: ``[K, Lk]``, nonzero = real.
            with_logits: false leaves the logits out: the loss takes those of real positions only, and in a batch with
                one long answer the others would be most of the step's work.

        Returns:
            ``loss``: of ``answer_loss``; ``logits``: ``[B, La − 1, V]``, where they are wanted.

        Raises:
            ShapeError: something is missing or does not agree.
        """
        if images is not None and image_tokens is None:
            image_tokens = self.image_tokens(images)
        elif images is not None or image_tokens is None:
            raise ShapeError("give either images or image_tokens")
        if question_ids is None or question_mask is None or answer_ids is None or answer_mask is None:
            raise ShapeError("give question_ids, question_mask, answer_ids and answer_mask")
        knowledge = None
        if knowledge_ids is not None and knowledge_mask is not None and len(knowledge_ids):
            knowledge = self.knowledge(knowledge_ids, knowledge_mask)
        encoded = self.encode(image_tokens, question_ids, question_mask, knowledge)
        states = self._decoded(answer_ids[:, :-1], encoded)
        real = answer_mask[:, 1:].flatten().nonzero()[:, 0]  # once: a GPU's host waits for their number
        scores = self.decoder.scores(states.flatten(0, 1)[real])
        out = {"loss": answer_loss(scores, answer_ids[:, 1:].flatten()[real], len(states))}
        return {**out, "logits": self.decoder.scores(states)} if with_logits else out


def answer_loss(logits: Tensor, targets: Tensor, answers: int) -> Tensor:
    """−Σ log p(target) over the real tokens of all answers, divided by their number; computed in float32.

    That is the mean over answers of their negative log-likelihood.

    Args:
        logits: ``[R, V]`` at the R real positions.
        targets: int64 ``[R]``.
        answers: how many answers they belong to.

    Returns:
        Scalar, nats per answer.
    """
    return F.cross_entropy(logits.float(), targets, reduction="sum") / answers


def _bert(content: dict[str, Any], name: str, is_decoder: bool = False) -> BertConfig:
    given = {key: value for key, value in content.items() if key != "model_type"}
    if not given or content.get("model_type", "bert") != "bert":
        raise ConfigError(f"{name} does not describe a BERT")
    return BertConfig(**{**given, "is_decoder": is_decoder, "add_cross_attention": False})


def _between(width: int, other: int) -> nn.Module:
    return nn.Identity() if width == other else nn.Linear(width, other)


def _check_rows(states: Tensor, input_ids: Tensor) -> None:
    if len(states) != len(input_ids):
        raise ShapeError(f"{len(states)} rows of states and {len(input_ids)} of tokens")
