"""What a pre-trained folder hands on: its heads, the temperatures that were learnt, and what was trained before."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.training.med_vqa import fakes as fakes
from training.errors import CheckpointError
from training.med_vqa.model.history import (
    FILE,
    PRETRAINING,
    Digests,
    Excluded,
    Pretraining,
    TrainedOn,
    TrainingHistory,
    load_trained_on,
    read_pretraining,
)
from training.med_vqa.model.saving import MedVQA
from training.med_vqa.pretrain.config import (
    PretrainConfig,
    PretrainDataConfig,
    PretrainLossConfig,
    PretrainModelConfig,
)
from training.med_vqa.pretrain.model import PretrainingModel
from training.med_vqa.pretrain.saving import HEADS, save_pretrained, take_heads

SEEN = Pretraining("one", "medpix", "train", "f", 20, 4, (Excluded("data.exclude", "s", 3, 2, 5),))


@pytest.fixture
def vqa(tmp_path: Path) -> MedVQA:
    return fakes.built(tmp_path / "bert", dropout=0.0)


def made(vqa: MedVQA, stage: str, embed_dim: int | None = None, **loss: object) -> PretrainingModel:
    config = PretrainConfig(
        output="o",
        stage=stage,
        model=PretrainModelConfig(preset="tiny", init_from="x", embed_dim=embed_dim),
        data=PretrainDataConfig(store="s", data_root="d"),
        loss=PretrainLossConfig(**loss),  # type: ignore[arg-type]
    )
    return PretrainingModel(config, vqa.model)


def kept(folder: Path, model: PretrainingModel, vqa: MedVQA, past: TrainingHistory | None = None) -> Path:
    save_pretrained(folder, model, vqa, replace(SEEN, stage=model.stage), past or TrainingHistory())
    return folder


def trained(folder: Path) -> tuple[str, ...]:
    record = read_pretraining(folder)
    assert record is not None
    return record.trained


def taken(vqa: MedVQA, start: Path, **loss: object) -> tuple[dict[str, float], list[str]]:
    """Temperatures of a stage two, and what is told."""
    model = made(vqa, "two", **loss)
    notes = take_heads(model, start)
    return {name: round(model.heads.tau(name).item(), 4) for name in ("image_text", "views")}, notes


def test_temperatures_are_taken_only_where_they_were_and_are_learnt(vqa: MedVQA, tmp_path: Path) -> None:
    fixed = kept(tmp_path / "fixed", made(vqa, "one"), vqa)
    learns = {"learn_temperatures": True, "tau_image_text": 0.2}
    assert taken(vqa, fixed, **learns) == ({"image_text": 0.2, "views": 0.07}, [])

    model = made(vqa, "one", learn_temperatures=True, views_weight=0.0)
    for value in model.heads.log_taus.values():
        value.data.fill_(torch.tensor(0.3).log())
    learnt = kept(tmp_path / "learnt", model, vqa)
    assert json.loads((learnt / PRETRAINING).read_text())["learnt_temperatures"] == ["image_text", "texts"]
    assert taken(vqa, learnt, **learns) == ({"image_text": 0.3, "views": 0.07}, [])
    values, (note,) = taken(vqa, learnt)
    assert values == {"image_text": 0.07, "views": 0.07}
    assert note == (
        "temperatures that model.init_from learnt are fixed here, as configured: image_text 0.3 there, 0.07 here; "
        "texts 0.3 there, 0.07 here"
    )

    record = json.loads((learnt / PRETRAINING).read_text())
    (learnt / PRETRAINING).write_text(json.dumps({**record, "learnt_temperatures": "all"}))
    with pytest.raises(CheckpointError, match='"learnt_temperatures": Input should be a valid array'):
        taken(vqa, learnt)
    (learnt / PRETRAINING).write_text(json.dumps({**record, "trained": ["vision", "arm"]}))
    with pytest.raises(CheckpointError, match=r'"trained\.1": Input should be .vision.'):
        taken(vqa, learnt)
    del record["learnt_temperatures"]  # an older pre-training
    (learnt / PRETRAINING).write_text(json.dumps(record))
    values, (note,) = taken(vqa, learnt, **learns)
    assert values["image_text"] == 0.2 and "does not record whether it learnt its temperatures" in note
    assert taken(vqa, learnt)[1] == []


@pytest.mark.parametrize("stage", ["one", "two"])
def test_a_stage_goes_on_with_the_heads_of_the_same_stage(vqa: MedVQA, tmp_path: Path, stage: str) -> None:
    first = made(vqa, stage)
    start = kept(tmp_path / "first", first, vqa)
    again = made(vqa, stage)
    assert not torch.equal(again.heads.image.weight, first.heads.image.weight)
    assert take_heads(again, start) == []
    for name, value in first.heads.state_dict().items():
        assert torch.equal(again.heads.state_dict()[name], value)
    assert ("co_attention" in trained(start)) == (stage == "two")


def test_stage_one_starts_with_new_heads_where_there_are_none_of_its_width_and_says_so(
    vqa: MedVQA, tmp_path: Path
) -> None:
    start = kept(tmp_path / "first", made(vqa, "one"), vqa)
    narrow = made(vqa, "one", embed_dim=8)
    before = narrow.heads.image.weight.clone()
    (note,) = take_heads(narrow, start)
    assert "its heads are 32 wide and those of this run 8: they are new" in note
    assert torch.equal(narrow.heads.image.weight, before)
    with pytest.raises(CheckpointError, match=r"set model\.embed_dim as in the pre-training"):
        take_heads(made(vqa, "two", embed_dim=8), start)
    (start / PRETRAINING).rename(tmp_path / PRETRAINING)
    (note,) = take_heads(made(vqa, "one"), start)
    assert "has no heads: those of this run are new" in note
    with pytest.raises(CheckpointError, match="is not a pre-training"):
        take_heads(made(vqa, "two"), start)
    (tmp_path / PRETRAINING).rename(start / PRETRAINING)
    save_file({"image.weight": torch.zeros(1)}, start / HEADS)
    with pytest.raises(CheckpointError, match=f"{HEADS} is damaged: it has no '"):
        take_heads(made(vqa, "one"), start)
    (start / HEADS).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=f"{HEADS} is damaged"):
        take_heads(made(vqa, "one"), start)


def test_a_folder_tells_what_it_saw_and_keeps_what_came_before(vqa: MedVQA, tmp_path: Path) -> None:
    one = kept(tmp_path / "one", made(vqa, "one"), vqa)
    two = kept(tmp_path / "two", made(vqa, "two"), vqa, TrainingHistory.of(str(one)))
    assert TrainingHistory.of(str(two)) == TrainingHistory((SEEN, replace(SEEN, stage="two")))
    (first, _) = json.loads((two / PRETRAINING).read_text())["pretrainings"]
    assert (first["store"], first["images"], first["excluded"][0]["images"]) == ("f", 20, 5)

    digests = Digests(frozenset("q"), frozenset("i"))
    tuned = TrainedOn("vqa_rad", "strict", seed=3, pretrainings=(), digests=digests)
    for stage in ("one", "two"):
        past = TrainingHistory(tuned.pretrainings, fine_tuned=True, fine_tuning=tuned)
        folder = kept(tmp_path / f"tuned-{stage}", made(vqa, stage), vqa, past)
        assert load_trained_on(folder) == tuned == TrainingHistory.of(str(folder)).fine_tuning
        (folder / FILE).unlink()
        assert TrainingHistory.of(str(folder)).and_then(digests) is None
