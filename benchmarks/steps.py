"""Shared parts of the training benchmarks: a store in memory and steps to time."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from open_clip.loss import ClipLoss
from scipy import sparse
from torch import Tensor, nn

from kg_targets.store import TargetStore
from training.clip.load import load_clip
from training.nb_clip.batch_targets import TargetBuilder
from training.nb_clip.config import LossConfig, PolicyConfig
from training.nb_clip.objective import NBClipObjective

PACKAGES = ("torch", "open_clip_torch", "accelerate", "numpy", "scipy")
BROAD = 12
"""Concepts that more than half of the images have, as "Disease" and "Anatomical structure" in ROCO."""


class SyntheticStore(TargetStore):
    """Sparse unit factors of the size of ROCO's: 26 concepts an image out of 4,000, some of them in most images."""

    def __init__(self, images: int, concepts: int = 4000, per_image: int = 26) -> None:
        super().__init__(Path("synthetic"), {"rows": images, "similarity": {"fit_p95": 0.3}})
        self._shape, self._per_image = (images, concepts), per_image

    @cached_property
    def factors(self) -> sparse.csr_array:
        """float32 [N, D]; weights of the broad concepts are small, as their information content is."""
        rng = np.random.default_rng(0)
        images, concepts = self._shape
        rare = rng.zipf(1.3, (images, self._per_image - BROAD)) % (concepts - BROAD) + BROAD
        broad = np.broadcast_to(np.arange(BROAD), (images, BROAD))
        index = np.concatenate([broad, rare], axis=1).ravel()
        value = np.where(index < BROAD, 0.1, rng.uniform(0.5, 1.5, index.size))
        rows = np.repeat(np.arange(images), self._per_image)
        matrix = sparse.csr_array(sparse.coo_array((value, (rows, index)), shape=self._shape))
        norms = np.sqrt(matrix.multiply(matrix).sum(axis=1))
        return sparse.csr_array(matrix.multiply(1 / norms[:, None]).astype(np.float32))

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """bool [N]: all but every 50th image."""
        return np.asarray(np.arange(len(self)) % 50 != 0)

    @cached_property
    def cases(self) -> NDArray[np.int64]:
        """int64 [N]: cases of three images."""
        return np.arange(len(self)) // 3


class Lanes:
    """One model, one optimizer and one batch in memory; a step of each kind that is to be compared."""

    def __init__(self, name: str, batch: int, accelerator: Accelerator, store: SyntheticStore) -> None:
        torch.manual_seed(0)
        clip = load_clip(name)
        towers: Any = clip.model
        self.accelerator, self.batch = accelerator, batch
        model = clip.model.to(memory_format=torch.channels_last)
        self.model: nn.Module = accelerator.prepare(model)
        self.optimizer = accelerator.prepare(torch.optim.AdamW(clip.model.parameters(), lr=1e-6, fused=True))
        size = towers.visual.image_size
        size = size if isinstance(size, int) else size[0]
        context = open_clip.get_tokenizer(name).context_length
        device = accelerator.device
        self.images = torch.randn(batch, 3, size, size, device=device)
        self.tokens = torch.randint(1, 20_000, (batch, context), device=device)
        generator = torch.Generator().manual_seed(0)
        self._rows = iter(lambda: torch.randperm(len(store), generator=generator)[:batch], None)
        self.plain = ClipLoss()
        self.builders = {
            loss: TargetBuilder(store, LossConfig(name=loss), PolicyConfig(), device)
            for loss in ("semantic_matching", "info_nce")
        }

    def ours(
        self, loss: str, *, measured: bool = False, micro_batch: int | None = None
    ) -> Callable[[], None]:
        """The whole step: similarities, targets, forward, loss, backward, optimizer; nothing runs ahead."""
        task = NBClipObjective(LossConfig(name=loss, micro_batch=micro_batch), self.accelerator)

        def step() -> None:
            rows = next(self._rows)
            targets = self.builders[loss].by_rows(rows, rows, 0)
            task.backward(self.model, self._slice, self.tokens, targets, 0, measured=measured)
            self._update()

        return step

    def open_clip(self) -> Callable[[], None]:
        """Step of the same model and optimizer with open_clip's own ClipLoss, and nothing of ours."""

        def step() -> None:
            output = self.model(self.images, self.tokens)
            self.accelerator.backward(
                self.plain(output["image_features"], output["text_features"], output["logit_scale"])
            )
            self._update()

        return step

    def targets(self, loss: str) -> Callable[[], Any]:
        """Similarities and targets alone."""
        return lambda: self.builders[loss](rows := next(self._rows), rows, 0)

    def loss(self, loss: str, *, measured: bool = False) -> Callable[[], None]:
        """Loss and its gradient on features of 512 dimensions, without the towers."""
        task = NBClipObjective(LossConfig(name=loss), self.accelerator)
        rows = next(self._rows)
        targets = self.builders[loss](rows, rows, 0).rows
        device = self.accelerator.device
        features = torch.nn.functional.normalize(torch.randn(2, self.batch, 512, device=device), dim=-1)
        towers = Features(*features).to(device)

        def run() -> None:
            task.backward(towers, self._slice, self.tokens, targets, 0, measured=measured)

        return run

    def _slice(self, start: int, stop: int) -> Tensor:
        return self.images[start:stop]

    def _update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


class Features(nn.Module):
    """Learnable features in the place of two towers."""

    def __init__(self, image: Tensor, text: Tensor) -> None:
        super().__init__()
        self.image, self.text = nn.Parameter(image), nn.Parameter(text)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        """The features, whatever the input."""
        return {
            "image_features": self.image,
            "text_features": self.text,
            "logit_scale": self.logit_scale.exp(),
        }
