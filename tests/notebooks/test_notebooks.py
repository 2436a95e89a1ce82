"""Every notebook runs from top to bottom on a small demo, in a copy of its folder, and is committed clean."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from accelerate.state import AcceleratorState

from pipelines.demo import write_demo
from tests import REPOSITORY
from tests.training.tiny import arguments
from training.run import main as train

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
ABSOLUTE_PATH = re.compile(r"""(?<![\w.:/])(/(home|root|work|tmp|mnt|data|Users|opt|srv|var)/|[A-Z]:\\)""")

pytestmark = pytest.mark.e2e


def name_of(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module")
def working_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks beside a demo of 240 images, where they would otherwise generate the full one."""
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    shutil.copytree(REPOSITORY / "notebooks", folder / "notebooks", ignore=ignored)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    demo = folder / "build" / "demo"
    write_demo(demo / "data", images=240, workers=2)
    write_runs(demo)
    return folder


def write_runs(demo: Path) -> None:
    """The stores of all splits and two runs of a few steps, where `make demo` would make them."""
    build = ["build", "demo", "--split", "all", "--data-root", str(demo / "data"), "--out", str(demo)]
    subprocess.run([sys.executable, "-m", "pipelines.cli", *build], check=True, cwd=REPOSITORY)
    for name, *extra in (("infonce", "--loss.name=info_nce"), ("sm",)):
        AcceleratorState._reset_state(reset_partial_state=True)
        assert train(arguments(demo, demo / "runs" / name, "--optim.max_steps=3", *extra)) == 0


def test_there_is_a_notebook_to_test() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_runs_without_errors_and_shows_something(path: Path, working_copy: Path) -> None:
    notebook = nbformat.read(working_copy / "notebooks" / path.name, as_version=4)
    resources = {"metadata": {"path": str(working_copy / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output["text"] for output in outputs if output.output_type == "stream")
    assert "error:" not in said, said
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("text/html" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_is_committed_without_outputs_so_that_diffs_and_captions_stay_out(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_names_no_path_of_the_machine_it_was_written_on(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        assert not ABSOLUTE_PATH.search(cell.source), cell.source
