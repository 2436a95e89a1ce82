"""One NB-CLIP step: row numbers to targets; features of all processes and targets to loss and gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kg_targets.losses.contrastive import ContrastiveBatch, measure
from kg_targets.losses.gather import gather_features
from kg_targets.losses.policies import (
    Pairs,
    identity_policy,
    mix_identity,
    pair_structure,
    similarity_targets,
)
from kg_targets.losses.registry import LOSSES, POLICIES, bind_policy
from kg_targets.store import TargetStore
from training.data.cases import case_codes
from training.errors import ConfigError, ShapeError
from training.nb_clip.accumulate import first_pass, refuse_batch_norm, second_pass, slices
from training.nb_clip.blocks import make_blocks
from training.nb_clip.config import LossConfig, PolicyConfig


@dataclass(frozen=True)
class Targets:
    """What a step compares its logits with; all ``[B_local, B_global]``."""

    i2t: Tensor
    """Distributions over each row, or similarities, as the loss wants them."""
    t2i: Tensor
    mask: Tensor | None
    """Pairs of one case, which neither logits nor targets count; None where nothing is masked."""


class TargetBuilder:
    """From row numbers to targets, by the store's similarity and the chosen policy.

    It talks to no other process and keeps nothing between calls, so that a thread can prepare the next step's targets.

    Args:
        store: similarities, cases, and which images are known.
        loss: what kind of targets it wants.
        policy: how similarities become distributions.
        device: where targets are computed and returned; a GPU keeps the store's factors, where they fit.

    Raises:
        ConfigError: the store suggests a threshold that the policy cannot use.
    """

    def __init__(
        self,
        store: TargetStore,
        loss: LossConfig,
        policy: PolicyConfig,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
    ) -> None:
        threshold = store.threshold if policy.threshold is None else policy.threshold
        self.kind = LOSSES[loss.name].targets
        uses_threshold = "threshold" in POLICIES[policy.name].parameters
        if self.kind == "policy" and uses_threshold and not -1.0 <= threshold < 1.0:
            raise ConfigError(
                f"policy.threshold: {store.path} suggests {threshold}; set --policy.threshold below 1"
            )
        self.grade = (
            similarity_targets
            if self.kind == "similarity"
            else bind_policy(policy.name, policy.used_temperature, policy.alpha, threshold, policy.saturation)
        )
        self.device = device
        self.known = torch.as_tensor(store.known)
        self.by_case = self.kind == "policy" and POLICIES[policy.name].within_case
        needed = loss.mask_same_case or self.by_case
        self.cases = torch.as_tensor(case_codes(store.group_ids)) if needed else None
        self.blocks = None if self.kind == "pairs" else make_blocks(store, device, loss.device_factors_mb)

    def __call__(
        self, rows_local: Tensor, rows_global: Tensor, offset: int, identity_mix: float = 0.0
    ) -> Targets:
        """Targets of this process's rows against everybody's.

        Args:
            rows_local: store rows of this process, int64 ``[B_local]``.
            rows_global: store rows of all processes in rank order, int64 ``[B_global]``.
            offset: rank · B_local.
            identity_mix: weight of the identity in soft targets, in [0, 1].

        Returns:
            Targets on ``device``; ``t2i`` is the same tensor as ``i2t`` where S is symmetric.
        """
        local, everyone = rows_local.cpu(), rows_global.cpu()
        same = self._same_case(local, everyone, offset)
        mask = None if self.by_case else same
        if self.blocks is None:
            shape = torch.empty(len(local), len(everyone), device=self.device)
            identity = identity_policy(shape, pairs=pair_structure(shape, offset))
            return Targets(identity, identity, mask)
        # Texts are the rows of text→image: S[images_global, texts_local]ᵀ, not the transpose of P.
        image_text, text_image = self.blocks(local, everyone)
        known_rows, known_columns = self.known[local].to(self.device), self.known[everyone].to(self.device)
        # Known rows, known columns and cases belong to pairs of store rows, so both directions share them.
        pairs = pair_structure(image_text, offset, known_rows, known_columns, mask)
        if self.by_case:
            pairs = Pairs(pairs.positive, torch.zeros_like(pairs.relatives) if same is None else same)

        def graded(similarity: Tensor) -> Tensor:
            targets = self.grade(similarity, pairs=pairs)
            return mix_identity(targets, identity_mix, pairs=pairs) if identity_mix > 0.0 else targets

        i2t = graded(image_text)
        return Targets(i2t, i2t if text_image is image_text else graded(text_image), mask)

    def _same_case(self, local: Tensor, everyone: Tensor, offset: int) -> Tensor | None:
        """Pairs of one case other than the true ones, bool ``[B_local, B_global]``; None if there are none."""
        if self.cases is None:
            return None
        rows, columns = self.cases[local], self.cases[everyone]
        if len(set(columns.tolist())) == len(columns):
            return None  # the usual batch: no mask to compute, and none for the loss to look at
        same: Tensor = rows.to(self.device)[:, None] == columns.to(self.device)[None, :]
        same.diagonal(offset).fill_(False)
        return same


class NBClipTask:
    """Takes the loss of a batch back to the model's parameters, and says what a log line tells about it."""

    def __init__(self, loss: LossConfig, accelerator: Accelerator) -> None:
        self.loss = LOSSES[loss.name]
        self.accelerator = accelerator
        self.micro_batch = loss.micro_batch

    def freeze_unused(self, model: nn.Module) -> None:
        """Freeze the scale or bias that this loss does not look at: DDP waits for every trained parameter's gradient.

        Args:
            model: an open_clip model, before it is prepared for several processes.
        """
        for name, used in (("logit_scale", self.loss.scaled), ("logit_bias", self.loss.biased)):
            parameter = getattr(model, name, None)
            if parameter is not None and not used:
                parameter.requires_grad_(False)

    def backward(
        self,
        model: nn.Module,
        images: Callable[[int, int], Tensor],
        tokens: Tensor,
        targets: Targets,
        offset: int,
        *,
        measured: bool = True,
    ) -> dict[str, Tensor]:
        """Add the gradient of the global batch's loss to the parameters, in micro-batches where they are asked for.

        Args:
            model: returns image_features, text_features ``[B, D]`` (unit length), logit_scale (already
                exponentiated) and, where the loss is biased, logit_bias.
            images: start, stop to that slice of the local batch, float32 ``[stop − start, 3, S, S]``, normalised;
                asked twice for each micro-batch, and must give the same.
            tokens: int64 ``[B_local, context_length]``.
            targets: ``[B_local, B_global]``; B_local is the same on every process.
            offset: rank · B_local.
            measured: also return what ``measure`` tells, for a step that is logged.

        Returns:
            Detached scalars of this process's rows: loss, logit_scale, logit_bias if the loss has one, and, where
            measured, kl, diagonal, positives, entropy. If the loss is not finite, the gradients are of no use.

        Raises:
            ConfigError: the loss needs a logit bias and the model has none, or micro-batches would change the
                gradient because of a BatchNorm in training mode.
            ShapeError: targets are not those of this batch.
        """
        size, processes = len(tokens), self.accelerator.num_processes
        if targets.i2t.shape != (size, size * processes):
            raise ShapeError(
                f"targets are {list(targets.i2t.shape)}, not [{size}, {size * processes}]: each of {processes} "
                "processes needs the same number of images"
            )

        def encode(start: int, stop: int) -> dict[str, Tensor]:
            output: dict[str, Tensor] = model(images(start, stop), tokens[start:stop])
            return output

        parts = slices(size, self.micro_batch)
        if len(parts) == 1:
            loss, values = self._score(encode(0, size), targets, offset, measured)
            self.accelerator.backward(loss)
            return values
        refuse_batch_norm(model)
        features, states = first_pass(encode, parts, self.accelerator.device)
        loss, values = self._score(features, targets, offset, measured)
        # Several processes go on together whatever each one finds: those that wait for gradients would wait for ever.
        if processes > 1 or bool(torch.isfinite(loss)):
            torch.autograd.backward(
                loss
            )  # not the accelerator's: to the features only, in float32, which needs no scaling
            second_pass(self.accelerator, model, encode, parts, states, features)
        return values

    def _score(
        self, output: dict[str, Tensor], targets: Targets, offset: int, measured: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of this process's rows against everybody's, and what to log."""
        device = output["image_features"].device
        # Losses are float32 even under bf16: a softmax over B columns needs the mantissa.
        with torch.autocast(device_type=device.type, enabled=False):
            image, text = output["image_features"].float(), output["text_features"].float()
            scale, bias = output["logit_scale"].float(), self._bias(output)
            all_image, all_text = gather_features(image, text)
            batch = ContrastiveBatch(
                logits_i2t=self._logits(image, all_text, scale, bias),  # [B_local, B_global]
                logits_t2i=self._logits(text, all_image, scale, bias),
                targets_i2t=targets.i2t.to(device),
                targets_t2i=targets.t2i.to(device),
                offset=offset,
                mask=None if targets.mask is None else targets.mask.to(device),
            )
            loss = self.loss.compute(batch)
            values = {"loss": loss.detach()}
            if measured:
                values |= measure(batch, distributions=self.loss.targets != "similarity")
        # Copies: a bias is the parameter itself, and the optimizer moves it before the log reads it.
        values["logit_scale"] = scale.detach().clone()
        if bias is not None:
            values["logit_bias"] = bias.detach().clone()
        return loss, values

    def _logits(self, rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        """The logits this loss asks for, from unit features ``[B_local, D]`` and ``[B_global, D]``."""
        if self.loss.scaled:
            rows = scale * rows  # B·D products instead of B·B
        logits = rows @ columns.T
        return logits if bias is None else logits + bias

    def _bias(self, output: dict[str, Tensor]) -> Tensor | None:
        if not self.loss.biased:
            return None
        if "logit_bias" not in output:
            raise ConfigError(
                "loss.name sigmoid needs a model with a logit bias: build it by load_clip(logit_bias=…)"
            )
        return output["logit_bias"].float()
