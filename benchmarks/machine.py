"""Where a benchmark ran: written beside every figure, without host names or paths."""

import os
import platform
from importlib.metadata import version

PACKAGES = ("numpy", "scipy", "pyarrow", "pandas", "ahocorasick-rs", "sparse-dot-topn")


def describe(packages: tuple[str, ...] = PACKAGES) -> dict[str, object]:
    """Cores, architecture, Python and the versions of the packages that matter."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }
