"""What a model's folder tells of its training: which questions it knows again, and what is refused for it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kg_targets.manifest import Manifest
from tests.training.vqa.world import write_questions
from training.errors import CheckpointError, ConfigError
from training.med_vqa.answer import Saved
from training.med_vqa.answer.evaluation import check_fits
from training.med_vqa.finetune.config import FinetuneConfig, VQADataConfig
from training.med_vqa.model.config import VQAModelConfig
from training.med_vqa.model.history import (
    FILE,
    UNRECORDED,
    Digests,
    Excluded,
    Pretraining,
    TrainedOn,
    TrainingHistory,
    as_json,
    describe,
    from_json,
    load_trained_on,
    save_trained_on,
)
from training.med_vqa.model.saving import Answers
from training.vqa.protocols import Split, prepare


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vqa")
    for part, images in (("train", 12), ("test", 4)):
        write_questions(folder, part, images)
    return folder


def split_of(
    data: Path, protocol: str = "strict", seed: int = 0, share: float = 0.1, name: str = "vqa_rad"
) -> Split:
    split = prepare(Manifest.load("vqa_rad", "questions"), data, protocol, seed=seed, validation_share=share)
    return replace(split, dataset=name)


def config_of(data: Path, split: Split, **model: Any) -> FinetuneConfig:
    return FinetuneConfig(
        output="run",
        seed=3,
        model=VQAModelConfig(preset="tiny", text=None, tokenizer="t", **model),
        data=VQADataConfig(
            dataset="vqa_rad",
            data_root=str(data),
            protocol=split.protocol,
            split_seed=split.seed,
            validation_share=split.validation_share,
            images="blank",
            max_question_tokens=40,
        ),
    )


def saved(split: Split, training: TrainedOn | None) -> Saved:
    answers = Answers(list(split.candidates), [], split.protocol, split.dataset, "of a test")
    return Saved(Path("model"), SimpleNamespace(), answers, training)  # type: ignore[arg-type]


def test_what_no_record_tells_is_the_default_of_the_configuration() -> None:
    for name in ("split_seed", "validation_share", "images", "max_question_tokens"):
        assert getattr(TrainedOn, name) == getattr(VQADataConfig, name)


def test_the_record_comes_back_and_holds_no_text(data: Path, tmp_path: Path) -> None:
    split = split_of(data)
    record = TrainedOn.of(config_of(data, split), split)
    save_trained_on(tmp_path, record)
    assert load_trained_on(tmp_path) == record
    text = (tmp_path / FILE).read_text()
    assert "bright" not in text and "train0" not in text and str(data) not in text
    assert record.digests is not None and len(record.digests.images) == 11
    model = saved(split, record)
    known = model.recorded
    assert (known.images, model.seed, known.max_question_tokens, known.precision, known.preset) == (
        "blank", 3, 40, "fp32", "tiny",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": 1}, '"images": Input should be a valid string'),
        ({"seed": "3"}, '"seed": Input should be a valid integer'),
        ({"validation_share": True}, '"validation_share": Input should be a valid number'),
        ({"split_seed": None}, '"split_seed": Input should be a valid integer'),
        ({"digests": []}, '"digests": Input should be an object'),
        (
            {"digests": {"questions": ["a"], "images": [1]}},
            r'"digests\.images\.0": Input should be a valid string',
        ),
    ],
)
def test_a_damaged_record_is_told(data: Path, tmp_path: Path, wrong: dict[str, object], message: str) -> None:
    save_trained_on(tmp_path, TrainedOn.of(config_of(data, split_of(data)), split_of(data)))
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**content, **wrong}))
    with pytest.raises(CheckpointError, match=message):
        load_trained_on(tmp_path)


def test_the_own_split_is_answered_and_no_other(data: Path) -> None:
    split = split_of(data, "image_disjoint")
    model = saved(split, TrainedOn.of(config_of(data, split), split))
    for part in ("train", "validation", "test"):
        check_fits(model, split, part)
    for other in (split_of(data, "image_disjoint", seed=1), split_of(data, "image_disjoint", share=0.3)):
        with pytest.raises(ConfigError, match="trained on another split"):
            check_fits(model, other, "validation")


def test_another_name_does_not_hide_training_questions(data: Path) -> None:
    split = split_of(data, "image_disjoint")
    model = saved(split, TrainedOn.of(config_of(data, split), split))
    check_fits(model, split_of(data, "image_disjoint", name="copy"), "test")
    with pytest.raises(
        ConfigError, match=r"was trained on \d+ questions \(image and wording\) of the test part of copy"
    ):
        check_fits(model, split_of(data, "image_disjoint", seed=1, name="copy"), "test")


def test_without_a_record_only_the_official_test_part_is_answered(data: Path) -> None:
    strict, disjoint = split_of(data), split_of(data, "image_disjoint")
    check_fits(saved(strict, None), strict, "test")
    with pytest.raises(ConfigError, match="--split validation: it is not recorded"):
        check_fits(saved(strict, None), strict, "validation")
    with pytest.raises(ConfigError, match="--protocol image_disjoint: it is not recorded"):
        check_fits(saved(disjoint, None), disjoint, "test")


def test_the_questions_of_the_start_count_too(data: Path, tmp_path: Path) -> None:
    first, second = split_of(data, "image_disjoint"), split_of(data, "image_disjoint", seed=1)
    save_trained_on(tmp_path, TrainedOn.of(config_of(data, first), first))
    both = TrainedOn.of(config_of(data, second, init_from=str(tmp_path)), second)
    assert both.digests == Digests.of((*first.train, *second.train))
    with pytest.raises(ConfigError, match="was trained on"):
        check_fits(saved(second, both), second, "test")
    (tmp_path / FILE).unlink()  # of an older fine-tuning
    assert TrainedOn.of(config_of(data, second, init_from=str(tmp_path)), second).digests is None


def test_a_pre_training_asks_no_questions_but_hides_none_either(data: Path, tmp_path: Path) -> None:
    first, second = split_of(data, "image_disjoint"), split_of(data, "image_disjoint", seed=1)
    config = config_of(data, second, init_from=str(tmp_path))
    for record, known in (({}, True), ({"fine_tuned": False}, True), ({"fine_tuned": True}, False)):
        (tmp_path / "pretraining.json").write_text(json.dumps(record))
        digests = TrainedOn.of(config, second).digests
        assert digests == (Digests.of(second.train) if known else None)
    save_trained_on(tmp_path, TrainedOn.of(config_of(data, first), first))
    for record in ({}, {"fine_tuned": True}):
        (tmp_path / "pretraining.json").write_text(json.dumps(record))
        assert TrainedOn.of(config, second).digests == Digests.of((*first.train, *second.train))


def test_pre_trainings_come_along_and_older_records_do_not_know_them(data: Path, tmp_path: Path) -> None:
    split = split_of(data)
    assert TrainedOn.of(config_of(data, split), split).pretrainings == ()
    known = Pretraining("one", "medpix", "train", "f", 90, 10, (Excluded("data.exclude", "s", 3, 2, 4),))
    (tmp_path / "pretraining.json").write_text(json.dumps({"pretrainings": as_json((known,))}))
    config = config_of(data, split, init_from=str(tmp_path))
    record = TrainedOn.of(config, split)
    assert record.pretrainings == (known,)
    (tmp_path / "tuned").mkdir()
    save_trained_on(tmp_path / "tuned", record)
    assert load_trained_on(tmp_path / "tuned") == record
    assert (
        TrainingHistory.of(str(tmp_path / "tuned")).pretrainings
        == saved(split, record).recorded.pretrainings
        == (known,)
    )
    content = json.loads((tmp_path / "tuned" / FILE).read_text())
    content.pop("pretrainings")
    (tmp_path / "tuned" / FILE).write_text(json.dumps(content))
    assert (
        TrainingHistory.of(str(tmp_path / "tuned")).pretrainings
        == UNRECORDED
        == saved(split, None).recorded.pretrainings
    )
    (tmp_path / "pretraining.json").write_text("{}")
    assert TrainedOn.of(config, split).pretrainings == UNRECORDED
    for wrong, message in (
        ({}, '"pretrainings": Input should be a valid array'),
        ([{**as_json((known,))[0], "excluded": {}}], r'"pretrainings\.0\.excluded": Input should be a valid'),
        ([{"excluded": [], "stage": 1}], r'"pretrainings\.0\.stage": Input should be a valid string'),
        ([{**as_json((known,))[0], "excluded": [None]}], r'"pretrainings\.0\.excluded\.0": Input should be'),
    ):
        (tmp_path / "pretraining.json").write_text(json.dumps({"pretrainings": wrong}))
        with pytest.raises(CheckpointError, match=r"pretraining\.json is damaged: " + message):
            TrainedOn.of(config, split)


def test_pre_trainings_are_told_in_one_clause() -> None:
    bare = Pretraining("one", "medpix", "train", "f", 900, 100, excluded=())
    apart = replace(bare, excluded=(Excluded("data.exclude", "s", 20, 18, 82),))
    again = replace(apart, stage="two")
    assert describe(()) == "" and describe(UNRECORDED) == "pre-training not recorded"
    assert describe((bare,)) == "pre-trained on medpix train, nothing excluded"
    assert describe((apart, again)) == "pre-trained on medpix train, 18 cases with 82 images excluded"
    assert from_json(as_json((*UNRECORDED, bare, apart)), "x") == (*UNRECORDED, bare, apart)
    assert describe((*UNRECORDED, bare, apart)) == (
        "pre-trained on medpix train, nothing excluded, then on medpix train, 18 cases with 82 images excluded, "
        "what came before is not recorded"
    )


def test_images_are_known_again_by_their_ids(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    path = tmp_path / "data" / "testset.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row["question"] = "左肺 " + row["question"]
    path.write_text(json.dumps(rows))
    seen = Digests.of(split_of(tmp_path / "data").test) & Digests.of(split_of(data).test)
    assert len(seen.images) == 4 and not seen.questions
