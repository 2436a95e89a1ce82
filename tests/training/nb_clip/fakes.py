"""Stores with a few known similarities, and targets from them."""

from typing import Any, cast

import numpy as np

from kg_targets.store import TargetStore
from kg_targets.store.block import case_codes
from training.nb_clip.batch_targets import TargetBuilder
from training.nb_clip.config import LossConfig, PolicyConfig


class FakeStore:
    """As much of a TargetStore as a step needs, with an asymmetric similarity as a teacher's would be."""

    path = "fake"
    kind = "teacher"
    threshold = 0.2

    def __init__(self, similarity: np.ndarray, known: list[bool], group_ids: list[str]) -> None:
        self.similarity = similarity.astype(np.float32)
        self.known = np.array(known)
        self.cases = case_codes(group_ids)

    def block(self, rows: Any, cols: Any = None) -> np.ndarray:
        return self.similarity[np.ix_(rows, rows if cols is None else cols)]


def fake_store(images: int = 10, cases: int = 8, unknown: tuple[int, ...] = (3,)) -> FakeStore:
    similarity = np.random.default_rng(0).uniform(0, 1, (images, images))
    np.fill_diagonal(similarity, 1)
    return FakeStore(
        similarity, [i not in unknown for i in range(images)], [f"case{i % cases}" for i in range(images)]
    )


def builder(store: FakeStore, loss: str = "semantic_matching", **policy: Any) -> TargetBuilder:
    config = PolicyConfig(**{"name": "evidence", **policy})
    return TargetBuilder(cast(TargetStore, store), LossConfig(name=loss), config)
