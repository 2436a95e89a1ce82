"""The Makefile in a copy of its own: a stand-in for kg-targets writes down what it is given."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLANKS = '/a b/it\'s "c"'
"""A path as people have them."""

GIVEN_OR_MAKES_OWN = {
    "DATASET", "SPLIT", "DATA_ROOT", "OUT", "ONTOLOGY", "SCORER", "TEACHER", "EXTRACTOR", "JOBS", "STORE", "GRID",
    "ARGS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL",
}  # fmt: skip
"""A variable of the environment is as good as one on the command line: the tests' own must not be taken."""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder, with a blank in its name, that looks set up."""
    folder = tmp_path / "my project"
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("pyproject.toml", "constraints.txt", "constraints-core.txt", ".venv/.installed"):
        (folder / name).touch()
    os.utime(folder / "pyproject.toml", (0, 0))
    os.utime(folder / "constraints.txt", (0, 0))
    stand_in = programs / "kg-targets"
    stand_in.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "with open('given.jsonl', 'a') as file:\n    file.write(json.dumps(sys.argv[1:]) + '\\n')\n"
    )
    stand_in.chmod(0o755)
    return folder


def make(project: Path, *arguments: str, expect: int = 0) -> list[list[str]]:
    """What kg-targets was given, call by call."""
    inherited = {key: value for key, value in os.environ.items() if key not in GIVEN_OR_MAKES_OWN}
    done = subprocess.run(["make", *arguments], cwd=project, capture_output=True, text=True, env=inherited)
    assert done.returncode == expect, done.stderr
    calls = project / "given.jsonl"
    return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def test_targets_take_blanks_in_every_value(project: Path) -> None:
    (given,) = make(
        project, "targets", "DATASET=my set.yaml", f"DATA_ROOT={BLANKS}", "OUT=o u t", "SPLIT=my split",
        "ONTOLOGY=seed|obo:/x y/z.obo", "SCORER=ontology", "EXTRACTOR=union", "ARGS=--top-k 5 --exclude 'a b.txt'",
    )  # fmt: skip
    assert given == [
        "build", "my set.yaml", "--split", "my split", "--data-root", BLANKS, "--out", "o u t", "--ontology",
        "seed|obo:/x y/z.obo", "--scorer", "ontology", "--extractor", "union", "--top-k", "5", "--exclude", "a b.txt",
    ]  # fmt: skip


def test_values_that_are_not_given_are_not_passed_on(project: Path) -> None:
    (given,) = make(project, "targets", "DATASET=roco")
    assert given == [
        "build", "roco", "--split", "all", "--out", "build/roco", "--ontology", "seed", "--scorer", "ontology",
        "--extractor", "dictionary",
    ]  # fmt: skip


def test_a_teachers_stores_keep_their_own_place_unless_one_is_given(project: Path) -> None:
    teacher = ("targets", "DATASET=roco", "SCORER=teacher", "TEACHER=hf:/m y/clip")
    (given,) = make(project, *teacher)
    assert "--out" not in given and given[given.index("--teacher") + 1] == "hf:/m y/clip"
    assert make(project, *teacher, "OUT=o u t")[1][4:6] == ["--out", "o u t"]


def test_demo_data_are_drawn_where_the_data_root_says(project: Path) -> None:
    assert make(project, "targets", "DATASET=demo", f"DATA_ROOT={BLANKS}")[0] == [
        "demo-data",
        "--out",
        BLANKS,
    ]
    assert make(project, "targets", "DATASET=demo")[2] == ["demo-data", "--out", "build/demo/data"]


@pytest.mark.parametrize(
    ("store", "page"),
    [
        ("build/my set/test", "build/my set/report/card-test.html"),
        ("build/my set/my split/", "build/my set/report/card-my split.html"),
        ("test", "./report/card-test.html"),
    ],
)
def test_a_card_is_written_beside_its_store(project: Path, store: str, page: str) -> None:
    (given,) = make(project, "card", f"STORE={store}", f"DATA_ROOT={BLANKS}")
    assert given == ["card", store, "--out", page, "--data-root", BLANKS]


@pytest.mark.parametrize(
    ("target", "given"),
    [
        (["tables", "DATASET=my grid"], ["tables", "my grid"]),
        (["tables", "DATASET=medpix", "GRID=my grid.yaml"], ["tables", "my grid.yaml"]),
        (["vqa", "GRID=my grid.yaml"], ["tables", "my grid.yaml"]),
        (["table5"], ["tables", "vqa_table5"]),
        (["fig6"], ["tables", "vqa_fig6"]),
    ],
)
def test_grids_take_blanks_too(project: Path, target: list[str], given: list[str]) -> None:
    assert make(project, *target) == [given]
    options = [f"DATA_ROOT={BLANKS}", "OUT=o u t", "JOBS=2", "ARGS=--dry-run"]
    told = ["--data-root", BLANKS, "--out", "o u t", "--jobs", "2", "--dry-run"]
    assert make(project, *target, *options)[1] == [*given, *told]


@pytest.mark.parametrize("target", ["targets", "card", "tables", "vqa"])
def test_a_missing_value_is_one_line(project: Path, target: str) -> None:
    assert make(project, target, expect=2) == []


def test_a_python_with_a_blank_in_its_path_is_tried(project: Path) -> None:
    (project / "my python").write_text("#!/bin/sh\nexit 3\n")
    (project / "my python").chmod(0o755)
    (project / ".venv" / ".installed").unlink()
    done = subprocess.run(
        ["make", "setup", f"PYTHON={project / 'my python'}"], cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 2 and "not found" not in done.stderr


def test_benchmarks_of_a_card_say_in_one_line_that_there_is_none() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    given = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py"], capture_output=True, text=True, check=False,
        env={**os.environ, **given},
    )  # fmt: skip
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == "error: torch finds no CUDA device here: run make bench-gpu on a machine with one\n"
