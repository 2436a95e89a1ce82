"""The keys of every grid, and a strict reader of its YAML file that reports whatever is wrong on one line."""

import hashlib
import json
import re
import shlex
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, Field, PlainValidator, ValidationError, model_validator

from kg_targets.errors import ConfigError, KGTargetsError
from kg_targets.manifest.model import unknown_name
from training.arguments import read_config
from training.engine.config import RunConfig
from training.tasks import find_task

GRIDS = Path(__file__).resolve().parents[1] / "grids"
REPOSITORY = GRIDS.parents[1]
RUNNERS = ("output", "overwrite", "resume", "seed", "threads", "log.trackers")
"""Training fields that the runner sets itself, whatever it trains."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NO_LIST = "expected a list, such as [a, b]"
M = TypeVar("M", bound="Declared")
T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that gives a key twice: YAML forbids it, and the first value would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    said = f'"{key.value}" is given twice'
                    raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def load(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ConfigError: it cannot be read, is not YAML, gives a key twice, or holds something else.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: grid: expected a mapping of names, got {type(content).__name__}")
    return content


def derived(default: Any) -> Any:
    """A field that is no key of the file: reading fills it in."""
    return Field(default, json_schema_extra={"derived": True})


class Declared(BaseModel):
    """A mapping of the file with these keys and no others."""

    model_config = {"extra": "forbid", "frozen": True, "arbitrary_types_allowed": True}

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise ValueError(f"expected a mapping of names, got {type(content).__name__}")
        keys = cls.keys()
        for key in content:
            one_of("key", key, sorted(keys, key=lambda key: not keys[key]))
        for key, needed in keys.items():
            if needed and key not in content:
                raise ValueError(f"{key} is missing")
        return content

    @classmethod
    def keys(cls) -> dict[str, bool]:
        """Keys of the file, and whether they must be there."""
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        return {key: one.is_required() for key, one in fields.items() if not one.json_schema_extra}


def parse(model: type[M], content: Any, where: str = "") -> M:
    """The model of a part of the file.

    Args:
        model: what it must be.
        content: as YAML gives it.
        where: of the part, for the message.

    Raises:
        ConfigError: the first thing that is wrong, on one line.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, [*([where] if where else []), *first["loc"]])) or "grid"
        said = first.get("ctx", {}).get("error", first["msg"])
        message = _NO_LIST if first["type"] == "tuple_type" else str(said)
        raise ConfigError(f"{place}{' ' if message.startswith('must ') else ': '}{message}") from None


def known(where: str, what: str, name: Any, names: Iterable[str]) -> str:
    """One of ``names``.

    Raises:
        ConfigError: it is none of them.
    """
    try:
        return one_of(what, name, names)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def one_of(what: str, name: Any, names: Iterable[str]) -> str:
    """One of ``names``. This one and those below raise ValueError, which ``parse`` tells with its place."""
    if name not in (choices := list(names)):
        raise ValueError(unknown_name(what, str(name), choices))
    return str(name)


def _typed(words: str, *types: type) -> Callable[[Any], Any]:
    """Validator of values of these types; a bool is no number, a text is not empty."""

    def check(content: Any) -> Any:
        odd = isinstance(content, bool) and bool not in types
        if odd or not isinstance(content, types) or content == "":
            raise ValueError(words.format(content))
        return content

    return check


text = _typed("expected text, got {!r}", str)
whole = _typed("expected a whole number, got {!r}", int)
listed = _typed(_NO_LIST, list)


def _names(content: Any) -> tuple[str, ...]:
    found = tuple(map(text, listed(content)))
    for name, count in Counter(found).items():
        if count > 1:
            raise ValueError(f'"{name}" is given twice: name it once')
    return found


def _seeds(content: Any) -> tuple[int, ...]:
    seeds = tuple(map(whole, listed(content)))
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) > 999:
        raise ValueError("give at least one, each once, from 0 to 999 (folds add thousands), such as [0, 1]")
    return seeds


def named(content: Any) -> dict[str, Any]:
    """A mapping whose keys can name folders; not empty."""
    if not isinstance(content, dict) or not content:
        raise ValueError("give at least one, by name")
    for name in content:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f'"{name}" cannot name a folder: use letters, digits, "_", "-" and "."')
    return content


def texts(otherwise: str) -> PlainValidator:
    """Validator of a mapping of texts to texts; ``otherwise`` says what was expected."""

    def read(content: Any) -> dict[str, str]:
        content = {} if content is None else content
        if not isinstance(content, dict):
            raise ValueError(otherwise)
        return {text(key): text(value) for key, value in content.items()}

    return PlainValidator(read)


def _base_file(content: Any) -> Path:
    """The file as given, or below the repository where the command runs elsewhere."""
    for path in (Path(text(content)), REPOSITORY / content):
        if path.is_file():
            return path
    raise ValueError(f"{content} does not exist: give a training configuration")


Text = Annotated[str, PlainValidator(text)]
Whole = Annotated[int, PlainValidator(whole)]
Number = Annotated[float, PlainValidator(_typed("expected a number, got {!r}", int, float))]
Truth = Annotated[bool, PlainValidator(_typed('must be true or false, got "{}"', bool))]
Place = Annotated[Path, PlainValidator(lambda content: Path(text(content)))]
Names = Annotated[tuple[str, ...], PlainValidator(_names)]
"""Texts, each once."""
Seeds = Annotated[tuple[int, ...], PlainValidator(_seeds)]
BaseFile = Annotated[Path, PlainValidator(_base_file)]
"""A training configuration that is there."""
Named = Annotated[dict[str, T], BeforeValidator(named)]
"""Name, which is also that of a folder, to what it names."""


def training_fields(*runners: str, lists: Sequence[str] = ()) -> PlainValidator:
    """Validator of training fields, dotted name to value.

    Args:
        runners: fields that the runner sets itself, besides ``RUNNERS``.
        lists: fields that hold a list.
    """

    def read(content: Any) -> dict[str, Any]:
        content = {} if content is None else content
        if not isinstance(content, dict):
            raise ValueError("expected a mapping of training fields, such as {loss.name: info_nce}")
        for key, value in content.items():
            if isinstance(value, dict) or (isinstance(value, list) and key not in lists):
                raise ValueError(f"{key} must have one value: write its fields as {key}.name: value")
            if key in (*RUNNERS, *runners):
                raise ValueError(f"{key} is set by the grid's runner: leave it out")
        return {str(key): value for key, value in content.items()}

    return PlainValidator(read)


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """``{"loss.name": "info_nce"}`` → ``["--loss.name", "info_nce"]``, values as YAML reads them back."""
    words: list[str] = []
    for key, value in settings.items():
        as_json = value is None or isinstance(value, bool | list)
        words += [f"--{key}", json.dumps(value, ensure_ascii=False) if as_json else str(value)]
    return words


def training_config(base: Path, task: str, settings: Mapping[str, Any]) -> RunConfig:
    """The configuration that ``training/run.py --config BASE`` makes of these settings.

    Raises:
        ConfigError: the base is of another task, an unknown field, a wrong type, a value out of range, a contradiction.
    """
    entry = find_task(["--config", str(base)])
    if entry.config.task != task:
        raise ConfigError(f"{base} is a configuration of {entry.config.task}: give one of {task}")
    return read_config(entry.config, ["--config", str(base), *as_arguments(settings)])


def check_training(where: str, base: Path, task: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that training would refuse; ``where`` they stand in the file."""
    try:
        training_config(base, task, settings)
    except KGTargetsError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix('command line: ')}") from error


@dataclass(frozen=True)
class Paper:
    """A table of a paper, to be read beside our rows (``paper.yaml``)."""

    source: str
    """The table, and caveats."""
    rows: Mapping[str, Mapping[str, float]]
    """Row to column (measure or data set) to per cent."""


@cache
def paper(task: str) -> Paper:
    """The paper's table for the grids of a task: ``retrieval`` or ``med_vqa``."""
    table = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))[task]
    rows = {row: dict(zip(table["columns"], figures, strict=True)) for row, figures in table["rows"].items()}
    return Paper(table["source"], rows)


def paper_row(task: str, content: Any) -> str | None:
    """The name of a row of the paper's table, or nothing."""
    return None if content is None else one_of("row of the paper", text(content), paper(task).rows)


def fingerprint_of(content: Any, *bases: Path) -> str:
    """sha256 of what JSON makes of a grid's content, its keys in order, and of the bytes of its configurations."""
    found = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    for base in bases:
        found.update(base.read_bytes())
    return found.hexdigest()


def shown(path: Path, outside: str = "") -> str:
    """A path as a person would type it: relative where it lies below the current folder, ``outside`` elsewhere."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return outside or str(path)


class Grid(Declared):
    """A grid of training runs."""

    out: ClassVar[Path]
    """Default parent of the grids' folders."""
    title: Text
    dataset: Text
    """Name of a data set, or its manifest's path."""
    base: BaseFile
    """Training configuration that every run (of Med-VQA: every fine-tuning) starts from."""
    seeds: Seeds
    """Training seeds; each row is trained with each of them on each part of the data."""
    rows: Mapping[str, Any]
    """Rows by name, in the order of the file."""
    data_root: Place = Path()
    name: str = derived("")
    """The file's name without its suffix."""
    path: Path = derived(Path())
    default_root: Path = derived(Path())
    """Place of the data unless --data-root says otherwise."""

    @abstractmethod
    def resolved(self, path: Path, data_root: Path | None) -> Self:
        """The grid with its defaults filled in and every name that it uses checked.

        Args:
            path: of its file.
            data_root: instead of the file's.

        Raises:
            KGTargetsError: a name is not defined, or training would refuse a row.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of what the grid says and of its configurations; where files lie plays no part."""

    def content(self) -> dict[str, Any]:
        """The grid's content without the places of files."""
        places = dict.fromkeys(("path", "data_root", "default_root", "base"), ".")
        return self.model_dump(warnings=False) | places  # it would warn of what validators made

    def of_file(self, path: Path, data_root: Path | None, default_root: Path) -> dict[str, Any]:
        """The derived fields that every grid has; ``default_root``: the data set's own."""
        usual = self.data_root if "data_root" in self.model_fields_set else default_root
        return {"name": path.stem, "path": path, "default_root": usual, "data_root": data_root or usual}

    def command(self, out: Path, threads: int | None, row: str | None = None) -> str:
        """The command that makes the grid, or a row of it, again: with the options that are not the defaults.

        Folders outside the current one are named DIR: pages go to other people and other machines.

        Args:
            out: the grid's folder.
            threads: of each job; ``None`` where that is not known.
            row: only this one.
        """
        shipped = self.path.absolute().parent == GRIDS
        words = ["kg-targets", "tables", self.name if shipped else shown(self.path, self.path.name)]
        if self.data_root.absolute() != self.default_root.absolute():
            words += ["--data-root", shown(self.data_root, "DIR")]
        if out.absolute() != (self.out / self.name).absolute():
            words += ["--out", shown(out, "DIR")]
        words += ["--threads", str(threads)] if threads not in (None, 1) else []
        return shlex.join([*words, *(["--only", row] if row else [])])
