"""Scoring targets without training: every measure against a slow reference written from its definition."""

import json
import math
import sys
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.errors import ConfigError
from kg_targets.store import TargetStore
from pipelines.audit import agreement, shape, stability
from pipelines.audit.report import Section, Table, cells, measure, significant, to_json
from pipelines.audit.similarity import best_with_ties, similarity_chunks
from pipelines.audit.subjects import EvaluationSettings, Subjects, in_half, parse_batch_sizes
from tests.builds import RICH, build

FAST = EvaluationSettings(bootstrap=100, flips=100, batches=3, batch_sizes=(4, 8), neighbors=3)
DEPTHS = (1, 2, 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return build(tmp_path_factory.mktemp("onto"), RICH * 2)


# ---- rankings and label agreement ----


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -math.inf]), min_size=1, max_size=6),
    values=st.lists(st.sampled_from([0.0, 1.0]), min_size=6, max_size=6),
    depth=st.integers(1, 7),
)
def test_expected_gains_are_the_mean_over_every_order_of_the_ties(
    scores: list[float], values: list[float], depth: int
) -> None:
    ranking = best_with_ties(np.array(scores), depth)
    found = ranking.expected(np.array(values)[ranking.columns], depth)
    present = [column for column, score in enumerate(scores) if score > -math.inf]
    orders = [sorted(order, key=lambda column: -scores[column]) for order in permutations(present)]
    expected = np.mean([[values[column] for column in order[:depth]] for order in orders], axis=0)
    assert np.allclose(found, expected)
    shares = dict(zip(ranking.columns.tolist(), ranking.inclusion(depth).tolist(), strict=True))
    for column in present:
        assert shares.get(column, 0.0) == pytest.approx(
            np.mean([column in order[:depth] for order in orders])
        )


def test_scores_that_rounding_alone_tells_apart_are_ties() -> None:
    ranking = best_with_ties(np.array([0.5, 0.5 + 1e-9, 0.9, 0.5 - 1e-9]), 2)
    assert ranking.columns[0] == 2 and sorted(ranking.columns[1:].tolist()) == [0, 1, 3]
    assert ranking.sizes.tolist() == [1, 3]


def reference_agreement(
    similarity: np.ndarray, cases: list[int], labels: list[int], query: int, depth: int
) -> tuple[float, float]:
    """P@K and NDCG@K of one query, averaged over every permutation of its gallery."""
    gallery = [j for j in range(len(labels)) if cases[j] != cases[query] and labels[j] >= 0]
    if labels[query] < 0 or not gallery:
        return math.nan, math.nan
    precision, gains = [], []
    for order in permutations(gallery):
        best = sorted(order, key=lambda j: -similarity[query, j])[:depth]
        hits = [labels[j] == labels[query] for j in best]
        precision.append(sum(hits) / len(best))
        gains.append(sum(hit / math.log2(rank + 1) for rank, hit in enumerate(hits, 1)))
    relevant = min(depth, sum(labels[j] == labels[query] for j in gallery))
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, relevant + 1))
    return float(np.mean(precision)), float(np.mean(gains)) / ideal if relevant else math.nan


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([(1.0, 0.0), (0.0, 1.0), (0.6, 0.8), (0.0, 0.0)]), st.integers(0, 3)),
        min_size=2,
        max_size=7,
    ),
    labels=st.lists(st.integers(-1, 1), min_size=7, max_size=7),
)
def test_agreement_and_chance_equal_the_average_over_all_permutations(
    rows: list[tuple[tuple[float, float], int]], labels: list[int]
) -> None:
    factors = np.array([vector for vector, _ in rows], dtype=np.float32)
    cases, codes = [case for _, case in rows], np.array(labels[: len(rows)])
    found = agreement.label_agreement(factors, np.array(cases), [codes, codes], DEPTHS)
    chance = agreement.agreement_by_chance(codes, np.array(cases), DEPTHS)
    similarity = factors.astype(np.float64) @ factors.T.astype(np.float64)
    for query in range(len(rows)):
        for depth in DEPTHS:
            names = (f"P@{depth}", f"NDCG@{depth}")
            expected = reference_agreement(similarity, cases, codes.tolist(), query, depth)
            assert [found[1][name][query] for name in names] == pytest.approx(expected, nan_ok=True)
            random = reference_agreement(np.zeros_like(similarity), cases, codes.tolist(), query, depth)
            assert [chance[name][query] for name in names] == pytest.approx(random, nan_ok=True)


def test_an_unknown_image_scores_exactly_what_chance_does(store: TargetStore) -> None:
    subjects = Subjects((store,))
    codes = np.arange(len(store)) % 3
    found = agreement.label_agreement(store.factors, subjects.cases, [codes], DEPTHS)[0]
    chance = agreement.agreement_by_chance(codes, subjects.cases, DEPTHS)
    assert (~store.known).any()
    for name in found:
        assert found[name][~store.known] == pytest.approx(chance[name][~store.known])


def test_chunks_equal_the_stores_own_blocks(store: TargetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.audit.similarity._CHUNK_BYTES", 1)
    chunks = list(similarity_chunks(store.factors, store.factors))
    assert len(chunks) == len(store)
    whole = np.concatenate([block for _, block in chunks])
    np.fill_diagonal(whole, 1.0)
    assert np.allclose(whole, store.block(range(len(store))), atol=1e-6)


# ---- shape of targets ----


def test_identity_and_uniform_targets_have_their_known_statistics() -> None:
    assert shape.target_statistics(np.eye(5)) == pytest.approx([1.0, 1.0, 0.0, 1.0])
    uniform = np.full((4, 4), 0.25)
    assert shape.target_statistics(uniform) == pytest.approx([0.25, 4.0, math.log(4), 0.0])
    mixed = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert shape.target_statistics(mixed) == pytest.approx([0.75, (1 + 2) / 2, math.log(2) / 2, 0.5])


def test_batches_hold_one_image_of_each_case() -> None:
    cases = np.array([0, 0, 0, 1, 2, 2, 3])
    batches = shape._batches(cases, 3, EvaluationSettings(batches=50))
    assert all(len(set(cases[batch])) == len(batch) == 3 for batch in batches)
    assert {int(row) for batch in batches for row in batch} == set(range(7))


def test_batch_sizes_that_no_data_can_fill_are_replaced_by_all_cases_and_said() -> None:
    assert shape._sizes(500, (128, 256, 512))[0] == [128, 256]
    sizes, lines = shape._sizes(67, (128, 256))
    assert sizes == [67] and "there are 67 cases" in lines[0]


def test_without_torch_the_section_says_what_to_install(
    store: TargetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("kg_targets.losses")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    section = shape.shape_section(Subjects((store,)), FAST)
    assert section.table is None and "kg-targets[train]" in section.lines[0]


def test_soft_mass_on_images_of_the_same_label_is_counted(store: TargetStore) -> None:
    pytest.importorskip("torch")
    rows = {row["policy"]: row for row in shape.shape_section(Subjects((store,)), FAST).data["rows"]}
    assert 0.0 < rows["uniform"]["soft_mass_on"]["region"] < 1.0

    def target(block: np.ndarray, known: np.ndarray) -> np.ndarray:
        return np.array([[0.7, 0.2, 0.1, 0.0], [0.3, 0.6, 0.0, 0.1], [0.0, 0.0, 1.0, 0.0], [0.5, 0, 0, 0.5]])

    codes = np.zeros(len(store), dtype=int)
    codes[:4] = [0, 0, 1, -1]  # the last has no label: what it gives and gets does not count
    share = shape._soft_mass_on(store, target, [np.arange(4)], codes)
    assert share == pytest.approx((0.2 + 0.3) / (0.2 + 0.1 + 0.3))


def test_unknown_images_are_rows_without_soft_positives_under_every_policy(store: TargetStore) -> None:
    pytest.importorskip("torch")
    section = shape.shape_section(Subjects((store,)), FAST)
    assert {row["policy"] for row in section.data["rows"]} >= {"softmax τ=1", "fixed_mass", "evidence"}
    for row in section.data["rows"]:
        assert 0.0 <= row["diagonal_mass"]["mean"] <= 1.0 <= row["effective_positives"]["mean"]
    block = np.eye(3, dtype=np.float32)
    for target in shape._policies(store).values():
        targets = target(block, np.array([True, True, False]))
        assert targets[2].tolist() == [0, 0, 1] and not targets[:2, 2].any()


# ---- neighbours in common, halves ----


def test_labels_joined_by_plus_are_sets_whose_overlap_with_the_neighbours_counts() -> None:
    labels = ["a+b", "b", "", "a+b+c", "normal"]
    terms, cases = agreement.term_matrix(labels), np.array([0, 1, 2, 3, 3])
    assert terms is not None and terms.shape == (5, 4)
    factors = np.array([[1.0, 0, 0], [0.8, 0.6, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    found = agreement.shared_terms(factors, cases, terms, (1, 2))
    # Row 0: the unlabelled row 2 is nobody's neighbour, so row 1 (1 of 2 terms) comes first; rows 3 and 4 tie.
    assert found["J@1"][0] == pytest.approx(1 / 2)
    assert found["J@2"][0] == pytest.approx((1 / 2 + (2 / 3 + 0) / 2) / 2)
    assert np.isnan(found["J@1"][2])
    # Row 3 does not find row 4 of its own case.
    assert found["J@1"][3] == pytest.approx(1 / 3) and found["J@2"][3] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert agreement.term_matrix(["a", "", "b"]) is None
    by_chance = agreement.shared_terms(np.zeros((5, 1), np.float32), cases, terms, (1,))
    assert by_chance["J@1"][0] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_halves_share_no_case_and_stay_the_same_as_cases_are_added() -> None:
    cases = np.arange(400) // 2
    first, second = in_half(cases, "first"), in_half(cases, "second")
    assert (first ^ second).all() and (first[::2] == first[1::2]).all() and 150 < first.sum() < 250
    assert (in_half(np.arange(900), "first")[:200] == first[::2]).all()
    assert in_half(cases, "all").all()


def test_only_the_half_asked_for_is_measured(store: TargetStore) -> None:
    score = np.where(in_half(np.arange(200), "first"), 1.0, 0.0)
    one, other = (
        measure("x", "P@5", [score], score, np.arange(200), EvaluationSettings(half=half))
        for half in ("first", "second")
    )
    assert (one.stores[0].mean, one.baseline, other.stores[0].mean, other.baseline) == (1.0, 1.0, 0.0, 0.0)


def test_neighbours_in_common_are_counted_over_every_order_of_ties(
    store: TargetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = np.array([0, 1, 2, 3])
    one = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)  # 0, 1 and 2 tie
    other = np.eye(4, dtype=np.float32)  # everything ties
    assert stability.overlap(one, one, cases, 1)[0] == pytest.approx(1 / 2)  # either of 1 and 2 in both
    assert stability.overlap(one, other, cases, 1)[0] == pytest.approx(2 * (1 / 2) * (1 / 3))
    assert stability.overlap(one, one, cases, 5).tolist() == [1.0] * 4  # all three others
    assert np.isnan(stability.overlap(one, one, np.zeros(4, dtype=int), 1)).all()
    wide = np.hstack([one, np.zeros((4, 90), np.float32)])  # another width, and so other chunks
    monkeypatch.setattr("pipelines.audit.similarity._CHUNK_BYTES", 8 * 100)
    assert stability.overlap(one, wide, cases, 1).tolist() == stability.overlap(one, one, cases, 1).tolist()
    section = stability.stability_section(Subjects((store, store)), FAST)
    assert 0.0 < section.data["measure"]["stores"][0]["mean"] <= 1.0
    assert "left out" in stability.stability_section(Subjects((store,)), FAST).lines[0]


# ---- statistics, settings, report ----


def test_stars_survive_holm_and_the_first_store_has_no_test() -> None:
    generator = np.random.default_rng(0)
    base = generator.random(60)
    worse, same = base - 0.3 - 0.1 * generator.random(60), base + 0.0
    measured = [measure("x", "P@5", [base, worse, same], None, np.arange(60), EvaluationSettings())]
    assert significant(measured) == [[False, True, False]]
    line = cells(measured)[0]
    assert line[2] == "–" and "p" not in line[3] and line[4].endswith("*") and "p 1.0000" in line[5]
    interval = measured[0].stores[0]
    assert interval.low < base.mean() < interval.high and interval.cases == 60


@pytest.mark.parametrize("text", ["", "a", "128,", "1.5"])
def test_batch_sizes_that_are_no_numbers_are_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="--batch-sizes"):
        parse_batch_sizes(text)


@pytest.mark.parametrize(
    "options",
    [
        {"bootstrap": 10},
        {"seed": -1},
        {"batch_sizes": (1,)},
        {"batch_sizes": ()},
        {"neighbors": 0},
        {"half": "third"},
    ],
)
def test_settings_out_of_range_name_their_option(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--" + next(iter(options)).replace("_", "-")):
        EvaluationSettings(**options)  # type: ignore[arg-type]


def test_a_section_keeps_captions_out_of_markdown_and_nan_out_of_json() -> None:
    table = Table(["a|b", "n"], [["x", "1"], ["long", "22"]])
    section = Section("s", "Title", ["note"], table, private=["a caption"], data={"x": math.nan, "y": (1,)})
    assert "a caption" in section.text(1) and "a caption" not in section.markdown(1)
    assert table.text() == ["a|b    n", "x      1", "long  22"]
    assert section.markdown(1).splitlines()[4:6] == ["| a\\|b | n |", "| --- | ---: |"]
    assert json.loads(to_json(section.data)) == {"x": None, "y": [1]}
