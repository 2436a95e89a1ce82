"""What is kept of each model: cosines of pairs, each query's score, and the first images found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from training.data.sources import ImageSource
from training.errors import ConfigError, DataError
from training.retrieval.config import AFTER, IMAGE_IMAGE, IMAGE_TEXT, View
from training.retrieval.evaluation import SHOWN, ModelReader, Plan
from training.retrieval.features import Features, RetrievalSet
from training.retrieval.measures import measure_chance, measure_run, primary
from training.retrieval.retrieval import rank
from training.retrieval.runs import RunGroup
from training.retrieval.spaces.config import SpacesConfig
from training.retrieval.spaces.pairs import Pairs, pairs_of

FloatArray = NDArray[np.float64]
KINDS = (IMAGE_IMAGE, IMAGE_TEXT)
"""What cosines are of; of image-text, image i with text j and image j with text i are pairs of their own."""


@dataclass
class Space:
    """One group of trained models, or the untrained ones, on a retrieval set."""

    group: RunGroup
    cosines: dict[str, list[FloatArray]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """Kind to the cosines of all pairs by each seed, ``[P]`` (``[2 P]`` of image-text)."""
    scores: list[FloatArray] = field(default_factory=list)
    """The measure of every query by each seed, ``[N]``, NaN without a score."""
    order: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, SHOWN), np.int64))
    """Images that the first seed finds, ``[N, SHOWN]``, −1 = none left."""

    @property
    def score(self) -> FloatArray:
        """Mean over the seeds."""
        return np.asarray(np.mean(self.scores, axis=0))


@dataclass(frozen=True)
class Reading:
    """All groups on one retrieval set."""

    data: RetrievalSet
    pairs: Pairs
    measure: str
    """Name of the measure in ``Space.scores``."""
    spaces: Mapping[str, Space]


def read_spaces(
    store: TargetStore,
    source: ImageSource,
    groups: Sequence[RunGroup],
    config: SpacesConfig,
    say: Callable[[str], None] = lambda _: None,
) -> Reading:
    """Encode the store's images and captions by every model, one at a time.

    Args:
        store: the split; its images are queries and gallery at once.
        source: its images.
        groups: the models, in the order in which they are shown.
        config: what is kept.
        say: told of every model that is done.

    Raises:
        KGTargetsError: a checkpoint or the images are not usable, the measure does not exist, or no two images of
            different cases have concepts.
    """
    plan = Plan.of(store, config.evaluation)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reader = ModelReader(store, source, plan, device)
    pairs: Pairs | None = None
    spaces = {group.name: Space(group) for group in groups}
    measure = measure_name(store, plan, config)
    for group in groups:
        space = spaces[group.name]
        for folder in group.folders:
            started = monotonic()
            data, features = reader.read(folder)
            if pairs is None:
                pairs = pairs_of(data, config.seed)
                if not len(pairs):
                    raise DataError(f"{store.path}: no two images of different cases have concepts")
            _keep_cosines(space, features, pairs, config.features)
            measures = measure_run(features, data, plan.labels, plan.config, device=device)
            space.scores.append(measures[measure].values)
            if not len(space.order):
                images = features.images[config.features]
                space.order = rank(images, images, data.cases, SHOWN, device=device)
            say(
                f"{group.name}: {len(data.rows):,} images encoded and measured in {monotonic() - started:.1f} s"
            )
    if pairs is None:
        raise ConfigError("--run is missing: name at least two runs")
    return Reading(data, pairs, measure, spaces)


def _keep_cosines(space: Space, features: Features, pairs: Pairs, kind: str) -> None:
    if features.texts is None:
        raise DataError("captions were not encoded")
    images = features.images[kind]
    space.cosines[IMAGE_IMAGE].append(pairs.cosines(images, images))
    space.cosines[IMAGE_TEXT].append(pairs.both_ways.cosines(features.images[AFTER], features.texts))


def measure_name(store: TargetStore, plan: Plan, config: SpacesConfig) -> str:
    """The full name of the measure asked for, among those of image to image; found before anything is encoded.

    Raises:
        ConfigError: there is none.
    """
    if config.measure is None:
        return primary(plan.config)
    view = View(IMAGE_IMAGE, config.features)
    everything = RetrievalSet.of(store, np.arange(len(store)))
    measures = measure_chance(everything, plan.labels, plan.config)
    known = [name for name, scored in measures.items() if scored.section == view.title]
    for name in (config.measure, view.prefix + config.measure):
        if name in known:
            return name
    raise ConfigError(f'--measure: "{config.measure}" is not one of {", ".join(known)}')
