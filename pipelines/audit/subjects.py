"""Stores under comparison: settings of the scoring, and the checks that make a paired comparison meaningful."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.errors import ConfigError, DataError, StoreError
from kg_targets.store import TargetStore, TeacherStore, schema
from training.checks import all_within
from training.statistics.intervals import IntArray

HALVES = ("all", "first", "second")
_COIN = 20_26  # seed of the halves: they are the same whatever else is drawn
_DESCRIBED = ("scorer", "use_ontology", "max_hops", "extractor")


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the scoring."""

    seed: int = 0
    """For every random choice: bootstrap, sign flips, hidden concepts, batches, sampled pairs; ≥ 0."""
    bootstrap: int = 2000
    """Bootstrap samples of cases behind each 95 % interval, 100–100,000."""
    flips: int = 10_000
    """Random sign assignments behind each p value, ≥ 100; the smallest possible p is 1/(flips + 1)."""
    batch_sizes: tuple[int, ...] = (128, 256, 512, 1024)
    """Images per batch whose target rows are described, each ≥ 2."""
    batches: int = 10
    """Random batches per batch size, ≥ 1."""
    neighbors: int = 30
    """Nearest images that vote for a hidden concept, ≥ 1."""
    sampled_pairs: int = 200_000
    """Most pairs of images drawn to compare similarity within and between cases, ≥ 1."""
    shown_pairs: int = 10
    """Most similar pairs of different cases to show, ≥ 0."""
    half: str = "all"
    """Cases whose images are queries: all, or the first or second of two halves by a fixed coin: one to choose settings
    on and one to report. Neighbours are looked for among all images."""

    def __post_init__(self) -> None:
        all_within("--", self, seed=(0, 2**32 - 1), bootstrap=(100, 100_000), flips=(100, 1_000_000))
        all_within("--", self, batches=(1, 10_000), neighbors=(1, 10_000), sampled_pairs=(1, 10_000_000))
        all_within("--", self, shown_pairs=(0, 1000))
        if self.half not in HALVES:
            raise ConfigError(f"--half {self.half} is not one of {', '.join(HALVES)}")
        if not self.batch_sizes or min(self.batch_sizes) < 2:
            raise ConfigError(
                "--batch-sizes needs numbers of at least 2, separated by commas, such as 128,256"
            )


def in_half(cases: IntArray, half: str) -> NDArray[np.bool_]:
    """Whether each case belongs to ``half`` ("first", "second" or "all").

    Args:
        cases: case numbers of a store, ``TargetStore.cases``; int64 [N].
        half: one of ``HALVES``.

    Returns:
        bool [N]. Cases are numbered in the order of their names: the halves are the same for every store of the same
        cases, and change where cases are left out.
    """
    if half == "all":
        return np.ones(len(cases), dtype=bool)
    heads = np.random.default_rng(_COIN).random(int(cases.max(initial=0)) + 1) < 0.5
    return np.asarray(heads[cases] == (half == "first"))


def parse_batch_sizes(text: str) -> tuple[int, ...]:
    """``"128,256"`` → ``(128, 256)``, ascending, each once.

    Raises:
        ConfigError: something between the commas is not a whole number.
    """
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise ConfigError(
            f"--batch-sizes {text!r} must be numbers separated by commas, such as 128,256"
        ) from None


@dataclass(frozen=True)
class Subjects:
    """One or more stores over the same images in the same order; the first is the reference."""

    stores: tuple[TargetStore, ...]
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Longer texts of the images' cases, by their name: length N each, empty where there is none."""

    @property
    def reference(self) -> TargetStore:
        """The store that the others are compared with."""
        return self.stores[0]

    @property
    def columns(self) -> list[str]:
        """Short names of the stores, as tables have them: ``[1]``, ``[2]`` …"""
        return [f"[{number}]" for number in range(1, len(self.stores) + 1)]

    @property
    def cases(self) -> IntArray:
        """int64 [N]: case of each image, 0 … cases − 1."""
        return self.reference.cases

    @property
    def case_count(self) -> int:
        """Number of cases."""
        return int(self.cases.max()) + 1

    def described(self) -> list[dict[str, Any]]:
        """Description of each store, for the head of the report."""
        return [
            {
                "store": str(store.path),
                "fingerprint": store.fingerprint,
                **{name: store.manifest["config"][name] for name in _DESCRIBED},
                "settings": _settings(store.manifest["config"]),
                "ontology": store.manifest["ontology"]["release"],
                "fitted_on": store.manifest["fit"]["split"],
                "threshold": store.threshold,
                "unknown_images": int((~store.known).sum()),
                **_cost(store),
            }
            for store in self.stores
        ]


def _settings(config: dict[str, Any]) -> str:
    """The scorer's own settings, those that differ from none, as a person would type them."""
    told = [name.replace("_", "-") for name in ("part_of", "flat_ancestors") if config.get(name)]
    shown = ("shrinkage", "blocks", "scorer_options", "uncertain", "drop_mentions", "seed", "mix")
    plain = {"uncertain": "keep"}
    told += [
        f"{name.replace('_', '-')} {config[name]}"
        for name in shown
        if config.get(name) not in (None, 0, "", plain.get(name))
    ]
    return ", ".join(told)


def _cost(store: TargetStore) -> dict[str, float]:
    """Bytes of an image's row of targets, and seconds that the whole build took for it (0 where no report says)."""
    size = sum(
        (store.path / name).stat().st_size for name in schema.table_files(store.manifest, schema.TARGETS)
    )
    try:
        stages = json.loads((store.path / schema.REPORT).read_text(encoding="utf-8"))["stages"]
        seconds = sum(stage["seconds"] for stage in stages.values())
    except (OSError, ValueError, KeyError, TypeError):  # a store of before, or copied without its report
        seconds = 0.0
    return {"bytes_per_image": size / len(store), "build_seconds": seconds}


def open_subjects(paths: Sequence[str | Path]) -> Subjects:
    """Open the stores and check that they can be compared image by image.

    Raises:
        StoreError: a folder is not a target store.
        DataError: the stores hold different images, or one of them has nothing to score.
    """
    if not paths:
        raise DataError("evaluate targets needs at least one store, such as build/demo/dev")
    stores = tuple(TargetStore.open(path) for path in paths)
    for store in stores:
        if isinstance(store, TeacherStore):
            raise StoreError(
                f"{store.path} is a teacher's store, which knows no concepts to score: `kg-targets verify` and "
                "`explain` look at it"
            )
        if not store.known.any():
            raise DataError(
                f"{store.path}: no image has a known concept, so there is nothing to score: "
                "build it with another extractor or ontology"
            )
    first = stores[0]
    for other in stores[1:]:
        names = [f"{store.dataset}/{store.split}" for store in (first, other)]
        if names[0] != names[1]:
            raise DataError(
                f"{other.path} holds {names[1]}, {first.path} holds {names[0]}: compare stores of one split"
            )
        if first.image_ids != other.image_ids or first.group_ids != other.group_ids:
            raise DataError(
                f"{other.path} has other images, another row order or other cases than {first.path}: "
                "build both from the same files with the same options"
            )
    subjects = Subjects(stores)
    if subjects.case_count < 2:
        raise DataError(
            f"{first.path}: all {len(first):,} image(s) belong to one case, and neighbours are looked for in "
            "other cases: check the group ids"
        )
    return subjects
