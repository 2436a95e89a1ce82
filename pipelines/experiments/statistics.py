"""Statistics of score sheets: pooled over folds, averaged over seeds, compared pair by pair of rows.

Each query is scored by the one model of a row and seed that did not train on its case, within its fold's gallery. A
query's score is averaged over seeds. Intervals of means resample cases (``training.statistics.intervals``); those of
differences and the tests contain seed variance, too (``noise``), and with a single seed, which cannot show any, they
hold given these models. What is tested is fixed by the design, not by the numbers: one primary hypothesis, uncorrected,
and one family under Holm's correction. Everything else is described by intervals, without p values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kg_targets.store.block import case_codes
from pipelines.experiments.results import Contrast, Design, Difference, Hypothesis, Results, RowResult, Subset
from training.errors import ConfigError, DataError
from training.retrieval.measures import Measures, Scored, mean_of, mean_over_seeds
from training.retrieval.score_sheets import ScoreSheet, pool
from training.statistics.intervals import IntArray, Interval, case_interval
from training.statistics.paired_tests import Pair, compare_all, flips_for, holm
from training.statistics.seed_variance import paired_test

Sheets = Mapping[str, Mapping[int, Mapping[str, ScoreSheet]]]
"""Row to training seed to fold to sheet."""


@dataclass(frozen=True)
class _Pooled:
    """All rows on the same queries in the same order."""

    chance: ScoreSheet
    cases: IntArray
    fold_names: list[str]
    folds: IntArray
    """Fold of each query, a place in ``fold_names``."""
    seeds: Mapping[str, Mapping[int, Measures]]
    means: Mapping[str, Measures]


def analyse(
    sheets: Sheets,
    chance: Mapping[str, ScoreSheet],
    design: Design,
    subsets: Mapping[str, frozenset[str]] | None = None,
) -> Results:
    """Pool, average, compare.

    Args:
        sheets: of every row that is shown, each seed on the same folds. Rows of the design may be left out; then
            nothing is tested, for a smaller family would be corrected too little.
        chance: fold to the sheet of a random order.
        design: what is compared.
        subsets: name to the cases on which the primary contrast is looked at once more.

    Raises:
        ConfigError: a row or measure of the design is not there.
        DataError: rows are scored on different images, folds share cases, or a subset has no case.
    """
    pooled = _pool(sheets, chance)
    _check(design, sheets, pooled)
    tested = set(sheets) == set(design.rows)
    family = design.family if tested else ()
    flips = flips_for(len(family))
    shown = [one for one in design.contrasts if one.row in sheets and one.baseline in sheets]
    hypotheses = (design.primary, *family) if tested else ()
    by_chance, *by_row = _intervals([pooled.chance.measures, *pooled.means.values()], pooled.cases, design)
    sections: dict[str, list[str]] = {}
    for name, scored in pooled.chance.measures.items():
        sections.setdefault(scored.section, []).append(name)
    return Results(
        sections=sections,
        images=len(pooled.chance.image_ids),
        cases=len(np.unique(pooled.cases)),
        folds={name: int((pooled.folds == code).sum()) for code, name in enumerate(pooled.fold_names)},
        seeds=tuple(next(iter(sheets.values()))),
        chance=RowResult(by_chance, {}),
        rows={
            row: RowResult(
                intervals,
                {
                    name: tuple(mean_of(seed[name]) for seed in pooled.seeds[row].values())
                    for name in intervals
                },
            )
            for row, intervals in zip(pooled.means, by_row, strict=True)
        },
        differences=_differences(pooled, shown, hypotheses, design, flips),
        subsets={name: _subset(name, cases, pooled, design, flips) for name, cases in (subsets or {}).items()}
        if tested
        else {},
        tested=tested,
        flips=flips,
    )


def _pool(sheets: Sheets, chance: Mapping[str, ScoreSheet]) -> _Pooled:
    folds = list(chance)
    reference = pool([chance[fold] for fold in folds])
    seeds: dict[str, dict[int, Measures]] = {}
    first, trained = next((row, set(by_seed)) for row, by_seed in sheets.items())
    for row, by_seed in sheets.items():
        if set(by_seed) != trained:
            raise DataError(
                f"rows {first} and {row} were trained from other seeds: train and score all from the same"
            )
        for seed, by_fold in by_seed.items():
            if set(by_fold) != set(folds):
                raise DataError(
                    f"row {row}, seed {seed}: scored on other folds than chance: score all of them"
                )
            one = pool(
                [_in_order(by_fold[fold], chance[fold], f"row {row}, seed {seed}, {fold}") for fold in folds]
            )
            seeds.setdefault(row, {})[seed] = one.measures
    sizes = [len(chance[fold].image_ids) for fold in folds]
    return _Pooled(
        reference,
        case_codes(reference.cases),
        folds,
        np.repeat(np.arange(len(folds)), sizes),
        seeds,
        {row: mean_over_seeds(list(by_seed.values())) for row, by_seed in seeds.items()},
    )


def _in_order(sheet: ScoreSheet, reference: ScoreSheet, what: str) -> ScoreSheet:
    """A sheet with its queries in the order of another one; paired by image id."""
    if (
        dict(zip(sheet.image_ids, sheet.cases, strict=True))
        != dict(zip(reference.image_ids, reference.cases, strict=True))
        or sheet.measures.keys() != reference.measures.keys()
    ):
        raise DataError(
            f"{what}: scored on other images, cases or measures than chance: score all rows on one store with the "
            "same options"
        )
    place = {image: row for row, image in enumerate(sheet.image_ids)}
    order = np.array([place[image] for image in reference.image_ids], dtype=np.int64)
    measures = {
        name: Scored(one.values[order], one.section, None if one.classes is None else one.classes[order])
        for name, one in sheet.measures.items()
    }
    return ScoreSheet(reference.image_ids, reference.cases, measures, sheet.metadata)


def _check(design: Design, sheets: Sheets, pooled: _Pooled) -> None:
    primary = design.primary.contrast
    named = {primary.row, primary.baseline, *(table.baseline for table in design.tables), *sheets}
    missing = sorted(named - set(design.rows))
    if missing:
        raise ConfigError(f'row "{missing[0]}" is in no table: tables hold {", ".join(design.rows)}')
    for measure in design.measures:
        if measure not in pooled.chance.measures:
            raise ConfigError(
                f'"{measure}" was not measured; primary and secondary can be: {", ".join(pooled.chance.measures)}'
            )


def _intervals(scores: Sequence[Measures], cases: IntArray, design: Design) -> list[dict[str, Interval]]:
    """Measure by measure: all have scored the same queries in each, so that they share the bootstrap's samples."""
    found: list[dict[str, Interval]] = [{} for _ in scores]
    for name in scores[0]:
        for intervals, measures in zip(found, scores, strict=True):
            one = measures[name]
            intervals[name] = case_interval(one.values, cases, design.draws, design.seed, one.classes)
    return found


def _differences(
    pooled: _Pooled,
    contrasts: Sequence[Contrast],
    hypotheses: Sequence[Hypothesis],
    design: Design,
    flips: int,
) -> dict[Contrast, dict[str, Difference]]:
    everything = np.arange(len(pooled.cases))
    found = {
        contrast: {
            measure: _difference(pooled, Hypothesis(contrast, measure), everything, design)
            for measure in pooled.chance.measures
        }
        for contrast in contrasts
    }
    tests: dict[tuple[frozenset[str], str], dict[str, Any]] = {
        one.question: {"p": found[one.contrast][one.measure].p, "p_models": p_models}
        for one, p_models in zip(
            hypotheses, _given_models(pooled, hypotheses, everything, design, flips), strict=True
        )
    }
    for name in ("p", "p_models"):
        family = {question: test[name] for question, test in tests.items() if test[name] is not None}
        family.pop(design.primary.question, None)
        for question, corrected in zip(family, holm(list(family.values())), strict=True):
            tests[question][f"{name}_holm"] = corrected
    return {
        contrast: {
            measure: replace(one, **tests.get(Hypothesis(contrast, measure).question, {"p": None}))
            for measure, one in by_measure.items()
        }
        for contrast, by_measure in found.items()
    }


def _difference(pooled: _Pooled, hypothesis: Hypothesis, kept: IntArray, design: Design) -> Difference:
    """Difference on some queries: with seed variance where there are several seeds, else given these models."""
    contrast, measure = hypothesis.contrast, hypothesis.measure
    pair = _pair(pooled, hypothesis, kept)
    averaged, cases, folds = pair.scores - pair.baseline, pooled.cases[kept], pooled.folds[kept]
    by_fold = {
        name: mean_of(Scored(averaged[own], "", None if pair.strata is None else pair.strata[own]))
        for name, own in ((name, folds == code) for code, name in enumerate(pooled.fold_names))
    }
    ours, theirs = pooled.seeds[contrast.row], pooled.seeds[contrast.baseline]
    if len(ours) == 1:
        return Difference(case_interval(averaged, cases, design.draws, design.seed, pair.strata), by_fold)
    by_seed = np.stack([ours[seed][measure].values - theirs[seed][measure].values for seed in ours])
    found = paired_test(by_seed[:, kept], cases, folds, pooled.fold_names, pair.strata)
    return Difference(found.interval, by_fold, found.error, found.p)


def _given_models(
    pooled: _Pooled, hypotheses: Sequence[Hypothesis], kept: IntArray, design: Design, flips: int
) -> list[float | None]:
    """p values of sign-flip tests where rows have one seed each; with several, ``paired_test`` says more."""
    if any(len(seeds) > 1 for seeds in pooled.seeds.values()):
        return [None] * len(hypotheses)
    pairs = [_pair(pooled, hypothesis, kept) for hypothesis in hypotheses]
    compared = compare_all(pairs, pooled.cases[kept], design.draws, flips, design.seed)
    return [one.p_value for one in compared]


def _pair(pooled: _Pooled, hypothesis: Hypothesis, kept: IntArray) -> Pair:
    contrast, measure = hypothesis.contrast, hypothesis.measure
    one, other = pooled.means[contrast.row][measure], pooled.means[contrast.baseline][measure]
    return Pair(one.values[kept], other.values[kept], None if one.classes is None else one.classes[kept])


def _subset(name: str, cases: frozenset[str], pooled: _Pooled, design: Design, flips: int) -> Subset:
    kept = np.flatnonzero([case in cases for case in pooled.chance.cases])
    if not len(kept):
        raise DataError(
            f'subset "{name}": none of its {len(cases):,} cases is among those scored: check the grid'
        )
    hypotheses = [Hypothesis(design.primary.contrast, measure) for measure in design.measures]
    given = _given_models(pooled, hypotheses, kept, design, flips)
    differences = {
        one.measure: replace(_difference(pooled, one, kept, design), p_models=p_models)
        for one, p_models in zip(hypotheses, given, strict=True)
    }
    return Subset(len(kept), len(np.unique(pooled.cases[kept])), differences)
