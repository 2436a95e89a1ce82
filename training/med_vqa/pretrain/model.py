"""The pre-training model: a Med-VQA model without gate and decoder, and heads that are thrown away later.

    image tokens ─► image_projection ─► [0] ─► heads.image ─► unit vector ─┐  ITC, view-view,
    caption ─► text ─► text_projection ─► [0] ─► dropout ─► heads.text ────┘  text-text
                    image and text tokens ─► co_attention ─► words × places: transport; both [0] ─► heads.matching

The two texts of an item are told apart by dropout: that of the text encoder while it learns, and that before
``heads.text`` (R: the supplement does not say what they are). A frozen encoder is in eval mode and is asked once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from training.clip.freeze import BATCH_NORMS, hold_in_eval
from training.med_vqa.model.attention import bert_mask
from training.med_vqa.model.history import Temperature
from training.med_vqa.model.modeling import MedVQAModel
from training.med_vqa.pretrain.config import PretrainConfig

TEMPERATURES: tuple[Temperature, ...] = ("image_text", "views", "texts")
LEAST, MOST = 0.01, 1.0
"""Bounds of a temperature that learns."""
_LOG_BOUNDS = tuple(float(torch.tensor(bound).log()) for bound in (LEAST, MOST))
"""Of its logarithm, as float32 rounds it; numbers of the host, which any device takes."""
_GROUPS = 4
"""Groups of about one length in which a CPU encodes texts: half of a batch padded to its longest is padding."""


@dataclass(frozen=True)
class Features:
    """Features of the items by towers and heads."""

    images: list[Tensor]
    """Unit vectors of each view, float32 ``[B, D]``."""
    texts: list[Tensor]
    """Unit vectors of each text, likewise."""
    image_tokens: Tensor
    """Tokens of the first view, ``[B, N, Dv]``."""
    words: Tensor
    """States of the caption, ``[B, L, Dt]``."""


class Heads(nn.Module):
    """Projections, matching head and temperatures, which are no part of a Med-VQA model.

    Args:
        width: d of the Med-VQA model.
        embed_dim: of the common space of images and texts.
        dropout: before the projection of a text.
        taus: temperatures by name.
    """

    def __init__(self, width: int, embed_dim: int, dropout: float, taus: dict[Temperature, float]) -> None:
        super().__init__()
        self.image = nn.Linear(width, embed_dim, bias=False)
        self.text = nn.Linear(width, embed_dim, bias=False)
        self.matching = nn.Linear(2 * width, 2)
        self.dropout = nn.Dropout(dropout)
        self.log_taus = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(tau).log()) for name, tau in taus.items()}
        )
        for layer in (self.image, self.text, self.matching):
            nn.init.normal_(layer.weight, std=width**-0.5)
        nn.init.zeros_(self.matching.bias)

    def tau(self, name: str) -> Tensor:
        """A temperature, scalar float32."""
        tau: Tensor = self.log_taus[name].float().exp()
        return tau

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep learnt temperatures within their bounds."""
        for value in self.log_taus.values():
            if value.requires_grad:
                value.clamp_(*_LOG_BOUNDS)


class PretrainingModel(nn.Module):
    """Towers, co-attention and heads, frozen as the stage wants it; objective.py adds a step's loss.

    Args:
        config: the run's.
        vqa: the Med-VQA model that is pre-trained.
    """

    def __init__(self, config: PretrainConfig, vqa: MedVQAModel) -> None:
        super().__init__()
        loss, width = config.loss, vqa.config.hidden_size
        taus = {name: getattr(loss, f"tau_{name}") for name in TEMPERATURES}
        self.vqa = vqa
        self.heads = Heads(width, config.model.embed_dim or width, config.model.dropout, taus)
        self.stage, self.loss = config.stage, config.loss
        self.text_learns = not config.model.lock_text and config.stage == "one"
        self.two_views, self.two_texts = loss.views_weight > 0, loss.texts_weight > 0
        _freeze(self, config)
        if config.model.grad_checkpointing:
            checkpoint_gradients(vqa)

    def encode(
        self,
        text_ids: Tensor,
        text_mask: Tensor,
        images: Tensor | None = None,
        image_tokens: Tensor | None = None,
    ) -> Features:
        """Both towers and their heads; frozen parts leave no activations behind.

        Args:
            text_ids: int64 ``[T, B, L]``: the caption, and the second text where it is another one.
            text_mask: bool ``[T, B, L]``, True = real.
            images: normalised, float ``[V, B, 3, S, S]``, V views of each item, or
            image_tokens: ``[V, B, N, Dv]``, their tokens by the image tower.
        """
        if image_tokens is None:
            if images is None:
                raise ValueError("give either images or image_tokens")
            made = self.vqa.image_tokens(images.flatten(0, 1))
            image_tokens = made.view(*images.shape[:2], *made.shape[1:])
        again = self.two_texts and len(text_ids) == 1
        if again and self.text_learns:
            text_ids, text_mask, again = text_ids.expand(2, -1, -1), text_mask.expand(2, -1, -1), False
        every = self.words(text_ids.flatten(0, 1), text_mask.flatten(0, 1))
        words = every.view(*text_ids.shape, every.shape[-1])
        seen = [self.image_features(view) for view in image_tokens]
        texts = [self.text_features(text) for text in (*words, *([words[0]] if again else []))]
        return Features(seen, texts, image_tokens[0], words[0])

    def words(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Texts by the question encoder, ``[R, L, Dt]``; zeros at padded places."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.text_learns):
            parts, groups = [], length_groups(mask)
            # Looked up once: each look-up's gradient is as large as the vocabulary.
            pieces = self.vqa.text.embeddings.word_embeddings(ids)
            for index, longest in groups:
                real = mask[index, :longest]
                states = self.vqa.text(
                    inputs_embeds=pieces[index, :longest], attention_mask=bert_mask(real)
                ).last_hidden_state
                parts.append(F.pad(states * real[..., None], (0, 0, 0, ids.shape[1] - longest)))
            order = torch.cat([index for index, _ in groups]).argsort()
            return torch.cat(parts)[order]

    def image_features(self, tokens: Tensor) -> Tensor:
        """Image tokens ``[B, N, Dv]`` to unit vectors, float32 ``[B, D]``."""
        return F.normalize(self.heads.image(self.vqa.image_projection(tokens[:, 0])).float(), dim=-1)

    def text_features(self, words: Tensor) -> Tensor:
        """Text states ``[B, L, Dt]`` to unit vectors, float32 ``[B, D]``."""
        first = self.heads.dropout(self.vqa.text_projection(words[:, 0]))
        return F.normalize(self.heads.text(first).float(), dim=-1)

    def fuse(self, words: Tensor, text_mask: Tensor, image_tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Texts and images, pair by pair, through the co-attention.

        Args:
            words: ``[R, L, Dt]``.
            text_mask: bool ``[R, L]``.
            image_tokens: ``[R, N, Dv]``.

        Returns:
            Text states ``[R, L, d]``, image states ``[R, N, d]``, logits ``[R, 2]``: column 1 = they belong together.
        """
        text, image = self.vqa.co_attention(
            self.vqa.text_projection(words), self.vqa.image_projection(image_tokens), text_mask
        )
        return text, image, self.heads.matching(torch.cat([text[:, 0], image[:, 0]], dim=-1))


def length_groups(mask: Tensor) -> list[tuple[Tensor, int]]:
    """Rows of about one length, as indices int64 and the length of the longest, at least 1.

    On a GPU all rows are one group in their order, of length L: there lengths would have to be waited for.

    Args:
        mask: bool ``[R, L]``.
    """
    if mask.device.type != "cpu":
        return [(torch.arange(len(mask), device=mask.device), mask.shape[1])]
    lengths = mask.sum(dim=1)
    order = lengths.argsort(stable=True)
    groups = order.tensor_split(min(_GROUPS, len(order)) or 1)
    return [(index, max(1, int(lengths[index].max())) if len(index) else 1) for index in groups]


def checkpoint_gradients(vqa: MedVQAModel) -> None:
    """Trade activations for a second forward pass: of towers that offer it, and of a co-attention that learns."""
    tower: Any = vqa.vision.tower
    if hasattr(tower, "set_grad_checkpointing"):
        tower.set_grad_checkpointing(True)
    # transformers 5.23 has the first name, older ones the second; both take the same first argument.
    new = getattr(vqa.text, "activation_checkpointing_enable", None)
    (new or vqa.text.gradient_checkpointing_enable)({"use_reentrant": False})
    co_attention = vqa.co_attention
    if any(value.requires_grad for value in co_attention.parameters()):
        for block in (*co_attention.text, *co_attention.image):
            # The second pass draws the same dropout as the first.
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=True)


def _freeze(model: PretrainingModel, config: PretrainConfig) -> None:
    """Freeze the parts that no term reaches in this stage: DDP would wait for their gradients."""
    vqa, heads, loss = model.vqa, model.heads, config.loss
    two = config.stage == "two"
    locks: Iterable[tuple[nn.Module, bool]] = (
        (vqa.vision, config.model.lock_vision or two),
        (vqa.text, not model.text_learns),
        (vqa.co_attention, not two),
        (heads.matching, not two or not loss.matching_weight),
        (vqa.knowledge_projection, True),
        (vqa.gate, True),
        (vqa.decoder_projection, True),
        (vqa.decoder, True),
    )
    for part, locked in locks:
        if locked:
            part.requires_grad_(False)
            hold_in_eval([part])
    used = {"image_text": True, "views": model.two_views, "texts": model.two_texts}
    for name, value in heads.log_taus.items():
        value.requires_grad_(loss.learn_temperatures and used[name])
    if config.model.freeze_batch_norm:
        hold_in_eval(module for module in vqa.vision.modules() if isinstance(module, BATCH_NORMS))
