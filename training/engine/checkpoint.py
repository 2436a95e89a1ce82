"""A run's folder: what is written, in which order, and how one tells that it is finished.

OUTPUT/run.json           written first: key of (configuration, data, weights, threads), digests of the data, and the
                          number of threads by steps; names the folder a run's
OUTPUT/config.yaml        the resolved configuration
OUTPUT/data.json          metadata of the data, for a model card
OUTPUT/log.jsonl          one line per logged step and per epoch
OUTPUT/tensorboard/       events
OUTPUT/state/             what an unfinished run continues from (training/engine/state.py)
OUTPUT/checkpoint/        the chosen model, as its task writes it (NB-CLIP: for open_clip; Med-VQA: Hugging Face's way)
OUTPUT/metrics.json       the chosen epoch and its measures
OUTPUT/finished.json      written last: the key again; its presence means finished
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from training.arguments import FORM, to_yaml
from training.engine.config import RunConfig
from training.engine.run_key import ABSENT, Difference, other_settings, run_key, threads_by_key
from training.engine.state import STATE, drop_state, saved_key
from training.errors import CheckpointError
from training.folders import check_writable, fresh_folder, replace_folder, write_json, write_text, writing

FINISHED = "finished.json"
CHECKPOINT = "checkpoint"
LOG = "log.jsonl"
RUN = "run.json"
CONFIG = "config.yaml"
METRICS = "metrics.json"
DATA_METADATA = "data.json"
"""Metadata of the data, for a model card: a store may be rebuilt or moved after the run."""
FLAGS = 3
"""Flags that a message about another run offers."""
OURS = (RUN, CONFIG, DATA_METADATA, LOG, "tensorboard", f"{STATE}*", f"{CHECKPOINT}*", METRICS, FINISHED)
"""Files of a run, as patterns: nothing else is ever removed from its folder."""


class Start(Enum):
    """State of a run's folder when the run begins."""

    FRESH = "nothing to build on"
    CONTINUE = "an unfinished run with a saved state"
    FINISHED = "this very run, finished"


def how_to_start(config: RunConfig, fingerprints: Mapping[str, str], threads: int) -> tuple[Start, int]:
    """Whether OUTPUT holds this very run, finished or not; a run of another configuration is protected.

    Another number of threads makes no other run, unless ``overwrite`` replaces a finished one.

    Args:
        config: of the run to start; ``output``, ``resume`` and ``overwrite`` say where and how.
        fingerprints: of its data, by what they are of.
        threads: CPU threads per process, resolved.

    Returns:
        The state of the folder, and the number of threads that what is used of it was made with.

    Raises:
        CheckpointError: OUTPUT holds another run and ``overwrite`` is not set, or is not a run folder, or cannot be
            written, or there is nothing to continue and ``resume`` is must.
    """
    output = Path(config.output)
    check_writable(output, "--output")
    there, finished = _key_of(output), (output / FINISHED).is_file()
    former = _threads_of(there, config, fingerprints, threads)
    if there is not None and former is None and not config.overwrite:
        raise CheckpointError(_protected(output, config, fingerprints, finished=finished))
    if former is not None:
        whole = finished and any((output / CHECKPOINT).glob("*.safetensors"))
        if whole and (former == threads or not config.overwrite):
            return Start.FINISHED, former
        key = None if config.resume == "never" else saved_key(output)
        if (former := _threads_of(key, config, fingerprints, threads)) is not None:
            return Start.CONTINUE, former
    if config.resume == "must":
        raise CheckpointError(f"{output} holds no unfinished run to continue: --resume auto starts one")
    return Start.FRESH, threads


def _threads_of(
    key: str | None, config: RunConfig, fingerprints: Mapping[str, str], threads: int
) -> int | None:
    """Number of threads of the run with the key, these ones or others; None if it is another run, or none."""
    texts = list(fingerprints.values())
    if key is None or key == run_key(config, texts, threads):
        return None if key is None else threads
    return threads_by_key(key, config, texts)


def _protected(output: Path, config: RunConfig, fingerprints: Mapping[str, str], *, finished: bool) -> str:
    """The message about another run in ``output``: the first thing that differs, and what to type."""
    run = f"{output} holds {'a finished' if finished else 'an unfinished'} run"
    choose = "choose another --output, or --overwrite true to replace it"
    settings = [one for one in other_settings(output / CONFIG, config) if one.name != "threads"]
    if settings:
        more = f" and {len(settings) - 1} more field(s) differ" if settings[1:] else ""
        shown = [one.flag for one in settings if ABSENT not in (one.before, one.now)][:FLAGS]
        if finished or len(shown) < len(settings) or settings[0].name == "task":
            return f"{run}: {settings[0]}{more}: {choose}"
        return f"{run}: {settings[0]}{more}: {' '.join(shown)} continues it; else {choose}"
    before = _run_json(output).get("data")
    if isinstance(before, dict):
        for name in {**fingerprints, **before}:
            old, new = (str(digests.get(name, ABSENT))[:12] for digests in (before, fingerprints))
            if old != new:
                return f"{run}: {Difference(f'the digest of {name}', old, new)}: {choose}"
    return f"{run} of other stores, images, questions or weights: {choose}"


def _run_json(output: Path) -> dict[str, Any]:
    """Content of run.json; nothing where it is damaged."""
    try:
        return dict(json.loads((output / RUN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _key_of(output: Path) -> str | None:
    """Key of the run in ``output``, finished or not; None where there is nothing.

    Raises:
        CheckpointError: there is something that is not a run.
    """
    with writing(output, "--output"):
        if not output.exists() or not any(output.iterdir()):
            return None
        for name in (RUN, FINISHED):
            if (output / name).is_file():
                try:
                    return str(json.loads((output / name).read_text(encoding="utf-8"))["key"])
                except (ValueError, KeyError, TypeError):
                    return "damaged"
    raise CheckpointError(f"{output} is not empty and is not a training run: choose another --output")


def start_run(config: RunConfig, fingerprints: Mapping[str, str], threads: int) -> None:
    """A run folder with its key and config; what a former run left there goes away, and nothing else.

    Args:
        config: the configuration; ``output`` is the folder.
        fingerprints: of the data, by what they are of.
        threads: CPU threads per process, resolved.

    Raises:
        CheckpointError: the folder cannot be written; so in the functions below.
    """
    output = Path(config.output)
    with writing(output, "--output"):
        (output / FINISHED).unlink(missing_ok=True)  # first, so that a crash below leaves an unfinished run
        for pattern in OURS:
            for path in output.glob(pattern):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        output.mkdir(parents=True, exist_ok=True)
        _write_run(config, fingerprints, [[0, threads]])


def _write_run(config: RunConfig, fingerprints: Mapping[str, str], threads: list[list[int]]) -> None:
    output = Path(config.output)
    key = run_key(config, list(fingerprints.values()), threads[-1][1])
    write_json(output / RUN, {"key": key, "form": FORM, "threads": threads, "data": dict(fingerprints)})
    write_text(output / CONFIG, to_yaml(config), "--output")


def continue_run(
    config: RunConfig, fingerprints: Mapping[str, str], threads: tuple[int, int], step: int, epoch: int
) -> None:
    """Take the log back to where the state was saved, since what came after will be written again; note new threads.

    Args:
        config: the configuration; ``output`` is the folder.
        fingerprints: of the data, by what they are of.
        threads: CPU threads per process, until the state was saved and now.
        step: optimizer steps that the state has done.
        epoch: the epoch it is in; those before are measured.
    """
    output = Path(config.output)
    log, (before, now) = output / LOG, threads
    with writing(output, "--output"):
        if now != before:
            noted = [[since, n] for since, n in thread_counts(output) if since < step] or [[0, before]]
            _write_run(config, fingerprints, [*noted, [step, now]])
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.is_file() else []
        kept = "".join(line for line in lines if line.endswith("\n") and _is_past(line, log, step, epoch))
        partial = log.with_name(LOG + ".partial")
        partial.write_text(kept, encoding="utf-8")
        os.replace(partial, log)


def thread_counts(output: Path) -> list[list[int]]:
    """Pairs (steps done before, CPU threads per process from then on) of a run; none where it does not say."""
    noted = _run_json(output).get("threads")
    return noted if isinstance(noted, list) else []


def _is_past(line: str, log: Path, step: int, epoch: int) -> bool:
    try:
        entry = json.loads(line)
        return bool(entry["step"] <= step and entry.get("epoch", 0) < epoch)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{log} is damaged: start the run over with --resume never") from error


def write_checkpoint(output: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder, which becomes OUTPUT/checkpoint; the previous one stays until it is whole."""
    fresh, current, old = (output / f"{CHECKPOINT}{suffix}" for suffix in (".new", "", ".old"))
    with writing(output, "--output"):
        with fresh_folder(fresh):
            write(fresh)
        replace_folder(fresh, current, old)


def finish_run(output: Path, key: str, metrics: dict[str, Any]) -> None:
    """Write the measures, then the marker."""
    counts = thread_counts(output)
    if len(counts) > 1:
        told = ", ".join(f"{n} from step {step + 1:,}" for step, n in counts)
        metrics = {
            **metrics,
            "threads_changed": f"{told}: rounding may differ from that of one number throughout",
        }
    with writing(output, "--output"):
        write_json(output / METRICS, metrics)
        write_json(output / FINISHED, {"key": key})
    drop_state(output)
