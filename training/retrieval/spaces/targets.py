"""What there was to learn: how much a store knows, and what its targets are like in batches.

Of P, the targets of a batch (``training.nb_clip.targets``): diagonal mass P_ii, soft mass 1 − P_ii, and in rows that
have any, the soft part q_j = P_ij / (1 − P_ii), j ≠ i: its entropy H(q) in nats and exp(H), the effective number of
relatives. Soft mass *agrees* where it goes to an image of the same label (or with a concept in common). **Chance** is
the same soft mass spread evenly over all the images of the batch that the row may give any to.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kg_targets.store import TargetStore
from training.config import TrainConfig
from training.data.config import DataConfig
from training.data.samplers import make_sampler
from training.errors import ConfigError
from training.nb_clip.config import LossConfig, PolicyConfig
from training.nb_clip.losses import target_entropy
from training.nb_clip.targets import pair_structure
from training.nb_clip.task import TargetBuilder
from training.retrieval.features import RetrievalSet
from training.retrieval.metrics import label_codes
from training.retrieval.spaces.pairs import pairs_of

BATCHES = 32
"""Batches of targets that are looked at."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
CONCEPTS = "a shared concept"
"""Name of the agreement in concepts."""
_SOFT = 1e-6
"""Soft mass below which a row counts as one without relatives."""


@dataclass(frozen=True)
class Coverage:
    """What a store knows about its images."""

    images: int
    cases: int
    known: float
    """Share of images with concepts."""
    concepts: dict[str, float]
    """Concepts per image, unknown images included: mean, then quantiles by name."""
    pairs: int
    """Pairs of known images of different cases that ``similarity`` rests on."""
    similarity: dict[str, float]
    """S of those pairs: mean, quantiles by name, and the share above the store's threshold."""
    threshold: float


@dataclass(frozen=True)
class Softness:
    """The targets of batches under one policy; means over rows of all batches."""

    policy: dict[str, Any]
    """Name and parameters; which of them count depends on the policy."""
    batch_size: int
    batches: int
    sampler: str
    diagonal: float
    """Mean P_ii."""
    without: float
    """Share of rows without soft mass."""
    entropy: float
    """Mean H(q) of rows with soft mass, nats."""
    relatives: float
    """Mean exp(H(q)) of rows with soft mass."""
    similarity: float
    """Mean S of where soft mass goes."""
    similarity_by_chance: float
    agreement: dict[str, tuple[float, float]]
    """Label (or a shared concept) to the share of soft mass that agrees, and that by chance."""


def coverage(store: TargetStore, seed: int = 0) -> Coverage:
    """How much a store knows, and how similar it finds images of different cases."""
    data = RetrievalSet.of(store, np.arange(len(store)))
    numbers = np.diff(data.cuis.indptr).astype(np.float64)
    values = pairs_of(data, seed).similarity
    return Coverage(
        images=len(store),
        cases=len(np.unique(data.cases)),
        known=float(store.known.mean()),
        concepts=_distribution(numbers),
        pairs=len(values),
        similarity=_distribution(values)
        | {"above threshold": float((values > store.threshold).mean()) if len(values) else float("nan")},
        threshold=store.threshold,
    )


def softness(
    store: TargetStore,
    config: TrainConfig,
    policy: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> Softness:
    """What targets look like in batches drawn as a run draws them.

    Args:
        store: similarities, cases and labels.
        config: policy and its parameters, sampler, batch size and masking of cases.
        policy: another policy than the configuration's, with the same parameters.
        batch_size: images per batch; by default the configuration's, at most all images.
        seed: of the batches.

    Raises:
        ConfigError: a batch is larger than the store.
    """
    if batch_size is not None and batch_size > len(store):
        raise ConfigError(
            f"--batch-size: {batch_size} exceeds the {len(store)} images of {store.path}: reduce it"
        )
    graded = replace(config.policy, name=policy or config.policy.name)
    sizes = replace(config.data, batch_size=batch_size or min(config.data.batch_size, len(store)))
    builder = TargetBuilder(store, replace(config.loss, name="semantic_matching"), graded)
    codes = {name: label_codes(store.label(name)) for name in store.labels}
    total, rows_seen = _Sums(tuple([*codes, CONCEPTS])), 0
    cuis = store.cui_matrix()
    for rows in islice(_batches(store, sizes, seed), BATCHES):
        place = torch.as_tensor(rows)
        targets = builder(place, place, 0)
        similarity = torch.as_tensor(store.block(rows))
        pairs = pair_structure(similarity, 0, builder.known[place], builder.known[place], targets.mask)
        part = cuis[rows]
        same = {name: _same(values[rows]) for name, values in codes.items()}
        shared = torch.as_tensor((part @ part.T).toarray() > 0)
        same[CONCEPTS] = (shared, torch.ones_like(shared))
        total.add(targets.i2t, similarity, pairs.relatives, same)
        rows_seen += len(rows)
    return total.result(graded, sizes, rows_seen)


class _Sums:
    """Sums over the rows of batches."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.diagonal = self.soft_rows = self.entropy = self.relatives = 0.0
        self.similarity = np.zeros(3)  # of soft mass, by chance, soft mass
        self.agreement = {name: np.zeros(3) for name in names}
        self.batches = 0

    def add(
        self, targets: Tensor, similarity: Tensor, allowed: Tensor, same: dict[str, tuple[Tensor, Tensor]]
    ) -> None:
        """One batch: P, S, where soft mass may go, and for each label who agrees and between whom that is known."""
        self.batches += 1
        diagonal = targets.diagonal().double()
        self.diagonal += float(diagonal.sum())
        off = targets.double().clone().fill_diagonal_(0.0)
        mass = off.sum(dim=1)
        soft = mass > _SOFT
        self.soft_rows += int(soft.sum())
        entropy = target_entropy(off[soft] / mass[soft, None]).double()
        self.entropy += float(entropy.sum())
        self.relatives += float(entropy.exp().sum())
        everywhere = torch.ones_like(allowed)
        self.similarity += _agreement(off, allowed, similarity.double(), everywhere)
        for name, (agrees, judged) in same.items():
            self.agreement[name] += _agreement(off, allowed, agrees.double(), judged)

    def result(self, policy: PolicyConfig, data: DataConfig, rows: int) -> Softness:
        """The means."""
        similarity = _shares(self.similarity)
        return Softness(
            policy=asdict(policy),
            batch_size=data.batch_size,
            batches=self.batches,
            sampler=data.sampler,
            diagonal=self.diagonal / rows,
            without=1 - self.soft_rows / rows,
            entropy=_over(self.entropy, self.soft_rows),
            relatives=_over(self.relatives, self.soft_rows),
            similarity=similarity[0],
            similarity_by_chance=similarity[1],
            agreement={name: _shares(sums) for name, sums in self.agreement.items()},
        )


def _agreement(off: Tensor, allowed: Tensor, value: Tensor, judged: Tensor) -> NDArray[np.float64]:
    """Σ soft mass × value, the same with each row's mass spread evenly, and Σ soft mass; where judged."""
    kept = off * judged
    mass = kept.sum(dim=1)
    open_to = (allowed & judged).double()
    even = (value * open_to).sum(dim=1) / open_to.sum(dim=1).clamp(min=1.0)
    return np.array([float((kept * value).sum()), float((mass * even).sum()), float(mass.sum())])


def _same(codes: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Which pairs have one label, and which have one at all (−1: none); bool ``[B, B]``."""
    values = torch.as_tensor(codes)
    labelled = values >= 0
    return values[:, None] == values[None, :], labelled[:, None] & labelled[None, :]


def _batches(store: TargetStore, data: DataConfig, seed: int) -> Iterator[NDArray[np.int64]]:
    sampler = make_sampler(data, _Rows(store, np.arange(len(store))), seed)
    for epoch in count():
        yield from sampler.epoch(epoch)


@dataclass(frozen=True)
class _Rows:
    store: TargetStore
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def default_policy(runs: list[TrainConfig]) -> TrainConfig:
    """The configuration whose policy is described: the first that trains with one, else the last."""
    return next((config for config in runs if config.loss.name == LossConfig().name), runs[-1])


def _distribution(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    named = {f"p{round(100 * q)}": float(np.quantile(values, q)) for q in QUANTILES}
    return {"mean": float(values.mean()), "min": float(values.min())} | named | {"max": float(values.max())}


def _shares(sums: NDArray[np.float64]) -> tuple[float, float]:
    return _over(float(sums[0]), float(sums[2])), _over(float(sums[1]), float(sums[2]))


def _over(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
