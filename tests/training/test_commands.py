"""What training and evaluation do with wrong options, unusable folders, other images and other launchers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from tests import REPOSITORY
from tests.processes import kg_targets
from tests.training.tiny import arguments, losses, write_world
from training.retrieval import command as evaluation
from training.run import main as run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/, train/, dev/ and a finished run/."""
    folder = tmp_path_factory.mktemp("tiny")
    write_world(folder)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(arguments(folder, folder / "run", "--optim.max_steps=1")) == 0
    return folder


def evaluate(world: Path, out: Path, *extra: str) -> int:
    return kg_targets("evaluate retrieval")([
        "--store", str(world / "dev"), "--data-root", str(world / "data"), "--run", str(world / "run"),
        "--out", str(out), *extra,
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--draws", "0"), "--draws: 0 must be at least 1"),
        (("--queries", "0"), "--queries: 0 must be at least 1"),
        (("--max-broken", "-1"), "--max-broken: -1 must be at least 0"),
        (("--seed", "-1"), "--seed: -1 must be at least 0"),
        (("--labels", "finding,regoin"), 'no label "regoin"; it has modality, finding'),
    ],
)
def test_wrong_evaluation_options_are_found_before_anything_is_encoded(
    extra: tuple[str, ...],
    message: str,
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "evaluate_runs", None)
    assert evaluate(world, tmp_path / "out", *extra) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inside", ["", "report"])
def test_evaluation_into_a_file_is_one_line(
    inside: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("kept")
    assert evaluate(world, tmp_path / "file" / inside) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --out ") and error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_an_evaluation_that_fails_or_is_interrupted_leaves_the_former_one_whole(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert evaluate(world, out, "--draws", "50") == 0
    (out / "card.html").write_text("another command's")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(error: BaseException) -> None:
        def target_block(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(evaluation, "target_block", target_block)

    for error, code, message in (
        (OSError(28, "No space left on device"), 2, "error: --out "),
        (KeyboardInterrupt(), 130, "interrupted"),
    ):
        fail(error)
        capsys.readouterr()
        assert evaluate(world, out, "--draws", "60") == code
        assert capsys.readouterr().err.splitlines()[-1].startswith(message)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_evaluation_is_repeated_for_other_images_and_not_for_a_copy(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world, tmp_path / "world")
    assert evaluate(world, tmp_path / "out", "--draws", "50") == 0
    assert evaluate(tmp_path / "world", tmp_path / "out", "--draws", "50") == 0
    assert "up to date" in capsys.readouterr().out
    images = tmp_path / "world" / "data" / "images"
    shutil.copy(images / "dev2.png", images / "dev3.png")
    assert evaluate(tmp_path / "world", tmp_path / "out", "--draws", "50") == 0
    assert "up to date" not in capsys.readouterr().out


def test_evaluation_where_no_image_has_a_label_still_draws_its_pictures(tmp_path: Path, world: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.copytree(world, tmp_path / "world")
    part = tmp_path / "world" / "dev" / "targets/part-00000.parquet"
    table = pq.read_table(part)
    position = table.schema.get_field_index("label_modality")
    empty = pa.array([""] * len(table), table.schema.field(position).type)
    pq.write_table(table.set_column(position, table.schema.field(position), empty), part)
    assert evaluate(tmp_path / "world", tmp_path / "out", "--draws", "50") == 0
    assert (tmp_path / "out" / "contact_sheet.png").stat().st_size > 0


@pytest.mark.parametrize("output", ["{tmp}/file", "{tmp}/file/run", "/proc/nowhere/run"])
def test_training_into_an_unusable_folder_is_one_line(
    output: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if output.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc, a folder in which not even root can write")
    (tmp_path / "file").write_text("kept")
    assert run(arguments(world, Path(output.format(tmp=tmp_path)))) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --output ") and error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_a_run_on_other_images_is_another_run_and_on_a_copy_the_same(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world, tmp_path / "world")
    again = arguments(tmp_path / "world", tmp_path / "world" / "run", "--optim.max_steps=1")
    assert run(again) == 0
    assert "nothing to do" in capsys.readouterr().err
    images = tmp_path / "world" / "data" / "images"
    shutil.copy(images / "train2.png", images / "train3.png")
    assert run(again) == 2
    assert "a finished run: the digest of the images of data.train_store was " in capsys.readouterr().err


def test_weights_that_are_none_are_one_line(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hostname").write_text("hostname\n")
    for weights in ("hostname", "nonexist"):
        assert run(arguments(world, tmp_path / "run", f"--model.pretrained={tmp_path / weights}")) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: model.name") and error.count("\n") == 1


def test_accelerate_and_plain_python_give_the_same_curve_with_as_many_threads(
    world: Path, tmp_path: Path
) -> None:
    launch = [
        sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--cpu", "--num_processes", "1",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    curves, threads = [], []
    for name, command in (("launched", launch), ("plain", [sys.executable])):
        extra = (
            "--model.name=demo-resnet",
            "--optim.max_steps=3",
            "--data.batch_size=16",
            "--optim.epochs=3",
        )
        options = [a for a in arguments(world, tmp_path / name) if "model.name" not in a]
        done = subprocess.run(
            [*command, "training/run.py", *options, *extra],
            cwd=REPOSITORY,
            env={**environment, "ACCELERATE_USE_CPU": "true"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        curves.append(losses(tmp_path / name))
        threads.append(json.loads((tmp_path / name / "metrics.json").read_text())["threads"])
    assert curves[0] == curves[1] and len(curves[0]) == 3
    assert threads[0] == threads[1] >= 1
    if hasattr(os, "sched_getaffinity"):
        assert threads[0] == len(os.sched_getaffinity(0))
