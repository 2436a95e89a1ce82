"""What a model saw before its last fine-tuning, through pre-training and fine-tuning runs: refused and recorded."""

import json
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from tests.processes import kg_targets
from tests.training.med_vqa.pretrain.world import pretrain_arguments, stage_two, write_pretrain_world
from tests.training.vqa.world import finetune_arguments
from training.med_vqa.model.history import FILE
from training.run import main as train
from training.vqa.predictions import read_predictions, write_predictions

evaluate = kg_targets("evaluate vqa")

pytestmark = pytest.mark.e2e
SHORT = ("--optim.max_steps=1", "--data.dev_share=0")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pretrain_world(tmp_path_factory.mktemp("past") / "world")


def run(arguments: list[str]) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    assert train(arguments) == 0


def tuned(world: Path, output: Path, *extra: str) -> Path:
    run(finetune_arguments(world, output, "--optim.max_steps=1", *extra))
    return output


def score(world: Path, model: Path, out: Path, *extra: str) -> int:
    data = ["--dataset", "vqa_rad", "--data-root", str(world / "data"), "--mode", "generate"]
    return evaluate(["--model", str(model), *data, "--out", str(out), *extra])


def test_a_pre_training_between_two_fine_tunings_hides_no_question(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tuned(world, tmp_path / "first")
    one, two = tmp_path / "one", tmp_path / "two"
    run(pretrain_arguments(world, one, f"--model.init_from={first}", *SHORT))
    assert "warning: model.init_from" in (told := capsys.readouterr().err) and "has no heads" in told
    run(pretrain_arguments(world, two, *stage_two(one), *SHORT))
    for name, start in (("direct", first), ("over-one", one), ("over-two", two)):
        cut = ("--data.protocol=image_disjoint", "--data.split_seed=1", f"--model.init_from={start}")
        model = tuned(world, tmp_path / name, *cut)
        capsys.readouterr()
        assert score(world, model, tmp_path / f"{name}-scores") == 2
        assert (
            "the model was trained on" in (error := capsys.readouterr().err) and "of the test part" in error
        )
        assert not (tmp_path / f"{name}-scores").exists()

    (first / "checkpoint" / FILE).unlink()  # as of an older fine-tuning
    unknown = tmp_path / "unknown"
    run(pretrain_arguments(world, unknown, f"--model.init_from={first / 'checkpoint'}", *SHORT))
    model = tuned(world, tmp_path / "over-unknown", f"--model.init_from={unknown}")
    assert json.loads((model / "checkpoint" / FILE).read_text())["digests"] is None
    assert score(world, model, tmp_path / "scores") == 0
    streams = capsys.readouterr()
    assert "has no record of its training questions" in streams.err
    assert "pre-trained on tiny train, nothing excluded, what came before is not recorded" in streams.out
    facts = read_predictions(tmp_path / "scores" / "predictions.csv").metadata
    assert facts["questions_trained_on"] is None and facts["pretrainings"][0] is None


def test_what_pre_trainings_saw_is_in_the_model_its_data_and_its_predictions(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cases.txt").write_text("case1\nelsewhere\ncase3\n")
    (tmp_path / "empty.txt").write_text("\n")
    one, two = tmp_path / "one", tmp_path / "two"
    run(pretrain_arguments(world, one, f"--data.exclude={tmp_path / 'cases.txt'}", *SHORT))
    capsys.readouterr()
    run(pretrain_arguments(world, two, *stage_two(one, f"--data.exclude={tmp_path / 'empty.txt'}"), *SHORT))
    warned = "warning: the list of excluded cases is empty: nothing is left out\npre-training tiny, stage two"
    assert warned in capsys.readouterr().err
    over_one, over_two = (
        tuned(world, tmp_path / name, f"--model.init_from={start}")
        for name, start in (("over-one", one), ("over-two", two))
    )
    stage_one, stage_two_ = json.loads((over_two / "data.json").read_text())["pretrainings"]
    data = json.loads((one / "data.json").read_text())
    assert (stage_one["stage"], stage_one["dataset"], stage_one["split"]) == ("one", "tiny", "train")
    assert stage_one["store"] == data["train"]["fingerprint"] and stage_one["excluded"] == data["excluded"]
    assert (stage_one["images"], stage_one["dev_images"], stage_two_["images"]) == (20, 0, 24)
    assert [made["cases_listed"] for made in stage_two_["excluded"]] == [0]
    for model, told, stages in (
        (over_one, "pre-trained on tiny train, 2 cases with 4 images excluded; ", 1),
        (over_two, "4 images excluded, then on tiny train, nothing excluded; ", 2),
        (tuned(world, tmp_path / "plain"), "images real; ", 0),
    ):
        assert score(world, model, tmp_path / f"{model.name}-scores") == 0
        assert told in (header := capsys.readouterr().out) and ("pre-train" in header) == bool(stages)
        facts = read_predictions(tmp_path / f"{model.name}-scores" / "predictions.csv").metadata
        assert facts["pretrainings"] == [stage_one, stage_two_][:stages]
        assert facts["questions_trained_on"] == 0


def test_what_was_made_before_pre_trainings_were_recorded_is_read_as_unknown(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tuned(world, tmp_path / "model")
    record = model / "checkpoint" / FILE
    content = json.loads(record.read_text())
    assert content.pop("pretrainings") == []
    record.write_text(json.dumps(content))
    assert score(world, model, tmp_path / "scores") == 0
    assert "images real; pre-training not recorded; " in capsys.readouterr().out
    file = tmp_path / "scores" / "predictions.csv"
    predictions = read_predictions(file)
    assert predictions.metadata.pop("pretrainings") == [None]
    write_predictions(file, predictions)
    assert score(world, model, tmp_path / "scores") == 0
    told = capsys.readouterr().out
    assert "images real; pre-training not recorded; " in told and "up to date" in told
