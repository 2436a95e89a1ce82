"""What every benchmark has: a command line, where it ran (without host names or paths), and its JSON file."""

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.build.executors import available_cores

PACKAGES = ("numpy", "scipy", "pyarrow", "pandas", "ahocorasick-rs", "sparse-dot-topn")
RESULTS = Path(__file__).parent / "results"


def command(doc: str | None, name: str, threads: int | None = None) -> argparse.ArgumentParser:
    """The options that benchmarks share.

    Args:
        doc: the script's docstring; its first line is the help text.
        name: of the file in ``benchmarks/results``, the default of ``--out``.
        threads: default of ``--threads``; None: all available cores.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=threads or available_cores(), help="of the CPU")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="JSON file")
    return parser


def head(packages: tuple[str, ...] = PACKAGES, device: Any = None, **settings: Any) -> dict[str, Any]:
    """Where a benchmark runs, and with which settings.

    Args:
        packages: whose versions matter.
        device: a torch device, whose name is told; None: nothing of it is.
        settings: of the command, told as they are.
    """
    found: dict[str, Any] = {
        "machine": {
            "cores": available_cores(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "packages": {name: version(name) for name in packages},
        }
    }
    if device is not None:
        import torch

        found["device"] = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
        found["threads"] = torch.get_num_threads()
    return found | settings


def report(result: Any, out: Path | None) -> None:
    """Print what was measured, and write it to ``out`` if there is one."""
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
