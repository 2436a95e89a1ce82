"""What changed between two stores, against what their blocks and columns say."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kg_targets.store import TargetStore
from pipelines.diff import difference
from tests.builds import RICH, build
from tests.processes import kg_targets

diff = kg_targets("diff")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[TargetStore, TargetStore, TargetStore]:
    """As usual; without is_a edges; another reading of captions, of which one is missing and one is new."""
    folder = tmp_path_factory.mktemp("diff")
    found = []
    for name, captions, options in (
        ("usual", RICH, {}),
        ("flat", RICH, {"use_ontology": False}),
        ("other", [*RICH[:-1], "CT of the chest.", "A new one."], {"drop_mentions": 0.4}),
    ):
        build(folder / name, captions, **options)
        shutil.move(folder / name / "out" / "train", folder / f"{name}.store")
        found.append(TargetStore.open(folder / f"{name}.store"))
    return found[0], found[1], found[2]


def test_a_store_and_itself_differ_in_nothing(stores: tuple[TargetStore, ...]) -> None:
    found = difference(stores[0], stores[0], 1000, 5, 0)
    assert found["same_content"] and found["settings"] == [] and found["concepts"]["images_changed"] == 0
    assert found["pairs"]["measures"]["mean_size_of_change"]["mean"] == 0
    assert found["pairs"]["risen"] == found["pairs"]["fallen"] == []


def test_changes_of_pairs_are_those_of_the_blocks(stores: tuple[TargetStore, ...]) -> None:
    usual, flat, _ = stores
    found = difference(usual, flat, 50_000, 3, 0)
    assert [one["setting"] for one in found["settings"]] == ["config.use_ontology"]
    rows = range(len(usual))
    change = flat.block(rows).astype(float) - usual.block(rows).astype(float)
    apart = usual.cases[:, None] != usual.cases[None, :]
    measures = found["pairs"]["measures"]
    assert measures["mean_change"]["mean"] == pytest.approx(change[apart].mean(), abs=0.004)
    assert measures["mean_size_of_change"]["mean"] == pytest.approx(np.abs(change[apart]).mean(), abs=0.004)
    assert all(one["low"] <= one["mean"] <= one["high"] for one in measures.values())
    worst = found["pairs"]["fallen"][0]
    first, second = (usual.row(image["image_id"]) for image in worst["images"])
    assert worst["after"] - worst["before"] == pytest.approx(change[apart].min(), abs=1e-6)
    assert worst["before"] == pytest.approx(float(usual.block([first], [second])[0, 0]), abs=1e-6)


def test_concepts_are_counted_over_the_images_in_both(stores: tuple[TargetStore, ...]) -> None:
    usual, _, other = stores
    found = difference(usual, other, 100, 100, 0)
    assert found["images"] == {"common": len(RICH), "only_before": 0, "only_after": 1}
    sets = [(set(usual.cuis[row]), set(other.cuis[row])) for row in range(len(RICH))]
    assert found["concepts"]["images_changed"] == sum(one != two for one, two in sets) > 0
    for told in found["concepts"]["most_changed"]:
        cui = told["cui"]
        assert told["gained"] == sum(cui in two - one for one, two in sets)
        assert told["lost"] == sum(cui in one - two for one, two in sets)
        assert told["before"] == sum(cui in one for one, _ in sets)
    assert len(found["concepts"]["most_changed"]) == found["concepts"]["concepts_changed"]


def test_it_is_told_in_words_and_in_json(
    stores: tuple[TargetStore, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [stores[0].path, stores[1].path]
    assert diff([*paths, "--pairs", 200]) == 0
    told = capsys.readouterr().out
    assert "config.use_ontology: True → False" in told and "fallen most" in told and "95 % interval" in told
    assert diff([*paths, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"]["drawn"] == 100_000


def test_stores_that_cannot_be_compared_are_refused(
    stores: tuple[TargetStore, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = build(tmp_path, ["CT of the chest.", "MRI of the brain."])  # one case
    for given, told in (
        ([stores[0].path, alone.path], "no two images of different cases"),
        ([stores[0].path, tmp_path], "not a target store"),
        ([stores[0].path, stores[1].path, "--pairs", 0], "--pairs"),
    ):
        assert diff(given) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
