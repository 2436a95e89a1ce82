"""Fields of a pre-training, lists of sources in YAML and on the command line, and cases that are left out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kg_targets.manifest import ExcludedCases
from kg_targets.store import TargetStore
from tests.training.tiny import write_store
from training.arguments import read_config, to_yaml
from training.engine.run_key import run_key
from training.errors import ConfigError, DataError
from training.med_vqa.pretrain import config as config_module
from training.med_vqa.pretrain.config import PretrainConfig, SoftLabelConfig
from training.med_vqa.pretrain.corpus import Exclusions, dev_rows

REQUIRED = ["--output=o", "--data.store=s", "--data.data_root=d"]


def pretraining(*arguments: str) -> PretrainConfig:
    return read_config(PretrainConfig, [*REQUIRED, *arguments])


def test_a_list_of_sources_is_read_from_yaml_and_from_the_command_line_and_written_back(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("soft_labels:\n  - {store: a, weight: 2}\n  - {teacher: 'open_clip:x', policy: eq5}\n")
    config = pretraining("--config", str(file))
    assert config.soft_labels == (
        SoftLabelConfig(store="a", weight=2.0),
        SoftLabelConfig(teacher="open_clip:x", policy="eq5"),
    )
    assert (
        pretraining("--soft_labels=[{store: a, weight: 2}, {teacher: 'open_clip:x', policy: eq5}]") == config
    )
    file.write_text(to_yaml(config))
    assert read_config(PretrainConfig, ["--config", str(file)]) == config
    assert pretraining("--config", str(file), "--soft_labels=[]").soft_labels == ()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--soft_labels=[{stoer: a}]", 'did you mean "soft_labels.store"?'),
        ("--soft_labels=[{store: a, weight: much}]", "soft_labels.weight must be a number"),
        ("--soft_labels={store: a}", "soft_labels must be a list"),
        ("--soft_labels=[a]", "soft_labels must be a mapping of its fields"),
        ("--soft_labels=[{store: a, teacher: b}]", "names either a store or a teacher"),
        ("--soft_labels=[{weight: 1}]", "names either a store or a teacher"),
        ("--soft_labels=[{store: a, policy: same_case}]", 'soft_labels.policy: "same_case" is not one of'),
        ("--soft_labels=[{store: a, weight: 0}]", "no source has a weight above 0"),
        ("--soft_labels=[{store: a, weight: -0.5}]", "soft_labels.weight: -0.5 must be at least 0"),
        ("--soft_labels=[{store: a, weight: .nan}]", "soft_labels.weight: nan must be at least 0"),
        ("--stage=three", '"three" is not one of one, two'),
        ("--data.views=flip", '"flip" is not one of augment, study'),
        ("--data.dev_share=0.7", "data.dev_share: 0.7"),
        ("--data.store=", "data.store is not set"),
        ("--data.exclude=", "data.exclude is empty"),
        ("--model.init_from=", "model.init_from is empty"),
        ("--loss.lambda_space=odds", '"odds" is not one of logit, cosine'),
        ("--loss.tau_views=0", "loss.tau_views: 0.0"),
        ("--loss.match_share=0", "loss.match_share: 0.0"),
        ("--loss.beta=0.01", "loss.beta: 0.01"),
        ("--data.in_memory=false --data.views=study", "set --data.in_memory true"),
        ("--model.lock_vision=true --data.cached_views=1", "keep at least 2"),
        ("--loss.learn_temperatures=true --loss.tau_texts=5", "loss.tau_texts with loss.learn_temperatures"),
    ],
)
def test_wrong_fields_are_named_in_one_line(argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pretraining(*(argument.split(" --") if argument.count("--") == 1 else argument.split()))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_names_that_the_configuration_repeats_are_those_of_the_code() -> None:
    from kg_targets.losses.registry import POLICIES

    assert set(config_module.POLICIES) - {config_module.EQ5} <= set(POLICIES)


def test_where_things_lie_is_no_part_of_a_runs_key() -> None:
    def key(*arguments: str) -> str:
        return run_key(pretraining(*arguments), ["data"], 1)

    plain = key("--soft_labels=[{store: a}]", "--model.init_from=x", "--data.exclude=e")
    assert (
        key("--soft_labels=[{store: b}]", "--model.init_from=y", "--data.exclude=f", "--data.store=z")
        == plain
    )
    assert key("--soft_labels=[{store: a, policy: eq5}]") != plain
    assert key("--soft_labels=[{teacher: a}]") != plain
    assert key("--stage=two", "--model.init_from=x", "--soft_labels=[{store: a}]") != plain


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    folder = tmp_path_factory.mktemp("store")
    return TargetStore.open(write_store(folder / "store", folder, "train"))


def test_a_list_of_excluded_cases_says_what_of_it_was_there(store: TargetStore, tmp_path: Path) -> None:
    file = tmp_path / "cases.txt"
    file.write_text("case2\n\n case0 \nelsewhere\ncase2\n")
    found = Exclusions.read(str(file), store)
    assert found.found == ("case0", "case2") and not found.empty
    assert np.flatnonzero(~found.kept(store)).tolist() == [0, 1, 4, 5]
    assert found.describe() == "2 cases with 4 images excluded, 1 listed ones are not in this store"
    (made,) = found.made
    assert (made.by, made.sha256) == ("data.exclude", ExcludedCases.read(file).digest())
    assert (made.cases_listed, made.cases_found, made.images) == (3, 2, 4)
    assert Exclusions.read(None, store).kept(store).all() and not Exclusions.read(None, store).made


def test_an_empty_list_is_told(store: TargetStore, tmp_path: Path) -> None:
    file = tmp_path / "cases.txt"
    file.write_text(" \n\n")
    found = Exclusions.read(str(file), store)
    assert found.empty and found.describe() == "the list of excluded cases is empty: nothing is left out"
    assert found.kept(store).all() and [made.cases_listed for made in found.made] == [0]
    assert not Exclusions.read(None, store).empty and Exclusions.read(None, store).describe() == ""


def test_a_store_built_without_the_cases_of_the_same_list_has_nothing_left_to_exclude(
    store: TargetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cases.txt"
    file.write_text("gone\n")
    facts = {"cases_listed": 1, "cases_found": 1, "images": 3, "sha256": ExcludedCases.read(file).digest()}
    monkeypatch.setitem(store.manifest, "excluded", facts)
    found = Exclusions.read(str(file), store)
    assert found.describe() == "1 cases with 3 images were excluded when the store was built"
    (made,) = found.made
    assert (made.by, made.images) == ("kg-targets build", 3) and found.kept(store).all()
    assert Exclusions.read(None, store).made == (made,)  # whether the list is named again or not
    file.write_text("case1\n")
    both = Exclusions.read(str(file), store)
    assert [one.by for one in both.made] == ["kg-targets build", "data.exclude"]
    assert both.describe() == (
        "1 cases with 3 images were excluded when the store was built; 1 cases with 2 images excluded"
    )
    file.write_text("gone\nanother\n")
    with pytest.raises(DataError, match="has none of them"):
        Exclusions.read(str(file), store)


def test_a_list_that_cannot_be_of_this_data_set_is_refused(store: TargetStore, tmp_path: Path) -> None:
    file = tmp_path / "cases.txt"
    file.write_text("PMC1\nPMC2\n")
    with pytest.raises(DataError, match=r"names 2 case\(s\) and .* has none of them, not PMC1, PMC2"):
        Exclusions.read(str(file), store)
    with pytest.raises(DataError, match="--exclude-out FILE"):
        Exclusions.read(str(tmp_path / "absent.txt"), store)


def test_the_dev_part_is_whole_cases_and_does_not_depend_on_the_others() -> None:
    groups = [f"case{row // 3}" for row in range(90)] + ["", ""]
    rows = np.arange(92)
    dev = dev_rows(groups, rows, 0.25)
    assert 0.1 < len(dev) / 92 < 0.4 and len(dev_rows(groups, rows, 0.0)) == 0
    chosen = {groups[row] for row in dev} - {""}
    assert not chosen & {groups[row] for row in np.setdiff1d(rows, dev)}
    fewer = np.setdiff1d(rows, [0, 1, 2])
    again = dev_rows(groups, fewer, 0.25)
    assert len(set(again.tolist()) & set(dev.tolist())) > 0.8 * len(dev)
    with pytest.raises(ConfigError, match=r"set --data\.dev_share 0"):
        dev_rows(["a", "a"], np.arange(2), 0.1)
    assert torch.as_tensor(dev).dtype == torch.int64
