"""The patients: one finding per case, the series that can show it, and the split by case."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml


@dataclass(frozen=True)
class Case:
    """One patient with one finding; every image of the case shows the same body and the same finding."""

    index: int
    """Running number, also the seed of everything random about the case."""
    region: str
    """Body region: chest, head, abdomen, spine, pelvis, knee, hand or breast."""
    finding: str
    """The finding, or ``normal``."""
    laterality: str
    """``left`` or ``right`` as the patient has it, empty where sides make no sense."""
    zone: str
    """``upper`` or ``lower`` for findings of the lung, empty elsewhere."""
    severity: float
    """Size of the finding, from 0 (small, still visible) to 1 (large)."""
    habitus: float
    """Width of the body relative to the average, about 0.92 to 1.08."""
    age: int
    """Years."""
    sex: str
    """``female`` or ``male``."""

    @property
    def side(self) -> int:
        """Sign of x of the affected side: +1 for the patient's left, at the image's right, or no side."""
        return -1 if self.laterality == "right" else 1


@dataclass(frozen=True)
class Series:
    """Imaging of a picture."""

    modality: str
    """``x-ray``, ``ct``, ``mri``, ``ultrasound`` or ``mammography``."""
    view: str
    """Projection, plane, window, organ or sequence: ``frontal``, ``soft``, ``kidney``, ``t1`` …"""


@dataclass(frozen=True)
class Recipe:
    """A finding in a region, and what can be drawn of it."""

    region: str
    finding: str
    series: tuple[Series, ...]
    """Series that show the finding."""
    sided: bool = False
    """Whether the finding (or the limb) has a side."""
    zoned: bool = False
    """Whether it lies in an upper or lower lobe."""
    weight: float = 1.0
    """Relative number of cases."""


ANATOMY: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("anatomy.yaml").read_text(encoding="utf-8"))


def tissues(drawing: str) -> dict[str, dict[str, float]]:
    """Kind of image (or window) to the brightness of every tissue on it."""
    rows = dict(ANATOMY["tissues"][drawing])
    return {
        kind: {name: row[column] for name, row in rows.items()}
        for column, kind in enumerate(rows.pop("kinds"))
    }


RECIPES = tuple(
    Recipe(region, finding, **{**fields, "series": tuple(Series(*one.split()) for one in fields["series"])})
    for region, findings in ANATOMY["recipes"].items()
    for finding, fields in findings.items()
)
_WEIGHTS = np.array([recipe.weight for recipe in RECIPES]) / sum(recipe.weight for recipe in RECIPES)


def plan_case(seed: int, index: int) -> tuple[Case, tuple[Series, ...]]:
    """Return case ``index`` of the demo and its 1 to 4 series; depends on ``seed`` and ``index`` only."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    recipe = RECIPES[int(rng.choice(len(RECIPES), p=_WEIGHTS))]
    case = Case(
        index=index,
        region=recipe.region,
        finding=recipe.finding,
        laterality=("left", "right")[int(rng.integers(2))] if recipe.sided else "",
        zone=("upper", "lower")[int(rng.integers(2))] if recipe.zoned else "",
        severity=float(rng.uniform()),
        habitus=float(rng.uniform(0.92, 1.08)),
        age=int(rng.integers(20, 89)),
        sex="female" if recipe.region == "breast" else ("female", "male")[int(rng.integers(2))],
    )
    count = int(rng.choice([1, 2, 3, 4], p=[0.3, 0.35, 0.22, 0.13]))
    order = [recipe.series[k] for k in rng.permutation(len(recipe.series))]
    return case, tuple((order * 4)[:count])


def plan_cases(seed: int, images: int) -> list[tuple[Case, tuple[Series, ...]]]:
    """Return the first cases that together have exactly ``images`` images (the last case is shortened to fit)."""
    cases: list[tuple[Case, tuple[Series, ...]]] = []
    total = 0
    while total < images:
        case, series = plan_case(seed, len(cases))
        series = series[: images - total]
        cases.append((case, series))
        total += len(series)
    return cases


def split_cases(cases: list[tuple[Case, tuple[Series, ...]]], seed: int) -> list[str]:
    """Return ``train``, ``dev`` or ``test`` for every case: about 70, 10 and 20 % of each finding's cases.

    Cases of one region and finding are shuffled and spread evenly over (0, 1); places below 0.7 are train,
    those below 0.8 dev. The even spread keeps rare findings present in every split.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, len(cases), 1]))
    groups: dict[tuple[str, str], list[int]] = {}
    for row, (case, _) in enumerate(cases):
        groups.setdefault((case.region, case.finding), []).append(row)
    place = np.zeros(len(cases))
    for rows in groups.values():
        place[rng.permutation(rows)] = (np.arange(len(rows)) + rng.uniform()) / len(rows)
    ranked = np.argsort(place, kind="stable")
    sizes = np.array([len(cases[row][1]) for row in ranked])
    before = (np.cumsum(sizes) - sizes) / sizes.sum()
    names = [""] * len(cases)
    for row, share in zip(ranked, before, strict=True):
        names[int(row)] = "train" if share < 0.7 else "dev" if share < 0.8 else "test"
    return names
