"""Train a model: ``accelerate launch training/run.py --config training/configs/nb_clip_demo.yaml [--field value]``."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# Run as a script, Python puts this folder first: its data/ and config.py would shadow top-level packages.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _HERE]
if str(_HERE.parent) not in sys.path:
    sys.path.insert(0, str(_HERE.parent))

from training.command import exit_code  # noqa: E402
from training.engine.process import end_process, resolve_threads, tell_last  # noqa: E402
from training.errors import ConfigError  # noqa: E402

COMMAND = "accelerate launch training/run.py"
DEMO = _HERE / "configs" / "nb_clip_demo.yaml"
"""The configuration of a command without arguments."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the configuration, train, and return the exit code: 0 done, 2 for a user's error, 130 or 143 for a stop."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(
        lambda: _train(given),
        interrupted="interrupted: the same command continues from the last saved state, if there is one",
        say=tell_last,
    )


def _train(given: Sequence[str]) -> int:
    from training.arguments import read_config  # here, where a package that is missing is told in one line
    from training.tasks import find_task

    task = find_task(given)
    try:
        config = read_config(task.config, given or [f"--config={DEMO}"], COMMAND)
    except SystemExit as printed:  # --help, --print_config
        return int(printed.code or 0)
    if not given:
        stores = [Path("build/demo") / split for split in ("train", "dev")]
        if not all(store.is_dir() for store in stores):
            raise ConfigError(
                f"without arguments, the demo is trained, and {' or '.join(map(str, stores))} is missing: make them by "
                "`make targets DATASET=demo`, or give --config FILE (--help lists all fields)"
            )
        sys.stderr.write(f"no arguments: the demo, as --config {os.path.relpath(DEMO)}\n")
    # Without it, matrix products on a GPU vary from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # numpy looks up similarities beside torch's work: its own threads would spin on torch's cores (5 % of a step).
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    # Read once, when the libraries are loaded; torch is told again in the loop.
    os.environ["OMP_NUM_THREADS"] = str(resolve_threads(config.threads))
    prepare_run = task.load()
    from training.engine.session import run_training

    return run_training(config, prepare_run, tell_last)


if __name__ == "__main__":
    end_process(main())
