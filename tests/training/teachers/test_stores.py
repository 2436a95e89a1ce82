"""A pre-training with a teacher's store, and one that asks the same teacher in every step: the same losses."""

import csv
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from kg_targets.store import TargetStore
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set
from tests.builds import COLUMNS
from tests.training.med_vqa.pretrain.world import pretrain_arguments, write_pretrain_world
from tests.training.teachers.checkpoints import write_open_clip
from tests.training.vqa.world import logged
from training.run import main as run

pytestmark = pytest.mark.e2e

TERMS = ("loss", "image_text", "views", "texts", "kl", "diagonal", "positives")


def teach(world: Path, teacher: str, out: Path) -> Path:
    """The teacher's store of the world's captioned images, by the command that people use."""
    store = TargetStore.open(world / "store")
    with (world / "captioned" / "train.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS[:4])
        writer.writerows(
            zip(store.image_ids, store.image_paths, store.captions, store.group_ids, strict=True)
        )
    given = {"dataset": "demo", "data_root": world / "captioned", "out": out, "split": "train"}
    (built,) = build_data_set(BuildConfig(scorer="teacher", teacher=teacher, **given), lambda _: None)
    return built.path


def test_a_teacher_online_trains_as_its_store_does(tmp_path: Path) -> None:
    world = write_pretrain_world(tmp_path / "world")
    teacher = f"open_clip:{write_open_clip(tmp_path / 'teacher')}"
    store = teach(world, teacher, tmp_path / "taught")
    labels = {
        "offline": (f"--soft_labels=[{{store: {store}}}]", "--loss.lambda_weight=0.5"),
        "online": (f"--soft_labels=[{{teacher: '{teacher}'}}]", "--loss.lambda_weight=0.5"),
        "hard": ("--soft_labels=[]",),
    }
    found = {}
    for name, given in labels.items():
        AcceleratorState._reset_state(reset_partial_state=True)
        extra = (*given, "--optim.max_steps=4", "--data.dev_share=0")
        assert run(pretrain_arguments(world, tmp_path / name, *extra)) == 0
        found[name] = {term: logged(tmp_path / name, term) for term in TERMS}
        assert all(len(values) == 4 for values in found[name].values())
    for term in TERMS:
        assert found["online"][term] == pytest.approx(found["offline"][term], rel=1e-4, abs=1e-6), term
    assert found["hard"]["loss"] != pytest.approx(found["offline"]["loss"], rel=1e-2)
    assert max(found["offline"]["diagonal"]) < 0.9  # the teacher has its say
