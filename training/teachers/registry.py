"""The registry of teachers, and what a person may write for one.

``biomedclip``          a name: a file of training/configs/teachers
``mine.yaml``           the same kind of file, of your own
``medclip:FOLDER``      a layout and where its weights lie
``none``                hard labels
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch

from training.arguments import read_config
from training.checks import given
from training.errors import CheckpointError, ConfigError
from training.teachers.base import Teacher

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "teachers"


@dataclass(frozen=True)
class TeacherConfig:
    """A named teacher: what it is, where its weights lie once you have them, and how to get them."""

    title: str = ""
    """Name in the paper; required."""
    kind: str = ""
    """Layout of the checkpoint: a key of TEACHERS; required."""
    source: str = ""
    """Where the kind reads it: a folder or file relative to where commands run, or an open_clip name with its tag."""
    licence: str = ""
    """Licence of the weights, as their authors state it."""
    how_to_get: str = ""
    """One or two sentences for a person who does not have the weights yet."""

    def __post_init__(self) -> None:
        given("title", self.title)
        given("kind", self.kind)


TEACHERS: dict[str, str] = {
    "open_clip": "training.teachers.openclip:OpenClipTeacher",
    "hf": "training.teachers.hf_clip:HFClipTeacher",
    "medclip": "training.teachers.medclip:MedClipTeacher",
    "pmc_clip": "training.teachers.pmc_clip:PmcClipTeacher",
    "run": "training.teachers.openclip:RunTeacher",
    "parquet": "training.teachers.precomputed:ParquetTeacher",
    "none": "training.teachers.precomputed:NoTeacher",
}
"""Layout to the class that loads it; imported when used, since transformers takes seconds."""


def open_teacher(spec: str, device: str | torch.device = "auto", *, also: Sequence[str] = ()) -> Teacher:
    """The teacher that a person named.

    Args:
        spec: a name, a YAML file or ``KIND:SOURCE``, see above.
        device: where a model runs; ``auto``: on the first GPU if there is one.
        also: what else may be named where this one is, for messages.

    Raises:
        ConfigError: there is no such name or kind, or no weights are named.
        CheckpointError: the weights are missing, damaged or of another layout.
    """
    place = (
        torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device == "auto"
        else torch.device(device)
    )
    kind, colon, source = spec.partition(":")
    if colon or spec == "none":
        if kind not in TEACHERS:
            raise ConfigError(f"teacher {spec}: {kind!r} is not one of {', '.join([*also, *TEACHERS])}")
        if not source and kind != "none":
            raise ConfigError(f"teacher {spec}: say where the weights are, {kind}:PATH")
        return _class(kind)(source, _short_name(kind, source), place)
    path = Path(spec) if spec.endswith((".yaml", ".yml")) else FOLDER / f"{spec}.yaml"
    if ("/" in spec and not spec.endswith((".yaml", ".yml"))) or not path.is_file():
        raise ConfigError(
            f"teacher {spec!r} is not one of {', '.join([*also, *named_teachers()])}, nor a .yaml file, nor KIND:PATH "
            f"with KIND one of {', '.join(TEACHERS)}"
        )
    config = read_config(TeacherConfig, ["--config", str(path)])
    if config.kind not in TEACHERS:
        raise ConfigError(f"{path}: kind: {config.kind!r} is not one of {', '.join(TEACHERS)}")
    try:
        return _class(config.kind)(config.source, path.stem, place)
    except (CheckpointError, ConfigError) as error:
        advice = " ".join(config.how_to_get.split())
        raise type(error)(f"{config.title}: {error}{f'. {advice}' if advice else ''}") from error


def slug(teacher: Teacher) -> str:
    """The teacher as part of a folder's name; names that hold no path are unique, others get their weights' digest."""
    plain = re.sub(r"[^a-z0-9]+", "-", teacher.name.lower()).strip("-")
    return f"{plain}-{teacher.digest[:8]}" if ":" in teacher.name else plain


def _class(kind: str) -> Callable[[str, str, torch.device], Teacher]:
    module, _, name = TEACHERS[kind].partition(":")
    found: Callable[[str, str, torch.device], Teacher] = getattr(import_module(module), name)
    return found


def _short_name(kind: str, source: str) -> str:
    """``KIND:`` and the end of the source: paths of this machine stay out of files."""
    if kind == "none":
        return "none"
    name, comma, weights = source.partition(",")
    return f"{kind}:{Path(name).name}" + (f",{Path(weights).name}" if comma else "")


def named_teachers() -> list[str]:
    """Names of the shipped files, ascending."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
