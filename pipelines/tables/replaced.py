"""Finished runs are kept: training that would replace one made from something else needs to be asked for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.tables.job import TrainingJob, shown
from training.engine.checkpoint import CONFIG, FINISHED, NOT_THE_DATA, NOT_THE_RESULT
from training.engine.config import RunConfig
from training.errors import ConfigError, KGTargetsError
from training.options import build, read_options, to_yaml

_OTHER_DATA = "from other stores, images or weights"
_ABSENT = "absent"


def keep_finished(jobs: Sequence[TrainingJob], *, settings_only: bool) -> None:
    """Refuse to train where another finished run would go.

    Args:
        jobs: runs that are wanted.
        settings_only: compare configurations only, for the time before stores are up to date.

    Raises:
        ConfigError: at least one would.
    """
    lost = []
    for job in jobs:
        difference = _difference(job, settings_only)
        if difference:
            lost.append((job.folder, difference))
    if lost:
        folder, difference = lost[0]
        runs = "1 finished run" if len(lost) == 1 else f"{len(lost)} finished runs"
        raise ConfigError(
            f"{runs} would be replaced, the first: {shown(folder)} ({difference}): --replace trains anew what "
            "differs, or choose another --out, or give the grid back what it had"
        )


def _difference(job: TrainingJob, settings_only: bool) -> str:
    """In what the finished run in the job's folder is another one; empty if in nothing, or if there is none."""
    if not (job.folder / FINISHED).is_file():
        return ""
    try:
        setting = _other_setting(job)
        if setting or settings_only or not all(path.exists() for path in job.needs):
            return setting
        return "" if _key_in(job.folder) == job.key() else _OTHER_DATA
    except (KGTargetsError, OSError):
        return ""  # a damaged store, or images that are gone: the job itself fails by it, before it replaces anything


def _key_in(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / FINISHED).read_text(encoding="utf-8"))["key"])
    except (ValueError, KeyError, TypeError):
        return None


def _other_setting(job: TrainingJob) -> str:
    """The first field of the configuration that differs, with both values."""
    try:
        written = yaml.safe_load((job.folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ""  # the key decides
    config = job.config()
    now = _fields(yaml.safe_load(to_yaml(config)))  # tuples are lists there
    before = (
        _fields(_completed(job.folder / CONFIG, written, type(config))) if isinstance(written, dict) else now
    )
    for name in (*now, *(name for name in before if name not in now)):
        old, new = before.get(name, _ABSENT), now.get(name, _ABSENT)
        if old != new:
            return f"{name} was {old}, is now {new}"
    return ""


def _completed(path: Path, written: dict[str, Any], kind: type[RunConfig]) -> dict[str, Any]:
    """A configuration as today's code writes it: a field that is newer than the run has its default."""
    try:
        config = build(kind, read_options(kind, ["--config", str(path)]))
        content: dict[str, Any] = yaml.safe_load(to_yaml(config))
    except KGTargetsError:
        return written  # some field is gone, or has another meaning: told as a difference
    return content


def _fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names of the fields that decide a run's result, to their values."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        if name in NOT_THE_RESULT:
            continue
        if isinstance(value, dict):
            left_out = NOT_THE_DATA if name == "data" else ()
            found |= {f"{name}.{key}": one for key, one in value.items() if key not in left_out}
        else:
            found[name] = value
    return found
