"""Fixtures that every tier shares."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The private folder of real data beside the checkout; a test that needs it skips where it is absent."""
    folder = Path(os.environ.get("KG_TARGETS_SHARED", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not present ({folder.name}/): set KG_TARGETS_SHARED to its folder")
    return folder
