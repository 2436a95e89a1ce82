"""The command that compares spaces, on drawn images and three tiny runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.state import AcceleratorState
from PIL import Image

from tests.training.engine.test_runs import arguments, write_store
from training.retrieval.spaces import __main__ as spaces
from training.retrieval.spaces.files import NAMES
from training.run import main as run

pytestmark = pytest.mark.e2e

RUNS = ("infonce={world}/infonce", "sm={world}/sm0,{world}/sm1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/, stores, three trained runs (two are seeds of one) and one that learned next to nothing."""
    folder = tmp_path_factory.mktemp("tiny")
    write_store(folder / "train", folder / "data", "train")
    write_store(folder / "dev", folder / "data", "dev", images=12)
    for name, *extra in (
        ("infonce", "--loss.name=info_nce", "--seed=0"),
        ("sm0", "--seed=0"),
        ("sm1", "--seed=1"),
        ("still", "--seed=0", "--optim.lr=1e-9"),
    ):
        AcceleratorState._reset_state(reset_partial_state=True)
        assert run(arguments(folder, folder / name, "--optim.max_steps=2", *extra)) == 0
    return folder


def compare(world: Path, out: Path, *extra: str, runs: tuple[str, ...] = RUNS) -> int:
    return spaces.main([
        "--store", str(world / "dev"), "--data-root", str(world / "data"), "--out", str(out), "--draws=20",
        *(f"--run={name.format(world=world)}" for name in runs), *(part.format(world=world) for part in extra),
    ])  # fmt: skip


def result(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "spaces.json").read_text()))


def test_everything_is_written_the_same_each_time_and_not_twice(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        assert (
            compare(world, tmp_path / name, "--start", "--targets={world}/train", "--measure=modality P@5")
            == 0
        )
    said = capsys.readouterr().out
    assert (
        "wins.png and losses.png show images and captions of tiny: if those are private, do not share them"
        in said
    )
    assert {path.name for path in (tmp_path / "one").iterdir()} == set(NAMES)
    for name in NAMES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    found = result(tmp_path / "one")
    assert found["data"] == "tiny, split dev, 12 images of 6 cases, 11 with concepts"
    assert "its own case excluded" in found["protocol"] and found["training seeds"] == "infonce 0; sm 0, 1"
    for kind in ("image-image", "image-text"):
        whole = found["similarity"][kind]["sections"]["all pairs"]
        assert list(whole["correlations"]) == ["infonce", "sm", "before training"]
        assert list(whole["differences"]) == ["sm", "before training"]
        assert sum(bin_["pairs"] for bin_ in found["similarity"][kind]["bins"]) == whole["pairs"]
    assert found["targets"]["store"] == "tiny, split train" and found["targets"]["policy_of"] == "sm"
    assert list(found["changes"]) == ["sm"] and found["changes"]["sm"]["groups"][0]["change"]["queries"] == 12
    text = (tmp_path / "one" / "spaces.md").read_text()
    for expected in (
        "own case excluded",
        "seeds 0, 1",
        "effective relatives",
        "### sm − infonce",
        "shared concept",
    ):
        assert expected in text
    assert all(Image.open(tmp_path / "one" / name).width > 500 for name in NAMES if name.endswith(".png"))
    assert (
        compare(world, tmp_path / "one", "--start", "--targets={world}/train", "--measure=modality P@5") == 0
    )
    assert "up to date" in capsys.readouterr().out
    assert (
        compare(world, tmp_path / "one", "--features=after", "--measure=CUI@10", "--policy=fixed_mass") == 0
    )
    again = result(tmp_path / "one")
    assert (
        again["measure"] == "projected CUI@10"
        and again["targets"]["softness"]["policy"]["name"] == "fixed_mass"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_the_start_is_the_model_that_the_run_began_with(world: Path, tmp_path: Path) -> None:
    runs = ("still={world}/still", "sm={world}/sm0")
    assert compare(world, tmp_path, "--start", runs=runs) == 0
    for kind in ("image-image", "image-text"):
        for bin_ in result(tmp_path)["similarity"][kind]["bins"]:
            cosines = {name: estimate["value"] for name, estimate in bin_["cosines"].items()}
            assert cosines["before training"] == pytest.approx(cosines["still"], abs=1e-5)
            assert cosines["before training"] != pytest.approx(cosines["sm"], abs=1e-5)


def test_a_query_that_gained_is_in_the_sheet_with_its_store_row(world: Path, tmp_path: Path) -> None:
    seeds = ("a={world}/sm0", "b={world}/sm1")
    shutil.copytree(world, tmp_path / "world")
    (tmp_path / "world" / "data" / "images" / "dev0.png").unlink()
    assert compare(tmp_path / "world", tmp_path / "none") == 2
    assert (
        compare(tmp_path / "world", tmp_path / "out", "--max-broken=1", "--measure=modality P@5", runs=seeds)
        == 0
    )
    change = result(tmp_path / "out")["changes"]["b"]
    rows = [entry["row"] for entry in change["wins"] + change["losses"]]
    assert rows and 0 not in rows and all(entry["difference"] > 0 for entry in change["wins"])
    assert change["gained"] + change["lost"] <= 11


def test_equal_runs_have_no_wins_and_a_sheet_that_says_so(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "sm0", tmp_path / "again")
    assert compare(world, tmp_path / "out", runs=("a={world}/sm0", f"b={tmp_path / 'again'}")) == 0
    change = result(tmp_path / "out")["changes"]["b"]
    assert (change["gained"], change["lost"], change["wins"]) == (0, 0, [])
    assert (tmp_path / "out" / "wins.png").is_file()


@pytest.mark.parametrize(
    ("extra", "runs", "message"),
    [
        ((), RUNS[:1], "--run: name two runs or more, the baseline first"),
        (("--measure=CUI@7",), RUNS, '--measure: "CUI@7" is not one of CUI@5, CUI@10, CUI@50, modality P@5'),
        (("--features=both",), RUNS, '--features: "both" is not one of before, after'),
        (("--batch-size=13",), RUNS, "--batch-size: 13 exceeds the 12 images"),
        (("--start",), (RUNS[0], "{world}/other"), "--start: other started from another model than infonce"),
        ((), (RUNS[0], "{world}/old"), "old/config.yaml: "),
        ((), (RUNS[0], "before training={world}/sm0"), '"before training" is no name for a run'),
        (("--targets={world}/none",), RUNS, "is not a target store"),
        (("--out={world}/dev/manifest.json",), RUNS, "is a file, not a folder"),
        (("--draws=0",), RUNS, "--draws: 0 must be at least 1"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_encoded(
    extra: tuple[str, ...],
    runs: tuple[str, ...],
    message: str,
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, change in (("other", {"image_size": 64}), ("old", {"size": 64})):
        shutil.copytree(world / "sm0", world / name, dirs_exist_ok=True)
        content = yaml.safe_load((world / "sm0" / "config.yaml").read_text())
        (world / name / "config.yaml").write_text(
            yaml.safe_dump({**content, "model": {**content["model"], **change}})
        )
    monkeypatch.setattr("training.retrieval.evaluation.ModelReader.read", None)
    assert compare(world, tmp_path / "out", *extra, runs=runs) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
