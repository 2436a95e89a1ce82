"""One NB-CLIP step: gather features and row numbers, turn similarities into targets, take the loss."""

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from open_clip.loss import gather_features
from torch import Tensor, nn

from kg_targets.store import TargetStore
from training.errors import ConfigError
from training.nb_clip.config import LossConfig, PolicyConfig
from training.nb_clip.losses import LOSSES, ContrastiveBatch, kl_to_targets, target_entropy
from training.nb_clip.targets import (
    bind_policy,
    identity_policy,
    mix_identity,
    pair_structure,
    similarity_targets,
)


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

    Raises:
        ConfigError: the store suggests a threshold that the policy cannot use.
    """

    def __init__(self, store: TargetStore, loss: LossConfig, policy: PolicyConfig) -> None:
        self.store = store
        self.known = torch.as_tensor(store.known)
        self.cases = torch.as_tensor(case_codes(store.group_ids)) if loss.mask_same_case else None
        threshold = store.threshold if policy.threshold is None else policy.threshold
        self.kind = LOSSES[loss.name].targets
        if self.kind == "policy" and policy.name == "evidence" and not -1.0 <= threshold < 1.0:
            raise ConfigError(
                f"policy.threshold: {store.path} suggests {threshold}; set --policy.threshold below 1"
            )
        self.grade = (
            similarity_targets
            if self.kind == "similarity"
            else bind_policy(policy.name, policy.temperature, policy.alpha, threshold, policy.saturation)
        )

    def __call__(
        self, rows_local: Tensor, rows_global: Tensor, offset: int, identity_mix: float = 0.0
    ) -> Targets:
        """Targets of this process's rows against everybody's.

        Args:
            rows_local: store rows of this process, int64 ``[B_local]``.
            rows_global: store rows of all processes in rank order, int64 ``[B_global]``.
            offset: rank · B_local.
            identity_mix: weight of the identity in soft targets, in [0, 1].
        """
        local, everyone = rows_local.cpu(), rows_global.cpu()
        mask = self._same_case(local, everyone, offset)
        if self.kind == "pairs":
            plain = pair_structure(torch.empty(len(local), len(everyone)), offset)
            identity = identity_policy(plain.positive, pairs=plain)
            return Targets(identity, identity, mask)
        image_text = torch.from_numpy(self.store.block(local.numpy(), everyone.numpy()))
        # Texts are the rows of text→image: S[images_global, texts_local]ᵀ, not the transpose of P.
        if len(local) == len(everyone):
            text_image = image_text.T
        else:
            text_image = torch.from_numpy(self.store.block(everyone.numpy(), local.numpy())).T
        pairs = pair_structure(image_text, offset, self.known[local], self.known[everyone], mask)
        # Known rows, known columns and cases belong to pairs of store rows, so both directions share them.
        i2t, t2i = self.grade(image_text, pairs=pairs), self.grade(text_image, pairs=pairs)
        if identity_mix > 0.0:
            i2t, t2i = (mix_identity(targets, identity_mix, pairs=pairs) for targets in (i2t, t2i))
        return Targets(i2t, t2i, mask)

    def _same_case(self, local: Tensor, everyone: Tensor, offset: int) -> Tensor | None:
        if self.cases is None:
            return None
        same = self.cases[local][:, None] == self.cases[everyone][None, :]
        index = torch.arange(len(local))
        same[index, index + offset] = False
        return same if bool(same.any()) else None


def case_codes(group_ids: list[str]) -> NDArray[np.int64]:
    """One integer per case; an image without ``group_id`` is a case of its own. int64 [N]."""
    names = [group or f"\0{row}" for row, group in enumerate(group_ids)]
    codes: NDArray[np.int64] = np.unique(np.array(names, dtype=object), return_inverse=True)[1].astype(
        np.int64
    )
    return codes


class NBClipTask:
    """Computes the loss of a batch, and what a log line tells about it."""

    def __init__(self, targets: TargetBuilder, loss: LossConfig, accelerator: Accelerator) -> None:
        self.targets = targets
        self.loss = LOSSES[loss.name]
        self.accelerator = accelerator

    def freeze_unused(self, model: nn.Module) -> None:
        """Freeze the scale or bias that this loss does not look at: DDP waits for every trained parameter's gradient.

        Args:
            model: an open_clip model, before it is prepared for several processes.
        """
        for name, used in (("logit_scale", self.loss.scaled), ("logit_bias", self.loss.biased)):
            parameter = getattr(model, name, None)
            if parameter is not None and not used:
                parameter.requires_grad_(False)

    def step(
        self, model: nn.Module, images: Tensor, tokens: Tensor, rows: Tensor, identity_mix: float = 0.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and measurements of this process's share of a batch.

        Args:
            model: returns image_features, text_features ``[B_local, D]`` (unit length), logit_scale (already
                exponentiated) and, where the loss is biased, logit_bias.
            images: float32 ``[B_local, 3, S, S]``, normalised.
            tokens: int64 ``[B_local, context_length]``.
            rows: store rows, int64 ``[B_local]``.
            identity_mix: weight of the identity in soft targets, in [0, 1].

        Returns:
            The scalar loss, and scalars to log: loss, kl, diagonal, positives, entropy, logit_scale, logit_bias.

        Raises:
            ConfigError: the loss needs a logit bias and the model has none.
        """
        output = model(images, tokens)
        # Losses are float32 even under bf16: a softmax over B columns needs the mantissa.
        with torch.autocast(device_type=images.device.type, enabled=False):
            image, text = output["image_features"].float(), output["text_features"].float()
            scale, bias = output["logit_scale"].float(), self._bias(output)
            all_image, all_text = self._gather(image, text)
            rows_global = self.accelerator.gather(rows)
            offset = self.accelerator.process_index * len(rows)
            targets = self.targets(rows, rows_global, offset, identity_mix)
            batch = ContrastiveBatch(
                logits_i2t=self._logits(image, all_text, scale, bias),  # [B_local, B_global]
                logits_t2i=self._logits(text, all_image, scale, bias),
                targets_i2t=targets.i2t.to(image.device),
                targets_t2i=targets.t2i.to(image.device),
                offset=offset,
                mask=None if targets.mask is None else targets.mask.to(image.device),
            )
            loss = self.loss.compute(batch)
        values = {
            "loss": loss.detach(),
            **measure(batch, distributions=self.loss.targets != "similarity"),
            "logit_scale": scale.detach(),
        }
        if bias is not None:
            # A copy: this is the parameter itself, and the optimizer moves it before the log reads it.
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

    def _gather(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Everybody's features with their gradient (``accelerator.gather`` would lose it silently)."""
        if self.accelerator.num_processes == 1:
            return image, text
        gathered: tuple[Tensor, Tensor] = gather_features(
            image,
            text,
            local_loss=True,
            gather_with_grad=True,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
        )
        return gathered


@torch.no_grad()
def measure(batch: ContrastiveBatch, *, distributions: bool = True) -> dict[str, Tensor]:
    """KL to the targets, mean diagonal mass, effective positives exp(H) and entropy H, over both directions.

    Args:
        batch: logits and targets of a step.
        distributions: False where targets are similarities; they are then read as clamp(S, 0, 1) over its row sum.
    """
    kl, diagonal, positives, entropy = [], [], [], []
    for logits, targets in ((batch.logits_i2t, batch.targets_i2t), (batch.logits_t2i, batch.targets_t2i)):
        if not distributions:
            graded = targets.clamp(0.0, 1.0)
            targets = graded / graded.sum(dim=-1, keepdim=True)  # the positive's 1 keeps the sum above 0
        spread = target_entropy(targets)
        kl.append(kl_to_targets(logits, targets, mask=batch.mask))
        diagonal.append(targets.diagonal(batch.offset).mean())
        positives.append(spread.exp().mean())
        entropy.append(spread.mean())
    return {
        "kl": torch.stack(kl).mean(),
        "diagonal": torch.stack(diagonal).mean(),
        "positives": torch.stack(positives).mean(),
        "entropy": torch.stack(entropy).mean(),
    }
