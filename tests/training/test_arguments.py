"""Configurations from files and flags: strict, documented, and every error is one line that names the field."""

import dataclasses
from pathlib import Path

import pytest

from tests.training.data.test_data import configure
from training.arguments import config_parser, read_config, to_yaml
from training.errors import ConfigError
from training.med_vqa.pretrain.config import PretrainConfig
from training.nb_clip.config import TrainConfig
from training.tasks import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_every_field_of_every_task_is_documented_with_its_default(name: str) -> None:
    parser = config_parser(TASKS[name].config, "run")
    shown = [action for action in parser._actions if action.dest not in ("help", "config", "print_config")]
    fields = [action for action in shown if action.metavar != "CONFIG" and not action.dest.endswith(".help")]
    assert len(fields) > 30
    assert [action.dest for action in fields if not action.help] == []
    assert "(type: int, default: 20)" in " ".join(parser.format_help().split())


def test_the_names_of_a_family_are_those_of_its_registry(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_config(TrainConfig, ["--help"])
    assert "semantic_matching (" in capsys.readouterr().out


def test_the_fields_of_a_list_have_a_help_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_config(PretrainConfig, ["--soft_labels.help"])
    assert "--soft_labels.saturation" in capsys.readouterr().out


def test_later_files_override_earlier_ones_and_flags_override_files_and_the_resolved_yaml_reads_back(
    tmp_path: Path,
) -> None:
    file, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    file.write_text("output: x\noptim: {lr: 1e-3, epochs: 3}\ndata: {train_store: t, data_root: d}\n")
    other.write_text("optim: {warmup: 0.2}\nseed: 4\n")
    given = ["--seed=6", "--config", str(file), "--optim.epochs", "5", f"--config={other}"]
    config = read_config(TrainConfig, given)
    assert dataclasses.astuple(config.optim)[:4] == (5, None, 1e-3, 0.2)
    assert (config.output, config.seed, config.policy.alpha) == ("x", 6, 0.7)
    file.write_text(to_yaml(config))
    assert read_config(TrainConfig, ["--config", str(file)]) == config


def test_the_printed_configuration_is_the_resolved_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        configure("--optim.lr=1e-5", "--print_config")
    assert not stop.value.code
    assert capsys.readouterr().out == to_yaml(configure("--optim.lr=1e-5"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--optim.learning_rate=1", "not a config field"),
        ("--optim.lrr=1", '"optim.lrr" is not a config field of nb_clip (did you mean "optim.lr"?)'),
        ("--optim.l=1", "not a config field"),
        ("--optim.epochs=1.5", 'optim.epochs must be an integer, got "1.5"'),
        ("--optim.epochs=true", "optim.epochs must be an integer"),
        ("--optim.max_steps=x", 'optim.max_steps must be an integer or null, got "x"'),
        ("--optim.lr=", 'optim.lr must be a number, got ""'),
        ("--config", "--config has no value"),
        ("--config=training", "training is a folder"),
        ("--optim.lr=fast", 'command line: optim.lr must be a number, got "fast"'),
        ("--optim.lr=.nan", "optim.lr: nan must be at least"),
        ("--data.in_memory=maybe", "data.in_memory must be true or false"),
        ("--seed", "--seed: expected one argument"),
        ("seed=1", "unrecognized arguments: seed=1"),
        ("--optim=3", "optim"),
        ("--loss.name=mse2", '"mse2" is not one of semantic_matching, info_nce'),
        ("--policy.alpha=1.2", "policy.alpha: 1.2 must be at least 1e-06 and at most 1"),
        ("--data.dev_store=t", "data.dev_store and data.train_store are the same"),
        ("--select=recall@5", "is not cui@K or p@K"),
    ],
)
def test_wrong_options_are_named_in_one_line(argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(argument)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("output: [", "c.yaml: not valid YAML"),
        ("- a", "c.yaml: expected a mapping"),
        ("optim: {lr: 1, speed: 2}", 'c.yaml: "optim.speed" is not a config field'),
        ("optim: {lr: fast}", 'c.yaml: optim.lr must be a number, got "fast"'),
        ("sede: 1", 'c.yaml: "sede" is not a config field of nb_clip (did you mean "seed"?)'),
        ("output: 5", "c.yaml: output must be text"),
        ("optim: {class_path: this.S}", "c.yaml: "),
        ("loss: info_nce", "c.yaml: loss is a group of fields: write loss: {field: value}"),
        ("loss: null", "c.yaml: loss is a group of fields"),
        ("optim: other.yaml", "c.yaml: optim is a group of fields"),
        ("optim: {lr: }", "c.yaml: optim.lr is empty: give a value, or leave it out"),
        ("seed:", "c.yaml: seed is empty"),
        ("config: /etc/hostname", 'c.yaml: "config" is not a config field'),
    ],
)
def test_wrong_yaml_is_named_in_one_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_config(TrainConfig, ["--config", str(tmp_path / "c.yaml")])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_cannot_have_a_module_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "output: o\ndata: {store: s, data_root: d}\nsoft_labels: [{class_path: this.S, init_args: {}}]\n"
    )
    with pytest.raises(ConfigError, match=r"soft_labels: class_path is not accepted"):
        read_config(PretrainConfig, ["--config", str(file)])
    assert not capsys.readouterr().out  # the module prints a poem


def test_optional_fields_take_null_and_text_stays_text() -> None:
    config = configure("--optim.clip_norm=null", "--data.dev_store=7", "--output=007")
    assert config.optim.clip_norm is None and config.data.dev_store == "7" and config.output == "007"


def test_files_and_flags_with_a_fields_former_name_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "stage: two\noutput: x\nmodel: {start: before, dropout: 1e-1}\ndata: {store: s, data_root: d}\n"
    )
    labels = "--soft_labels=[{store: a}]"
    config = read_config(PretrainConfig, ["--config", str(file), labels])
    assert (config.model.init_from, config.model.dropout) == ("before", 0.1)
    for flag in (["--model.start=other"], ["--model.start", "other"]):
        assert read_config(PretrainConfig, [f"--config={file}", labels, *flag]).model.init_from == "other"
