"""Where a benchmark ran: written beside every figure, without host names or paths."""

import platform
from importlib.metadata import version

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
