"""Reads a grid's YAML file strictly: whatever is wrong with it is told on one line before anything runs."""

import argparse
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kg_targets.errors import ConfigError, KGTargetsError
from kg_targets.manifest import Manifest
from kg_targets.manifest.folds import FoldConfig
from kg_targets.manifest.model import unknown_name
from pipelines.config import BuildConfig
from pipelines.tables.grid import GRIDS, Comparison, Grid, Official, Row, Table, Variant
from pipelines.tables.paper import paper_row
from training.config import TrainConfig
from training.evaluate.arguments import ArgumentParser
from training.evaluate.config import EvalConfig
from training.evaluate.options import add_measures, read_config
from training.options import build, read_options

REPOSITORY = GRIDS.parents[1]
RUNNERS = (
    "output",
    "overwrite",
    "resume",
    "seed",
    "threads",
    "data.train_store",
    "data.dev_store",
    "data.data_root",
    "log.trackers",
)
"""Training fields that the runner sets itself."""
STORE_OPTIONS = (
    "dataset",
    "no_ontology",
    "scorer",
    "shrinkage",
    "max_hops",
    "part_of",
    "flat_ancestors",
    "ontology",
    "extractor",
    "extractor_options",
    "seed",
)
FLAGS = ("no_ontology", "part_of", "flat_ancestors")
"""Those of them that are given or not."""
_PLACES = ("--output=run", "--data.train_store=train", "--data.data_root=data", "--data.dev_store=null")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_CHANCE = "chance"


def read_grid(name_or_path: str, data_root: Path | None = None) -> Grid:
    """The grid of that name in ``pipelines/grids``, or at that path.

    Args:
        name_or_path: a name, or a path that ends in .yaml.
        data_root: instead of the file's.

    Raises:
        ConfigError: no such grid, or something in it is wrong; the message names file and key.
    """
    path = _find(name_or_path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return _grid(path, content, data_root)
    except KGTargetsError as error:
        raise ConfigError(f"{path}: {error}") from error


def _find(name_or_path: str) -> Path:
    if name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    path = GRIDS / f"{name_or_path}.yaml"
    if "/" in name_or_path or not path.is_file():
        known = sorted(path.stem for path in GRIDS.glob("*.yaml"))
        raise ConfigError(f"{unknown_name('grid', name_or_path, known)}; a path must end in .yaml")
    return path


def _grid(path: Path, content: Any, data_root: Path | None) -> Grid:
    needed = (
        "title",
        "dataset",
        "base",
        "seeds",
        "split",
        "stores",
        "evaluate_on",
        "rows",
        "tables",
        "primary",
    )
    optional = ("data_root", "set", "evaluation", "secondary", "against", "subsets", "dev")
    top = _mapping("grid", content, needed, optional)
    manifest = Manifest.load(_text("dataset", top["dataset"]))
    root = Path(_text("data_root", top["data_root"])) if "data_root" in top else manifest.default_root
    split = _split(top["split"])
    stores = {
        name: _variant(name, options, top["dataset"])
        for name, options in _named("stores", top["stores"]).items()
    }
    base = _base(_text("base", top["base"]))
    shared = _settings("set", top.get("set"))
    rows = {name: _row(name, row, shared) for name, row in _named("rows", top["rows"]).items()}
    for row in rows.values():
        _known(f"rows.{row.name}.store", "store", row.store, stores)
        _check_training(f"rows.{row.name}.set", base, row.settings)
    _known("evaluate_on", "store", top["evaluate_on"], stores)
    evaluation, arguments = _evaluation(top.get("evaluation"))
    primary = Comparison(**_mapping("primary", top["primary"], ("row", "baseline", "measure")))
    for key in ("row", "baseline"):
        _known(f"primary.{key}", "row", getattr(primary, key), rows)
    tables = tuple(_table(number, table, rows) for number, table in enumerate(_list("tables", top["tables"])))
    for name in rows:
        if not any(name in table.rows for table in tables):
            raise ConfigError(f"rows.{name} is in no table: put it into one, or leave it out")
    dev = top.get("dev")
    if dev is not None and not isinstance(split, Official):
        raise ConfigError(
            "dev: folds have no part to choose an epoch by: leave it out, or use official splits"
        )
    return Grid(
        name=path.stem,
        path=path,
        title=_text("title", top["title"]),
        dataset=top["dataset"],
        data_root=data_root or root,
        base=base,
        seeds=_seeds(top["seeds"]),
        split=split,
        stores=stores,
        evaluate_on=top["evaluate_on"],
        rows=rows,
        tables=tables,
        evaluation=evaluation,
        evaluation_arguments=arguments,
        primary=primary,
        against=_against(top.get("against"), rows),
        secondary=tuple(_text("secondary", name) for name in _list("secondary", top.get("secondary", []))),
        subsets={name: _text(f"subsets.{name}", to) for name, to in (top.get("subsets") or {}).items()},
        dev=None if dev is None else _text("dev", dev),
    )


def _against(content: Any, rows: Mapping[str, Row]) -> tuple[str, ...] | None:
    if content is None:
        return None
    names = tuple(_text("against", name) for name in _list("against", content))
    for name in names:
        _known("against", "row", name, rows)
    return names


def _split(content: Any) -> FoldConfig | Official:
    kind = _mapping("split", content, (), ("folds", "official"))
    if len(kind) != 1:
        raise ConfigError("split: give either folds or official")
    if "official" in kind:
        official = Official(**_mapping("split.official", kind["official"], ("train", "test")))
        if official.train == official.test:
            raise ConfigError("split.official: train and test are the same split")
        return official
    folds = _mapping("split.folds", kind["folds"], ("count", "test"), ("seed", "train_only"))
    for key in ("count", "seed"):
        _whole(f"split.folds.{key}", folds.get(key, 0))
    test, train_only = (
        tuple(_text(f"split.folds.{key}", name) for name in _list(f"split.folds.{key}", folds.get(key, [])))
        for key in ("test", "train_only")
    )
    return FoldConfig(test, train_only, folds["count"], folds.get("seed", 0))


def _variant(name: str, content: Any, dataset: str) -> Variant:
    where = f"stores.{name}"
    options = _mapping(where, content or {}, (), STORE_OPTIONS)
    dataset = str(options.pop("dataset", dataset))
    Manifest.load(dataset)
    fields: dict[str, Any] = {}
    arguments: list[str] = []
    for key, value in options.items():
        if key in FLAGS:
            if not isinstance(value, bool):
                raise ConfigError(f'{where}.{key} must be true or false, got "{value}"')
            fields |= {"use_ontology": not value} if key == "no_ontology" else {key: value}
            arguments += [f"--{key.replace('_', '-')}"] if value else []
        else:
            fields[key] = value
            arguments += [f"--{key.replace('_', '-')}", str(value)]
    try:
        BuildConfig(dataset=dataset, **fields)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error
    return Variant(name, dataset, fields, tuple(arguments))


def _row(name: str, content: Any, shared: Mapping[str, Any]) -> Row:
    where = f"rows.{name}"
    row = _mapping(where, content, ("title", "store"), ("set", "paper"))
    if name == _CHANCE:
        raise ConfigError(f'rows: "{_CHANCE}" is the name of the random order: choose another')
    paper_row(name, row.get("paper"))
    settings = {**shared, **_settings(f"{where}.set", row.get("set"))}
    return Row(name, _text(f"{where}.title", row["title"]), row["store"], settings, row.get("paper"))


def _settings(where: str, content: Any) -> dict[str, Any]:
    if not isinstance(content or {}, dict):
        raise ConfigError(f"{where}: expected a mapping of training fields, such as {{loss.name: info_nce}}")
    settings = {str(key): value for key, value in (content or {}).items()}
    for key, value in settings.items():
        if isinstance(value, (dict, list)):
            raise ConfigError(f"{where}: {key} must have one value: write its fields as {key}.name: value")
        if key in RUNNERS:
            raise ConfigError(f"{where}: {key} is set by the grid's runner: leave it out")
    return settings


def _table(number: int, content: Any, rows: Mapping[str, Row]) -> Table:
    where = f"tables.{number}"
    table = _mapping(where, content, ("title", "rows", "baseline"))
    names = tuple(_list(f"{where}.rows", table["rows"]))
    for name in names:
        _known(f"{where}.rows", "row", name, rows)
    _known(f"{where}.baseline", "row of the table", table["baseline"], names)
    return Table(_text(f"{where}.title", table["title"]), names, table["baseline"])


def _base(given: str) -> Path:
    """The file as given, or below the repository where the command runs elsewhere."""
    path = Path(given)
    if not path.is_file() and (REPOSITORY / path).is_file():
        path = REPOSITORY / path
    if not path.is_file():
        raise ConfigError(f"base: {given} does not exist: give a training configuration")
    return path


def training_config(base: Path, settings: Mapping[str, Any], *arguments: str) -> TrainConfig:
    """The configuration that ``training/run.py --config BASE`` makes of these settings.

    Raises:
        ConfigError: an unknown field, a wrong type, a value out of range, a contradiction.
    """
    given = ["--config", str(base), *as_arguments(settings), *_PLACES, *arguments]
    return build(TrainConfig, read_options(TrainConfig, given))


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """``{"loss.name": "info_nce"}`` → ``["--loss.name", "info_nce"]``; YAML's own words for null, true and false."""
    words: dict[Any, str] = {None: "null", True: "true", False: "false"}
    return [
        text
        for key, value in settings.items()
        for text in (f"--{key}", words[value] if value is None or isinstance(value, bool) else str(value))
    ]


def _check_training(where: str, base: Path, settings: Mapping[str, Any]) -> None:
    try:
        training_config(base, settings)
    except KGTargetsError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix('command line: ')}") from error


def _evaluation(content: Any) -> tuple[EvalConfig, tuple[str, ...]]:
    fields = [field.name for field in dataclasses.fields(EvalConfig)]
    arguments: list[str] = []
    for key, value in _mapping("evaluation", content or {}, (), fields).items():
        option = "--direction" if key == "directions" else f"--{key.replace('_', '-')}"
        if value is None:
            continue
        if isinstance(value, bool):
            arguments.append(option if value else option.replace("--", "--no-", 1))
        else:
            arguments += [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    parser: argparse.ArgumentParser = ArgumentParser(add_help=False)
    add_measures(parser)
    try:
        return read_config(parser.parse_args(arguments)), tuple(arguments)
    except KGTargetsError as error:
        raise ConfigError(f"evaluation: {error}") from error


def _seeds(content: Any) -> tuple[int, ...]:
    seeds = tuple(_whole("seeds", seed) for seed in _list("seeds", content))
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError("seeds: give at least one, each once and at least 0, such as [0, 1]")
    return seeds


def _mapping(where: str, content: Any, needed: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """``content``, if it is a mapping with these keys and no others."""
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{where}: expected a mapping of names, got {type(content).__name__}")
    for key in content:
        _known(where, "key", key, [*needed, *optional])
    missing = [key for key in needed if key not in content]
    if missing:
        raise ConfigError(f"{where}: {missing[0]} is missing")
    return dict(content)


def _named(where: str, content: Any) -> dict[str, Any]:
    """A mapping whose keys can name folders; not empty."""
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{where}: give at least one, by name")
    for name in content:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(
                f'{where}: "{name}" cannot name a folder: use letters, digits, "_", "-" and "."'
            )
    return content


def _known(where: str, what: str, name: Any, known: Iterable[str]) -> None:
    if name not in (names := list(known)):
        raise ConfigError(f"{where}: {unknown_name(what, str(name), names)}")


def _list(where: str, content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise ConfigError(f"{where}: expected a list, such as [a, b]")
    return content


def _text(where: str, content: Any) -> str:
    if not isinstance(content, str) or not content:
        raise ConfigError(f"{where}: expected text, got {content!r}")
    return content


def _whole(where: str, content: Any) -> int:
    if not isinstance(content, int) or isinstance(content, bool):
        raise ConfigError(f"{where}: expected a whole number, got {content!r}")
    return content
