"""Commands of `kg-targets` in this process, and a test file's own work in two, as torchrun starts them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from pipelines import cli
from tests import REPOSITORY


def kg_targets(name: str) -> Callable[[Iterable[object]], int]:
    """`kg-targets NAME`: its arguments to its exit code."""
    return lambda arguments: cli.main([*name.split(), *map(str, arguments)])


def run_in_two_processes(file: str, folder: Path, timeout: int = 240) -> None:
    """Run ``file FOLDER`` on two CPU processes of one thread each; its work ends with exit code 0."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    alone = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*launch, file, str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, **alone},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-3000:]
