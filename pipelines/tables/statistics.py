"""What score sheets say: pooled over folds, averaged over seeds, compared pair by pair of rows.

Each query is scored by the one model of a row and seed that did not train on its case, within its fold's gallery. A
query's score is averaged over seeds; intervals and tests then resample cases (``training.evaluate.bootstrap``). What
is tested is fixed by the design, not by the numbers: one primary hypothesis, uncorrected, and one family under Holm's
correction. Everything else is described by intervals, without p values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.tables.design import Contrast, Design, Hypothesis
from pipelines.tables.results import Difference, Results, RowResult, Subset
from training.data.cases import case_codes
from training.errors import ConfigError, DataError
from training.evaluate.bootstrap import (
    IntArray,
    Interval,
    Pair,
    case_interval,
    compare_all,
    flips_for,
    holm,
)
from training.evaluate.measures import Measures, Scored, mean_of, mean_over_seeds
from training.evaluate.score_sheets import ScoreSheet, pool

Sheets = Mapping[str, Mapping[int, Mapping[str, ScoreSheet]]]
"""Row to training seed to fold to sheet."""


@dataclass(frozen=True)
class _Pooled:
    """All rows on the same queries in the same order."""

    image_ids: list[str]
    case_names: list[str]
    cases: IntArray
    folds: Mapping[str, slice]
    seeds: Mapping[str, Mapping[int, Measures]]
    means: Mapping[str, Measures]
    chance: Measures


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
    differences = {contrast: _minus(pooled, contrast) for contrast in shown}
    by_chance, *others = _intervals(
        [pooled.chance, *pooled.means.values(), *differences.values()], pooled.cases, design
    )
    by_row = dict(zip(pooled.means, others[: len(pooled.means)], strict=True))
    by_contrast = dict(zip(differences, others[len(pooled.means) :], strict=True))
    return Results(
        sections=_sections(pooled.chance),
        images=len(pooled.image_ids),
        cases=len(np.unique(pooled.cases)),
        folds={fold: part.stop - part.start for fold, part in pooled.folds.items()},
        seeds={row: tuple(seeds) for row, seeds in sheets.items()},
        chance=RowResult(by_chance, {}),
        rows={
            row: RowResult(
                by_row[row],
                {name: tuple(mean_of(seed[name]) for seed in pooled.seeds[row].values()) for name in means},
            )
            for row, means in pooled.means.items()
        },
        differences=_differences(pooled, differences, by_contrast, hypotheses, design, flips),
        subsets={
            name: _subset(name, cases, pooled, design, flips) for name, cases in (subsets or {}).items()
        } if tested else {},
        tested=tested,
        flips=flips,
    )  # fmt: skip


def _pool(sheets: Sheets, chance: Mapping[str, ScoreSheet]) -> _Pooled:
    folds = list(chance)
    reference = pool([chance[fold] for fold in folds])
    seeds: dict[str, dict[int, Measures]] = {}
    for row, by_seed in sheets.items():
        for seed, by_fold in by_seed.items():
            if set(by_fold) != set(folds):
                raise DataError(
                    f"row {row}, seed {seed}: scored on other folds than chance: score all of them"
                )
            one = pool(
                [_in_order(by_fold[fold], chance[fold], f"row {row}, seed {seed}, {fold}") for fold in folds]
            )
            seeds.setdefault(row, {})[seed] = one.measures
    ends = np.cumsum([0, *(len(chance[fold].image_ids) for fold in folds)]).tolist()
    return _Pooled(
        reference.image_ids,
        reference.cases,
        case_codes(reference.cases),
        {fold: slice(ends[place], ends[place + 1]) for place, fold in enumerate(folds)},
        seeds,
        {row: mean_over_seeds(list(by_seed.values())) for row, by_seed in seeds.items()},
        reference.measures,
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
    return ScoreSheet(reference.image_ids, reference.cases, measures, sheet.facts)


def _check(design: Design, sheets: Sheets, pooled: _Pooled) -> None:
    primary = design.primary.contrast
    named = {primary.row, primary.baseline, *(table.baseline for table in design.tables), *sheets}
    missing = sorted(named - set(design.rows))
    if missing:
        raise ConfigError(f'row "{missing[0]}" is in no table: tables hold {", ".join(design.rows)}')
    for measure in design.measures:
        if measure not in pooled.chance:
            raise ConfigError(
                f'"{measure}" was not measured; primary and secondary can be: {", ".join(pooled.chance)}'
            )


def _sections(measures: Measures) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for name, scored in measures.items():
        sections.setdefault(scored.section, []).append(name)
    return sections


def _minus(pooled: _Pooled, contrast: Contrast) -> Measures:
    one, other = pooled.means[contrast.row], pooled.means[contrast.baseline]
    return {
        name: Scored(scored.values - other[name].values, scored.section, scored.classes)
        for name, scored in one.items()
    }


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
    differences: Mapping[Contrast, Measures],
    intervals: Mapping[Contrast, Mapping[str, Interval]],
    hypotheses: Sequence[Hypothesis],
    design: Design,
    flips: int,
) -> dict[Contrast, dict[str, Difference]]:
    pairs = [_pair(pooled, hypothesis) for hypothesis in hypotheses]
    compared = compare_all(pairs, pooled.cases, design.draws, flips, design.seed)
    p_values = {one.question: result.p_value for one, result in zip(hypotheses, compared, strict=True)}
    family = [one.question for one in hypotheses if one != design.primary]
    corrected = dict(zip(family, holm([p_values[question] for question in family]), strict=True))
    found: dict[Contrast, dict[str, Difference]] = {}
    for contrast, measures in differences.items():
        found[contrast] = {}
        for name, one in measures.items():
            question = Hypothesis(contrast, name).question
            found[contrast][name] = Difference(
                intervals[contrast][name],
                {fold: mean_of(_part(one, part)) for fold, part in pooled.folds.items()},
                p_values.get(question),
                corrected.get(question),
            )
    return found


def _part(scored: Scored, part: slice) -> Scored:
    classes = None if scored.classes is None else scored.classes[part]
    return Scored(scored.values[part], scored.section, classes)


def _pair(pooled: _Pooled, hypothesis: Hypothesis, kept: IntArray | slice = slice(None)) -> Pair:
    contrast, measure = hypothesis.contrast, hypothesis.measure
    one, other = pooled.means[contrast.row][measure], pooled.means[contrast.baseline][measure]
    return Pair(one.values[kept], other.values[kept], None if one.classes is None else one.classes[kept])


def _subset(name: str, cases: frozenset[str], pooled: _Pooled, design: Design, flips: int) -> Subset:
    kept = np.flatnonzero([case in cases for case in pooled.case_names])
    if not len(kept):
        raise DataError(
            f'subset "{name}": none of its {len(cases):,} cases is among those scored: check the grid'
        )
    pairs = [_pair(pooled, Hypothesis(design.primary.contrast, measure), kept) for measure in design.measures]
    compared = compare_all(pairs, pooled.cases[kept], design.draws, flips, design.seed)
    return Subset(
        len(kept), len(np.unique(pooled.cases[kept])), dict(zip(design.measures, compared, strict=True))
    )
