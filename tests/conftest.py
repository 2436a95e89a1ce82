"""Fixtures that every tier shares."""

import os
import signal
from pathlib import Path

import pytest

from tests import REPOSITORY

# A background job of a script inherits an ignored Ctrl-C, and so would every command under test; a person's does not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The private folder of real data beside the checkout; a test that needs it skips where it is absent."""
    folder = Path(os.environ.get("KG_TARGETS_SHARED", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not present ({folder.name}/): set KG_TARGETS_SHARED to its folder")
    return folder
