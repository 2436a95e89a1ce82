"""From a configuration to a finished run folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from kg_targets.store import TargetStore
from training.clip.config import check_precision
from training.clip.digest import weights_digest
from training.clip.load import build_clip
from training.config import TrainConfig
from training.data.facts import DATA_FACTS, describe_data
from training.data.sources import open_source
from training.engine.checkpoint import (
    Start,
    continue_run,
    finish_run,
    how_to_start,
    run_key,
    start_run,
    write_json,
)
from training.engine.loop import Loop
from training.engine.signals import StopRequest, follow_launcher
from training.engine.threads import resolve_threads
from training.engine.tracking import Tracker, check_trackers, start_trackers
from training.folders import writing
from training.nb_clip.losses import LOSSES
from training.nb_clip.run import NBClipRun, Split, Step
from training.options import to_yaml


def train(config: TrainConfig, say: Callable[[str], Any]) -> int:
    """Run one training as configured, or what is left of it.

    Args:
        config: the configuration.
        say: tells a person, on one line, why nothing or not everything was done.

    Returns:
        0, or 128 + the signal that asked to stop; OUTPUT then holds the state to continue from.

    Raises:
        KGTargetsError: the configuration, a store, the images or OUTPUT are not usable.
    """
    follow_launcher()
    check_trackers(config.log.tracker_names)
    output, threads = Path(config.output), resolve_threads(config.threads)
    root = Path(config.data.data_root)
    names = [config.data.train_store, *([config.data.dev_store] if config.data.dev_store else [])]
    splits = [Split(store, open_source(root, store)) for store in map(TargetStore.open, names)]
    fingerprints = [text for split in splits for text in (split.store.fingerprint, split.source.digest())]
    key = run_key(config, [*fingerprints, weights_digest(config.model)], threads)
    start = how_to_start(output, key, resume=config.resume, overwrite=config.overwrite)
    if start is Start.FINISHED:
        say(f"{output} already holds this finished run: nothing to do")
        return 0

    set_seed(config.seed)
    be_deterministic()
    accelerator = Accelerator(
        mixed_precision="no" if config.model.precision == "fp32" else config.model.precision,
        log_with=config.log.tracker_names or None,
        project_dir=config.output,
    )
    check_precision(config.model.precision, accelerator.device.type)
    torch.set_num_threads(threads)  # after Accelerator, which sets it by itself for some launches
    bias = config.loss.init_bias if LOSSES[config.loss.name].biased else None
    task = NBClipRun(
        config,
        accelerator,
        build_clip(config.model, logit_bias=bias),
        splits[0],
        splits[1] if splits[1:] else None,
    )
    loop: Loop[Step] = Loop(config, accelerator, task, key)
    if start is Start.CONTINUE:
        loop.restore()
    done = loop.progress.step
    if accelerator.is_main_process:
        if start is Start.CONTINUE:
            continue_run(output, done, loop.progress.epoch)
        else:
            start_run(output, key, to_yaml(config))
            _record_data(output, splits)
    accelerator.wait_for_everyone()
    start_trackers(accelerator, config, done)
    with (
        Tracker(accelerator, output, task.total_steps, config.log.every, done) as tracker,
        StopRequest() as stop,
    ):
        tracker.say(task.introduction() + (f", continued after step {done:,}" if done else ""))
        complete = loop.run(tracker, stop)
    facts = task.facts()  # while processes can still ask one another
    with writing(output, "--output"):
        accelerator.end_training()
    if not complete:
        if accelerator.is_main_process:
            say(
                f"stopped after step {loop.progress.step:,} of {task.total_steps:,}, saved in {output}: "
                "the same command continues"
            )
        return 128 + (stop.signal or 0)
    if accelerator.is_main_process:
        finish_run(output, key, {**facts, **loop.progress.metrics})
    return 0


def _record_data(output: Path, splits: Sequence[Split]) -> None:
    """OUTPUT/data.json, for the model card."""
    facts = {name: describe_data(split.store) for name, split in zip(("train", "dev"), splits, strict=False)}
    with writing(output, "--output"):
        write_json(output / DATA_FACTS, facts)


def be_deterministic() -> None:
    """Let torch choose algorithms that give the same bits every time, where it has them."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Its help to find bugs writes every new tensor once more: a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
