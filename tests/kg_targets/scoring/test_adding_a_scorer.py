"""A scorer is added by one file and one line: a dummy one, registered here, makes a whole store."""

from pathlib import Path

import numpy as np
import pytest

from kg_targets.scoring import SCORERS, Factors, ScoringInput
from kg_targets.scoring.noise import score as noise
from kg_targets.store import verify_store
from tests.builds import build


def dummy(data: ScoringInput) -> Factors:
    """Noise under another name, which is believed to be different."""
    return noise(data)


def test_a_scorer_of_one_line_builds_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORERS, "dummy", dummy)
    store = build(tmp_path / "dummy", scorer="dummy")
    assert store.manifest["config"]["scorer"] == "dummy"
    assert verify_store(store.path)
    expected = build(tmp_path / "noise", scorer="noise")
    rows = range(len(store))
    np.testing.assert_array_equal(store.block(rows), expected.block(rows))
