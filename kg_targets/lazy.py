"""Names that a package imports on first use, so that importing the package itself stays instant."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose names come from other modules.

    Args:
        package: its dotted name.
        modules: name to the module that defines it.
    """

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    def names() -> list[str]:
        public = (
            name for name in vars(sys.modules[package]) if name not in ("TYPE_CHECKING", "lazy_names", "lazy")
        )
        return sorted({*public, *modules})

    return find, names
