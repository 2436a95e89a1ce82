"""Options of the ontology scorer as a person gives them to `kg-targets build`, and the warning of a small fit."""

from pathlib import Path
from typing import Any

import pytest

from kg_targets.store import TargetStore
from pipelines.build import config as config_module
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set
from tests.builds import CAPTIONS, digests, write_split
from tests.pipelines.build.test_build import build_from, data, run

pytestmark = pytest.mark.e2e


def test_part_of_can_be_said_or_unsaid_and_its_default_stands_in_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def config_of(*options: str) -> dict[str, Any]:
        place = ("--data-root", tmp_path / "data", "--out", tmp_path / "out", "--split", "train")
        assert run(capsys, "build", "demo", *place, *options)[0] == 0
        return TargetStore.open(tmp_path / "out" / "train").manifest["config"]

    data(tmp_path)
    assert config_of("--part-of")["part_of"] is True and config_of("--no-part-of")["part_of"] is False
    assert config_of()["part_of"] is config_module.PART_OF
    monkeypatch.setattr(config_module, "PART_OF", True)
    BuildConfig(use_ontology=False, part_of=True)  # the default, which nobody asked for, contradicts nothing


def test_blocks_shrinkage_and_unseen_concepts_are_the_same_bytes_for_any_number_of_workers(
    tmp_path: Path,
) -> None:
    for split, captions in {"train": CAPTIONS[:3] * 3, "dev": CAPTIONS, "test": CAPTIONS}.items():
        write_split(tmp_path / "data", split, captions)
    shared = {"data_root": tmp_path / "data", "split": "dev", "rows_per_shard": 2}
    options = {"blocks": "1:2:1", "shrinkage": 0.5, "part_of": True}
    found = []
    for workers in (1, 2):
        config = BuildConfig("demo", out=tmp_path / str(workers), workers=workers, **shared, **options)
        found.append([digests(store.path) for store in build_data_set(config, lambda line: None)])
    assert found[0] == found[1]


@pytest.mark.parametrize("blocks", ["1:2", "a:b:c", "0:0:0", "1:-1:1", "1:nan:1"])
def test_blocks_that_are_no_three_weights_are_one_line(
    blocks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, "build", "demo", "--data-root", data(tmp_path), "--blocks", blocks)
    assert (code, error.count("\n")) == (2, 1) and "technique:anatomy:finding" in error


def test_a_fit_split_too_small_to_be_trusted_is_said_aloud(tmp_path: Path) -> None:
    said: list[str] = []
    write_split(tmp_path / "few", "train", CAPTIONS)
    build_from(tmp_path / "few", tmp_path / "out", said)
    expected = "warning: IC and idf are fitted on 8 captions of train only: ±3.5 nats"
    assert sum(line.startswith(expected) for line in said) == 1
    said.clear()
    write_split(tmp_path / "enough", "train", CAPTIONS * 50)
    build_from(tmp_path / "enough", tmp_path / "out2", said)
    assert not any(line.startswith("warning") for line in said)
