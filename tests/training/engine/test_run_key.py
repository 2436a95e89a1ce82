"""What tells runs apart, and how the one that is in the way is described."""

import json
import shutil
from pathlib import Path

import pytest

from tests.training.data.test_data import configure
from training.arguments import FORM, read_config, to_yaml
from training.engine.checkpoint import CHECKPOINT, CONFIG, FINISHED, RUN, Start, how_to_start, start_run
from training.engine.run_key import other_settings, run_key, threads_by_key
from training.errors import CheckpointError
from training.med_vqa.pretrain.config import PretrainConfig
from training.nb_clip.config import TrainConfig

DATA = {"data.train_store": "0" * 64, "the images of data.train_store": "1" * 64}


def test_run_key_counts_threads_as_resolved_and_data_as_given() -> None:
    plain = run_key(configure(), ["store", "images"], 2)
    assert run_key(configure("--threads=2"), ["store", "images"], 2) == plain
    assert run_key(configure(), ["store", "images"], 1) != plain
    assert run_key(configure(), ["store", "others"], 2) != plain


def test_fields_newer_than_the_key_leave_it_as_it_was_unless_they_do_something() -> None:
    key = "37f2da2d3b8e443168ea99a5bd6b9aeb5af2e8d923f9f56b7d584b3ddb39e5d9"  # by version 0.2.0
    former = "--policy.name=fixed_mass_softmax"  # the default then, called fixed_mass
    assert run_key(configure(former), ["store"], 1) == key
    assert run_key(configure(former, "--data.long_captions=truncate"), ["store"], 1) == key
    assert run_key(configure(former, "--data.long_captions=sentences"), ["store"], 1) != key
    assert run_key(configure(former, "--data.in_memory=true", "--tf32=false"), ["store"], 1) == key
    assert run_key(configure(former, "--tf32=true"), ["store"], 1) != key
    assert run_key(configure(), ["store"], 1) != key


def test_a_run_whose_loss_reads_no_policy_has_the_key_that_it_had() -> None:
    key = "5faf63102acd103abbf44f62e2ac229e0bb2579bd12e855223aa218d8e0f0efa"  # before fixed_mass changed
    for policy in ("fixed_mass", "fixed_mass_softmax"):  # the default then; none is read
        assert run_key(configure("--loss.name=info_nce", f"--policy.name={policy}"), ["store"], 1) == key


@pytest.mark.parametrize(("form", "name"), [({}, "fixed_mass_softmax"), ({"form": FORM}, "fixed_mass")])
def test_the_saved_configuration_of_an_older_run_keeps_its_meaning_and_is_named_in_the_message(
    form: dict[str, int], name: str, tmp_path: Path
) -> None:
    config = begun(tmp_path / "run", "--policy.name=fixed_mass")
    (tmp_path / "run" / RUN).write_text(json.dumps({"key": "older", **form}))
    assert read_config(TrainConfig, ["--config", str(tmp_path / "run" / CONFIG)]).policy.name == name
    shutil.copy(tmp_path / "run" / CONFIG, tmp_path / "mine.yaml")  # a person's file means today's policy
    assert read_config(TrainConfig, ["--config", str(tmp_path / "mine.yaml")]).policy.name == "fixed_mass"
    named = (
        "policy.name was fixed_mass_softmax, is now fixed_mass: --policy.name fixed_mass_softmax continues"
    )
    with pytest.raises(CheckpointError) as error:
        how_to_start(config, DATA, 4)
    assert (named in str(error.value)) == (name == "fixed_mass_softmax")


def test_soft_labels_of_an_older_run_keep_their_policies(tmp_path: Path) -> None:
    (tmp_path / RUN).write_text("{}")
    labels = "soft_labels: [{store: a, policy: fixed_mass}, {store: b, policy: softmax}, {store: c}]"
    (tmp_path / CONFIG).write_text(labels)
    options = ("--config", str(tmp_path / CONFIG), "--output=o", "--data.store=a", "--data.data_root=b")
    found = read_config(PretrainConfig, options).soft_labels
    assert [one.policy for one in found] == ["fixed_mass_softmax", "softmax", None]


def test_a_key_tells_its_number_of_threads_where_all_else_is_the_same() -> None:
    key = run_key(configure(), ["store"], 96)
    assert threads_by_key(key, configure("--threads=4"), ["store"]) == 96
    assert threads_by_key(key, configure("--seed=9"), ["store"]) is None
    assert threads_by_key(key, configure(), ["other"]) is None


def begun(output: Path, *arguments: str, threads: int = 4) -> TrainConfig:
    config = configure(f"--output={output}", *arguments)
    start_run(config, DATA, threads)
    return config


def finished(output: Path) -> None:
    (output / CHECKPOINT).mkdir()
    (output / CHECKPOINT / "model.safetensors").write_bytes(b"")
    shutil.copy(output / RUN, output / FINISHED)


def test_a_finished_run_is_known_on_a_machine_with_other_cores_and_replaced_if_told_to(
    tmp_path: Path,
) -> None:
    config = begun(tmp_path / "run")
    finished(tmp_path / "run")
    assert how_to_start(config, DATA, 4) == (Start.FINISHED, 4)
    assert how_to_start(config, DATA, 2) == (Start.FINISHED, 4)
    replacing = configure(f"--output={tmp_path / 'run'}", "--overwrite=true")
    assert how_to_start(replacing, DATA, 4) == (Start.FINISHED, 4)
    assert how_to_start(replacing, DATA, 2) == (Start.FRESH, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--optim.lr=0.5",),
         r"holds an unfinished run: optim.lr was 0.001, is now 0.5: --optim.lr 0.001 continues it; "
         r"else choose another --output, or --overwrite true to replace it"),
        (("--optim.lr=0.5", "--seed=3", "--policy.name=softmax"),
         r"seed was 0, is now 3 and 2 more field\(s\) differ: --seed 0 --optim.lr 0.001 --policy.name evidence cont"),
        (("--optim.max_steps=5",), r"optim.max_steps was None, is now 5: --optim.max_steps null continues it"),
        (("--threads=7", "--seed=3"), r"run: seed was 0, is now 3: --seed 0 continues"),
    ],
)  # fmt: skip
def test_the_field_that_differs_is_named_with_both_values_and_what_to_type(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    begun(tmp_path / "run")
    with pytest.raises(CheckpointError, match=message):
        how_to_start(configure(f"--output={tmp_path / 'run'}", *arguments), DATA, 4)


def test_of_a_finished_run_no_flag_continues(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    finished(tmp_path / "run")
    with pytest.raises(
        CheckpointError, match=r"a finished run: seed was 0, is now 3: choose another --output"
    ):
        how_to_start(configure(f"--output={tmp_path / 'run'}", "--seed=3"), DATA, 4)


def test_data_that_differ_are_named_with_both_digests(tmp_path: Path) -> None:
    config = begun(tmp_path / "run")
    others = DATA | {"the images of data.train_store": "2" * 64}
    with pytest.raises(
        CheckpointError,
        match=r"run: the digest of the images of data.train_store was 111111111111, is now 222222222222: choose",
    ):
        how_to_start(config, others, 4)
    with pytest.raises(CheckpointError, match=r"digest of data.dev_store was absent, is now 333333333333"):
        how_to_start(config, DATA | {"data.dev_store": "3" * 64}, 4)


def test_a_run_that_did_not_note_its_data_is_refused_in_one_line(tmp_path: Path) -> None:
    config = begun(tmp_path / "run", "--policy.name=fixed_mass_softmax")
    content = json.loads((tmp_path / "run" / RUN).read_text())
    (tmp_path / "run" / RUN).write_text(json.dumps({"key": content["key"]}))  # as version 0.2.0 wrote it
    assert how_to_start(config, DATA, 2) == (Start.FRESH, 2)
    with pytest.raises(
        CheckpointError, match="an unfinished run of other stores, images, questions or weights: choose"
    ):
        how_to_start(config, DATA | {"data.train_store": "2" * 64}, 4)


def test_a_run_of_another_task_is_named_by_its_task(tmp_path: Path) -> None:
    path = tmp_path / CONFIG
    path.write_text(to_yaml(configure()).replace("task: nb_clip", "task: med_vqa_finetune"))
    (difference,) = other_settings(path, configure())
    assert str(difference) == "task was med_vqa_finetune, is now nb_clip"
    path.write_text("[]")
    assert other_settings(path, configure()) == []
