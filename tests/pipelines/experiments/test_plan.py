"""A plan is the commands a user could type, and says what is up to date, left out or not comparable."""

from pathlib import Path
from typing import Any

import pytest

from kg_targets.errors import ConfigError, DataError
from pipelines.experiments.job import Job, KeyedJob
from pipelines.experiments.med_vqa import FINETUNE, PRETRAIN, SCORE, MedVQAPlan
from pipelines.experiments.plan import keep_finished
from pipelines.experiments.retrieval import RetrievalPlan
from pipelines.experiments.tasks import plan_of, read_grid
from tests.builds import build
from tests.pipelines.experiments.grids import changed, med_vqa, retrieval, written
from tests.processes import kg_targets
from training.arguments import to_yaml
from training.engine.checkpoint import CONFIG, FINISHED
from training.med_vqa.finetune.config import FinetuneConfig
from training.med_vqa.pretrain.config import PretrainConfig

main = kg_targets("tables")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(content: Any = None, only: tuple[str, ...] = ()) -> MedVQAPlan:
    found = plan_of(read_grid(written(content or med_vqa())), Path("out"), 1, 1, only)
    assert isinstance(found, MedVQAPlan)
    return found


def rounds(of: MedVQAPlan, stage: str) -> list[list[Job]]:
    return [list(jobs()) for _, jobs in of.rounds(stage)]


def options(command: tuple[str, ...]) -> dict[str, str]:
    given = command[2:]
    return dict(zip(given[::2], given[1::2], strict=True))


def test_variants_over_other_images_are_refused(tmp_path: Path) -> None:
    found = plan_of(read_grid(written(retrieval())), tmp_path / "out", 1, 1)
    assert isinstance(found, RetrievalPlan)
    for variant, captions in (("ontology", ("CT of the chest.",) * 4), ("none", ("CT of the chest.",) * 6)):
        store = build(tmp_path / variant, captions)
        place = found.store(variant, "fold0", "train")
        place.parent.mkdir(parents=True)
        Path(store.path).rename(place)
    with pytest.raises(DataError, match="does not hold the images and cases of"):
        found.before("runs")


def test_rows_become_a_chain_of_runs_each_of_which_goes_on_from_the_one_before() -> None:
    found = plan(only=("kg",))
    (first, _), (second, _) = rounds(found, PRETRAIN)
    one, two = options(first.command), options(second.command)
    assert one["--output"] == "out/pretrain/kg-stage1-seed0" and "--model.init_from" not in one
    assert one["--soft_labels"] == '[{"store": "out/stores/kg/train", "policy": "evidence"}]'
    assert (two["--output"], two["--model.init_from"]) == ("out/pretrain/kg-stage2-seed0", one["--output"])
    assert [str(path) for path in second.needs] == [
        "out/stores/kg",
        "out/pretrain/kg-stage1-seed0/finished.json",
    ]
    tuned = [options(job.command) for job in rounds(found, FINETUNE)[0]]
    assert [one["--output"] for one in tuned[:3]] == [
        "out/runs/kg-strict-seed0", "out/runs/kg-image_disjoint-fold1-seed0", "out/runs/kg-image_disjoint-fold2-seed0",
    ]  # fmt: skip
    assert [one["--model.init_from"] for one in tuned] == [
        f"out/pretrain/kg-stage2-seed{s}" for s in (0, 0, 0, 1, 1, 1)
    ]
    assert tuned[1]["--data.split_seed"] == "1" and tuned[1]["--data.protocol"] == "image_disjoint"
    configs = [job.config() for job in (*found.pretraining_jobs(1), *found.finetuning_jobs())]
    assert isinstance(configs[0], PretrainConfig) and configs[0].soft_labels[0].policy == "evidence"
    assert (
        isinstance(configs[-1], FinetuneConfig)
        and configs[-1].model.init_from == "out/pretrain/kg-stage2-seed1"
    )


def test_one_pretraining_can_serve_every_seed() -> None:
    found = plan({**med_vqa(), "pretrain_seeds": [7]}, ("kg",))
    assert [job.name for job in rounds(found, PRETRAIN)[0]] == ["kg-stage1-seed7"]
    starts = {options(job.command)["--model.init_from"] for job in rounds(found, FINETUNE)[0]}
    assert starts == {"out/pretrain/kg-stage2-seed7"}


def test_controls_are_a_twin_without_images_and_answers_to_other_images() -> None:
    found = plan(only=("plain",))
    runs = {job.name: options(job.command)["--data.images"] for job in rounds(found, FINETUNE)[0]}
    assert len(runs) == 12 and runs["plain-strict-seed1"] == "real"
    assert runs["plain-question_only-strict-seed1"] == "blank"
    scores = {job.name: " ".join(job.command) for job in found.scores()[3:]}
    assert len(scores) == 18
    assert (
        "--images shuffled --seed 1 --name plain --out out/scores/plain-strict-seed1-shuffled"
        in scores["plain-strict-seed1-shuffled"]
    )
    assert "--images" not in scores["plain-question_only-strict-seed1"]
    baselines = [" ".join(job.command) for job in rounds(found, SCORE)[0][:3]]
    assert "--protocol image_disjoint --split-seed 2 --validation-share 0.1" in baselines[2]


def test_a_finished_pretraining_of_the_same_settings_is_kept_and_one_of_others_is_not_replaced_unasked() -> (
    None
):
    job = plan(only=("kg",)).pretraining_jobs(0)[0]
    job.folder.mkdir(parents=True)
    (job.folder / FINISHED).write_text("{}")
    (job.folder / CONFIG).write_text(to_yaml(job.config()))
    keep_finished([job], settings_only=True)
    content = changed("med_vqa", "rows/kg/pretrain", {"set": {"loss.lambda_weight": 1}})
    other = plan(content, ("kg",)).pretraining_jobs(0)
    with pytest.raises(ConfigError, match=r"1 finished run .*kg-stage1-seed0 \(soft_labels was"):
        keep_finished(other, settings_only=True)


def test_every_fold_trains_with_seeds_of_its_own() -> None:
    jobs = {job.name: job.settings["seed"] for job in plan().finetuning_jobs()}
    assert [jobs[f"plain-strict-seed{seed}"] for seed in (0, 1)] == [0, 1]
    for fold in (1, 2):
        found = [jobs[f"plain-image_disjoint-fold{fold}-seed{seed}"] for seed in (0, 1)]
        assert found == [1000 * fold, 1000 * fold + 1]


def test_stores_are_made_by_their_commands_in_the_order_of_the_grid() -> None:
    Path("models/clip").mkdir(parents=True)
    (kg,), (teacher,) = rounds(plan(), "stores")
    assert kg.command[0].endswith("kg-targets")
    assert kg.command[1:] == ("build", "demo", "--data-root", "data", "--out", "out/stores/kg")
    assert teacher.command[1].endswith("training/run.py")
    assert teacher.command[2:] == (
        *("--data.train_store", "out/stores/kg/train", "--output", "out/stores/teacher"),
    )
    assert teacher.needs == (Path("out/stores/kg"),)
    for job in (kg, teacher):
        assert isinstance(job, KeyedJob)
        job.begins()
        job.made.mkdir()
        job.ended(1.0, True)
    assert teacher.is_current() and not kg.is_current()  # kg-targets looks for itself
    content = med_vqa()
    content["stores"]["teacher"]["command"] += " --seed 1"
    assert not rounds(plan(content), "stores")[1][0].is_current()


def test_rows_that_need_what_is_not_there_are_told_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([written(med_vqa()), "--out", "out", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert told.err == "row teacher is not run, models/clip is not there: fetch it\n"
    assert "teacher" not in told.out
    assert main(["tiny.yaml", "--only", "teacher"]) == 2
    assert "no row can be run; teacher needs models/clip: fetch it" in capsys.readouterr().err
    Path("models/clip").mkdir(parents=True)
    assert main(["tiny.yaml", "--only", "teacher", "--dry-run"]) == 0
    assert "teacher-stage1-seed0" in capsys.readouterr().out


def test_rows_that_would_be_asked_other_questions_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [written(changed("med_vqa", "rows/kg/set", {"data.validation_share": 0.3})), "--only", "plain,kg"]
        )
        == 2
    )
    assert "rows plain and kg have another data.validation_share" in capsys.readouterr().err
