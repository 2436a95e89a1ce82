"""Before anything is trained: measures that will not be there are refused, and finished runs are kept."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kg_targets.errors import ConfigError
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set
from pipelines.demo import write_demo
from pipelines.experiments.job import SECONDS, TrainingJob
from pipelines.experiments.plan import keep_finished
from pipelines.experiments.retrieval import RetrievalPlan, measure_names
from pipelines.experiments.runner import MARKER
from pipelines.experiments.tasks import plan_of, read_grid
from tests.builds import CAPTIONS, build, write_split
from tests.pipelines.experiments.grids import OFFICIAL as GRID
from tests.processes import kg_targets
from training.arguments import to_yaml
from training.clip.load import WEIGHTS
from training.engine.checkpoint import CHECKPOINT, CONFIG, FINISHED, RUN, Start
from training.retrieval.concepts import VARIANTS
from training.retrieval.config import DIRECTIONS, EvalConfig
from training.retrieval.features import RetrievalSet
from training.retrieval.measures import label_sets, measure_chance
from training.retrieval.zero_shot import tasks

main = kg_targets("tables")


def written(folder: Path, **changes: Any) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**GRID, **changes}, sort_keys=False))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message", "without_data"),
    [
        ({"primary": {**GRID["primary"], "measure": "CUI@51"}}, 'primary.measure: "CUI@51" is not among', True),
        ({"secondary": ["projected CUI@10"]}, 'secondary: "projected CUI@10" is not among', True),
        ({"secondary": ["regoin P@30"]}, "(the nearest: region P@30, ", False),
        ({"evaluation": {"labels": ["region"]}, "secondary": ["organ P@30"]}, '"organ P@30" is not among', True),
        ({"evaluation": {"labels": ["regoin"]}}, 'the store has no label "regoin"; it has region', False),
        ({"evaluation": {"zero_shot": ["plane"]}}, '--zero-shot: the store has no label "plane"', False),
        ({"evaluation": {"recall": False}, "secondary": ["image→text Recall@5"]}, "is not among", True),
    ],
)  # fmt: skip
def test_what_will_not_be_measured_is_told_before_anything_runs(
    changes: dict[str, Any],
    message: str,
    without_data: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for split in ("train", "dev", "test"):
        write_split(tmp_path / "data", split, CAPTIONS)
    path, out = written(tmp_path, **changes), ["--out", str(tmp_path / "out")]
    for more in ([], ["--dry-run"]):
        assert main([path, "--data-root", str(tmp_path / "data"), *out, *more]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path}: ") and message in error and error.count("\n") == 1
    assert main([path, "--data-root", str(tmp_path / "no"), *out, "--dry-run"]) == (2 if without_data else 0)
    assert "splits and labels are not checked: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_names_of_measures_are_those_that_are_measured(tmp_path: Path) -> None:
    store = build(tmp_path)
    config = EvalConfig(DIRECTIONS, ("before", "after"), cui_variants=tuple(VARIANTS), zero_shot=("region",))
    labels = label_sets(store.labels, None)
    data = RetrievalSet(store, np.arange(len(store)))
    measured = measure_chance(data, labels, config, tasks(config, store.label, store.labels))
    assert sorted(measure_names(config, labels)) == sorted(measured)
    plain = dataclasses.replace(config, recall=False, zero_shot=())
    assert sorted(measure_names(plain, [])) == sorted(measure_chance(data, [], plain))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "data"
    write_demo(root, images=24)
    return root


@pytest.fixture
def plan(data: Path, tmp_path: Path) -> Iterator[RetrievalPlan]:
    """A grid of which every run is finished."""
    found = planned(tmp_path, data)
    config = BuildConfig(
        "demo", data_root=data, out=found.store("ontology", "test", ""), cache=None, workers=1
    )
    build_data_set(config, list[str]().append)
    for job in found.runs(["runs"]):
        (job.folder / CHECKPOINT).mkdir(parents=True)
        (job.folder / CHECKPOINT / WEIGHTS).write_bytes(b"")
        (job.folder / CONFIG).write_text(to_yaml(job.config()))
        for name in (RUN, FINISHED):
            (job.folder / name).write_text(json.dumps({"key": job.key()}))
    yield found


def planned(
    folder: Path, data: Path, threads: int = 1, only: tuple[str, ...] = (), **changes: Any
) -> RetrievalPlan:
    found = plan_of(read_grid(written(folder, **changes), data), folder / "out", 1, threads, only)
    assert isinstance(found, RetrievalPlan)
    return found


def test_a_grid_that_stayed_the_same_replaces_nothing(plan: RetrievalPlan) -> None:
    assert all(job.is_current() for job in plan.runs(["runs"]))
    for settings_only in (True, False):
        keep_finished(plan.runs(["runs"]), settings_only=settings_only)


def test_a_field_that_is_newer_than_a_run_has_its_default(plan: RetrievalPlan) -> None:
    job = plan.runs(["runs"])[0]
    text = (job.folder / CONFIG).read_text()
    assert "  shift:" in text
    (job.folder / CONFIG).write_text(
        "".join(x for x in text.splitlines(True) if not x.startswith("  shift:"))
    )
    keep_finished(plan.runs(["runs"]), settings_only=True)
    (job.folder / CONFIG).write_text(text + "gone: 1\n")
    with pytest.raises(ConfigError, match=r"\(gone was 1, is now absent\)"):
        keep_finished(plan.runs(["runs"]), settings_only=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 2}, r"2 finished runs .*runs/infonce/test-s0 \(threads was 1, is now 2\): --replace trains anew"),
        ({"threads": 2, "only": ("sm",)}, "1 finished run would be replaced, the first: .*runs/sm/test-s0"),
        ({"set": {"optim.lr": 0.5}}, r"2 finished runs .*\(optim.lr was 0.001, is now 0.5\)"),
        ({"rows": {**GRID["rows"], "sm": {"title": "SM", "store": "ontology", "set": {"loss.name": "mse"}}}},
         r"1 finished run .*runs/sm/test-s0 \(loss.name was semantic_matching, is now mse\)"),
    ],
)  # fmt: skip
def test_finished_runs_of_other_settings_are_not_replaced_unasked(
    changes: dict[str, Any], message: str, plan: RetrievalPlan, data: Path
) -> None:
    jobs = planned(plan.workspace.out.parent, data, **changes).runs(["runs"])
    with pytest.raises(ConfigError, match=message):
        keep_finished(jobs, settings_only=True)


def test_finished_runs_of_other_data_are_not_replaced_unasked(plan: RetrievalPlan) -> None:
    job = plan.runs(["runs"])[1]
    (job.folder / FINISHED).write_text(json.dumps({"key": "of another store"}))
    keep_finished(plan.runs(["runs"]), settings_only=True)
    with pytest.raises(
        ConfigError, match=r"1 finished run .*sm/test-s0 \(from other stores, images or weights\)"
    ):
        keep_finished(plan.runs(["runs"]), settings_only=False)
    (job.folder / FINISHED).write_text("damaged")
    with pytest.raises(ConfigError, match="1 finished run"):
        keep_finished(plan.runs(["runs"]), settings_only=False)
    (job.folder / FINISHED).unlink()
    keep_finished(plan.runs(["runs"]), settings_only=False)


def test_the_command_refuses_before_it_makes_stores_and_a_dry_run_does_not(
    plan: RetrievalPlan, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plan.workspace.out / MARKER).write_text('{"grid": "tiny"}\n')
    path = written(plan.workspace.out.parent, set={"optim.epochs": 3})
    command = [path, "--data-root", str(data), "--out", str(plan.workspace.out)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 2 finished runs would be replaced") and error.count("\n") == 1
    assert not (plan.workspace.out / "logs").exists()
    assert main([*command, "--dry-run"]) == 0


def test_a_damaged_store_is_left_to_its_jobs(plan: RetrievalPlan) -> None:
    manifest = plan.store("ontology", "test", "train") / "manifest.json"
    manifest.write_text("{")
    place = dataclasses.replace(plan.workspace, out=plan.workspace.out / ".." / "out")
    other = dataclasses.replace(plan, workspace=place)  # the same place, which no cache knows
    other.before("runs")
    keep_finished(other.runs(["runs"]), settings_only=False)


def test_seconds_of_the_parts_of_a_run_are_added_and_unknown_ones_stay_so(
    plan: RetrievalPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = plan.runs(["runs"])[0]
    path = job.folder / SECONDS
    start = Start.FRESH
    monkeypatch.setattr(TrainingJob, "start", lambda job: start)

    def seconds() -> Any:
        return json.loads(path.read_text())["seconds"]

    path.write_text('{"seconds": 9')
    job.begins()
    assert not path.exists()
    job.ended(2.04, False)
    assert json.loads(path.read_text()) == {"seconds": 2.0, "jobs": 1, "threads": 1}
    start = Start.CONTINUE
    job.begins()
    assert seconds() is None  # until its end was seen
    job.ended(3.0, True)
    assert seconds() == 5.0
    for damage in ('{"seconds": 9', "[]", '{"seconds": "x"}'):
        path.write_text(damage)
        job.begins()
        job.ended(3.0, True)
        assert seconds() is None
    path.unlink()
    for _ in range(2):  # its runner was killed: nobody knows how long the first part took
        job.begins()
        job.ended(3.0, True)
        assert seconds() is None
