"""``kg-targets plan``: what a training run would need, before anything is downloaded or decoded."""

import argparse
import sys
from typing import Any

from training.arguments import read_config
from training.checks import within
from training.command import Work, add_json, print_json
from training.data.dataset import IN_MEMORY_BYTES
from training.engine.outline import MB, Outline, estimate_memory
from training.errors import ConfigError
from training.tasks import find_task


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets plan`: check the data of a run and print its parameters, steps, memory and size of data."""
    parser.description = (
        "Check a training run's data, then print its parameters, steps, memory and size of data. Nothing is downloaded "
        "or decoded. Fields of the run follow the file: kg-targets plan FILE --data.batch_size 256."
    )
    parser.add_argument("--processes", type=int, default=1, help="cards that the run would have (default: 1)")
    add_json(parser)
    parser.add_argument("config", help="YAML file that the run would be given")
    parser.add_argument("fields", nargs=argparse.REMAINDER, help="fields that override the file's")
    return _work


def _work(given: argparse.Namespace) -> None:
    within("--processes", given.processes, 1, None)
    found = plan([f"--config={given.config}", *given.fields], given.processes)
    if given.json:
        print_json(found)
    else:
        sys.stdout.write("".join(f"{name:<12}{text}\n" for name, text in _lines(found)))


def plan(arguments: list[str], processes: int = 1) -> dict[str, Any]:
    """Sizes of a run.

    Args:
        arguments: of ``training/run.py``.
        processes: that share a batch.

    Raises:
        KGTargetsError: the configuration or the data are not usable.
    """
    task = find_task(arguments)
    config: Any = read_config(task.config, arguments, "kg-targets plan")
    batch = config.data.batch_size
    if batch % processes:
        raise ConfigError(f"data.batch_size {batch} is not a multiple of the {processes} processes")
    task.load()(config)  # says what is wrong with the data
    outline: Outline = task.load("outline")(config)
    if batch > outline.examples:
        raise ConfigError(
            f"data.batch_size {batch} exceeds the {outline.examples} {outline.unit} of an epoch: reduce it"
        )
    memory = estimate_memory(outline, config.model.precision, batch // processes)
    per_epoch = outline.examples // batch
    steps = per_epoch * config.optim.epochs
    decoded = outline.images * 3 * outline.side**2
    parameters = list(outline.model.parameters())
    return {
        "task": config.task or "nb_clip",
        "unit": outline.unit,
        "examples": outline.examples,
        "images": outline.images,
        "side": outline.side,
        "decoded_mb": decoded // MB,
        "in_memory": decoded <= IN_MEMORY_BYTES if outline.in_memory is None else outline.in_memory,
        "parameters": sum(value.numel() for value in parameters),
        "trained_parameters": sum(value.numel() for value in parameters if value.requires_grad),
        "precision": config.model.precision,
        "batch_size": batch,
        "processes": processes,
        "steps_per_epoch": per_epoch,
        "steps": min(steps, config.optim.max_steps or steps),
        "memory_mb": {
            "weights": memory.weights // MB,
            "gradients": memory.gradients // MB,
            "moments": memory.moments // MB,
            "activations": memory.activations // MB,
            "total": memory.total // MB,
        },
    }


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    memory, processes = found["memory_mb"], found["processes"]
    kept = "kept by each process" if found["in_memory"] else "decoded at each use"
    cards = f"on each of {processes} cards" if processes > 1 else "on a card"
    parts = ", ".join(f"{name} {value:,}" for name, value in memory.items() if name != "total")
    return [
        (
            "data",
            f"{found['examples']:,} {found['unit']} to learn from; {found['images']:,} images, {found['decoded_mb']:,} "
            f"MB decoded at {found['side']} px, {kept}",
        ),
        (
            "model",
            f"{found['parameters']:,} parameters, {found['trained_parameters']:,} learn, {found['precision']}",
        ),
        (
            "steps",
            f"{found['steps']:,}, {found['steps_per_epoch']:,} an epoch, of {found['batch_size']:,} {found['unit']}",
        ),
        ("memory", f"about {memory['total']:,} MB {cards}: {parts} (estimated, not measured on a card)"),
    ]
