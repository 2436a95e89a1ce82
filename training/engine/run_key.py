"""What tells one run from another: the key of its configuration, data and threads, and where two runs differ."""

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kg_targets.store.digest import json_sha256
from training.arguments import flat, read_config, to_yaml
from training.engine.config import MAX_THREADS, RunConfig
from training.errors import KGTargetsError

NOT_THE_RESULT = ("task", "output", "overwrite", "resume", "log", "save")
"""Fields on which a run's result does not depend, or that the others tell."""
NOT_THE_DATA = (
    "train_store", "dev_store", "store", "exclude", "dataset", "data_root", "workers", "prefetch", "cache",
    "max_unknown",
)  # fmt: skip
"""Fields of ``data`` likewise; what they name is in the key by what it holds. So are ``model.init_from`` and the stores
of ``soft_labels``."""
AS_BEFORE = {
    "data.long_captions": "truncate",
    "data.micro_batch": None,
    "loss.exclude_related": None,
    "tf32": False,
    "deterministic": False,
}
"""Fields that are newer than version 0.2.0, to the value that does what was done before: the key of a run with it is
what it was."""
SAID_BEFORE = {"fixed_mass_softmax": "fixed_mass", "fixed_mass": "fixed_mass, nothing up to the threshold"}
"""Target policy to what it is called in a key, where that is something else (``training.arguments.FORM``)."""
ABSENT = "absent"


def run_key(config: RunConfig, fingerprints: Sequence[str], threads: int) -> str:
    """sha256 over what decides the result: the configuration (less output and log), the data and the threads.

    Args:
        config: the configuration.
        fingerprints: of the data, such as stores and the images they name, and of local weights.
        threads: CPU threads per process, resolved; rounding depends on them.
    """
    return json_sha256([_content(config) | {"threads": threads}, list(fingerprints)])


def threads_by_key(key: str, config: RunConfig, fingerprints: Sequence[str]) -> int | None:
    """Number of threads with which a run of this configuration and data has the key; None where more differs."""
    content, texts = _content(config), list(fingerprints)
    counts = range(1, MAX_THREADS + 1)
    return next((n for n in counts if json_sha256([content | {"threads": n}, texts]) == key), None)


def _content(config: RunConfig) -> dict[str, Any]:
    content: dict[str, Any] = asdict(config)
    for name in NOT_THE_RESULT:
        del content[name]
    for name in NOT_THE_DATA:
        content["data"].pop(name, None)
    if content["data"].get("in_memory", True) is None:
        content["data"]["in_memory"] = True  # the default of before; where images are kept decides no result
    for dotted, value in AS_BEFORE.items():
        group, _, name = dotted.rpartition(".")
        fields = content.get(group, {}) if group else content
        if fields.get(name, value) == value:
            fields.pop(name, None)
    content.get("model", {}).pop("init_from", None)
    if policy := content.get("policy"):
        # Other losses take no policy: for them both are what the default was called.
        before = (
            SAID_BEFORE
            if content["loss"]["name"] == "semantic_matching"
            else dict.fromkeys(SAID_BEFORE, "fixed_mass")
        )
        policy["name"] = before.get(policy["name"], policy["name"])
    for labels in content.get("soft_labels", ()):
        labels.pop("store")
        labels["policy"] = SAID_BEFORE.get(labels["policy"], labels["policy"])
    return content


class Difference(NamedTuple):
    """A field of the configuration, or something in the data, that two runs do not have in common."""

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} was {self.before}, is now {self.now}"

    @property
    def flag(self) -> str:
        """The field as it was, for a command line."""
        text = self.before if isinstance(self.before, str) else json.dumps(self.before, ensure_ascii=False)
        return f"--{self.name} {shlex.quote(text)}"


def other_settings(path: Path, config: RunConfig) -> list[Difference]:
    """Fields that decide a run's result and that a saved configuration has otherwise; the number of threads last.

    Args:
        path: config.yaml of a run; a damaged one tells nothing.
        config: the present configuration.
    """
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    if not isinstance(written, dict):
        return []
    if (task := written.get("task", config.task)) != config.task:
        return [Difference("task", task, config.task)]
    with suppress(
        KGTargetsError
    ):  # a field that is newer than the run has its default; one that is gone differs
        written = yaml.safe_load(to_yaml(read_config(type(config), ["--config", str(path)])))
    before, now = _fields(written), _fields(yaml.safe_load(to_yaml(config)))  # tuples are lists there
    names = sorted({**now, **before}, key=lambda name: name == "threads")
    pairs = [Difference(name, before.get(name, ABSENT), now.get(name, ABSENT)) for name in names]
    return [pair for pair in pairs if pair.before != pair.now]


def _fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names of the fields that decide a run's result, to their values."""
    found = flat({name: value for name, value in content.items() if name not in NOT_THE_RESULT})
    if found.get("data.in_memory", True) is None:
        found["data.in_memory"] = True
    left_out = {f"data.{name}" for name in NOT_THE_DATA}
    return {name: value for name, value in found.items() if name not in left_out}
