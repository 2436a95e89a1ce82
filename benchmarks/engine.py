"""Overhead of the engine over a bare loop: its own steps and a bare loop's take turns on the same model.

    python benchmarks/engine.py --store build/demo/train --data-root build/demo/data

The engine's turn is all that a run does for a step: images and targets that were prepared ahead, augmentation,
forward, soft-target loss, backward, gradient norm, optimizer, schedule. The bare turn is forward, open_clip's
ClipLoss, backward and the same optimizer on one batch that lies in memory.
"""

import argparse
import os
from itertools import chain, count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as training/run.py does, before numpy is loaded

import torch
from accelerate import Accelerator
from machine import command, head, interleaved, median_ms, ratio, report
from open_clip.loss import ClipLoss
from steps import PACKAGES

from kg_targets.store import TargetStore
from training.arguments import read_config
from training.clip.load import build_clip
from training.data.sources import open_source
from training.engine.device import set_up_device
from training.engine.loop import Loop
from training.nb_clip.config import TrainConfig
from training.nb_clip.run import NBClipRun, Split, Step

WARM_UP = 3


SILENT: Any = SimpleNamespace(due=lambda step: False, advance=lambda images: None)
"""A tracker that is never due: the log is no part of a step."""


def measure(options: argparse.Namespace, accelerator: Accelerator) -> dict[str, Any]:
    """Median seconds of each turn, their ratio turn by turn, and the share of the time without data."""
    fields = {
        "output": "unused", "data.train_store": options.store, "data.data_root": options.data_root,
        "data.batch_size": options.batch, "model.name": options.model, "optim.epochs": 1000, "log.trackers": "none",
    }  # fmt: skip
    config = read_config(TrainConfig, [f"--{name}={v}" for name, v in fields.items()])
    set_up_device(config, accelerator.device.type)
    store = TargetStore.open(options.store)
    split = Split(store, open_source(Path(options.data_root), store))
    task = NBClipRun(config, accelerator, build_clip(config.model), split, None)
    loop: Loop[Step] = Loop(config, accelerator, task, "unused")
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-6, fused=True)
    plain, steps = ClipLoss(), chain.from_iterable(task.batches(epoch, 0, 1) for epoch in count(1))
    fixed = next(steps).batch
    images = ((fixed.pixels.float() / 255 - task.clip.mean) / task.clip.std).to(accelerator.device)
    tokens = fixed.tokens.to(accelerator.device)

    def bare() -> None:
        output = task.model(images, tokens)
        accelerator.backward(plain(output["image_features"], output["text_features"], output["logit_scale"]))
        optimizer.step()
        optimizer.zero_grad()

    def engine() -> None:
        batch = next(steps)
        loop.progress.step += 1
        loop._step(batch, SILENT)

    lanes = {"bare": bare, "engine": engine}
    interleaved(lanes, WARM_UP, warmup=0)
    before = task.waited()
    times = interleaved(lanes, options.turns, warmup=0)
    return {
        "model": options.model,
        "batch": options.batch,
        "bare_ms": round(median_ms(times["bare"]), 1),
        "engine_ms": round(median_ms(times["engine"]), 1),
        "throughput_to_bare_loop": ratio(times, "bare", "engine"),
        "data_wait": round((task.waited() - before) / sum(taken.wall for taken in times["engine"]), 4),
    }


def main() -> None:
    """Measure, show, and write ``benchmarks/results/engine.json``."""
    parser = command(__doc__, "engine", model="demo-resnet", batch=128, turns=40)
    parser.add_argument("--store", required=True, help="target store of the training split")
    parser.add_argument("--data-root", required=True, help="its images")
    options = parser.parse_args()
    accelerator = Accelerator()
    torch.set_num_threads(options.threads)
    settings = head(PACKAGES, accelerator.device, turns=options.turns)
    report(settings | measure(options, accelerator), options.out)


if __name__ == "__main__":
    main()
