"""What is suggested for a store: its targets by hand, on any scale, and honest where nothing is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from kg_targets.store import TargetStore
from tests.builds import RICH, build
from tests.processes import kg_targets
from training.errors import ConfigError
from training.nb_clip.suggest import suggest

main = kg_targets("suggest")
SILENT = "Figure 2B. Follow-up."
"""A caption that names no concept."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return build(tmp_path_factory.mktemp("suggest"), RICH * 6)


def test_the_targets_described_are_those_of_the_formula(store: TargetStore) -> None:
    size = len(store)  # every batch is the whole store, in another order: the same numbers by hand
    found = suggest(store, size)
    weights = np.maximum(store.block(range(size)).astype(float) - store.threshold, 0) / (1 - store.threshold)
    allowed = store.known[:, None] & store.known[None, :] & (store.cases[:, None] != store.cases[None, :])
    weights *= allowed
    mass = weights.sum(axis=1)
    shares = weights[mass > 0] / mass[mass > 0][:, None]
    entropy = -np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0).sum(axis=1)
    assert found.policy.name == "evidence" and found.policy.alpha == 0.7
    assert found.own_mass == pytest.approx((1 - 0.3 * np.minimum(mass, 1)).mean(), abs=1e-5)
    assert found.soft_positives == pytest.approx(np.exp(entropy).mean(), rel=1e-4)
    assert found.related == pytest.approx((mass > 0).mean())
    assert found.unknown == pytest.approx((~store.known).mean()) and found.unknown > 0


def test_strangers_are_counted_among_the_neighbours_of_other_cases(tmp_path: Path) -> None:
    plain = build(tmp_path / "plain", RICH * 2, shrinkage=0.0)
    block = plain.block(range(len(plain)))
    block[plain.cases[:, None] == plain.cases[None, :]] = 0
    expected = (block.max(axis=1) > 0.99)[plain.known].mean()
    assert suggest(plain, 8).strangers == pytest.approx(expected) and expected > 0
    # Shrinkage keeps S below 0.99, but what says the same stays in the same direction.
    shrunk = build(tmp_path / "shrunk", RICH * 2, part_of=False)
    assert shrunk.block(range(len(shrunk)))[shrunk.cases[:, None] != shrunk.cases].max() < 0.99
    flat = build(tmp_path / "flat", RICH * 2, part_of=False, shrinkage=0.0)
    assert suggest(shrunk, 8).strangers == suggest(flat, 8).strangers == pytest.approx(expected)


def test_where_nothing_is_similar_it_says_to_train_without(tmp_path: Path) -> None:
    control = build(tmp_path, RICH, scorer="identity")
    found = suggest(control, 8)
    assert found.policy.name == "identity" and found.soft_positives == 0.0 and "a control" in found.scorer


def test_where_hardly_any_row_has_a_soft_positive_it_says_to_train_without(tmp_path: Path) -> None:
    known = [caption for caption in RICH if caption != SILENT]
    # two images to a case: each case has one that says something at most, and most have none
    store = build(tmp_path, [*(each for caption in known for each in (caption, SILENT)), *[SILENT] * 300])
    found = suggest(store, len(store))
    assert 0 < found.related < 0.05 and found.soft_positives > 0
    assert found.policy.name == "identity"


def test_what_is_known_of_the_scorer_is_said(tmp_path: Path, store: TargetStore) -> None:
    assert "with part_of and shrinkage, as by default" in suggest(store, 8).scorer
    before = build(tmp_path, RICH, shrinkage=0.0, part_of=False)
    assert (
        "without part_of and shrinkage" in suggest(before, 8).scorer and "+8.3" in suggest(before, 8).scorer
    )
    for options, words in (
        ({"shrinkage": 0.0}, "without shrinkage, which"),
        ({"part_of": False}, "without part_of, which"),
        ({"blocks": "1:2:1"}, "not as by default"),
        ({"use_ontology": False}, "not as by default"),
        ({"flat_ancestors": True}, "not as by default"),
    ):
        said = suggest(build(tmp_path / words / str(options), RICH, **options), 8).scorer
        assert words in said and "+8.3" not in said and "mixture" not in said


@pytest.mark.parametrize("size", [1, 10_000])
def test_a_batch_that_the_store_cannot_fill_is_told(store: TargetStore, size: int) -> None:
    with pytest.raises(ConfigError, match=rf"--batch-size: .* at most {len(store)}"):
        suggest(store, size)


def test_the_command_prints_a_block_that_a_config_takes(
    tmp_path: Path, store: TargetStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(store.path), "--batch-size", "8"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# scorer: ontology") and "policy:\n  name: evidence\n" in printed
    assert main([str(store.path), "--batch-size", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["policy"]["name"] == "evidence"
    assert main([str(tmp_path), "--batch-size", "8"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
