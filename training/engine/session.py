"""From a configuration to a finished run folder, whatever is trained: start or continue, record, stop, finish."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from training.clip.config import check_precision
from training.engine import checkpoint
from training.engine.config import RunConfig
from training.engine.device import check_launcher, describe_device, set_up_device
from training.engine.loop import Loop, Task
from training.engine.process import StopRequest, follow_launcher, resolve_threads
from training.engine.run_key import run_key
from training.engine.sharding import DDP, ShardingAccelerator, sharding_asked
from training.engine.tracking import Tracker, check_trackers, start_trackers
from training.errors import ConfigError
from training.folders import write_json, writing

C = TypeVar("C", bound=RunConfig)
Say = Callable[[str], Any]
"""Tells a person something, on one line."""


@dataclass(frozen=True)
class Prepared:
    """A task whose data are found, before its model is built: enough to know whether there is anything to do."""

    fingerprints: Mapping[str, str]
    """Digests of what decides the result besides the configuration, by what they are of: data, weights on this
    machine."""
    precision: str
    """fp32, bf16 or fp16."""
    data_metadata: Callable[[], dict[str, Any]]
    """OUTPUT/data.json, for a model card; asked when a run begins."""
    build: Callable[[Accelerator], Task[Any]]
    """The task with its model, on the accelerator's device; called after the random generators are seeded."""
    may_be_sharded: bool = False
    """Whether its model may lie in parts on several processes."""


def run_training(config: C, prepare: Callable[[C], Prepared], say: Say) -> int:
    """Run one training as configured, or what is left of it.

    Args:
        config: the configuration.
        prepare: finds the task's data.
        say: tells a person why nothing or not everything was done.

    Returns:
        0, or 128 + the signal that asked to stop; OUTPUT then holds the state to continue from.

    Raises:
        KGTargetsError: the configuration, the data or OUTPUT are not usable.
    """
    follow_launcher()
    check_launcher()
    check_trackers(config.log.tracker_names)
    output, threads = Path(config.output), resolve_threads(config.threads)
    sharded = sharding_asked()
    prepared = prepare(config)
    if sharded and not prepared.may_be_sharded:
        raise ConfigError(f"FSDP is for nb_clip with data.cached_views 0: launch with {DDP}")
    data = prepared.fingerprints
    start, former = checkpoint.how_to_start(config, data, threads)
    key = run_key(config, list(data.values()), threads)
    if start is checkpoint.Start.FINISHED:
        other = "" if former == threads else f" (with {former} CPU threads and not {threads})"
        say(f"{output} already holds this finished run{other}: nothing to do")
        return 0

    set_seed(config.seed)
    accelerator = (ShardingAccelerator if sharded else Accelerator)(
        mixed_precision="no" if prepared.precision == "fp32" else prepared.precision,
        log_with=config.log.tracker_names or None,
        project_dir=config.output,
    )
    check_precision(prepared.precision, accelerator.device.type)
    set_up_device(config, accelerator.device.type)
    torch.set_num_threads(threads)  # after Accelerator, which sets it by itself for some launches
    task = prepared.build(accelerator)
    loop: Loop[Any] = Loop(config, accelerator, task, key)
    if start is checkpoint.Start.CONTINUE:
        loop.restore()
    done = loop.progress.step
    if accelerator.is_main_process:
        if start is checkpoint.Start.CONTINUE:
            checkpoint.continue_run(config, data, (former, threads), done, loop.progress.epoch)
        else:
            checkpoint.start_run(config, data, threads)
            with writing(output, "--output"):
                write_json(output / checkpoint.DATA_METADATA, prepared.data_metadata())
    accelerator.wait_for_everyone()
    start_trackers(accelerator, config, done)
    with (
        Tracker(accelerator, output, task.total_steps, config.log.every, done, task.unit) as tracker,
        StopRequest() as stop,
    ):
        tracker.say(describe_device(config, accelerator, prepared.precision))
        if start is checkpoint.Start.CONTINUE and former != threads:
            tracker.say(
                f"warning: continued on {threads} CPU threads, {former} before: results may differ in rounding from "
                f"those of one number throughout (--threads {former} keeps it); {checkpoint.RUN} records it"
            )
        tracker.say(task.introduction() + (f", continued after step {done:,}" if done else ""))
        complete = loop.run(tracker, stop)
    metadata = task.metadata()  # while processes can still ask one another
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
        checkpoint.finish_run(output, key, {**metadata, **loop.progress.metrics})
    return 0
