"""Which epoch to keep: image→image retrieval on the development split."""

import numpy as np
from numpy.typing import NDArray

from training.errors import ConfigError
from training.retrieval.concepts import cui_overlap_at
from training.retrieval.features import RetrievalSet
from training.retrieval.metrics import label_codes, precision_at
from training.retrieval.ranking import rank_images


class Selector:
    """Scores an epoch's features by ``cui@K`` or ``p@K`` (all label columns together).

    Raises:
        ConfigError: ``p@K`` is asked of a store without labels.
    """

    def __init__(self, name: str, dev: RetrievalSet) -> None:
        self.name, self.dev = name, dev
        self._measure, _, depth = name.partition("@")
        self._depth = int(depth)
        labels = dev.store.labels
        if self._measure == "p" and not labels:
            raise ConfigError(f"select: {name} needs labels and {dev.store.path} has none; use cui@{depth}")
        self._codes = label_codes(*(dev.label(label) for label in labels)) if labels else None
        self._cuis = dev.store.cui_matrix()[dev.rows]

    def __call__(self, features: NDArray[np.float32]) -> float:
        """The measure's mean over the queries that have a score; 0 if none has."""
        if self._measure == "p" and self._codes is not None:
            order = rank_images(features, self.dev.cases, self._depth, self._codes >= 0)
            scores = precision_at(order, self._codes, [self._depth])
        else:
            order = rank_images(features, self.dev.cases, self._depth)
            scores = cui_overlap_at(order, self._cuis, self.dev.cases, [self._depth])
        values = scores[self._depth]
        return float(np.nanmean(values)) if not np.isnan(values).all() else 0.0
