"""`kg-targets build --scorer mixture` as a person uses it: exact means, shares that add up, wrong parts in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kg_targets.inspect.card import write_card
from kg_targets.store import TargetStore, verify_store
from pipelines import cli
from tests.builds import RICH, digests, write_split

pytestmark = pytest.mark.e2e
PARTS = {"ontology": [], "flat": ["--part-of"], "noise": ["--scorer", "noise"]}


def build(world: Path, out: Path, *arguments: object) -> int:
    common = ["build", "demo", "--data-root", world / "data", "--workers", 1, "--out", out, *arguments]
    return cli.main([str(each) for each in common])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ of two splits, and stores by three scorers in a folder each."""
    folder = tmp_path_factory.mktemp("mixture")
    write_split(folder / "data", "train", RICH)
    write_split(folder / "data", "dev", RICH[3:9])
    for name, options in PARTS.items():
        assert build(folder, folder / name, *options) == 0
    return folder


def mixed(world: Path, out: Path, parts: str = "ontology|noise|flat", *arguments: object) -> int:
    folders = "|".join(str(world / part) for part in parts.split("|"))
    return build(world, out, "--scorer", "mixture", "--mix", folders, *arguments)


def similarity(store: TargetStore) -> np.ndarray:
    """S of all images in float64 from the factors, without the diagonal."""
    factors = store.factors if isinstance(store.factors, np.ndarray) else store.factors.toarray()
    return factors.astype(np.float64) @ factors.T.astype(np.float64)


def test_the_mixture_of_stores_is_the_weighted_mean_of_their_similarities(
    world: Path, tmp_path: Path
) -> None:
    assert mixed(world, tmp_path / "out", "ontology|noise|flat", "--mix-weights", "1, 2,1") == 0
    for split in ("train", "dev"):
        parts = [TargetStore.open(world / name / split) for name in ("ontology", "noise", "flat")]
        store = TargetStore.open(tmp_path / "out" / split)
        pairs = zip((0.25, 0.5, 0.25), parts, strict=True)
        expected = sum(weight * similarity(part) for weight, part in pairs)
        np.fill_diagonal(expected, 1)
        np.testing.assert_allclose(store.block(range(len(store))), expected, atol=1e-6)
        assert store.known.tolist() == np.logical_or.reduce([part.known for part in parts]).tolist()
        assert verify_store(store.path)
        assert [part["weight"] for part in store.manifest["mixture"]] == [0.25, 0.5, 0.25]
        for column in ("image_id", "image_path", "caption", "group_id", "label_region"):
            assert store.column(column).to_pylist() == parts[0].column(column).to_pylist()
        pd.testing.assert_frame_equal(store.mentions, parts[0].mentions)
        assert set(store.concepts["cui"]) == {cui for part in parts for cui in part.concepts["cui"]}
        assert store.concepts["cui"].is_monotonic_increasing
        assert not store.edges.duplicated().any() and "part_of" in set(store.edges["relation"])


def test_theta_is_the_fit_splits_own(world: Path, tmp_path: Path) -> None:
    assert mixed(world, tmp_path / "out") == 0
    train, dev = (TargetStore.open(tmp_path / "out" / split) for split in ("train", "dev"))
    assert train.threshold == dev.threshold == pytest.approx(train.manifest["similarity"]["quantiles"]["p95"])
    assert dev.manifest["fit"] == train.manifest["fit"]


def test_a_second_run_is_up_to_date_and_other_weights_or_parts_are_not(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mixed(world, tmp_path / "out") == 0
    first, _ = digests(tmp_path / "out" / "train"), capsys.readouterr()
    assert mixed(world, tmp_path / "out") == 0
    assert capsys.readouterr().out.count("up to date") == 2
    assert mixed(world, tmp_path / "out", "ontology|noise|flat", "--force", "--workers", 2) == 0
    assert digests(tmp_path / "out" / "train") == first
    capsys.readouterr()
    assert mixed(world, tmp_path / "out", "ontology|noise|flat", "--mix-weights", "1,1,2") == 0
    assert mixed(world, tmp_path / "out", "ontology|flat") == 0
    assert "up to date" not in capsys.readouterr().out
    assert verify_store(tmp_path / "out" / "train")


def test_shards_of_mentions_hold_the_images_of_the_shards_of_targets(world: Path, tmp_path: Path) -> None:
    assert mixed(world, tmp_path / "out", "ontology|noise", "--rows-per-shard", 4) == 0
    store = tmp_path / "out" / "train"
    assert len(list((store / "targets").iterdir())) == len(list((store / "mentions").iterdir())) == 4
    for index in range(4):
        images = pd.read_parquet(store / "targets" / f"part-{index:05d}.parquet")["image_id"]
        assert set(pd.read_parquet(store / "mentions" / f"part-{index:05d}.parquet")["image_id"]) <= set(
            images
        )


def test_shares_of_the_parts_sum_to_the_similarity_and_those_of_concepts_to_the_part(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mixed(world, tmp_path / "out") == 0
    store = TargetStore.open(tmp_path / "out" / "train")
    parts = [TargetStore.open(world / name / "train") for name in ("ontology", "noise", "flat")]
    pairs = [(one, other) for one in range(6) for other in range(one) if store.known[[one, other]].all()]
    for one, other in pairs:
        found = store.explain(one, other)
        assert sum(part.share for part in found.parts) == pytest.approx(found.similarity, abs=1e-6)
        for share, part in zip(found.parts, parts, strict=True):
            assert share.share == pytest.approx(similarity(part)[one, other] / 3, abs=1e-6)
            own = part.explain(one, other)
            assert [each.cui for each in share.shared] == [each.cui for each in own.shared]
            if share.shared:
                assert sum(each.share for each in share.shared) == pytest.approx(1)
    shown = store.explain(0, 4)
    assert "ontology, weight 0.33" in str(shown) and "noise, weight 0.33" in str(shown)
    assert shown.parts[0].shared and shown.parts[0].shared[0].name in str(shown)
    assert shown._repr_html_().count("<table>") == 2 and "noise, weight" in shown._repr_html_()
    capsys.readouterr()
    arguments = ["explain", str(store.path), store.image_ids[0], store.image_ids[4], "--json"]
    assert cli.main(arguments) == 0
    assert [part["name"] for part in json.loads(capsys.readouterr().out)[0]["parts"]] == [
        "ontology",
        "noise",
        "ontology",
    ]


def test_an_image_unknown_to_one_part_has_the_other_parts_similarity(world: Path, tmp_path: Path) -> None:
    part = tmp_path / "identity"
    assert build(world, part, "--scorer", "identity") == 0
    shutil.copytree(world / "ontology", tmp_path / "ontology")
    assert mixed(tmp_path, tmp_path / "out", "ontology|identity", "--data-root", world / "data") == 0
    store, ontology = (TargetStore.open(tmp_path / name / "train") for name in ("out", "ontology"))
    others = ~np.eye(len(store), dtype=bool)
    expected = ontology.block(range(len(store)))[others] / 2
    np.testing.assert_allclose(store.block(range(len(store)))[others], expected, atol=1e-6)
    assert verify_store(store.path)


def test_the_card_shows_the_parts(world: Path, tmp_path: Path) -> None:
    assert mixed(world, tmp_path / "out", "ontology|noise") == 0
    page = write_card(TargetStore.open(tmp_path / "out" / "train"), tmp_path / "card.html").read_text()
    assert "mixture" in page
    assert "factor_index" in (tmp_path / "out" / "train" / "README.md").read_text()


def test_interrupted_nothing_half_written_is_left(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.build.write.off_diagonal_quantiles", interrupted)
    assert mixed(world, tmp_path / "out") == 130
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mix", "{}/ontology"], "needs two folders or more"),
        ([], "needs two folders or more"),
        (["--mix", "{}/ontology|{}/nowhere"], "nowhere holds no store of the split train: build it first"),
        (["--mix", "{}/nowhere|{}/ontology"], "nowhere holds no store of a split of demo"),
        (["--mix", "{}/ontology|{}/noise", "--split", "test"], "holds no store of the split test"),
        (
            ["--mix", "{}/ontology|{}/noise", "--neighbors", "approximate"],
            "noise/train are dense: take exact",
        ),
        (
            ["--mix", "{}/ontology|{}/noise", "--mix-weights", "1"],
            "--mix-weights has 1 numbers, --mix 2 folders",
        ),
        (["--mix", "{}/ontology|{}/noise", "--mix-weights", "1,-1"], "must be positive numbers"),
        (["--mix", "{}/ontology|{}/noise", "--mix-weights", "1,nan"], "must be positive numbers"),
        (["--mix", "{}/ontology|{}/noise", "--mix-weights", "1,half"], "must be numbers"),
        (["--mix", "{}/ontology|{}/noise", "--shrinkage", "1"], "--shrinkage is for the parts of a mixture"),
        (["--mix", "{}/ontology|{}/noise", "--scorer-options", "a=1"], "mixture scorer has no options"),
        (["--mix", "{}/ontology|{}/noise", "--teacher", "none"], "reads finished stores only"),
        (["--mix", "{}/ontology|{}/mixed"], "is a mixture itself: name its parts"),
        (["--mix", "{}/ontology|{}/others"], "the caption of image train000 in row 0"),
        (["--mix", "{}/ontology|{}/fewer"], "holds 3 rows, "),
        (["--mix", "{}/ontology|{}/elsewhere"], "fitted on train and dev"),
    ],
)
def test_wrong_inputs_are_one_line(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    others = {"others": ["An MRI.", *RICH[1:]], "fewer": RICH[:3]}
    for name, captions in others.items():
        if any(name in each for each in arguments) and not (world / name).exists():
            write_split(world / name / "data", "train", captions)
            assert build(world / name, world / name) == 0
    if "elsewhere" in str(arguments):
        assert build(world, world / "elsewhere", "--fit-split", "dev") == 0
    if "mixed" in str(arguments):
        assert mixed(world, world / "mixed", "ontology|noise") == 0
    capsys.readouterr()
    given = [each.replace("{}", str(world)) for each in arguments]
    assert build(world, tmp_path / "out", "--scorer", "mixture", *given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_splits_fitted_on_another_store_than_the_one_beside_them_are_one_line(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_split(tmp_path / "data", "train", RICH)
    write_split(tmp_path / "data", "dev", RICH[3:9])
    shutil.copytree(world / "ontology", tmp_path / "ontology")
    assert build(tmp_path, tmp_path / "other", "--shrinkage", "1") == 0
    rebuilt = ["--shrinkage", "1", "--split", "train"]
    assert build(tmp_path, tmp_path / "ontology", *rebuilt) == 0
    for parts in ("ontology|other", "other|ontology"):
        for split in ("all", "dev"):
            capsys.readouterr()
            assert mixed(tmp_path, tmp_path / "out", parts, "--split", split) == 2
            error = capsys.readouterr().err
            expected = f"{tmp_path / 'ontology'}: the split dev was not fitted on the store of train that is there now"
            assert expected in error and error.count("\n") == 1
    assert mixed(tmp_path, tmp_path / "train", "ontology|other", "--split", "train") == 0


def test_parts_options_need_the_scorer(
    world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert build(world, tmp_path / "out", "--mix", "a|b") == 2
    assert "need --scorer mixture, not ontology" in capsys.readouterr().err


def test_a_part_is_never_replaced(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mixed(world, world / "ontology", "ontology|noise") == 2
    assert "is a part of the mixture: it will not be replaced" in capsys.readouterr().err
