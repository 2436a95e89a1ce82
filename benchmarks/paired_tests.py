"""Paired tests of configurations in simulation: false positives, coverage and power, beside other estimators.

    OMP_NUM_THREADS=1 nice python benchmarks/paired_tests.py [--draws 20000] [--doc docs/statistics.md]

A cell is a number of folds, of cases (1 to 8 queries each), a kind of score and of seed effect. The latent difference
of a query is the sum of normal parts of its case (.20 of the variance), of case and seed (.10), of the query (.35) and
of query and seed (.35), and a seed effect, shared by all folds or one for each. Graded scores are the sum itself,
binary ones −1, 0 or 1 beyond ±1. With three seeds the seed effects' part of the standard error is 0.5, 1 or 2 times
that of cases. A finished cell is kept in --out and not drawn again; --doc renders the tables between a file's marks.
"""

import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from machine import command, head, report
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from training.statistics.intervals import FloatArray, case_interval
from training.statistics.seed_variance import crossed_error

SEEDS, CASES, CHUNK = (3, 4, 5), (20, 60, 200, 600), 250
RATIOS = {"none": (0.0,), "shared": (0.5, 1.0, 2.0), "per fold": (0.5, 1.0, 2.0)}
SHIFT = 3.0
"""The true difference where there is one, in standard deviations of the mean of three seeds."""
RESAMPLED = 4
"""Chunks whose draws the two-way bootstrap resamples."""
MARKS = ("<!-- simulation: begin -->\n", "<!-- simulation: end -->\n")
Estimates = dict[str, tuple[FloatArray, FloatArray]]
"""Estimator to the ends of its intervals, ``[draws]``."""


class Cell(NamedTuple):
    """A row of the table."""

    folds: int
    effect: str
    score: str
    cases: int


def cells() -> list[Cell]:
    """All rows; with one fold, shared effects and those of a fold are the same."""
    found = (Cell(*one) for one in product((1, 5), RATIOS, ("binary", "graded"), CASES))
    return [one for one in found if one.folds > 1 or one.effect != "per fold"]


def counts_of(cases: int) -> NDArray[np.int64]:
    """Queries of each case."""
    return np.resize([1, 1, 2, 2, 3, 4, 6, 8], cases)


def run(cell: Cell, draws: int, seed: int) -> dict[str, list[float]]:
    """ "Seeds, ratio, estimator" to shares of the draws: false positives, coverage and power."""
    rng, counts = np.random.default_rng(seed), counts_of(cell.cases)
    case, fold, queries = (
        np.repeat(np.arange(cell.cases), counts),
        np.arange(cell.cases) % cell.folds,
        counts.sum(),
    )
    base = math.sqrt(3 * (0.2 * float((counts**2).sum()) / queries**2 + 0.35 / queries))
    hits: dict[str, list[list[FloatArray]]] = {}
    shifts: dict[float, float] = {}
    for chunk in range(draws // CHUNK):
        normal = partial(rng.standard_normal, dtype=np.float32)
        latent = math.sqrt(0.2) * normal((CHUNK, 1, cell.cases)) + math.sqrt(0.1) * normal(
            (CHUNK, 5, cell.cases)
        )
        latent = latent[:, :, case] + math.sqrt(0.35) * (
            normal((CHUNK, 1, queries)) + normal((CHUNK, 5, queries))
        )
        effects = (
            normal((CHUNK, 5, 1))
            if cell.effect == "shared"
            else normal((CHUNK, 5, cell.folds))[:, :, fold[case]]
        )
        for ratio in RATIOS[cell.effect]:
            sd = ratio * base * math.sqrt(1 if cell.effect == "shared" else cell.folds)
            drawn, scored = latent + np.float32(sd) * effects, partial(score, binary=cell.score == "binary")
            if (
                ratio not in shifts
            ):  # a binary score's mean moves by 2φ(1)/sd of the sum where the sum moves by 1
                slope = 0.484 if cell.score == "binary" else 1.0
                shifts[ratio] = SHIFT * float(scored(drawn)[:, :3].mean(axis=(1, 2)).std()) / slope
            for truth, shift in enumerate((0.0, shifts[ratio])):
                true = mean_score(shift, math.sqrt(1 + sd**2)) if cell.score == "binary" else shift
                sums = np.add.reduceat(scored(drawn + np.float32(shift)), np.cumsum(counts) - counts, axis=2)
                for seeds in SEEDS:
                    found = estimates(sums[:, :seeds].astype(np.float64) / queries, counts / queries, fold)
                    if chunk < RESAMPLED:
                        found |= two_way_bootstrap(sums[:, :seeds] / queries, counts / queries, rng)
                    for name, (low, high) in found.items():
                        kept = hits.setdefault(f"{seeds} {ratio} {name}", [[], [], []])
                        kept[2 * truth].append((low > 0) | (high < 0))
                        if truth:
                            kept[1].append((low <= true) & (true <= high))
    return {
        key: [round(float(np.mean(np.concatenate(one))), 4) for one in kept] for key, kept in hits.items()
    }


def score(latent: NDArray[np.float32], binary: bool) -> NDArray[np.float32]:
    """Differences of queries."""
    return (latent > 1).astype(np.float32) - (latent < -1) if binary else latent


def mean_score(shift: float, sd: float) -> float:
    """Expected binary difference."""
    return float(ndtr((shift - 1) / sd) - ndtr((-shift - 1) / sd))


def estimates(sums: FloatArray, weights: FloatArray, fold: NDArray[np.int64]) -> Estimates:
    """95 % intervals of the estimators, from each seed's and case's part of the mean, ``[draws, S, C]``."""
    by_seed, seeds, folds = sums.sum(axis=2), sums.shape[1], fold.max() + 1
    means, size = by_seed.mean(axis=1), float((weights**2).sum())
    parts = sums - by_seed[..., None] * weights
    error = crossed_error(by_seed, parts, weights)
    of_seeds, of_cases = by_seed.var(axis=1, ddof=1) / seeds, error.cases
    own = parts - parts.mean(axis=1, keepdims=True)
    both = (own**2).sum(axis=(1, 2)) / (seeds * (seeds - 1) * (1 - size))
    within = sum(sums[:, :, fold == one].sum(axis=2).var(axis=1, ddof=1) for one in range(folds)) / seeds
    tiny, many = 1e-30, 1 / size - 1

    def satterthwaite(*variances: tuple[FloatArray, float]) -> FloatArray:
        return sum(one**2 / degrees for one, degrees in variances) + tiny

    floored, rest = np.maximum(within, both), np.maximum(of_cases - both, 0)
    reml = of_cases + np.maximum(of_seeds - both, 0)
    variances = {
        "version 0.2.0": (floored + rest, satterthwaite((floored, folds * (seeds - 1)), (rest, many))),
        "REML, Satterthwaite": (reml, satterthwaite((of_seeds, seeds - 1), (of_cases, many))),
        "V_seeds + V_cases": (of_seeds + of_cases, satterthwaite((of_seeds, seeds - 1), (of_cases, many))),
        "t over seed means": (of_seeds, satterthwaite((of_seeds, seeds - 1))),
        "given these models": (of_cases, satterthwaite((of_cases, many))),
    }
    reaches = {name: stdtrit(one**2 / two, 0.975) * np.sqrt(one) for name, (one, two) in variances.items()}
    return {
        name: (means - one, means + one) for name, one in ({"paired_test": error.reach} | reaches).items()
    }


def two_way_bootstrap(
    sums: FloatArray, weights: FloatArray, rng: np.random.Generator, samples: int = 300
) -> Estimates:
    """Percentiles of means over resampled cases and resampled seeds (Owen 2007, Ann. Appl. Stat. 1:386)."""
    draws, seeds, cases = sums.shape
    times = rng.multinomial(cases, np.full(cases, 1 / cases), samples).astype(np.float64)
    chosen = rng.multinomial(seeds, np.full(seeds, 1 / seeds), samples) / seeds
    by_seed = (times @ sums.reshape(-1, cases).T / (times @ weights)[:, None]).reshape(samples, draws, seeds)
    low, high = np.quantile((by_seed * chosen[:, None]).sum(axis=2), [0.025, 0.975], axis=0)
    return {"two-way bootstrap": (low, high)}


def interval_coverage(cases: int, draws: int, binary: bool) -> float:
    """How often the interval of one model's mean holds the truth: accuracy .8, or normal scores; effects of cases."""
    rng, counts, hits = np.random.default_rng(cases), counts_of(cases), 0
    case = np.repeat(np.arange(cases), counts)
    for _ in range(draws):
        latent = math.sqrt(0.3) * rng.standard_normal(cases)[case] + math.sqrt(0.7) * rng.standard_normal(
            len(case)
        )
        found = case_interval((latent < 0.8416).astype(np.float64) if binary else latent, case, draws=500)
        hits += found.low <= (0.8 if binary else 0.0) <= found.high
    return round(hits / draws, 3)


def tables(result: dict[str, Any]) -> str:
    """Markdown: every cell, the estimators beside each other, and intervals of means."""
    found = {Cell(*json.loads(key)): shares for key, shares in result["cells"].items()}

    def worst(cell: Cell, seeds: int, name: str, place: int) -> Iterable[float]:
        return [found[cell][f"{seeds} {ratio} {name}"][place] for ratio in RATIOS[cell.effect]]

    def text(value: float) -> str:
        return f"{value:.3f}".removeprefix("0")

    lines = [
        "| folds | seed effects | scores | cases | 3 seeds | 4 seeds | 5 seeds |",
        "|---|---|---|---:|---|---|---|",
    ]
    for cell in found:
        row = [
            f"{text(max(worst(cell, seeds, 'paired_test', 0)))} · {text(min(worst(cell, seeds, 'paired_test', 1)))} · "
            + "–".join(
                dict.fromkeys(f"{edge(worst(cell, seeds, 'paired_test', 2)):.2f}"[1:] for edge in (min, max))
            )
            for seeds in SEEDS
        ]
        lines.append("| " + " | ".join([*map(str, cell), *row]) + " |")
    lines += ["", "| estimator | 3 seeds | 4 seeds | 5 seeds |", "|---|---|---|---|"]
    names = dict.fromkeys(key.split(" ", 2)[2] for shares in found.values() for key in shares)
    for name in names:
        row = []
        for seeds in SEEDS:
            edges: list[Callable[..., float]] = [min, max]
            low, high = (edge(one for cell in found for one in worst(cell, seeds, name, 0)) for edge in edges)
            covered = min(one for cell in found for one in worst(cell, seeds, name, 1))
            power = np.mean([one for cell in found for one in worst(cell, seeds, name, 2)])
            row.append(f"{text(low)}–{text(high)} · {text(covered)} · {f'{power:.2f}'[1:]}")
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    lines += ["", "| cases | " + " | ".join(map(str, result["intervals"]["binary"])) + " |"]
    lines.append("|---|" + "---:|" * len(result["intervals"]["binary"]))
    for kind, shares in result["intervals"].items():
        lines.append(f"| {kind} | " + " | ".join(map(text, shares.values())) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw what --out does not hold yet, and render."""
    options = command(__doc__, "paired_tests", threads=1)
    options.add_argument("--draws", type=int, default=20_000, help="of each cell")
    options.add_argument("--doc", type=Path, help="file whose tables to render")
    chosen = options.parse_args()
    settings = head(("numpy", "scipy"), draws=chosen.draws)
    old = json.loads(chosen.out.read_text(encoding="utf-8")) if chosen.out.is_file() else {}
    done = old["cells"] if old.get("draws") == chosen.draws else {}
    result = settings | {"cells": done, "intervals": old.get("intervals") if done else None}
    for number, cell in enumerate(cells()):
        key = json.dumps(cell)
        if key not in done:
            done[key] = run(cell, chosen.draws, number)
            report(result, chosen.out)
    if result["intervals"] is None:
        result["intervals"] = {
            kind: {
                str(cases): interval_coverage(cases, 4000, kind == "binary")
                for cases in (10, 15, 20, 40, 60, 200)
            }
            for kind in ("binary", "graded")
        }
        report(result, chosen.out)
    if chosen.doc:
        before, rest = chosen.doc.read_text(encoding="utf-8").split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        chosen.doc.write_text(before + MARKS[0] + tables(result) + MARKS[1] + after, encoding="utf-8")


if __name__ == "__main__":
    main()
