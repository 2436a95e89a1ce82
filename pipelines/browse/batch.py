"""A batch of a store: its similarities, and what a target policy makes of them."""

import io
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kg_targets.errors import ConfigError
from kg_targets.inspect.plots import sample_rows
from kg_targets.losses.registry import POLICIES, bind_policy
from kg_targets.store import TargetStore

MOST = 512
"""Images of a batch, at most."""


@dataclass(frozen=True)
class BatchChoice:
    """What the sliders say."""

    size: int = 64
    seed: int = 0
    policy: str = "evidence"
    temperature: float = 0.05
    alpha: float = 0.7
    threshold: float = -1.0
    """−1: the store's own θ."""
    saturation: float = 1.0

    @classmethod
    def read(cls, given: dict[str, str]) -> "BatchChoice":
        """From a form.

        Raises:
            ConfigError: a value is no number, out of range, or no policy.
        """
        values: dict[str, Any] = {}
        for one in fields(cls):
            if one.name in given:
                try:
                    values[one.name] = type(getattr(cls, one.name))(given[one.name])
                except ValueError:
                    raise ConfigError(f"{one.name}: {given[one.name]!r} is no number") from None
        choice = cls(**values)
        if choice.policy not in POLICIES:
            raise ConfigError(f"policy {choice.policy!r} is not one of {', '.join(POLICIES)}")
        if not 2 <= choice.size <= MOST or not 0 <= choice.seed < 2**32:
            raise ConfigError(f"a batch has 2 to {MOST} images, and its seed is 0 or more")
        if not all(np.isfinite([choice.temperature, choice.alpha, choice.threshold, choice.saturation])):
            raise ConfigError("the policy's parameters must be finite")
        return choice


@dataclass(frozen=True)
class BatchTargets:
    """A batch and its targets."""

    similarity: NDArray[np.float32]
    """S, ``[B, B]``, rows of one case each, similar ones together."""
    targets: NDArray[np.float32]
    """P, ``[B, B]``."""
    threshold: float
    told: dict[str, str]
    """What is said of the rows: name to figure."""


def batch_targets(store: TargetStore, choice: BatchChoice) -> BatchTargets:
    """Similarities and targets of random images of different cases.

    Raises:
        ConfigError: a parameter is out of the policy's range.
        MissingExtraError: torch, which policies need, is not installed.
    """
    import torch

    from kg_targets.losses.policies import pair_structure

    rows = sample_rows(store, choice.size, choice.seed)
    if len(rows) < 2:
        raise ConfigError("the store has no two images of different cases of which something is known")
    block = store.block(rows)
    order = _together(block)
    block = block[np.ix_(order, order)]
    similarity = torch.from_numpy(block)
    threshold = store.threshold if choice.threshold < 0 else choice.threshold
    policy = bind_policy(choice.policy, choice.temperature, choice.alpha, threshold, choice.saturation)
    targets = policy(similarity, pairs=pair_structure(similarity)).numpy()
    diagonal, others = np.diag(targets), targets - np.diag(np.diag(targets))
    entropy = -(targets * np.log(np.where(targets > 0, targets, 1.0))).sum(axis=1)
    told = {
        "images": f"{len(rows)}, one of each case",
        "mass of the own caption, mean": f"{diagonal.mean():.3f}",
        "least and most": f"{diagonal.min():.3f} to {diagonal.max():.3f}",
        "captions that get more than 1 % of a row, mean": f"{(others > 0.01).sum(axis=1).mean():.1f}",
        "rows without a soft positive": f"{(diagonal > 1 - 1e-6).mean():.0%}",
        "entropy of a row, mean": f"{entropy.mean():.2f} nats",
    }
    return BatchTargets(block, targets, threshold, told)


def figure_of(found: BatchTargets) -> bytes:
    """Both blocks side by side, PNG."""
    figure = Figure(figsize=(10.4, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = left.imshow(
        np.maximum(found.similarity, 0), vmin=0, vmax=1, cmap="viridis", interpolation="nearest"
    )
    left.set_title("similarity S of the images (rows and columns)", fontsize=10)
    figure.colorbar(shown, ax=left, shrink=0.8)
    scale = LogNorm(1e-4, 1.0, clip=True)
    shown = right.imshow(np.maximum(found.targets, 1e-4), norm=scale, cmap="magma", interpolation="nearest")
    right.set_title("targets P: each row sums to 1 (log scale)", fontsize=10)
    figure.colorbar(shown, ax=right, shrink=0.8)
    for axis in (left, right):
        axis.set_xticks([])
        axis.set_yticks([])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _together(block: NDArray[np.float32]) -> NDArray[np.intp]:
    """An order in which similar images stand together: leaves of average linkage."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = np.clip(1.0 - (block + block.T) / 2, 0.0, None)
    np.fill_diagonal(distance, 0.0)
    return np.asarray(leaves_list(linkage(squareform(distance, checks=False), "average")))
