"""The declaration of a grid of Med-VQA models: ``pipelines/grids/vqa_*.yaml``."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator

from kg_targets.errors import ConfigError
from kg_targets.manifest import Manifest
from pipelines.experiments import grid as declared
from pipelines.experiments.grid import Declared, Grid, Names, Text, derived, known, listed, parse
from training.vqa.protocols import PROTOCOLS

FINETUNE_TASK, PRETRAIN_TASK = "med_vqa_finetune", "med_vqa_pretrain"
QUESTION_ONLY, SHUFFLED = CONTROLS = ("question_only", "shuffled")
"""A question-only baseline, trained and evaluated with blank images; the same model evaluated with other images."""
INIT_FROM = "model.init_from"
PLACE = re.compile(r"\{([^{}]*)\}")
HERE, DATA_ROOT = "here", "data_root"
_ROW = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")
_DATA = tuple(f"data.{name}" for name in ("dataset", "data_root", "protocol", "split_seed", "images"))
TRAIN = ("python", "training/run.py")
FinetuneFields = Annotated[dict[str, Any], declared.training_fields("task", *_DATA)]
PretrainFields = Annotated[dict[str, Any], declared.training_fields("task", lists=("soft_labels",))]


@dataclass(frozen=True)
class Part:
    """Questions that train, select and test: a protocol and a fold by image (``training/vqa/protocols.py``)."""

    protocol: str
    fold: int
    """``--split-seed``; not a seed of training."""

    @property
    def name(self) -> str:
        """Name in those of folders."""
        several = self.protocol == "image_disjoint" or self.fold
        return f"{self.protocol}-fold{self.fold}" if several else self.protocol

    def recorded(self) -> dict[str, Any]:
        """Content of keys and fingerprints, which said cut before version 0.2.0 and must not change."""
        return {"protocol": self.protocol, "cut": self.fold}


def _folds(content: Any) -> tuple[int, ...]:
    folds = tuple(map(declared.whole, listed(content)))
    if not folds or min(folds) < 0:
        raise ValueError("give at least one, from 0 on, such as [0, 1, 2]")
    return folds


class Folds(Declared):
    """A protocol and its folds, each of which is a part."""

    protocol: Annotated[str, PlainValidator(lambda content: declared.one_of("protocol", content, PROTOCOLS))]
    folds: Annotated[tuple[int, ...], PlainValidator(_folds)] = (0,)


def _parts(content: Any) -> tuple[Part, ...]:
    given = []
    for place, one in enumerate(listed(content)):
        if isinstance(one, dict):  # grids from before say cuts
            one = {"folds" if key == "cuts" else key: value for key, value in one.items()}
        given.append(parse(Folds, one, f"parts.{place}"))
    parts = tuple(Part(one.protocol, fold) for one in given for fold in one.folds)
    if not parts or len(set(parts)) < len(parts):
        raise ValueError("give at least one, each protocol and fold once")
    for protocol in PROTOCOLS:
        if protocol != "image_disjoint" and sum(part.protocol == protocol for part in parts) > 1:
            raise ValueError(
                f"{protocol} always has the same test questions, which several folds would count twice: give one"
            )
    return parts


class Evaluation(Declared):
    """Options of ``kg-targets evaluate vqa`` beyond the runner's own."""

    mode: Text | None = None
    k: declared.Whole | None = None
    precision: Text | None = None
    max_broken: declared.Whole | None = None


def _evaluation(content: Any) -> tuple[str, ...]:
    given = parse(Evaluation, {} if content is None else content, "evaluation").model_dump(exclude_none=True)
    names = [key for key in content or () if key in given]  # in the order of the file
    return tuple(word for key in names for word in (f"--{key.replace('_', '-')}", str(given[key])))


Requires = Annotated[Mapping[str, str], declared.texts("expected paths and how to get them")]
"""Path that only the user can provide, to how to get it."""


class Store(Declared):
    """Something that rows need and a command makes: target stores, a list of cases to leave out."""

    command: Annotated[
        tuple[str, ...], PlainValidator(lambda content: tuple(shlex.split(declared.text(content))))
    ]
    """Words, with ``{here}`` for its own place, ``{data_root}``, and ``{name}`` for other stores' places."""
    requires: Requires = Field(default_factory=dict)
    """Includes those of the stores that it names."""
    name: str = derived("")
    stores: tuple[str, ...] = derived(())
    """Others that the command names, defined above it."""


def _stores(content: Any) -> dict[str, Store]:
    stores: dict[str, Store] = {}
    for name, given in ({} if content is None else declared.named(content)).items():
        where = f"stores.{name}"
        if name in (HERE, DATA_ROOT):
            raise ConfigError(f'{where}: "{name}" means something else in commands: choose another name')
        store = parse(Store, given, where)
        words = store.command
        if len(words) < 2 or (words[0] != "kg-targets" and words[:2] != TRAIN):
            raise ConfigError(f"{where}.command: begin with `kg-targets` or `{' '.join(TRAIN)}`")
        places = _places(f"{where}.command", words, (*stores, HERE, DATA_ROOT))
        if HERE not in places:
            raise ConfigError(
                f"{where}.command: say with {{{HERE}}} where it writes, such as --out {{{HERE}}}"
            )
        others = tuple(place for place in places if place in stores)
        requires = _with_theirs(store.requires, others, stores)
        stores[name] = store.model_copy(update={"name": name, "stores": others, "requires": requires})
    return stores


def _places(where: str, content: Any, allowed: Sequence[str]) -> tuple[str, ...]:
    """Names in braces, each once; in lists and mappings, too."""
    if isinstance(content, str):
        return tuple(known(where, "store", name, allowed) for name in dict.fromkeys(PLACE.findall(content)))
    if isinstance(content, Mapping):
        content = list(content.values())
    parts = content if isinstance(content, (list, tuple)) else ()
    return tuple(dict.fromkeys(name for part in parts for name in _places(where, part, allowed)))


def _with_theirs(
    own: Mapping[str, str], used: Sequence[str], stores: Mapping[str, Store]
) -> Mapping[str, str]:
    for name in used:
        own = {**stores[name].requires, **own}
    return own


class Stage(Declared):
    """One stage of a pre-training."""

    base: declared.BaseFile
    """Training configuration."""
    settings: PretrainFields = Field({}, alias="set")
    """Fields that differ from it, dotted name to value."""


class Added(Declared):
    """A row's changes to the stages of the whole grid."""

    settings: PretrainFields = Field(alias="set")


def _stages(where: str, content: Any) -> tuple[Stage, ...]:
    try:
        given = listed(content)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    stages = tuple(parse(Stage, stage, f"{where}.{place}") for place, stage in enumerate(given))
    for place, stage in enumerate(stages[1:], 1):
        _refuse_start(f"{where}.{place}.set", stage.settings)
    if len(stages) > 2:
        raise ConfigError(f"{where}: a pre-training has one or two stages, not {len(stages)}")
    return stages


def _refuse_start(where: str, settings: Mapping[str, Any]) -> None:
    """Refuse pretrained weights where the run continues from another one."""
    if INIT_FROM in settings:
        raise ConfigError(f"{where}: {INIT_FROM} is set by the grid's runner: leave it out")


class Point(Declared):
    """A row's place in the grid's plot."""

    series: Names
    """Lines that go through it."""
    x: declared.Number


class Plot(Declared):
    """Accuracy over a quantity that differs between rows."""

    x: Text
    """Name of the quantity."""
    marked: declared.Number | None = None
    """The paper's choice."""


class Row(Declared):
    """One configuration of the table."""

    title: Text
    settings: FinetuneFields = Field({}, alias="set")
    """Fields of fine-tuning that differ from the base; those of the whole grid included."""
    pretrain: Any = None
    """Stages before the fine-tuning (in the file: a list, or what differs from the grid's); none: it starts from the
    base's own weights."""
    controls: Names = ()
    """Names of ``CONTROLS``."""
    requires: Requires = Field(default_factory=dict)
    """Includes those of its stores."""
    paper: Annotated[str | None, PlainValidator(lambda content: declared.paper_row("med_vqa", content))] = (
        None
    )
    """The paper's row whose figures stand beside it."""
    point: Point | None = None
    name: str = derived("")
    stores: tuple[str, ...] = derived(())
    """Stores that its settings name, and those that these need, in the order in which they are made."""


class MedVQAGrid(Grid):
    """A grid of Med-VQA models, checked: every name that it uses is defined."""

    out = Path("build/vqa_tables")
    parts: Annotated[tuple[Part, ...], PlainValidator(_parts)]
    rows: Annotated[dict[str, Row], PlainValidator(lambda content: _rows(content))]
    settings: FinetuneFields = Field({}, alias="set", exclude=True)
    """Fine-tuning fields of every row."""
    pretrain: Any = Field((), exclude=True)
    """Stages for the rows that add to them."""
    pretrain_seeds: declared.Seeds | None = None
    """Seeds of the pre-training that fine-tuning with each of ``seeds`` starts from, in their order."""
    evaluation: Annotated[tuple[str, ...], PlainValidator(_evaluation)] = ()
    """Options of ``kg-targets evaluate vqa`` beyond the runner's own."""
    stores: Annotated[dict[str, Store], PlainValidator(_stores)] = Field(default_factory=dict)
    baseline: Text | None = None
    """Row that every other row is tested against; ``None``: none."""
    plot: Plot | None = None
    beside: Annotated[Mapping[str, str], declared.texts("expected grids and their data sets")] = Field(
        default_factory=dict, exclude=True
    )
    """Grids of the same rows on other data sets, to these: their reports are put together with this one's."""

    @property
    def pooled(self) -> bool:
        """Whether several folds of one protocol are put end to end."""
        return len({part.protocol for part in self.parts}) < len(self.parts)

    def pretrain_seed_of(self) -> dict[int, int]:
        """Seed of fine-tuning to that of the pre-training that it starts from."""
        return dict(zip(self.seeds, self.pretrain_seeds or self.seeds, strict=True))

    def resolved(self, path: Path, data_root: Path | None) -> Self:
        """See ``Grid``."""
        default_root = Manifest.load(self.dataset, "questions").default_root
        stages = _stages("pretrain", list(self.pretrain) if self.pretrain == () else self.pretrain)
        rows = {name: self._row(name, row, stages) for name, row in self.rows.items()}
        titles: dict[str, str] = {}
        for row in rows.values():
            other = titles.setdefault(row.title, row.name)
            if other != row.name:
                raise ConfigError(f"rows.{row.name}.title: {other} has it, too: reports tell rows by it")
            self._check_row(row)
        if self.baseline is not None:
            known("baseline", "row", self.baseline, rows)
        pointed = [name for name, row in self.rows.items() if row.point is not None]
        if self.plot is None and pointed:
            raise ConfigError(f"rows.{pointed[0]}.point: the grid has no `plot`")
        if self.plot is not None and not pointed:
            raise ConfigError("plot: no row has a point")
        seeds, count = self.pretrain_seeds or self.seeds, len(self.seeds)
        if len(seeds) not in (1, count):
            raise ConfigError(f"pretrain_seeds: give one for all, or one for each of the {count} seeds")
        given = self.of_file(path, data_root, default_root)
        given["pretrain_seeds"] = seeds * count if len(seeds) == 1 else seeds
        return self.model_copy(update=given | {"rows": rows})

    def fingerprint(self) -> str:
        """See ``Grid``."""
        content = self.content() | {"parts": [part.recorded() for part in self.parts]}
        for row in content["rows"].values():
            row["pretrain"] = [{**stage, "base": stage["base"].name} for stage in row["pretrain"]]
        stages = [stage.base for row in self.rows.values() for stage in row.pretrain]
        return declared.fingerprint_of(content, *dict.fromkeys([self.base, *stages]))

    def _row(self, name: str, row: Row, stages: tuple[Stage, ...]) -> Row:
        where, own = f"rows.{name}", row.pretrain
        if isinstance(own, dict):
            if not stages:
                raise ConfigError(
                    f"{where}.pretrain: the grid has no `pretrain` to add to: list the stages here"
                )
            added = parse(Added, own, f"{where}.pretrain").settings
            _refuse_start(f"{where}.pretrain.set", added)
            own = tuple(
                stage.model_copy(update={"settings": {**stage.settings, **added}}) for stage in stages
            )
        else:
            own = () if own is None else _stages(f"{where}.pretrain", own)
        if own:
            _refuse_start(f"{where}.set", row.settings)
        settings = {**self.settings, **row.settings}
        used = _places(where, [settings, *(stage.settings for stage in own)], tuple(self.stores))
        for control in row.controls:
            known(f"{where}.controls", "control", control, CONTROLS)
        if row.point is not None and not row.point.series:
            raise ConfigError(f"{where}.point.series: name at least one line")
        needed = set(used)
        for store in reversed(list(self.stores)):
            if store in needed:
                needed |= set(self.stores[store].stores)
        stores, requires = [name for name in self.stores if name in needed], row.requires
        given = {"name": name, "settings": settings, "pretrain": own, "stores": tuple(stores)}
        return row.model_copy(update=given | {"requires": _with_theirs(requires, used, self.stores)})

    def _check_row(self, row: Row) -> None:
        """Refuse what training would refuse."""
        where = f"rows.{row.name}"
        places = {"output": "run", "data.dataset": "data", "data.data_root": "data"}
        start = {INIT_FROM: "run"}
        finetune = {**places, **row.settings, **(start if row.pretrain else {})}
        declared.check_training(f"{where}.set", self.base, FINETUNE_TASK, finetune)
        for place, stage in enumerate(row.pretrain):
            settings = {**stage.settings, **(start if place else {}), "output": "run"}
            declared.check_training(f"{where}.pretrain.{place}", stage.base, PRETRAIN_TASK, settings)


def _rows(content: Any) -> dict[str, Row]:
    rows = declared.named(content)
    for name in rows:
        if not _ROW.fullmatch(name):
            raise ConfigError(f'rows: "{name}" must not contain "-", which parts the names of runs')
    return {name: parse(Row, row, f"rows.{name}") for name, row in rows.items()}
