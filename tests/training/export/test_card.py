"""The model card: licences counted and judged, numbers shown, nothing of this machine told."""

from typing import Any

import pytest
import yaml

from training.data.metadata import is_stated, unstated_images
from training.export.card import model_card, without_folders
from training.export.run import ReportedNumbers, RunRecord

NATIVE: dict[str, Any] = {"model_cfg": {"text_cfg": {}}}


def facts(split: str, licence: str, licences: dict[str, int]) -> dict[str, Any]:
    return {
        "dataset": "tiny",
        "split": split,
        "images": sum(licences.values()),
        "cases": 5,
        "known": 7,
        "licence": licence,
        "licences": licences,
        "fingerprint": "f" * 64,
        "targets": {"scorer": "ontology", "ontology_release": "seed", "licences": ""},
    }


def record(tmp_path: Any, train: dict[str, Any], dev: dict[str, Any] | None = None) -> RunRecord:
    config = {
        "output": "/secret/machine/runs/sm",
        "seed": 7,
        "model": {"name": "lite0-tiny-text", "pretrained": None, "image_weights": "efficientnet-lite0"},
        "loss": {"name": "semantic_matching"},
        "data": {"train_store": "/secret/machine/store/train"},
    }
    metrics = {"steps": 120, "dev_cui@50": 0.7246, "chosen": {"epoch": 6}}
    return RunRecord(
        tmp_path, "key of a run", config, metrics, {"train": train, **({"dev": dev} if dev else {})}
    )


def front_matter(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---\n")[1]))


@pytest.mark.parametrize(
    ("licence", "stated"),
    [("CC0-1.0", True), ("CC BY-NC", True), ("per article (licences.txt)", True), ("", False), ("NO-CC CODE", False),
     ("none stated (research use, keep private)", False), ("None", False), ("unknown", False)],
)  # fmt: skip
def test_which_texts_state_a_licence(licence: str, stated: bool) -> None:
    assert is_stated(licence) is stated


def test_an_empty_entry_is_left_to_the_data_set_and_a_denied_one_is_not() -> None:
    assert unstated_images(facts("a", "CC BY", {"CC BY": 3, "": 4})) == 0
    assert unstated_images(facts("a", "none stated", {"CC BY": 3, "": 4})) == 4
    assert unstated_images(facts("a", "CC BY", {"NO-CC CODE": 2, "CC BY": 3})) == 2


def test_data_without_a_stated_licence_forbid_publishing_in_bold_and_in_the_front_matter(
    tmp_path: Any,
) -> None:
    unstated = facts("train", "none stated (research use)", {"none stated (research use)": 9})
    card = model_card(record(tmp_path, unstated), NATIVE)
    assert "**No stated licence, do not publish weights.** 9 of the 9 images of tiny/train" in card
    matter = front_matter(card)
    assert matter["license_name"] == "no stated licence, do not publish weights"
    assert matter["publish_weights"] is False and matter["data_licences"] == {"none stated (research use)": 9}
    open_data = facts("train", "CC0-1.0", {"CC0-1.0": 9})
    free = model_card(record(tmp_path, open_data), NATIVE)
    assert "do not publish" not in free and front_matter(free)["publish_weights"] is True
    # One split is enough.
    mixed = model_card(record(tmp_path, open_data, facts("dev", "", {"": 2})), NATIVE)
    assert "2 of the 2 images of tiny/dev" in mixed and front_matter(mixed)["publish_weights"] is False


def test_the_card_tells_what_was_done_and_no_folder_of_this_machine(tmp_path: Any) -> None:
    evaluation = ReportedNumbers(
        "sm",
        {"protocol": "image to image", "intervals": "95 %", "training seeds": "sm 7"},
        {"CUI@5": {"mean": 0.725, "low": 0.701, "high": 0.748}, "odd|name": {"mean": None}},
        {"CUI@5": {"mean": 0.171, "low": 0.16, "high": 0.18}},
    )
    card = model_card(record(tmp_path, facts("train", "CC0-1.0", {"CC0-1.0": 1234})), NATIVE, evaluation)
    assert "/secret" not in card and "…/train" in card
    assert "| CUI@5 | 17.1 | 72.5 [70.1, 74.8] |" in card and "| odd\\|name | – | – |" in card
    assert "| dev cui@50 | 72.5 % |" in card and "| chosen.epoch | 6 |" in card and "Seed 7." in card
    assert "| train | tiny/train | 1,234 | 5 | 7 | CC0-1.0 (1,234) |" in card
    assert "f" * 64 in card and "scorer ontology" in card
    assert "`efficientnet-lite0` (ImageNet, Apache-2.0) and the text tower from random weights" in card
    assert "not for clinical use" in card and "protocol: image to image" in card
    assert "hub" not in card
    hub = {"model_cfg": {"text_cfg": {"hf_model_name": "tests/tiny-bert"}}}
    assert "`tests/tiny-bert`" in model_card(record(tmp_path, facts("train", "CC0-1.0", {"CC0-1.0": 9})), hub)


def test_paths_are_shortened_and_names_are_not() -> None:
    tree = {
        "a": "/x/y/z/",
        "b": ["local-dir:/x/model", "hf-hub:org/model", "plain", 3],
        "c": {"d": "~/k/f.pt"},
    }
    short = {"a": "…/z", "b": ["local-dir:…/model", "hf-hub:org/model", "plain", 3], "c": {"d": "…/f.pt"}}
    assert without_folders(tree) == short
