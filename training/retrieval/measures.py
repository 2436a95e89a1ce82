"""Every measure of one trained model, and what chance would give: per query, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import ConfigError, DataError
from training.retrieval import metrics
from training.retrieval.concepts import VARIANTS, cui_at, cui_by_chance
from training.retrieval.config import AFTER, IMAGE_TEXT, TEXT_IMAGE, EvalConfig, View
from training.retrieval.features import Features, RetrievalSet
from training.retrieval.ranking import Device, pair_ranks, rank
from training.retrieval.semantic_recall import alike, semantic_recall_by_chance
from training.retrieval.zero_shot import Task, is_right, majority_class

CUI_DEPTHS = (5, 10, 50)
LABEL_DEPTHS = (5, 10, 30)
PAIR_DEPTHS = (1, 5, 10)
PAIR_VIEWS = (View(IMAGE_TEXT, AFTER), View(TEXT_IMAGE, AFTER))
PAIRED = "own caption and own image, features after the projection"
ZERO_SHOT = "zero-shot classification, features after the projection"

LabelSets = Sequence[tuple[str, ...]]
Overlaps = dict[str, metrics.Scores]
"""CUI@K by variant."""
Recalls = dict[float | None, metrics.Scores]
"""Recall@K by threshold of ``training.retrieval.semantic_recall``; None: the strict form."""
Precisions = dict[tuple[str, ...], metrics.Scores]
"""P@K by label columns."""


@dataclass(frozen=True)
class Scored:
    """A measure of every query."""

    values: NDArray[np.float64]
    """``[N]``, NaN for a query without a score."""
    section: str
    """The heading it stands under."""
    classes: NDArray[np.int64] | None = None
    """Its mean is the mean of these classes' means; ``[N]``."""


Measures = dict[str, Scored]


def mean_of(scored: Scored) -> float:
    """Mean over the scored queries, or of the classes' means; NaN without a query."""
    known = ~np.isnan(scored.values)
    if not known.any():
        return float("nan")
    if scored.classes is None:
        return float(scored.values[known].mean())
    classes = scored.classes[known]
    return float(np.mean([scored.values[known][classes == code].mean() for code in np.unique(classes)]))


def mean_over_seeds(seeds: Sequence[Measures]) -> Measures:
    """Each query's score averaged over models that differ in the seed.

    A query has a score with every seed or with none: whether it has depends on labels, concepts and gallery only.
    """
    return {
        name: Scored(
            np.mean([measures[name].values for measures in seeds], axis=0), scored.section, scored.classes
        )
        for name, scored in seeds[0].items()
    }


def label_sets(available: Sequence[str], wanted: Sequence[str] | None) -> list[tuple[str, ...]]:
    """Label combinations to measure: those asked for (``modality+region``), else each label and the paper's pair.

    Without a request the conjunction is modality+region where both exist, otherwise all labels together.

    Raises:
        ConfigError: a label asked for is not in the store.
    """
    if wanted:
        for name in "+".join(wanted).split("+"):
            if name not in available:
                raise ConfigError(
                    f'--labels: the store has no label "{name}"; it has {", ".join(available) or "none at all"}'
                )
        return [tuple(name.split("+")) for name in wanted]
    pair = tuple(name for name in ("modality", "region") if name in available)
    conjunction = pair if len(pair) == 2 else tuple(available)
    return [(name,) for name in available] + ([conjunction] if len(conjunction) > 1 else [])


def view_features(features: Features, view: View) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Queries and gallery of a view, ``[N, D]`` each.

    Raises:
        DataError: they were not encoded.
    """
    images = features.images.get(view.features)
    if images is None or (features.texts is None and view.crosses):
        raise DataError(f"{view.title}: these features were not encoded")
    if not view.crosses or features.texts is None:
        return images, images
    return (images, features.texts) if view.direction == IMAGE_TEXT else (features.texts, images)


def measure_run(
    features: Features,
    data: RetrievalSet,
    labels: LabelSets,
    config: EvalConfig | None = None,
    tasks: Sequence[Task] = (),
    device: Device = "cpu",
) -> Measures:
    """Every measure of one trained model.

    Args:
        features: of the retrieval set, at least the kinds that ``config`` needs.
        data: the images and what is known about them.
        labels: label columns of P@K, see ``label_sets``.
        config: directions and protocol; the defaults if None.
        tasks: zero-shot tasks; their classes are in ``features.classes``.
        device: where similarities are computed.
    """
    config = config or EvalConfig()
    groups = data.excluded(config.group_exclusion)
    codes = {names: _codes(data, names) for names in labels}

    def of_view(view: View) -> tuple[Overlaps, Precisions]:
        queries, gallery = view_features(features, view)
        lists: dict[bytes, NDArray[np.int64]] = {}

        def ranked(allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
            """Lists of a gallery, made once for all labels that the same images have."""
            key = allowed.tobytes()
            if key not in lists:
                some = None if allowed.all() else allowed
                lists[key] = rank(queries, gallery, groups, max(CUI_DEPTHS), some, device=device)
            return lists[key]

        order = ranked(np.ones(len(queries), dtype=bool))
        overlaps = cui_at(order, data.cuis, groups, CUI_DEPTHS, config.cui_variants)
        return overlaps, {
            names: metrics.precision_at(ranked(code >= 0), code, LABEL_DEPTHS)
            for names, code in codes.items()
        }

    def recalls(view: View) -> Recalls:
        pairs = (*view_features(features, view), groups, data.caption_codes)
        right = {None: None} | {
            threshold: alike(data.cuis, threshold) for threshold in config.semantic_recall
        }
        return {
            threshold: metrics.recall_at(pair_ranks(*pairs, device=device, right=found), PAIR_DEPTHS)
            for threshold, found in right.items()
        }

    def right(task: Task, truth: NDArray[np.int64]) -> NDArray[np.float64]:
        return is_right(features.images[AFTER], features.classes[task.label], truth)

    return _named(data, config, tasks, of_view, recalls, right)


def measure_chance(
    data: RetrievalSet, labels: LabelSets, config: EvalConfig | None = None, tasks: Sequence[Task] = ()
) -> Measures:
    """Expected scores of a gallery in random order (exact, no draw); zero-shot: those of the most frequent class."""
    config = config or EvalConfig()
    groups = data.excluded(config.group_exclusion)
    overlaps = cui_by_chance(data.cuis, groups, CUI_DEPTHS, config.cui_variants)
    by_chance = {names: metrics.precision_by_chance(_codes(data, names), groups) for names in labels}
    precisions = {names: dict.fromkeys(LABEL_DEPTHS, values) for names, values in by_chance.items()}
    pairs = (data.caption_codes, groups)
    recalls: Recalls = {None: metrics.recall_by_chance(*pairs, PAIR_DEPTHS)}
    for threshold in config.semantic_recall:
        recalls[threshold] = semantic_recall_by_chance(*pairs, alike(data.cuis, threshold), PAIR_DEPTHS)
    return _named(
        data, config, tasks, lambda _: (overlaps, precisions), lambda _: recalls,
        lambda _, truth: majority_class(truth),
    )  # fmt: skip


def _named(
    data: RetrievalSet,
    config: EvalConfig,
    tasks: Sequence[Task],
    of_view: Callable[[View], tuple[Overlaps, Precisions]],
    recalls: Callable[[View], Recalls],
    right: Callable[[Task, NDArray[np.int64]], NDArray[np.float64]],
) -> Measures:
    """All scores by the names of their measures, each under its heading."""
    measures: Measures = {}
    for view in config.views:
        overlaps, precisions = of_view(view)
        found = {cui_name(view, name, k): v for name, scores in overlaps.items() for k, v in scores.items()}
        by_label = ((f"{view.prefix}{'+'.join(names)} P@", scores) for names, scores in precisions.items())
        found |= {f"{name}{k}": values for name, scores in by_label for k, values in scores.items()}
        measures |= {name: Scored(values, view.title) for name, values in found.items()}
    for view in PAIR_VIEWS if config.recall else ():
        by_threshold = recalls(view)
        for k in PAIR_DEPTHS:  # the strict form and those by meaning side by side
            for threshold, scores in by_threshold.items():
                measures[recall_name(view, threshold, k)] = Scored(scores[k], PAIRED)
    for task in tasks:
        place = {name: index for index, name in enumerate(task.classes)}
        truth = np.array([place.get(value, -1) for value in data.label(task.label)], dtype=np.int64)
        values = right(task, truth)
        measures[f"zero-shot {task.label} accuracy"] = Scored(values, ZERO_SHOT)
        measures[f"zero-shot {task.label} balanced accuracy"] = Scored(values, ZERO_SHOT, truth)
    return measures


def primary(config: EvalConfig) -> str:
    """The one endpoint named beforehand: CUI@50 of the first direction, features and variant asked for."""
    return cui_name(config.views[0], config.cui_variants[0], max(CUI_DEPTHS))


def cui_name(view: View, variant: str, k: int) -> str:
    """Name of CUI@k in a view, such as ``projected CUI@50 modality``."""
    return f"{view.prefix}CUI@{k} {VARIANTS[variant].title}".rstrip()


def recall_name(view: View, threshold: float | None, k: int) -> str:
    """Name of Recall@k in a view, ``image→text Recall@5``; with a threshold ``image→text semantic Recall@5 (0.5)``."""
    kind, told = ("", "") if threshold is None else ("semantic ", f" ({threshold:g})")
    return f"{view.prefix}{kind}Recall@{k}{told}"


def _codes(data: RetrievalSet, names: tuple[str, ...]) -> NDArray[np.int64]:
    return metrics.label_codes(*(data.label(name) for name in names))
