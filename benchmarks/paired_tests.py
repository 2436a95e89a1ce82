"""Paired tests of configurations in simulation: false positives, coverage and power, beside other estimators.

    OMP_NUM_THREADS=1 nice python benchmarks/paired_tests.py [--draws 20000] [--doc docs/statistics.md]

A cell is a number of folds, of cases (1 to 8 queries each), a kind of score and of seed effect. The latent difference
of a query is the sum of normal parts of its case (.20 of the variance), of case and seed (.10), of the query (.35) and
of query and seed (.35), and a seed effect, shared by all folds or one for each. Graded scores are the sum itself,
binary ones −1, 0 or 1 beyond ±1. With three seeds the seed effects' part of the standard error is 0.5, 1 or 2 times
that of cases. Beyond this grid: 10 and 15 cases, seed effects three times as large as the error of cases, and answers
that are independent from seed to seed. A finished cell is kept in --out and not drawn again; --doc renders the tables
between a file's marks.
"""

import json
import math
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from machine import command, head, report
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from training.rendering import cells as table_row
from training.rendering import header
from training.statistics.intervals import FloatArray, influences, t_reach
from training.statistics.seed_variance import crossed_error

SEEDS, CASES, CHUNK = (3, 4, 5), (20, 60, 200, 600), 250
RATIOS = {"none": (0.0,), "shared": (0.5, 1.0, 2.0), "per fold": (0.5, 1.0, 2.0)}
FURTHER: dict[str, tuple[float, ...]] = {"independent": (0.0,), "shared × 3": (3.0,)}
"""Effects beyond the grid."""
OLD = "version 0.2.0"
METHODS = ("t", "percentiles")
INTERVALS = (10, 15, 20, 40, 60, 100, 200, 400)
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
    """All rows of the grid; with one fold, shared effects and those of a fold are the same."""
    found = (Cell(*one) for one in product((1, 5), RATIOS, ("binary", "graded"), CASES))
    return [one for one in found if one.folds > 1 or one.effect != "per fold"]


def further_cells() -> list[Cell]:
    """Rows beyond the grid, with one fold."""
    few = product((1,), ("none", "shared"), ("binary", "graded"), (10, 15))
    return [Cell(*one) for one in (*few, *product((1,), FURTHER, ("binary", "graded"), CASES))]


def counts_of(cases: int) -> NDArray[np.int64]:
    """Queries of each case."""
    return np.resize([1, 1, 2, 2, 3, 4, 6, 8], cases)


def run(cell: Cell, draws: int, seed: int) -> dict[str, list[float]]:
    """Map "seeds ratio estimator" to shares of the draws: false positives, coverage and power."""
    rng, counts, binary = np.random.default_rng(seed), counts_of(cell.cases), cell.score == "binary"
    case, fold = np.repeat(np.arange(cell.cases), counts), np.arange(cell.cases) % cell.folds
    weights, queries, own = counts / counts.sum(), len(case), 1 if "shared" in cell.effect else cell.folds
    alike = 0.0 if cell.effect == "independent" else 1.0
    base = math.sqrt(3 * own * (0.2 * float((weights**2).sum()) + 0.35 / queries))
    hits: dict[str, list[list[FloatArray]]] = {}
    shifts: dict[float, float] = {}

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal((CHUNK, *shape), dtype=np.float32)

    for chunk in range(draws // CHUNK):
        by_case = math.sqrt(0.2) * normal(1, cell.cases) + math.sqrt(0.1) * normal(5, cell.cases)
        latent = alike * (by_case[:, :, case] + math.sqrt(0.35) * normal(1, queries))
        latent += math.sqrt(1 - 0.65 * alike) * normal(5, queries)
        effects = normal(5, own)[:, :, fold[case] % own]
        for ratio in (RATIOS | FURTHER)[cell.effect]:
            drawn = latent + np.float32(ratio * base) * effects
            if ratio not in shifts:  # a mean of binary scores moves by 2φ(1) where the latent one moves by 1
                spread = float(_score(drawn, binary)[:, :3].mean(axis=(1, 2)).std())
                shifts[ratio] = SHIFT * spread / (0.484 if binary else 1)
            for differs, shift in enumerate((0.0, shifts[ratio])):
                ends = ndtr((np.array([-shift, shift]) - 1) / math.hypot(1, ratio * base))
                truth = ends[1] - ends[0] if binary else shift
                scores = _score(drawn + np.float32(shift), binary).astype(np.float64)
                sums = np.add.reduceat(scores, np.cumsum(counts) - counts, axis=2) / queries
                for seeds in SEEDS:
                    found = estimates(sums[:, :seeds], weights, fold)
                    if chunk < RESAMPLED:
                        found |= two_way_bootstrap(sums[:, :seeds], weights, rng)
                    for name, (low, high) in found.items():
                        kept = hits.setdefault(f"{seeds} {ratio} {name}", [[], [], []])
                        kept[2 * differs].append((low > 0) | (high < 0))
                        if differs:
                            kept[1].append((low <= truth) & (truth <= high))
    return {
        name: [round(float(np.concatenate(one).mean()), 4) for one in kept] for name, kept in hits.items()
    }


def _score(latent: NDArray[np.float32], binary: bool) -> NDArray[np.float32]:
    return (latent > 1).astype(np.float32) - (latent < -1) if binary else latent


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
    floored, rest, many = np.maximum(within, both), np.maximum(of_cases - both, 0), 1 / size - 1
    variances: dict[
        str, list[tuple[FloatArray, float]]
    ] = {  # the summands of each, with their degrees of freedom
        OLD: [(floored, folds * (seeds - 1)), (rest, many)],
        "REML, Satterthwaite": [
            (of_seeds, seeds - 1),
            (of_cases, many),
            (-np.minimum(both, of_seeds), np.inf),
        ],
        "V_seeds + V_cases": [(of_seeds, seeds - 1), (of_cases, many)],
        "t over seed means": [(of_seeds, seeds - 1)],
        "given these models": [(of_cases, many)],
    }
    reaches = {"paired_test": error.reach}
    for name, parts_of in variances.items():
        total = np.sum([one for one, _ in parts_of], axis=0)
        spread = np.sum([one**2 / degrees for one, degrees in parts_of], axis=0) + 1e-30
        reaches[name] = stdtrit(total**2 / spread, 0.975) * np.sqrt(total)
    return {name: (means - reach, means + reach) for name, reach in reaches.items()}


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


def gain(draws: int) -> dict[str, list[float]]:
    """400 questions in one fold, answers independent from seed to seed: "seeds estimator" to shares called different.

    First where 70 answers become better and 70 worse, then where 80 and 60 do: a true difference of 5 points.
    """
    rng, weights = np.random.default_rng(0), np.full(400, 1 / 400)
    found: dict[str, list[float]] = {}
    for seeds, better in product(SEEDS, (70, 80)):
        called: dict[str, int] = {}
        for _ in range(draws // CHUNK):
            drawn = rng.random((CHUNK, seeds, 400))
            sums = ((drawn < better / 400) / 400.0) - (drawn > 1 - (140 - better) / 400) / 400.0
            for name, (low, high) in estimates(sums, weights, np.zeros(400, dtype=np.int64)).items():
                called[name] = called.get(name, 0) + int(((low > 0) | (high < 0)).sum())
        for name, count in called.items():
            found.setdefault(f"{seeds} {name}", []).append(round(count / (draws // CHUNK * CHUNK), 4))
    return found


def interval_coverage(cases: int, draws: int, accuracy: float | None) -> dict[str, float]:
    """How often intervals of one model's mean hold the truth, t and percentile bootstrap (500 samples).

    Scores are right and wrong answers of this accuracy, or normal ones, with effects of cases. Draws in which all cases
    are alike get no interval and do not count.
    """
    rng, counts, hits, given = np.random.default_rng(cases), counts_of(cases), [0, 0], 0
    case, truth = np.repeat(np.arange(cases), counts), accuracy or 0.0
    times = rng.multinomial(cases, np.full(cases, 1 / cases), 500).astype(np.float64)
    for _ in range(draws // CHUNK):
        latent = math.sqrt(0.3) * rng.standard_normal((CHUNK, cases))[:, case]
        latent += math.sqrt(0.7) * rng.standard_normal((CHUNK, len(case)))
        scores = (latent < ndtri(accuracy)).astype(np.float64) if accuracy else latent
        sums = np.add.reduceat(scores, np.cumsum(counts) - counts, axis=1)
        means, parts, shares = influences(sums[..., None], counts[:, None])
        reach = t_reach(parts, shares)
        low, high = np.quantile((times @ sums.T) / (times @ counts)[:, None], [0.025, 0.975], axis=0)
        hits[0] += int(((np.abs(means - truth) <= reach) & (reach > 0)).sum())
        hits[1] += int(((low <= truth) & (truth <= high) & (reach > 0)).sum())
        given += int((reach > 0).sum())
    return {name: round(hit / given, 3) for name, hit in zip(METHODS, hits, strict=True)}


def tables(result: dict[str, Any]) -> str:
    """Markdown: every cell of the grid, the estimators beside each other, cells beyond it, and intervals of means."""
    found = {Cell(*json.loads(key)): one for key, one in result["cells"].items()}

    def shares(cell: Cell, seeds: int, name: str, place: int) -> list[float]:
        return [found[cell][f"{seeds} {ratio} {name}"][place] for ratio in (RATIOS | FURTHER)[cell.effect]]

    def text(value: float) -> str:
        return f"{value:.3f}".removeprefix("0")

    columns = [f"{seeds} seeds" for seeds in SEEDS]
    blocks = {}
    for kind, rows in {"grid": cells(), "further": further_cells()}.items():
        lines = [header([*Cell._fields, *columns], 9)]
        for cell in rows:
            row = []
            for seeds in SEEDS:
                wrong, covered, power = (shares(cell, seeds, "paired_test", place) for place in range(3))
                span = dict.fromkeys(f"{one:.2f}"[1:] for one in (min(power), max(power)))
                old = f" ({text(max(shares(cell, seeds, OLD, 0)))})" if kind == "further" else ""
                row.append(f"{text(max(wrong))}{old} · {text(min(covered))} · {'–'.join(span)}")
            lines.append(table_row([*cell, *row]))
        blocks[kind] = "\n".join(lines)
    lines = [header(["estimator", *columns], 9)]
    for name in dict.fromkeys(key.split(" ", 2)[2] for cell in cells() for key in found[cell]):
        row = []
        for seeds in SEEDS:
            wrong, covered, power = (
                [one for cell in cells() for one in shares(cell, seeds, name, place)] for place in range(3)
            )
            row.append(f"{text(min(wrong))}–{text(max(wrong))} · {text(min(covered))} · {np.mean(power):.2f}")
        lines.append(table_row([name, *row]))
    means = [header(["", *result["intervals"]["graded"]])]
    for kind, by_cases in result["intervals"].items():
        means += [
            table_row([f"{kind}: {one}", *(text(x[one]) for x in by_cases.values())]) for one in METHODS
        ]
    return "\n\n".join([blocks["grid"], "\n".join(lines), blocks["further"], "\n".join(means)]) + "\n"


def main() -> None:
    """Draw what --out does not hold yet, and render."""
    options = command(__doc__, "paired_tests", threads=1)
    options.add_argument("--draws", type=int, default=20_000, help="of each cell")
    options.add_argument("--doc", type=Path, help="file whose tables to render")
    chosen = options.parse_args()
    settings = head(("numpy", "scipy"), draws=chosen.draws)
    old = json.loads(chosen.out.read_text(encoding="utf-8")) if chosen.out.is_file() else {}
    done = old["cells"] if old.get("draws") == chosen.draws else {}
    result = settings | {"cells": done}
    for number, cell in enumerate([*cells(), *further_cells()]):
        if json.dumps(cell) not in done:
            done[json.dumps(cell)] = run(cell, chosen.draws, number)
            report(result, chosen.out)
    result["gain"] = gain(chosen.draws)
    result["intervals"] = {
        kind: {str(cases): interval_coverage(cases, chosen.draws, accuracy) for cases in INTERVALS}
        for kind, accuracy in {"accuracy 80 %": 0.8, "accuracy 95 %": 0.95, "graded": None}.items()
    }
    report(result, chosen.out)
    if chosen.doc:
        before, rest = chosen.doc.read_text(encoding="utf-8").split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        chosen.doc.write_text(before + MARKS[0] + tables(result) + MARKS[1] + after, encoding="utf-8")


if __name__ == "__main__":
    main()
