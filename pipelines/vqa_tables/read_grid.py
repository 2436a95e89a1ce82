"""Reads a Med-VQA grid's YAML file strictly: whatever is wrong with it is told on one line before anything runs."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kg_targets.errors import ConfigError, KGTargetsError
from kg_targets.manifest import Manifest
from pipelines.tables.common import as_arguments, base_file, find_grid, named, seeds_of, settings_of
from pipelines.tables.content import known, listed, load, mapping, names, number, text, whole
from pipelines.tables.grid import VQA, shipped_grids
from pipelines.vqa_tables.grid import CONTROLS, Grid, Part, Plot, Point, Row, Stage, Store
from pipelines.vqa_tables.paper import TEACHERS
from training.engine.config import RunConfig
from training.options import build, read_options
from training.tasks import find_task
from training.vqa.protocols import PROTOCOLS

FINETUNE_TASK, PRETRAIN_TASK = "med_vqa_finetune", "med_vqa_pretrain"
RUNNERS = (
    "task",
    "output",
    "overwrite",
    "resume",
    "seed",
    "threads",
    "log.trackers",
)
"""Training fields that the runner sets itself."""
FINETUNE_RUNNERS = (
    *RUNNERS,
    *(f"data.{name}" for name in ("dataset", "data_root", "protocol", "split_seed", "images")),
)
LISTS = ("soft_labels",)
"""Training fields that hold a list."""
EVALUATION = {"mode": text, "k": whole, "precision": text, "max_broken": whole}
"""Options of the evaluation that a grid may have, to what each must be."""
PLACE = re.compile(r"\{([^{}]*)\}")
HERE, DATA_ROOT = "here", "data_root"
_ROW = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")
_DATA = {"data.dataset": "data", "data.data_root": "data"}
_COMMANDS = ("kg-targets", "python")


def read_grid(name_or_path: str, data_root: Path | None = None) -> Grid:
    """The Med-VQA grid of that name in ``pipelines/grids``, or at that path.

    Args:
        name_or_path: a name, with or without ``vqa_`` before it, or a path that ends in .yaml.
        data_root: instead of the file's.

    Raises:
        ConfigError: no such grid, or something in it is wrong; the message names file and key.
    """
    shipped = shipped_grids(vqa=True)
    short = f"{VQA}{name_or_path}"
    path = find_grid(short if short in shipped else name_or_path, shipped)
    content = load(path)
    try:
        return _grid(path, content, data_root)
    except KGTargetsError as error:
        raise ConfigError(f"{path}: {error}") from error


def _grid(path: Path, content: Any, data_root: Path | None) -> Grid:
    optional = (
        "data_root", "set", "pretrain", "pretrain_seeds", "evaluation", "stores", "baseline", "plot",
    )  # fmt: skip
    top = mapping("grid", content, ("title", "dataset", "base", "seeds", "parts", "rows"), optional)
    manifest = Manifest.load(text("dataset", top["dataset"]), "questions")
    root = Path(text("data_root", top["data_root"])) if "data_root" in top else manifest.default_root
    base = base_file(text("base", top["base"]))
    seeds = seeds_of(top["seeds"])
    stores = _stores(top.get("stores"))
    shared = settings_of("set", top.get("set"), FINETUNE_RUNNERS)
    stages = _stages("pretrain", top.get("pretrain", []))
    rows = {name: _row(name, row, shared, stages, stores) for name, row in named("rows", top["rows"]).items()}
    titles: dict[str, str] = {}
    for row in rows.values():
        if titles.setdefault(row.title, row.name) != row.name:
            raise ConfigError(
                f"rows.{row.name}.title: {titles[row.title]} has it, too: reports tell rows by it"
            )
        _check_row(row, base)
    return Grid(
        name=path.stem,
        path=path,
        title=text("title", top["title"]),
        dataset=top["dataset"],
        data_root=data_root or root,
        default_root=root,
        base=base,
        seeds=seeds,
        pretrain_seeds=_pretrain_seeds(top.get("pretrain_seeds"), seeds),
        parts=_parts(top["parts"]),
        evaluation=_evaluation(top.get("evaluation")),
        stores=stores,
        rows=rows,
        baseline=None if top.get("baseline") is None else known("baseline", "row", top["baseline"], rows),
        plot=_plot(top.get("plot"), rows),
    )


def _parts(content: Any) -> tuple[Part, ...]:
    parts = []
    for place, given in enumerate(listed("parts", content)):
        where = f"parts.{place}"
        part = mapping(where, given, ("protocol",), ("cuts",))
        protocol = known(f"{where}.protocol", "protocol", part["protocol"], PROTOCOLS)
        cuts = [whole(f"{where}.cuts", cut) for cut in listed(f"{where}.cuts", part.get("cuts", [0]))]
        if not cuts or min(cuts) < 0:
            raise ConfigError(f"{where}.cuts: give at least one, from 0 on, such as [0, 1, 2]")
        parts += [Part(protocol, cut) for cut in cuts]
    if not parts or len(set(parts)) < len(parts):
        raise ConfigError("parts: give at least one, each protocol and cut once")
    for protocol in PROTOCOLS:
        if protocol != "image_disjoint" and sum(part.protocol == protocol for part in parts) > 1:
            raise ConfigError(
                f"parts: {protocol} always has the same test questions, which several cuts would count twice: give one"
            )
    return tuple(parts)


def _pretrain_seeds(content: Any, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """One for each seed of fine-tuning; a single one serves all."""
    if content is None:
        return seeds
    given = seeds_of(content)
    if len(given) not in (1, len(seeds)):
        raise ConfigError(f"pretrain_seeds: give one for all, or one for each of the {len(seeds)} seeds")
    return given * len(seeds) if len(given) == 1 else given


def _evaluation(content: Any) -> tuple[str, ...]:
    given = mapping("evaluation", {} if content is None else content, (), tuple(EVALUATION))
    return tuple(
        word
        for key, value in given.items()
        for word in (f"--{key.replace('_', '-')}", str(EVALUATION[key](f"evaluation.{key}", value)))
    )


def _stores(content: Any) -> dict[str, Store]:
    stores: dict[str, Store] = {}
    for name, given in ({} if content is None else named("stores", content)).items():
        where = f"stores.{name}"
        if name in (HERE, DATA_ROOT):
            raise ConfigError(f'{where}: "{name}" means something else in commands: choose another name')
        store = mapping(where, given, ("command",), ("requires",))
        words = tuple(shlex.split(text(f"{where}.command", store["command"])))
        if len(words) < 2 or words[0] not in _COMMANDS or (words[0] == "python" and words[1] != "-m"):
            raise ConfigError(f"{where}.command: begin with `kg-targets` or `python -m`")
        places = _places(f"{where}.command", words, (*stores, HERE, DATA_ROOT))
        if HERE not in places:
            raise ConfigError(
                f"{where}.command: say with {{{HERE}}} where it writes, such as --out {{{HERE}}}"
            )
        others = tuple(place for place in places if place in stores)
        requires = _requires(where, store.get("requires"))
        for other in others:
            requires = {**stores[other].requires, **requires}
        stores[name] = Store(name, words, others, requires)
    return stores


def _places(where: str, content: Any, allowed: Sequence[str]) -> tuple[str, ...]:
    """Names in braces, each once; in lists and mappings, too."""
    if isinstance(content, str):
        return tuple(known(where, "store", name, allowed) for name in dict.fromkeys(PLACE.findall(content)))
    if isinstance(content, Mapping):
        content = list(content.values())
    parts = content if isinstance(content, (list, tuple)) else ()
    return tuple(dict.fromkeys(name for part in parts for name in _places(where, part, allowed)))


def _requires(where: str, content: Any) -> dict[str, str]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{where}.requires: expected paths and how to get them")
    return {
        text(f"{where}.requires", path): text(f"{where}.requires.{path}", how)
        for path, how in content.items()
    }


def _stages(where: str, content: Any) -> tuple[Stage, ...]:
    stages = []
    for place, given in enumerate(listed(where, content)):
        stage = mapping(f"{where}.{place}", given, ("base",), ("set",))
        runners = (*RUNNERS, "model.start") if place else RUNNERS
        settings = settings_of(f"{where}.{place}.set", stage.get("set"), runners, LISTS)
        stages.append(Stage(base_file(text(f"{where}.{place}.base", stage["base"])), settings))
    if len(stages) > 2:
        raise ConfigError(f"{where}: a pre-training has one or two stages, not {len(stages)}")
    return tuple(stages)


def _row(
    name: str, content: Any, shared: Mapping[str, Any], stages: tuple[Stage, ...], stores: Mapping[str, Store]
) -> Row:
    where = f"rows.{name}"
    if not _ROW.fullmatch(name):
        raise ConfigError(f'rows: "{name}" must not contain "-", which parts the names of runs')
    row = mapping(where, content, ("title",), ("set", "pretrain", "controls", "requires", "paper", "point"))
    own = row.get("pretrain")
    if isinstance(own, dict):
        if not stages:
            raise ConfigError(f"{where}.pretrain: the grid has no `pretrain` to add to: list the stages here")
        added = settings_of(
            f"{where}.pretrain.set",
            mapping(f"{where}.pretrain", own, ("set",))["set"],
            (*RUNNERS, "model.start"),
            LISTS,
        )
        pretrain = tuple(replace(stage, settings={**stage.settings, **added}) for stage in stages)
    else:
        pretrain = () if own is None else _stages(f"{where}.pretrain", own)
    runners = (*FINETUNE_RUNNERS, "model.start") if pretrain else FINETUNE_RUNNERS
    settings = {**shared, **settings_of(f"{where}.set", row.get("set"), runners)}
    used = _places(where, [settings, *(stage.settings for stage in pretrain)], tuple(stores))
    requires = _requires(where, row.get("requires"))
    for store in used:
        requires = {**stores[store].requires, **requires}
    paper = row.get("paper")
    return Row(
        name=name,
        title=text(f"{where}.title", row["title"]),
        settings=settings,
        pretrain=pretrain,
        controls=tuple(
            known(f"{where}.controls", "control", control, CONTROLS)
            for control in names(f"{where}.controls", row.get("controls", []))
        ),
        stores=_with_theirs(used, stores),
        requires=requires,
        paper=None if paper is None else known(f"{where}.paper", "row of the paper", paper, TEACHERS),
        point=_point(f"{where}.point", row.get("point")),
    )


def _with_theirs(used: Sequence[str], stores: Mapping[str, Store]) -> tuple[str, ...]:
    """Stores and what they are made from, in the order in which they are made."""
    found = set(used)
    for name in reversed(list(stores)):
        if name in found:
            found |= set(stores[name].stores)
    return tuple(name for name in stores if name in found)


def _point(where: str, content: Any) -> Point | None:
    if content is None:
        return None
    point = mapping(where, content, ("series", "x"))
    series = names(f"{where}.series", point["series"])
    if not series:
        raise ConfigError(f"{where}.series: name at least one line")
    return Point(series, number(f"{where}.x", point["x"]))


def _plot(content: Any, rows: Mapping[str, Row]) -> Plot | None:
    pointed = [row.name for row in rows.values() if row.point is not None]
    if content is None:
        if pointed:
            raise ConfigError(f"rows.{pointed[0]}.point: the grid has no `plot`")
        return None
    plot = mapping("plot", content, ("x",), ("marked",))
    if not pointed:
        raise ConfigError("plot: no row has a point")
    marked = plot.get("marked")
    return Plot(text("plot.x", plot["x"]), None if marked is None else number("plot.marked", marked))


def _check_row(row: Row, base: Path) -> None:
    where = f"rows.{row.name}"
    tried: list[tuple[str, Path, Mapping[str, Any], str]] = [
        (f"{where}.set", base, {**_DATA, **row.settings}, FINETUNE_TASK)
    ]
    tried += [
        (f"{where}.pretrain.{place}", stage.base, stage.settings, PRETRAIN_TASK)
        for place, stage in enumerate(row.pretrain)
    ]
    for place, file, settings, task in tried:
        start = {"model.start": "run"} if row.pretrain and place != f"{where}.pretrain.0" else {}
        try:
            training_config(file, task, {**settings, **start, "output": "run"})
        except KGTargetsError as error:
            raise ConfigError(f"{place}: {str(error).removeprefix('command line: ')}") from error


def training_config(base: Path, task: str, settings: Mapping[str, Any], *arguments: str) -> RunConfig:
    """The configuration that ``training/run.py --config BASE`` makes of these settings.

    Raises:
        ConfigError: the base is of another task, an unknown field, a wrong type, a value out of range, a contradiction.
    """
    entry = find_task(["--config", str(base)])
    if entry.config.task != task:
        raise ConfigError(f"{base} is a configuration of {entry.config.task}: give one of {task}")
    given = ["--config", str(base), *as_arguments(settings), *arguments]
    return build(entry.config, read_options(entry.config, given))
