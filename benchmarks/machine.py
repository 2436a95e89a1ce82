"""Where a benchmark ran: written beside every figure, without host names or paths."""

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.machine import available_cores

PACKAGES = ("numpy", "scipy", "pyarrow", "pandas", "ahocorasick-rs", "sparse-dot-topn")


def describe(packages: tuple[str, ...] = PACKAGES) -> dict[str, object]:
    """Cores, architecture, Python and the versions of the packages that matter."""
    return {
        "cores": available_cores(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def report(result: Any, out: Path) -> None:
    """Print what was measured, and write it to ``out``."""
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
