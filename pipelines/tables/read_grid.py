"""Reads a grid's YAML file strictly: whatever is wrong with it is told on one line before anything runs."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kg_targets.errors import ConfigError, KGTargetsError
from kg_targets.manifest import Manifest
from kg_targets.manifest.folds import FoldConfig
from pipelines.build.config import BuildConfig
from pipelines.tables.common import as_arguments, base_file, find_grid, named, seeds_of, settings_of
from pipelines.tables.content import known, listed, load, mapping, names, number, text, truth, whole
from pipelines.tables.grid import Comparison, Grid, Official, Row, Table, Variant, shipped_grids
from pipelines.tables.paper import paper_row
from training.command import ArgumentParser
from training.nb_clip.config import TrainConfig
from training.options import build, read_options

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
STORE_OPTIONS = {
    "dataset": text,
    "no_ontology": truth,
    "scorer": text,
    "shrinkage": number,
    "max_hops": whole,
    "part_of": truth,
    "flat_ancestors": truth,
    "ontology": text,
    "extractor": text,
    "extractor_options": text,
    "seed": whole,
}
"""Options of `kg-targets build` that a variant may have, to what each must be; null leaves one out."""
_PLACES = ("--output=run", "--data.train_store=train", "--data.data_root=data", "--data.dev_store=null")
_CHANCE = "chance"


def read_grid(name_or_path: str, data_root: Path | None = None) -> Grid:
    """The grid of that name in ``pipelines/grids``, or at that path.

    Args:
        name_or_path: a name, or a path that ends in .yaml.
        data_root: instead of the file's.

    Raises:
        ConfigError: no such grid, or something in it is wrong; the message names file and key.
    """
    path = find_grid(name_or_path, shipped_grids())
    content = load(path)
    try:
        return _grid(path, content, data_root)
    except KGTargetsError as error:
        raise ConfigError(f"{path}: {error}") from error


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
    top = mapping("grid", content, needed, optional)
    manifest = Manifest.load(text("dataset", top["dataset"]))
    root = Path(text("data_root", top["data_root"])) if "data_root" in top else manifest.default_root
    split = _split(top["split"])
    stores = {
        name: _variant(name, options, top["dataset"])
        for name, options in named("stores", top["stores"]).items()
    }
    base = base_file(text("base", top["base"]))
    shared = settings_of("set", top.get("set"), RUNNERS)
    rows = {name: _row(name, row, shared) for name, row in named("rows", top["rows"]).items()}
    for row in rows.values():
        known(f"rows.{row.name}.store", "store", row.store, stores)
        _check_training(f"rows.{row.name}.set", base, row.settings)
    known("evaluate_on", "store", top["evaluate_on"], stores)
    primary = _primary(top["primary"], rows)
    tables = tuple(_table(place, table, rows) for place, table in enumerate(listed("tables", top["tables"])))
    for name in rows:
        if not any(name in table.rows for table in tables):
            raise ConfigError(f"rows.{name} is in no table: put it into one, or leave it out")
    secondary = names("secondary", top.get("secondary", []))
    if primary.measure in secondary:
        raise ConfigError(f'secondary: "{primary.measure}" is the primary measure already: leave it out')
    dev = top.get("dev")
    if dev is not None and not isinstance(split, Official):
        raise ConfigError(
            "dev: folds have no part to choose an epoch by: leave it out, or use official splits"
        )
    return Grid(
        name=path.stem,
        path=path,
        title=text("title", top["title"]),
        dataset=top["dataset"],
        data_root=data_root or root,
        base=base,
        seeds=seeds_of(top["seeds"]),
        split=split,
        stores=stores,
        evaluate_on=top["evaluate_on"],
        rows=rows,
        tables=tables,
        primary=primary,
        against=_against(top.get("against"), rows, primary),
        secondary=secondary,
        subsets=_subsets(top.get("subsets")),
        dev=None if dev is None else text("dev", dev),
        **_evaluation(top.get("evaluation")),
    )


def _primary(content: Any, rows: Mapping[str, Row]) -> Comparison:
    given = mapping("primary", content, ("row", "baseline", "measure"))
    for key in ("row", "baseline"):
        known(f"primary.{key}", "row", given[key], rows)
    if given["row"] == given["baseline"]:
        raise ConfigError(f'primary: row and baseline are both "{given["row"]}": compare two rows')
    return Comparison(given["row"], given["baseline"], text("primary.measure", given["measure"]))


def _against(content: Any, rows: Mapping[str, Row], primary: Comparison) -> tuple[str, ...] | None:
    if content is None:
        return None
    rivals = names("against", content)
    for name in rivals:
        known("against", "row", name, rows)
        if name in (primary.row, primary.baseline):
            raise ConfigError(
                f'against: "{name}" is in the primary comparison already: name rows that {primary.row} is tested '
                "against besides"
            )
    return rivals


def _subsets(content: Any) -> dict[str, str]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            "subsets: expected titles and splits, such as {cases of the official test split: test}"
        )
    return {text("subsets", title): text(f"subsets.{title}", split) for title, split in content.items()}


def _split(content: Any) -> FoldConfig | Official:
    kind = mapping("split", content, (), ("folds", "official"))
    if len(kind) != 1:
        raise ConfigError("split: give either folds or official")
    if "official" in kind:
        given = mapping("split.official", kind["official"], ("train", "test"))
        official = Official(*(text(f"split.official.{key}", given[key]) for key in ("train", "test")))
        if official.train == official.test:
            raise ConfigError("split.official: train and test are the same split")
        return official
    folds = mapping("split.folds", kind["folds"], ("count", "test"), ("seed", "train_only"))
    test, train_only = (names(f"split.folds.{key}", folds.get(key, [])) for key in ("test", "train_only"))
    count, seed = (whole(f"split.folds.{key}", folds.get(key, 0)) for key in ("count", "seed"))
    return FoldConfig(test, train_only, count, seed)


def _variant(name: str, content: Any, dataset: str) -> Variant:
    where = f"stores.{name}"
    given = mapping(where, {} if content is None else content, (), tuple(STORE_OPTIONS))
    options = {
        key: STORE_OPTIONS[key](f"{where}.{key}", value) for key, value in given.items() if value is not None
    }
    dataset = str(options.pop("dataset", dataset))
    Manifest.load(dataset)
    fields: dict[str, Any] = {}
    arguments: list[str] = []
    for key, value in options.items():
        fields |= {"use_ontology": not value} if key == "no_ontology" else {key: value}
        if isinstance(value, bool):
            arguments += [f"--{key.replace('_', '-')}"] if value else []
        else:
            arguments += [f"--{key.replace('_', '-')}", str(value)]
    try:
        BuildConfig(dataset=dataset, **fields)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return Variant(name, dataset, fields, tuple(arguments))


def _row(name: str, content: Any, shared: Mapping[str, Any]) -> Row:
    where = f"rows.{name}"
    row = mapping(where, content, ("title", "store"), ("set", "paper"))
    if name == _CHANCE:
        raise ConfigError(f'rows: "{_CHANCE}" is the name of the random order: choose another')
    paper = row.get("paper")
    if paper is not None and paper is not False:
        text(f"{where}.paper", paper)
    paper_row(name, paper)
    settings = {**shared, **settings_of(f"{where}.set", row.get("set"), RUNNERS)}
    return Row(name, text(f"{where}.title", row["title"]), row["store"], settings, paper)


def _table(place: int, content: Any, rows: Mapping[str, Row]) -> Table:
    where = f"tables.{place}"
    table = mapping(where, content, ("title", "rows", "baseline"))
    shown = names(f"{where}.rows", table["rows"])
    for name in shown:
        known(f"{where}.rows", "row", name, rows)
    known(f"{where}.baseline", "row of the table", table["baseline"], shown)
    return Table(text(f"{where}.title", table["title"]), shown, table["baseline"])


def training_config(base: Path, settings: Mapping[str, Any], *arguments: str) -> TrainConfig:
    """The configuration that ``training/run.py --config BASE`` makes of these settings.

    Raises:
        ConfigError: an unknown field, a wrong type, a value out of range, a contradiction.
    """
    given = ["--config", str(base), *as_arguments(settings), *_PLACES, *arguments]
    return build(TrainConfig, read_options(TrainConfig, given))


def _check_training(where: str, base: Path, settings: Mapping[str, Any]) -> None:
    try:
        training_config(base, settings)
    except KGTargetsError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix('command line: ')}") from error


def _evaluation(content: Any) -> dict[str, Any]:
    """The grid's fields ``evaluation`` and ``evaluation_arguments``."""
    # They load torch, which takes seconds: not for what is wrong elsewhere in the file.
    from training.retrieval.config import EvalConfig, add_measures, read_config

    fields = [field.name for field in dataclasses.fields(EvalConfig)]
    arguments: list[str] = []
    for key, value in mapping("evaluation", {} if content is None else content, (), fields).items():
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
        config: EvalConfig = read_config(parser.parse_args(arguments))
    except KGTargetsError as error:
        raise ConfigError(f"evaluation: {error}") from error
    return {"evaluation": config, "evaluation_arguments": tuple(arguments)}
