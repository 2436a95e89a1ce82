"""What a model sees of an image while it learns: a new view at each step, or features of some views, computed once.

Everything random is drawn for the global batch from (seed, step), so that an image is seen alike whatever the number of
processes; views that are kept are drawn from the image itself, so that every run and every fold sees the same ones.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from training.data.bank import Bank, content_key, module_key
from training.data.config import ViewsConfig
from training.data.transforms import Augmentation


def step_generator(seed: int, step: int) -> torch.Generator:
    """Of what a step draws for its images."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4096)


def augmentation(config: ViewsConfig) -> Augmentation:
    """As configured."""
    return Augmentation(config.rotation, config.shift, config.zoom, config.brightness)


class FrozenFeatures:
    """Features by frozen layers, computed once, shared out to the processes and kept on disk.

    Args:
        config: augmentation and the cache's folder.
        accelerator: its device computes, its processes share the work.
    """

    def __init__(self, config: ViewsConfig, accelerator: Accelerator) -> None:
        self._config, self._accelerator = config, accelerator

    def of_images(
        self, part: nn.Module, pixels: Tensor, mean: Tensor, std: Tensor, views: int, what: str
    ) -> Tensor:
        """Features of each image in augmented views, or as it is.

        Args:
            part: normalised images ``[V, 3, S, S]`` to features ``[V, …]``, on the accelerator's device.
            pixels: uint8 ``[N, 3, S, S]``.
            mean: of the normalisation, ``[3, 1, 1]``.
            std: likewise.
            views: of each image; 0: one, not augmented.
            what: they are, for the line that shows progress.

        Returns:
            float16 ``[N, max(views, 1), …]``, on the CPU.
        """
        augment, keys = augmentation(self._config), [content_key(image) for image in pixels]
        facts = {"views": views, "augmentation": asdict(augment) if views else {}}
        facts |= {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()}

        @torch.no_grad()
        def features(position: int) -> Tensor:
            image = pixels[position : position + 1].float() / 255.0
            if views:
                seed = int.from_bytes(hashlib.sha256(keys[position].encode()).digest()[:7])
                image = augment(image.expand(views, -1, -1, -1), torch.Generator().manual_seed(seed))
            inputs = ((image - mean) / std).to(self._accelerator.device)
            return torch.as_tensor(part(inputs.contiguous(memory_format=torch.channels_last)))

        return self.filled(module_key(part, **facts), keys, features, what)

    def filled(self, key: str, keys: list[str], compute: Callable[[int], Tensor], what: str) -> Tensor:
        """What ``training.data.bank.Bank`` holds of ``keys``, after what is missing was computed."""
        bank = Bank(Path(self._config.cache), key)
        processes = self._accelerator.num_processes
        bank.complete(keys, compute, what, slice(self._accelerator.process_index, None, processes))
        self._accelerator.wait_for_everyone()
        return bank.load(keys)
