"""Hand-made score sheets of a small grid, and its design."""

from collections.abc import Sequence

import numpy as np

from pipelines.experiments.results import Contrast, Design, Hypothesis
from pipelines.experiments.retrieval_grid import Table
from pipelines.experiments.statistics import Sheets
from training.retrieval.measures import Scored
from training.retrieval.score_sheets import ScoreSheet, Value

FOLDS, SEEDS, CASES = ("fold0", "fold1"), (0, 1, 2), 20
"""Cases of each fold, with two images each."""
MEASURES = ("CUI@50", "CUI@10", "organ P@30")
LIFT = {"infonce": 0.0, "sm": 0.1, "noise": 0.0, "other": 0.05}
"""What a row adds to each query's score."""
DESIGN = Design(
    tables=(
        Table(title="one", rows=["infonce", "noise", "sm"], baseline="infonce"),
        Table(title="two", rows=["sm", "other"], baseline="sm"),
    ),
    primary=Hypothesis(Contrast("sm", "infonce"), "CUI@50"),
    secondary=("CUI@10",),
    draws=200,
)


def sheet(fold: str, row: str, seed: int | None, noise: float = 0.02) -> ScoreSheet:
    """Scores of two measures and one with gaps; the same queries for every row."""
    number = FOLDS.index(fold)
    images = [f"{fold}-{image}" for image in range(2 * CASES)]
    base = np.random.default_rng(number).random(2 * CASES)
    rng = np.random.default_rng([number, sorted(LIFT).index(row) if row in LIFT else 9, seed or 0])
    measures = {}
    for name in MEASURES:
        values = base + LIFT.get(row, -0.3) + noise * rng.standard_normal(2 * CASES)
        if name == "organ P@30":
            values[::5] = np.nan
        measures[name] = Scored(values, "image → image, features before the projection")
    metadata: dict[str, Value] = {
        "dataset": f"made-up-{fold}",
        "split": "test",
        "store": fold,
        "features": "before",
    }
    metadata |= {"exclusion": "case", "images": 2 * CASES, "cases": CASES, "gallery": 38.0, "torch": "2"}
    metadata |= {"open_clip": "3", **({} if seed is None else {"training seed": seed + 1000 * number})}
    return ScoreSheet(images, [f"{fold}-case{image // 2}" for image in range(2 * CASES)], measures, metadata)


def chance() -> dict[str, ScoreSheet]:
    return {fold: sheet(fold, "chance", None) for fold in FOLDS}


def sheets(rows: Sequence[str] = ("infonce", "noise", "sm", "other"), noise: float = 0.02) -> Sheets:
    return {
        row: {seed: {fold: sheet(fold, row, seed, noise) for fold in FOLDS} for seed in SEEDS} for row in rows
    }
