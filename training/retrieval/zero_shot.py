"""Zero-shot classification: an image belongs to the class whose prompts lie nearest, no label was trained on.

The vector of a class is the normalised mean of its prompts' unit vectors (R: open_clip's way); an image's class is the
one with the largest cosine, the first in alphabetical order if several are equal. Measured on the images that have the
label: accuracy, and balanced accuracy (the mean of the classes' accuracies). The baseline is the answer that is always
the most frequent class: its share, and one over the number of classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import ConfigError
from training.retrieval.config import EvalConfig
from training.retrieval.ranking import score_chunks

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """One label column to classify."""

    label: str
    classes: tuple[str, ...]
    """Values of the label, ascending."""
    prompts: tuple[tuple[str, ...], ...]
    """Prompts of each class."""


def tasks(config: EvalConfig, values: Callable[[str], Sequence[str]], available: Sequence[str]) -> list[Task]:
    """The zero-shot tasks of a store.

    Args:
        config: labels, templates and prompts.
        values: label to its value for each image, empty where missing.
        available: the store's labels.

    Raises:
        ConfigError: a label is not in the store or has fewer than two values, or prompts name what it has not.
    """
    own = {label: dict(prompts) for label, prompts in config.prompts}
    for label in own:
        if label not in config.zero_shot:
            raise ConfigError(f'--prompts: "{label}" is not classified: add --zero-shot {label}')
    found = []
    for label in config.zero_shot:
        if label not in available:
            raise ConfigError(
                f'--zero-shot: the store has no label "{label}"; it has {", ".join(available) or "none at all"}'
            )
        classes = tuple(sorted({value for value in values(label) if value}))
        if len(classes) < 2:
            raise ConfigError(
                f"--zero-shot: {label} has {len(classes)} value(s) in this split, it takes two to tell"
            )
        given = own.get(label, {})
        for name in given:
            if name not in classes:
                raise ConfigError(f'--prompts: {label} has no value "{name}"; it has {", ".join(classes)}')
        prompts = tuple(
            given.get(name) or tuple(template.replace("{}", name) for template in config.templates)
            for name in classes
        )
        found.append(Task(label, classes, prompts))
    return found


def class_features(task: Task, encode: Callable[[list[str]], FloatArray]) -> FloatArray:
    """Unit vector of each class, float32 ``[C, D]``.

    Args:
        task: classes and prompts.
        encode: texts to unit vectors.
    """
    vectors = encode([prompt for prompts in task.prompts for prompt in prompts])
    ends = np.cumsum([len(prompts) for prompts in task.prompts])
    means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])])
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12))


def is_right(images: FloatArray, classes: FloatArray, truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 where an image's nearest class is its own, else 0; NaN without a label; float64 ``[N]``.

    Args:
        images: unit features, ``[N, D]``.
        classes: unit features, ``[C, D]``.
        truth: class of each image, −1 where unknown.
    """
    nearest = np.concatenate([s.cpu().numpy().argmax(axis=1) for _, s in score_chunks(images, classes)])
    return np.where(truth >= 0, (nearest == truth).astype(np.float64), np.nan)


def majority_class(truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """``is_right`` of the answer that is always the most frequent class (the first of them)."""
    most = np.bincount(truth[truth >= 0]).argmax()
    return np.where(truth >= 0, (truth == most).astype(np.float64), np.nan)
