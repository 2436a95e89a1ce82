"""Statistics of a grid: hand-made score sheets in, means, differences and tests out."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.experiments.results import Contrast, Design, Hypothesis, Results
from pipelines.experiments.retrieval_grid import Table
from pipelines.experiments.statistics import Sheets, analyse
from tests.pipelines.experiments.score_sheet_fakes import DESIGN, FOLDS, MEASURES, chance, sheets
from training.errors import ConfigError, DataError
from training.retrieval.measures import Scored
from training.retrieval.score_sheets import ScoreSheet


def reference(given: Sheets, row: str, measure: str) -> NDArray[np.float64]:
    """Scores of all queries, averaged over seeds, by plain numpy."""
    seeds = [
        np.concatenate([folds[fold].measures[measure].values for fold in FOLDS])
        for folds in given[row].values()
    ]
    return np.asarray(np.mean(seeds, axis=0))


def test_pooled_means_and_differences_equal_plain_float64_arithmetic() -> None:
    given = sheets()
    results = analyse(given, chance(), DESIGN)
    assert (results.images, results.cases, results.folds) == (80, 40, {"fold0": 40, "fold1": 40})
    for measure in MEASURES:
        one, other = reference(given, "sm", measure), reference(given, "infonce", measure)
        found = results.differences[Contrast("sm", "infonce")][measure]
        assert results.rows["sm"].intervals[measure].mean == pytest.approx(np.nanmean(one), abs=1e-12)
        assert found.interval.mean == pytest.approx(np.nanmean(one - other), abs=1e-12)
        assert found.interval.low < 0.1 < found.interval.high
        for fold, part in zip(FOLDS, (slice(0, 40), slice(40, 80)), strict=True):
            assert found.folds[fold] == pytest.approx(np.nanmean((one - other)[part]), abs=1e-12)
        by_seed = [
            np.nanmean(np.concatenate([folds[fold].measures[measure].values for fold in FOLDS]))
            for folds in given["sm"].values()
        ]
        assert results.rows["sm"].seed_means[measure] == pytest.approx(by_seed)
        assert results.rows["sm"].seed_sd(measure) == pytest.approx(np.std(by_seed, ddof=1))
    assert results.rows["sm"].intervals["organ P@30"].queries == 64


def test_the_family_is_fixed_by_the_design_and_counts_a_pair_of_rows_once() -> None:
    named = {(one.contrast.row, one.contrast.baseline, one.measure) for one in DESIGN.family}
    assert named == {
        ("sm", "infonce", "CUI@10"),
        ("sm", "noise", "CUI@50"), ("sm", "noise", "CUI@10"),
        ("sm", "other", "CUI@50"), ("sm", "other", "CUI@10"),
        ("noise", "infonce", "CUI@50"), ("noise", "infonce", "CUI@10"),
    }  # fmt: skip
    assert len(DESIGN.family) == len(named)  # other − sm is sm − other


def holm_by_hand(p_values: list[float]) -> list[float]:
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(
        [min(1.0, p_values[place] * (len(p_values) - rank)) for rank, place in enumerate(order)]
    )
    return [float(one) for one in adjusted]


def test_a_grid_can_name_whom_the_primary_row_is_tested_against() -> None:
    def pairs(against: tuple[str, ...] | None) -> set[frozenset[str]]:
        return {one.question[0] for one in replace(DESIGN, against=against).family}

    baselines = {frozenset(pair) for pair in (("noise", "infonce"), ("sm", "infonce"), ("sm", "other"))}
    assert pairs(()) == baselines
    assert pairs(("noise",)) == pairs(None) == baselines | {frozenset(("sm", "noise"))}


def test_only_the_family_is_corrected_and_only_what_was_named_is_tested() -> None:
    results = analyse(sheets(noise=0.3), chance(), DESIGN)
    found = [results.differences[one.contrast][one.measure] for one in DESIGN.family]
    assert [one.p_holm for one in found] == pytest.approx(holm_by_hand([one.p or 0 for one in found]))
    assert all(one.p_models is one.p_models_holm is None for one in found)
    alone = {row: {0: by_seed[0]} for row, by_seed in sheets(noise=0.3).items()}
    by_models = analyse(alone, chance(), DESIGN).differences
    given = [by_models[one.contrast][one.measure] for one in DESIGN.family]
    holm = holm_by_hand([one.p_models or 0 for one in given])
    assert [one.p_models_holm for one in given] == pytest.approx(holm) and all(one.p is None for one in given)
    primary = results.differences[DESIGN.primary.contrast]["CUI@50"]
    assert primary.p is not None and primary.p_holm is None and primary.decisive_p == primary.p
    there, back = (
        results.differences[Contrast(*pair)]["CUI@50"] for pair in (("sm", "other"), ("other", "sm"))
    )
    assert (there.p, there.p_holm) == (back.p, back.p_holm)
    assert there.interval.mean == pytest.approx(-back.interval.mean)
    assert all(by["organ P@30"].p is by["organ P@30"].p_models is None for by in results.differences.values())


def test_rows_that_do_not_differ_are_called_different_as_seldom_as_the_level_says() -> None:
    """300 questions without an answer, one seed and no training noise: about one in twenty has p < 0.05."""
    rng = np.random.default_rng(0)
    names = [f"measure {number}" for number in range(300)]

    def null(fold: str) -> ScoreSheet:
        images = [f"{fold}-{image}" for image in range(30)]
        measures = {name: Scored(rng.standard_normal(30), "all") for name in names}
        return ScoreSheet(images, [f"{fold}-{image // 2}" for image in range(30)], measures, {})

    given = {row: {0: {fold: null(fold) for fold in FOLDS}} for row in ("a", "b")}
    design = Design(
        (Table(title="all", rows=["a", "b"], baseline="a"),),
        Hypothesis(Contrast("b", "a"), names[0]),
        tuple(names[1:]),
        draws=2,
    )
    found = analyse(given, {fold: null(fold) for fold in FOLDS}, design)
    by_measure = found.differences[Contrast("b", "a")].values()
    p_values = np.array([one.p_models for one in by_measure], dtype=np.float64)
    assert 0.02 < (p_values < 0.05).mean() < 0.08
    assert min(one.p_models_holm for one in by_measure if one.p_models_holm is not None) > 0.05


def test_queries_are_paired_by_image_whatever_their_order() -> None:
    given, mixed = sheets(), sheets()
    turned = mixed["sm"][0]["fold0"]
    measures = {name: Scored(one.values[::-1].copy(), one.section) for name, one in turned.measures.items()}
    mixed["sm"][0]["fold0"] = ScoreSheet(
        turned.image_ids[::-1], turned.cases[::-1], measures, turned.metadata
    )  # type: ignore[index]
    assert analyse(mixed, chance(), DESIGN) == analyse(given, chance(), DESIGN)


def test_rows_scored_on_other_images_are_not_compared() -> None:
    given = sheets()
    one = given["sm"][0]["fold0"]
    given["sm"][0]["fold0"] = ScoreSheet(["x", *one.image_ids[1:]], one.cases, one.measures, one.metadata)  # type: ignore[index]
    with pytest.raises(DataError, match="row sm, seed 0, fold0: scored on other images"):
        analyse(given, chance(), DESIGN)


def test_a_measure_that_nobody_measured_is_told() -> None:
    design = Design(DESIGN.tables, DESIGN.primary, ("CUI@7",))
    with pytest.raises(
        ConfigError, match='"CUI@7" was not measured; primary and secondary can be: CUI@50, CUI@10'
    ):
        analyse(sheets(), chance(), design)


def test_some_rows_alone_are_described_but_not_tested() -> None:
    results = analyse(sheets(("infonce", "sm")), chance(), DESIGN)
    assert not results.tested and list(results.differences) == [Contrast("sm", "infonce")]
    assert all(
        one.p is one.p_models is None for one in results.differences[Contrast("sm", "infonce")].values()
    )


def test_rows_trained_from_other_seeds_are_not_compared() -> None:
    given = {row: dict(by_seed) for row, by_seed in sheets().items()}
    del given["sm"][1]
    with pytest.raises(DataError, match="rows infonce and sm were trained from other seeds"):
        analyse(given, chance(), DESIGN)


def test_a_subset_of_cases_gives_the_primary_comparison_again() -> None:
    given = sheets()
    cases = frozenset(f"fold1-case{number}" for number in range(5))
    results: Results = analyse(given, chance(), DESIGN, {"five": cases | {"unknown"}})
    subset = results.subsets["five"]
    assert (subset.images, subset.cases, list(subset.differences)) == (10, 5, ["CUI@50", "CUI@10"])
    difference = (reference(given, "sm", "CUI@50") - reference(given, "infonce", "CUI@50"))[40:50]
    assert subset.differences["CUI@50"].interval.mean == pytest.approx(difference.mean())
    with pytest.raises(DataError, match='subset "none": none of its 1 cases'):
        analyse(given, chance(), DESIGN, {"none": frozenset({"unknown"})})
