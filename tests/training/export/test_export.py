"""An exported model is what was evaluated, for whoever has open_clip only; nothing is written over or by halves."""

import json
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file, save_file

from kg_targets.store import TargetStore
from tests.processes import kg_targets
from tests.training.tiny import write_world
from training.data.metadata import describe_data
from training.run import main as run

export = kg_targets("export")
evaluate = kg_targets("evaluate retrieval")

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data/, train/, dev/, a trained run and its evaluation on dev."""
    folder = tmp_path_factory.mktemp("export")
    write_world(folder)
    AcceleratorState._reset_state(reset_partial_state=True)
    options = [
        f"--data.train_store={folder / 'train'}", f"--data.dev_store={folder / 'dev'}",
        f"--data.data_root={folder / 'data'}", f"--output={folder / 'run'}", "--model.name=test-vit",
        "--data.batch_size=8", "--optim.epochs=2", "--log.trackers=none",
    ]  # fmt: skip
    assert run(options) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    command = [
        "--store", str(folder / "dev"), "--data-root", str(folder / "data"), "--run", str(folder / "run"),
        "--out", str(folder / "report"), "--features", "before,after", "--draws", "50",
    ]  # fmt: skip
    assert evaluate(command) == 0
    yield folder


def arguments(world: Path, out: Path, *extra: str) -> list[str]:
    return ["--run", str(world / "run"), "--out", str(out), *extra]


def precision_by_open_clip(folder: Path, store: TargetStore, root: Path, k: int, *, before: bool) -> float:
    """Precision@k of the finding among all images of other cases, in plain open_clip."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    if before:
        model.visual.proj = None
    with torch.no_grad():
        pixels = torch.stack([preprocess(Image.open(root / path)) for path in store.image_paths])
        features = model.encode_image(pixels, normalize=True).numpy()
    labels, cases = np.array(store.label("finding")), np.array(store.group_ids)
    scores = np.where(cases[:, None] == cases, -np.inf, features @ features.T)
    return float((labels[np.argsort(-scores, axis=1)[:, :k]] == labels[:, None]).mean())


def test_plain_open_clip_gets_the_evaluations_precision_from_the_exported_folder(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "model", tmp_path / "retrieval.json"
    written = json.loads((world / "report" / "retrieval.json").read_text())
    measures = written["runs"]["run"]["measures"]
    assert measures["finding P@5"]["low"] is None  # fewer than ten cases
    measures["finding P@5"] |= {"low": 0.125, "high": 0.5}
    report.write_text(json.dumps(written))
    assert export(arguments(world, out, "--report", str(report))) == 0
    assert "README.md before you share it" in capsys.readouterr().out
    store = TargetStore.open(world / "dev")
    for name, before in (("finding P@5", True), ("projected finding P@5", False)):
        found = precision_by_open_clip(out, store, world / "data", 5, before=before)
        assert found == pytest.approx(measures[name]["mean"], abs=1e-9)
    card = (out / "README.md").read_text()
    assert str(world) not in card + (out / "export.json").read_text()
    assert f"{100 * measures['finding P@5']['mean']:.1f} [12.5, 50.0]" in card and "nan" not in card
    assert TargetStore.open(world / "train").fingerprint in card
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o044 for path in out.iterdir())  # to be shared


def test_the_cards_lines_run(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model"
    assert export(arguments(world, out)) == 0
    (lines,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert len(lines.splitlines()) <= 13
    monkeypatch.chdir(tmp_path)
    shutil.copy(world / "data" / "images" / "dev0.png", tmp_path / "image.png")
    exec(compile(lines.replace("PATH/TO/THIS/FOLDER", str(out)), "card", "exec"), {})


def test_the_runs_own_record_of_its_data_serves_when_the_store_has_moved(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "run"
    shutil.copytree(world / "run", moved)
    config = yaml.safe_load((moved / "config.yaml").read_text())
    config["data"]["train_store"] = str(tmp_path / "gone")
    (moved / "config.yaml").write_text(yaml.safe_dump(config))
    (moved / "data.json").unlink(missing_ok=True)
    out = tmp_path / "model"
    assert export(["--run", str(moved), "--out", str(out)]) == 2
    assert "cannot be read" in capsys.readouterr().err and not out.exists()
    facts = {name: describe_data(TargetStore.open(world / name)) for name in ("train", "dev")}
    (moved / "data.json").write_text(json.dumps(facts))
    assert export(["--run", str(moved), "--out", str(out)]) == 0
    assert "CC0-1.0 (16)" in (out / "README.md").read_text()
    (moved / "data.json").write_text('{"train": {"dataset": "tiny"}}')
    assert export(["--run", str(moved), "--out", str(out)]) == 2
    assert "data.json is damaged" in capsys.readouterr().err


def test_a_former_export_is_replaced_and_nothing_else(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    out.mkdir()
    assert export(arguments(world, out)) == 0
    (out / "stale").write_text("")
    assert export(arguments(world, out)) == 0
    assert not (out / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    capsys.readouterr()
    for place in (foreign, world, world / "run"):
        before = sorted(str(path) for path in place.rglob("*"))
        assert export(arguments(world, place)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --out") and error.count("\n") == 1
        assert sorted(str(path) for path in place.rglob("*")) == before


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = world / "report" / "retrieval.json"
    (tmp_path / "broken.json").write_text("[]")
    cut = tmp_path / "cut"
    shutil.copytree(world / "run", cut)
    weights = cut / "checkpoint" / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    out = tmp_path / "model"
    cases = [
        (["--run", str(unfinished), "--out", str(out)], "not a finished training run"),
        (["--run", str(cut), "--out", str(out)], "truncated or damaged"),
        (arguments(world, out, "--report", str(tmp_path / "broken.json")), "not a retrieval.json"),
        (
            arguments(world, out, "--report", str(report), "--report-run", "other"),
            'no run "other"; it has run',
        ),
        (arguments(world, out, "--report-run", "run"), "--report-run needs --report"),
        (arguments(world, out, "--report"), "argument --report: expected one argument"),
        (["--out", str(out)], "the following arguments are required: --run"),
    ]
    for command, reason in cases:
        assert export(command) == 2
        error = capsys.readouterr().err
        assert reason in error and error.count("\n") == 1
        assert not out.exists() and not list(tmp_path.glob(".*"))


def test_numbers_of_another_run_by_the_same_name_are_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, out = world / "report" / "retrieval.json", tmp_path / "model"
    key = json.loads((world / "run" / "finished.json").read_text())["key"]
    assert json.loads(report.read_text())["runs"]["run"]["keys"] == [key]
    other = tmp_path / "run"
    shutil.copytree(world / "run", other)
    (other / "finished.json").write_text('{"key": "of a run trained anew"}')
    command = ["--run", str(other), "--out", str(out), "--report", str(report)]
    assert export(command) == 2
    error = capsys.readouterr().err
    assert f'"run" is another run there than {other}' in error and error.count("\n") == 1
    assert not out.exists()
    # By any name, a report that knows the run serves; one without keys, of an earlier version, does not.
    content = json.loads(report.read_text())
    content["runs"]["seeds"] = {**content["runs"]["run"], "keys": ["another seed", "of a run trained anew"]}
    del content["runs"]["run"]["keys"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    command[-1] = str(tmp_path / "report.json")
    assert export([*command, "--report-run", "run"]) == 2
    assert export([*command, "--report-run", "seeds"]) == 0


def test_weights_that_are_not_finite_are_not_exported(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world / "run", tmp_path / "run")
    weights = tmp_path / "run" / "checkpoint" / "open_clip_model.safetensors"
    content = load_file(weights)
    content["visual.proj"][0, 0] = torch.inf
    save_file(content, weights, metadata={"format": "pt"})
    assert export(["--run", str(tmp_path / "run"), "--out", str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err
    assert "the weights visual.proj are not finite" in error and error.count("\n") == 1
    assert not (tmp_path / "model").exists()
