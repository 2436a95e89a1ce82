"""What is trained is named by the configuration, and every task shares one engine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import Accelerator

from tests import REPOSITORY
from tests.training.data.test_data import configure
from training.arguments import last_given, read_config, to_yaml
from training.engine.checkpoint import CHECKPOINT, write_checkpoint
from training.engine.config import RunConfig
from training.engine.run_key import run_key
from training.engine.tracking import Tracker
from training.errors import CheckpointError, ConfigError
from training.med_vqa.finetune.config import PROTOCOLS, FinetuneConfig
from training.nb_clip.config import TrainConfig
from training.run import main as run
from training.tasks import TASKS, find_task
from training.vqa import protocols

REQUIRED = ["--output=o", "--data.dataset=vqa_rad", "--data.data_root=d"]


def finetuning(*arguments: str) -> FinetuneConfig:
    return read_config(FinetuneConfig, [*REQUIRED, *arguments])


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--policy.name=fixed_mass_softmax"], "333524728bdc045c11fbcd4b8defd3190f4daff83270c8338302025ba75286d4"),
        (["--loss.name=sigmoid", "--policy.name=fixed_mass", "--data.cached_views=2", "--model.lock_image=true",
          "--optim.max_logit_scale=50"],
         "a3a319019e52c2f8ff16719d00e79998933a72fc34225c9ebcccc878472b7e8f"),
    ],
)  # fmt: skip
def test_runs_that_were_finished_before_there_were_tasks_are_still_known(
    arguments: list[str], key: str
) -> None:
    assert run_key(configure(*arguments), ["store", "images"], 2) == key


def test_no_task_is_nb_clip_and_the_last_one_named_counts(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    assert find_task([]).config is TrainConfig
    assert find_task(["--task=nb_clip"]).config is TrainConfig
    file.write_text("seed: 3\n")
    assert find_task(["--config", str(file)]).config is TrainConfig
    file.write_text("task: med_vqa_finetune\nmodel: {preset: tiny}\n")
    assert find_task(["--config", str(file)]).config is FinetuneConfig
    assert find_task(["--config", str(file), "--task", "nb_clip"]).config is TrainConfig
    assert find_task(["--task=nb_clip", f"--config={file}"]).config is TrainConfig
    assert last_given("seed", ["--seed=1", "--config", str(file), "--optim.lr=2"]) == "1"


@pytest.mark.parametrize("given", ["pretraining", "", "7"])
def test_an_unknown_task_is_one_line_and_exit_code_2(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"task: {given or '[a]'}\n")
    for arguments in ([f"--task={given}"], ["--config", str(file)], [f"--task={given}", "--help"]):
        assert run(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: task: ") and error.count("\n") == 1
        assert error.endswith("is not one of nb_clip, med_vqa_finetune, med_vqa_pretrain\n")


def test_help_shows_the_fields_of_the_task_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("task: med_vqa_finetune\n")
    assert run(["--help"]) == 0
    ours = capsys.readouterr().out
    assert "--policy.name" in ours and "--data.protocol" not in ours
    for arguments in (["--task", "med_vqa_finetune", "--help"], ["-h", "--config", str(file)]):
        assert run(arguments) == 0
        theirs = capsys.readouterr().out
        assert "--data.protocol" in theirs and "--policy.name" not in theirs


def test_the_resolved_configuration_names_its_task_and_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    for config in (configure("--seed=4"), finetuning("--data.images=blank")):
        file.write_text(to_yaml(config))
        again = find_task(["--config", str(file)]).config
        assert again is type(config)
        assert read_config(again, ["--config", str(file)]) == config


def test_the_configuration_of_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='task: these are the fields of nb_clip, not of "med_vqa_finetune"'):
        configure("--task=med_vqa_finetune")


def test_the_help_of_every_task_loads_neither_torch_nor_numpy() -> None:
    check = (
        "import sys; from training.run import main; main(['--task=med_vqa_finetune', '--help']);"
        "sys.exit(bool({'numpy', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--data.protocol=loose", '"loose" is not one of paper, strict, image_disjoint'),
        ("--data.images=shuffled", '"shuffled" is not one of real, blank'),
        ("--data.validation_share=0.6", "data.validation_share: 0.6 must be"),
        ("--data.max_question_tokens=2", "data.max_question_tokens: 2 must be at least 3"),
        ("--data.max_answer_tokens=2", "data.max_answer_tokens: 2 must be at least 3"),
        ("--data.batch_size=0", "data.batch_size: 0 must be at least 1"),
        ("--data.cached_views=4", "set --model.lock_vision true"),
        ("--data.dataset=", "data.dataset is not set"),
        ("--data.data_root=", "data.data_root is not set"),
        ("--validate_every=0", "validate_every: 0 must be at least 1"),
        ("--optim.max_logit_scale=50", "not a config field"),
        ("--data.rotation=200", "data.rotation: 200"),
    ],
)
def test_wrong_fields_of_a_fine_tuning_are_named_in_one_line(argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        finetuning(argument)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_protocols_that_a_fine_tuning_offers_are_those_that_there_are() -> None:
    assert PROTOCOLS == protocols.PROTOCOLS


def test_where_data_lie_is_no_part_of_a_fine_tunings_key() -> None:
    plain = run_key(finetuning(), ["questions"], 2)
    assert (
        run_key(finetuning("--data.data_root=e", "--data.dataset=a.yaml", "--output=p"), ["questions"], 2)
        == plain
    )
    assert run_key(finetuning("--data.protocol=paper"), ["questions"], 2) != plain
    assert run_key(finetuning(), ["others"], 2) != plain


def test_a_checkpoint_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    def write(text: str, fail: bool = False) -> None:
        def fill(folder: Path) -> None:
            (folder / "weights").write_text(text)
            if fail:
                raise OSError(28, "No space left on device")

        write_checkpoint(tmp_path, fill)

    write("first")
    with pytest.raises(CheckpointError, match="the disk is full"):
        write("second", fail=True)
    assert (tmp_path / CHECKPOINT / "weights").read_text() == "first"
    write("third")
    assert (tmp_path / CHECKPOINT / "weights").read_text() == "third"
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_the_log_counts_throughput_in_the_tasks_own_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Tracker(Accelerator(cpu=True), tmp_path, total_steps=2, every=1, unit="questions") as tracker:
        tracker.advance(64)
        tracker.step(1, {"loss": 0.5}, waited=0.0)
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["questions_per_s"] > 0 and "images_per_s" not in line
    assert "questions/s" in capsys.readouterr().err


def test_every_task_configures_a_run() -> None:
    for entry in TASKS.values():
        assert issubclass(entry.config, RunConfig)
