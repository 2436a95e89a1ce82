"""A whole step of the Med-VQA pre-training: a teacher's store or an online teacher; transport and matching.

    PYTHONPATH=. python benchmarks/med_vqa_teacher.py [--teacher lite0-tiny-text] [--repeats 9] [--threads 2]

Stage one: two runs of one configuration and seed (training/configs/med_vqa_pretrain_medpix_small.yaml), one with
``soft_labels: [{store: …}]``, one with ``[{teacher: …}]``, the teacher being the one that made the store. A turn is a
block of consecutive steps of one run as the engine's loop takes them: images, augmentation, forward, backward,
gradient norm, AdamW, schedule, and the labels of the next step in their thread. It ends when that thread is done: no
turn works for another. ``offline_again`` is one more block of the run with the store: what two equal turns differ by.

    learning    images decoded in memory, augmented anew at each step; the image tower learns
    cached      the configuration as it is: frozen image tower, whose tokens of 8 views were computed once

Stage two (…_small_two.yaml, from there): one run, the weights of whose loss change from turn to turn. By a random
teacher's own labels no pair would be bad enough for a negative; stage two therefore has labels of the policy uniform.

Demo data, drawn; targets by the project's own builds; all weights random; captions split into as many word pieces as
MiniLM's tokenizer makes of them: what is measured depends on sizes only. Drawn images are small files: the time that an
online teacher needs to read a real one is not in it.
"""

import argparse
import os
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from threading import Semaphore
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as training/run.py does, before numpy is loaded

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from engine import SILENT
from machine import Times, command, head, interleaved, median_ms, ratio, report
from safetensors.torch import save_file
from steps import PACKAGES
from torch import Tensor
from transformers import BertTokenizer

from kg_targets.store import TargetStore
from pipelines.build.config import BuildConfig
from pipelines.build.executors import available_cores
from pipelines.build.recipe import build_data_set
from pipelines.demo import write_demo
from training.arguments import read_config
from training.clip.load import load_clip
from training.engine.loop import Loop
from training.engine.session import be_deterministic
from training.med_vqa.pretrain.config import PretrainConfig, PretrainLossConfig
from training.med_vqa.pretrain.model import PretrainingModel
from training.med_vqa.pretrain.run import PretrainRun, Step, prepare_run
from training.med_vqa.pretrain.soft_labels import LabelBuilder

CONFIGS = Path(__file__).parents[1] / "training" / "configs"
ONE, TWO = (CONFIGS / f"med_vqa_pretrain_medpix_small{end}.yaml" for end in ("", "_two"))
SETTINGS = {"learning": {"data.cached_views": 0, "model.lock_vision": "false"}, "cached": {}}
"""Fields of the configuration that a setting changes."""
VOCABULARY, PIECE = 30_522, 6
"""MiniLM's word pieces; letters of ours at most, so that the demo's captions have 23 on average, as with MiniLM's."""


class World:
    """Drawn data, their stores and a tokenizer, in a folder.

    Args:
        folder: a new one.
        options: of the command.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self._options = folder, options
        write_demo(folder / "data", images=options.images, seed=0, workers=available_cores())
        self.store = self._build(folder / "graph")
        self._write_tokenizer()

    def _build(self, out: Path, **config: Any) -> TargetStore:
        data, cache = self.folder / "data", self.folder / "ontologies"
        of_demo = BuildConfig(split="train", data_root=data, out=out, workers=1, cache=cache, **config)
        return build_data_set(of_demo, lambda _: None)[0]

    def teach(self, architecture: str) -> tuple[dict[str, str], dict[str, Any]]:
        """Both kinds of ``soft_labels`` of a teacher with random weights, and metadata of its store."""
        torch.manual_seed(0)
        model, weights = load_clip(architecture).model, self.folder / f"{architecture}.safetensors"
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights)
        teacher, began = f"open_clip:{architecture},{weights}", time.perf_counter()
        store = self._build(self.folder / architecture, scorer="teacher", teacher=teacher)
        metadata = {
            "parameters": sum(value.numel() for value in model.parameters()),
            "store_seconds": round(time.perf_counter() - began, 1),
        }
        return {"offline": f"[{{store: {store.path}}}]", "online": f'[{{teacher: "{teacher}"}}]'}, metadata

    def _write_tokenizer(self) -> None:
        words = {word for text in self.store.captions for word in re.findall(r"\w+|[^\w\s]", text.lower())}
        starts = [word[:PIECE] for word in sorted(words)]
        ends = [
            f"##{word[at : at + PIECE]}" for word in sorted(words) for at in range(PIECE, len(word), PIECE)
        ]
        pieces = dict.fromkeys((*starts, *ends))
        special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        filler = (f"[unused{number}]" for number in range(VOCABULARY - len(pieces) - len(special)))
        place = self.folder / "tokenizer"
        place.mkdir()
        (place / "vocab.txt").write_text("\n".join((*special, *pieces, *filler)) + "\n", encoding="utf-8")
        BertTokenizer(str(place / "vocab.txt")).save_pretrained(place)

    def config(self, file: Path, soft_labels: str, **changes: Any) -> PretrainConfig:
        """A configuration of the project's on these data, with random weights; nothing is kept for validation."""
        options, folder = self._options, self.folder
        fields = {
            "output": folder / "unused", "data.store": folder / "graph" / "train", "data.data_root": folder / "data",
            "data.cache": folder / "cache", "data.exclude": "null", "data.dev_share": 0, "model.text": "null",
            "model.tokenizer": folder / "tokenizer", "model.vision_weights": "null", "optim.epochs": 1000,
            "model.precision": options.precision, "soft_labels": soft_labels, "log.trackers": "none", **changes,
        }  # fmt: skip
        flags = [f"--{name}={value}" for name, value in fields.items()]
        return read_config(PretrainConfig, [f"--config={file}", *flags])


class Steps:
    """Consecutive steps of a pre-training run as the engine's loop takes them.

    Args:
        config: the run's.
        accelerator: its precision is the run's.
        per_block: steps of a turn.
    """

    def __init__(self, config: PretrainConfig, accelerator: Accelerator, per_block: int = 1) -> None:
        set_seed(config.seed)
        task: Any = prepare_run(config).build(accelerator)
        self.run: PretrainRun = task
        self.labels: LabelBuilder = task.labels
        self._per_block, self._done = per_block, Semaphore(0)
        self._loop: Loop[Step] = Loop(config, accelerator, self.run, "unused")
        self._drawn = torch.Generator().manual_seed(0)
        epoch = task.loader.epoch

        def labelled(*rows: Any) -> Any:
            try:
                return self.labels(*rows)
            finally:
                self._done.release()

        # One epoch without an end: the labels of an epoch's first step are not looked up ahead.
        task.loader.epoch = lambda *_: chain.from_iterable(map(epoch, count()))
        task.labels = labelled
        self._batches: Any = self.run.batches(0, 0, 1)

    @property
    def model(self) -> PretrainingModel:
        """The model in training."""
        return self.run.accelerator.unwrap_model(self.run.model)

    def block(self) -> None:
        """So many steps, and the labels of the one after them."""
        first = not self._loop.progress.step
        for _ in range(self._per_block):
            batch = next(self._batches)
            self._loop.progress.step += 1
            self._loop._step(batch, SILENT)
        for _ in range(self._per_block + first):
            self._done.acquire()

    def rows(self) -> Tensor:
        """Store rows of a random batch, always another one: a teacher caches the last."""
        known = torch.as_tensor(self.run.corpus.images.rows)
        return known[torch.randperm(len(known), generator=self._drawn)[: self.run.batch_size]]

    def look_up(self) -> None:
        """Labels of a batch, with nothing beside them."""
        rows = self.rows()
        self.labels(rows, rows, 0)

    def close(self) -> None:
        """End the thread."""
        self._batches.close()


def often(run: Callable[[], None], times: int) -> Callable[[], None]:
    """A turn of something that is part of a step: as often as a turn has steps."""

    def block() -> None:
        for _ in range(times):
            run()

    return block


def step_ms(times: Times, per_block: int) -> dict[str, float]:
    """Median milliseconds of a step of each lane."""
    return {name: round(median_ms(turns) / per_block, 1) for name, turns in times.items()}


def stage_one(
    world: World,
    soft_labels: dict[str, str],
    setting: str,
    accelerator: Accelerator,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Steps with a teacher's store and with the teacher itself, in turns; labels alone."""
    with ExitStack() as stack:
        runs: dict[str, Steps] = {}
        for name, entry in soft_labels.items():
            config = world.config(ONE, entry, **{"data.batch_size": options.batch, **SETTINGS[setting]})
            runs[name] = Steps(config, accelerator, options.steps)
            stack.callback(runs[name].close)
        lanes = {name: steps.block for name, steps in runs.items()} | {"offline_again": runs["offline"].block}
        alone = {f"labels_{name}": often(steps.look_up, options.steps) for name, steps in runs.items()}
        times = interleaved(lanes | alone, options.repeats, warmup=1)
        step, rows = step_ms(times, options.steps), runs["offline"].rows()
        apart = [steps.labels(rows, rows, 0) for steps in runs.values()]
    parts = step["offline"] + step["labels_online"] - step["labels_offline"]
    return {
        "batch": options.batch,
        "step_ms": step,
        "steps_per_second_offline_to_online": ratio(times, "online", "offline"),
        "offline_to_itself": ratio(times, "offline_again", "offline"),
        "labels_online_to_offline_step": ratio(times, "labels_online", "offline"),
        "labels_offline_to_offline_step": ratio(times, "labels_offline", "offline"),
        "online_step_to_sum_of_parts": round(step["online"] / parts, 4),
        "largest_difference_of_targets": (apart[0].image_text - apart[1].image_text).abs().max().item(),
    }


def stage_two(
    world: World, soft_labels: str, accelerator: Accelerator, options: argparse.Namespace
) -> dict[str, Any]:
    """One run's steps with and without a term, in turns."""
    batch, start = {"data.batch_size": max(2, options.batch // 2)}, world.folder / "one"
    start.mkdir()
    Steps(world.config(ONE, soft_labels, **batch), accelerator).run.save(start)
    config = world.config(TWO, soft_labels, **batch, **{"model.init_from": start / "checkpoint"})
    steps = Steps(config, accelerator, options.steps)
    both = config.loss
    weights = {
        "both": both,
        "both_again": both,
        "no_transport": replace(both, transport_weight=0.0),
        "no_matching": replace(both, matching_weight=0.0),
    }

    def lane(loss: PretrainLossConfig) -> Callable[[], None]:
        def block() -> None:
            steps.model.loss = loss
            steps.block()

        return block

    times = interleaved({name: lane(loss) for name, loss in weights.items()}, options.repeats, warmup=1)
    steps.close()
    return {
        "batch": config.data.batch_size,
        "step_ms": step_ms(times, options.steps),
        **{f"both_to_{name}": ratio(times, "both", name) for name in weights if name != "both"},
    }


def measure(folder: Path, accelerator: Accelerator, options: argparse.Namespace) -> dict[str, Any]:
    """Both stages."""
    world = World(folder, options)
    stages: dict[str, Any] = {"teachers": {}, "stage_one": {}}
    for architecture in options.teacher:
        soft_labels, stages["teachers"][architecture] = world.teach(architecture)
        stages["stage_one"][architecture] = {
            setting: stage_one(world, soft_labels, setting, accelerator, options) for setting in SETTINGS
        }
    uniform = f"[{{store: {folder / options.teacher[0] / 'train'}, policy: uniform}}]"
    stages["stage_two"] = stage_two(world, uniform, accelerator, options)
    return {"images": len(world.store), **stages}


def main() -> None:
    """Measure, print, and write ``benchmarks/results/med_vqa_teacher.json``."""
    parser = command(__doc__, "med_vqa_teacher")
    add = parser.add_argument
    add("--teacher", nargs="+", default=["lite0-tiny-text"], help="open_clip architectures, ours among them")
    add("--batch", type=int, default=64, help="of stage one; stage two has half of it")
    add("--steps", type=int, default=2, help="of a turn")
    add("--repeats", type=int, default=9, help="turns, at least 2")
    add("--images", type=int, default=700, help="drawn ones; 7 of 10 are trained on")
    add("--precision", choices=("fp32", "bf16"), default="bf16", help="of the student; a teacher has fp32")
    options = parser.parse_args()
    accelerator = Accelerator(mixed_precision="no" if options.precision == "fp32" else options.precision)
    torch.set_num_threads(options.threads)
    be_deterministic()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), accelerator, options)
    settings = {name: getattr(options, name) for name in ("precision", "steps", "repeats")}
    report(head(PACKAGES, accelerator.device, preset="small", **settings) | measured, options.out)


if __name__ == "__main__":
    main()
