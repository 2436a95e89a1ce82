"""How a process of a run ends."""

import os
import subprocess
import sys

import pytest

from tests import REPOSITORY

ENDS = """
import atexit, sys
from training.engine.process import end_process

class Held:
    def __del__(self):
        sys.__stdout__.write("torn down\\n")

held = Held()
atexit.register(lambda: print("registered"))
print("printed")
end_process(3)
"""


@pytest.mark.parametrize(
    ("processes", "said"), [("1", ["printed", "registered", "torn down"]), ("2", ["printed", "registered"])]
)
def test_one_of_several_processes_leaves_without_the_teardown_that_may_abort_it(
    processes: str, said: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDS],
        cwd=REPOSITORY,
        env={**os.environ, "WORLD_SIZE": processes},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.split("\n")[:-1], done.stderr) == (3, said, "")
