"""A share of the training cases: whole cases, nested, the same for every seed."""

import json
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from kg_targets.store.block import case_codes
from tests.training.tiny import arguments, write_store
from training.data.dataset import rows_of_share
from training.run import main as run

CASES = [f"case{row // 3}" for row in range(30)] + [""]  # the last is a case of its own


def test_shares_are_whole_cases_and_nested() -> None:
    previous: set[int] = set()
    for share in (0.01, 0.25, 0.5, 1.0):
        rows = rows_of_share(case_codes(CASES), share).tolist()
        chosen = {CASES[row] for row in rows}
        assert rows == [row for row, case in enumerate(CASES) if case in chosen] == sorted(rows)
        assert len(chosen) == max(1, round(share * 11)) and previous <= set(rows)
        previous = set(rows)
    assert np.array_equal(rows_of_share(case_codes(CASES), 1.0), np.arange(31))


@pytest.mark.e2e
def test_a_run_trains_on_that_share(tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    write_store(tmp_path / "train", tmp_path / "data", "train")
    write_store(tmp_path / "dev", tmp_path / "data", "dev", images=12)
    options = ("--data.case_share=0.5", "--data.batch_size=4", "--optim.epochs=1")
    assert run(arguments(tmp_path, tmp_path / "run", *options)) == 0
    facts = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (facts["images"], facts["steps"]) == (8, 2)
