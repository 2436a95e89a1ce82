"""One NB-CLIP step: gather features and row numbers, turn similarities into targets, take the loss."""

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from open_clip.loss import gather_features
from torch import Tensor, nn

from kg_targets.store import TargetStore
from training.config import LossConfig, PolicyConfig
from training.errors import ConfigError
from training.nb_clip.losses import LOSSES, ContrastiveBatch, kl_to_targets, target_entropy
from training.nb_clip.targets import bind_policy, identity_policy, pair_structure


@dataclass(frozen=True)
class Targets:
    """What a step compares its logits with; all ``[B_local, B_global]``."""

    i2t: Tensor
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
        self.soft = LOSSES[loss.name].soft
        if self.soft and policy.name == "evidence" and not -1.0 <= threshold < 1.0:
            raise ConfigError(
                f"policy.threshold: {store.path} suggests {threshold}; set --policy.threshold below 1"
            )
        self.policy = bind_policy(policy.name, policy.temperature, policy.alpha, threshold, policy.saturation)

    def __call__(self, rows_local: Tensor, rows_global: Tensor, offset: int) -> Targets:
        """Targets of this process's rows against everybody's.

        Args:
            rows_local: store rows of this process, int64 ``[B_local]``.
            rows_global: store rows of all processes in rank order, int64 ``[B_global]``.
            offset: rank · B_local.
        """
        local, everyone = rows_local.cpu(), rows_global.cpu()
        mask = self._same_case(local, everyone, offset)
        if not self.soft:
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
        return Targets(self.policy(image_text, pairs=pairs), self.policy(text_image, pairs=pairs), mask)

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

    def step(
        self, model: nn.Module, images: Tensor, tokens: Tensor, rows: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and measurements of this process's share of a batch.

        Args:
            model: returns image_features, text_features ``[B_local, D]`` (unit length) and logit_scale.
            images: float32 ``[B_local, 3, S, S]``, normalised.
            tokens: int64 ``[B_local, context_length]``.
            rows: store rows, int64 ``[B_local]``.

        Returns:
            The scalar loss, and scalars to log: loss, kl, diagonal, positives, entropy, logit_scale.
        """
        output = model(images, tokens)
        # Losses are float32 even under bf16: a softmax over B columns needs the mantissa.
        with torch.autocast(device_type=images.device.type, enabled=False):
            image, text = output["image_features"].float(), output["text_features"].float()
            scale = output["logit_scale"].float()
            all_image, all_text = self._gather(image, text)
            rows_global = self.accelerator.gather(rows)
            offset = self.accelerator.process_index * len(rows)
            targets = self.targets(rows, rows_global, offset)
            batch = ContrastiveBatch(
                logits_i2t=scale * image @ all_text.T,  # [B_local, B_global]
                logits_t2i=scale * text @ all_image.T,
                targets_i2t=targets.i2t.to(image.device),
                targets_t2i=targets.t2i.to(image.device),
                offset=offset,
                mask=None if targets.mask is None else targets.mask.to(image.device),
            )
            loss = self.loss.compute(batch)
        return loss, {"loss": loss.detach(), **measure(batch), "logit_scale": scale.detach()}

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
def measure(batch: ContrastiveBatch) -> dict[str, Tensor]:
    """KL to the targets, mean diagonal mass, effective positives exp(H) and entropy H, over both directions."""
    kl, diagonal, positives, entropy = [], [], [], []
    for logits, targets in ((batch.logits_i2t, batch.targets_i2t), (batch.logits_t2i, batch.targets_t2i)):
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
