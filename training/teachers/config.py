"""The teachers that have a name: one YAML file each in ``training/configs/teachers``."""

from dataclasses import dataclass
from pathlib import Path

from training.checks import given
from training.options import build, read_options

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "teachers"


@dataclass(frozen=True)
class TeacherConfig:
    """A named teacher: what it is, where its weights lie once you have them, and how to get them."""

    title: str = ""
    """What the paper calls it; required."""
    kind: str = ""
    """Layout of the checkpoint: a key of TEACHERS; required."""
    source: str = ""
    """What the kind takes: a folder or file relative to where commands run, or an open_clip name with its tag."""
    licence: str = ""
    """Of the weights, as their authors state it."""
    how_to_get: str = ""
    """One or two sentences for a person who does not have the weights yet."""

    def __post_init__(self) -> None:
        given("title", self.title)
        given("kind", self.kind)


def named_teachers() -> list[str]:
    """Names of the shipped files, ascending."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_teacher_config(path: Path) -> TeacherConfig:
    """One file.

    Raises:
        ConfigError: it is missing or malformed.
    """
    return build(TeacherConfig, read_options(TeacherConfig, ["--config", str(path)]))
