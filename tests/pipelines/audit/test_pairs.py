"""Pairs of images: same case against different cases, and the most similar ones of different cases."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.store import TargetStore
from pipelines.audit import pairs
from pipelines.audit.subjects import EvaluationSettings, Subjects
from tests.builds import CAPTIONS, RICH, build


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return build(tmp_path_factory.mktemp("pairs"), CAPTIONS * 3)


@settings(max_examples=40, deadline=None)
@given(
    near=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    far=st.lists(st.integers(0, 4), min_size=1, max_size=8),
)
def test_mean_placement_is_the_auroc_by_its_definition(near: list[int], far: list[int]) -> None:
    wins = sum((n > f) + 0.5 * (n == f) for n in near for f in far)
    found = pairs.placements(np.array(near, float), np.array(far, float)).mean()
    assert found == pytest.approx(wins / (len(near) * len(far)))


def test_pairs_within_and_between_cases_are_what_they_say() -> None:
    cases = np.array([2, 0, 1, 0, 2, 2, 1, 3])
    generator = np.random.default_rng(0)
    within = pairs.same_case_pairs(cases, 100, generator)
    expected = {frozenset(pair) for pair in combinations(range(8), 2) if cases[pair[0]] == cases[pair[1]]}
    assert len(within[0]) == len(expected)
    assert {frozenset(pair) for pair in zip(*(side.tolist() for side in within), strict=True)} == expected
    sampled = pairs.same_case_pairs(np.zeros(20, dtype=int), 50, generator)
    assert len(sampled[0]) == 50 and (sampled[0] != sampled[1]).all()
    between = pairs.different_case_pairs(cases, 20_000, generator)
    assert (cases[between[0]] != cases[between[1]]).all()
    counts = Counter(zip(*(side.tolist() for side in between), strict=True))
    assert len(counts) == 8 * 7 - 2 * len(expected)
    assert max(counts.values()) / min(counts.values()) < 1.6


def test_strangers_are_known_images_with_a_twin_in_another_case(tmp_path: Path) -> None:
    store = build(tmp_path, [*RICH, "Abscess.", CAPTIONS[0]], shrinkage=0.0, part_of=False)
    section = pairs.pairs_section(Subjects((store, store)), EvaluationSettings(bootstrap=100, flips=100))
    cases = Subjects((store,)).cases
    block = store.block(range(len(store)))
    block[cases[:, None] == cases[None, :]] = 0
    expected = (block.max(axis=1) > 0.99)[store.known].mean()
    assert [one["mean"] for one in section.data["strangers"]["stores"]] == pytest.approx([expected] * 2)
    assert 0 < expected < 1 and not store.known.all()
    shrunk = build(tmp_path / "shrunk", [*RICH, "Abscess.", CAPTIONS[0]], shrinkage=3.0, part_of=False)
    other = pairs.pairs_section(Subjects((shrunk,)), EvaluationSettings(bootstrap=100, flips=100))
    # Shrinkage takes from the length of a factor, not from its direction.
    assert other.data["strangers"]["stores"][0]["mean"] == 0.0
    assert other.data["strangers_by_cosine"]["stores"][0]["mean"] == pytest.approx(expected)


@pytest.mark.parametrize("count", [3, 50])
def test_most_similar_pairs_are_the_greedy_choice_with_each_image_once(
    store: TargetStore, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.audit.similarity._CHUNK_BYTES", 1)  # one row at a time
    cases = Subjects((store,)).cases
    surveyed = pairs.survey(store, cases)
    best, identical = surveyed.best, surveyed.identical
    found = pairs.most_similar_pairs(store, cases, best, count, seed=0)
    block = store.block(range(len(store))).astype(np.float64)
    block[cases[:, None] == cases[None, :]] = -1
    assert best == pytest.approx(block.max(axis=1), abs=1e-6)
    assert sum(identical.values()) == int((np.triu(block) >= 1 - 1e-6).sum())
    rows = [row for pair in found for row in pair[:2]]
    assert len(set(rows)) == len(rows)
    for left, right, score in found:
        assert cases[left] != cases[right] and score == pytest.approx(block[left, right], abs=1e-6)
        assert score == pytest.approx(block.max(), abs=1e-6)  # nothing better was left
        block[[left, right]] = block[:, [left, right]] = -1
    assert len(found) == count or block.max() <= 1e-6
