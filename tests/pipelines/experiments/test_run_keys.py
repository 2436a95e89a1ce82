"""The keys of every shipped grid's training runs: a key that changes trains again what somebody has finished."""

from pathlib import Path

import pytest

from kg_targets.store.digest import json_sha256
from pipelines.experiments.med_vqa_grid import MedVQAGrid
from pipelines.experiments.tasks import plan_of, read_grid, shipped_grids
from tests.pipelines.experiments.grids import changed, med_vqa, written
from training.engine.run_key import run_key

KEYS = {
    "demo": (9, "605565304ad58aae"),
    "medpix": (165, "d9dbb5b39077cdd9"),
    "medpix_explore": (23, "1c22fdf2725b63f6"),
    "medpix_search": (48, "b10220e53092435e"),
    "roco": (30, "b2da593d6a1850f4"),
    "roco_v2": (30, "b2da593d6a1850f4"),
    "vqa_fig6": (81, "abd42bd6be4edadf"),
    "vqa_med_2019": (12, "ba8bf2e580d4ec02"),
    "vqa_path_vqa": (12, "ba8bf2e580d4ec02"),
    "vqa_rad": (24, "03fe533c84bbd928"),
    "vqa_slake": (12, "ba8bf2e580d4ec02"),
    "vqa_table5": (54, "3e4e7d556f05d7d2"),
    "vqa_table5_med_2019": (39, "d25178d79fd7e0f0"),
    "vqa_table5_path_vqa": (39, "d25178d79fd7e0f0"),
    "vqa_table5_slake": (39, "d25178d79fd7e0f0"),
}
"""Grid to the number of its runs and a digest of their keys, as they are without data and weights."""


@pytest.mark.parametrize("name", shipped_grids())
def test_finished_runs_of_a_shipped_grid_stay_known(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_of(read_grid(name), Path("out"), 1, 1)
    # Recorded when a fold's folders still had another name, which is no part of a run's own key.
    keys = {
        f"{job.stage}/{job.name}".replace("-fold", "-cut"): run_key(job.config(), [], 1)
        for job in plan.runs(plan.stages)
    }
    assert (len(keys), json_sha256(keys)[:16]) == KEYS[name]


def test_a_grid_from_before_says_cuts_for_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    now = read_grid(written(med_vqa()))
    parts = [{"protocol": "strict"}, {"protocol": "image_disjoint", "cuts": [1, 2]}]
    before = read_grid(written(changed("med_vqa", "parts", parts)))
    assert isinstance(now, MedVQAGrid) and isinstance(before, MedVQAGrid)
    assert before.parts == now.parts and before.fingerprint() == now.fingerprint()
