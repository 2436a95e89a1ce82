"""Fixtures that all tests of ``training`` share."""

import sys
from collections.abc import Iterator

import pytest


def reset_accelerate() -> None:
    """Forget accelerate's state of this process, which all runs in it would share; nothing is loaded for it."""
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Several training runs share this process, but accelerate keeps one state per process."""
    reset_accelerate()
    yield
    reset_accelerate()
