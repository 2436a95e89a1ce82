"""The declaration of a grid of NB-CLIP runs, scored by retrieval: ``pipelines/grids/{demo,medpix…}.yaml``."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator

from kg_targets.errors import ConfigError, KGTargetsError
from kg_targets.manifest import Manifest
from kg_targets.manifest.folds import TEST, TRAIN, FoldConfig, fold_names
from pipelines.build.config import BuildConfig
from pipelines.experiments import grid as declared
from pipelines.experiments.grid import Declared, Grid, Named, Names, Text, Truth, Whole, derived, known, parse
from training.command import ArgumentParser
from training.statistics.seed_variance import fold_seed

TASK = "nb_clip"
CHANCE = "chance"
"""The random order, which is scored like a row."""
Fields = Annotated[
    dict[str, Any], declared.training_fields("data.train_store", "data.dev_store", "data.data_root")
]
_PLACES = {"output": "run", "data.train_store": "train", "data.dev_store": None, "data.data_root": "data"}


class Official(Declared):
    """The data set's own split instead of folds."""

    train: Text
    """Split to train on."""
    test: Text
    """Split to score; also the name of the one "fold"."""


class Folds(Declared):
    """Cross-validation by whole cases; see ``kg_targets.manifest.folds.FoldConfig``."""

    count: Whole
    test: Names
    seed: Whole = 0
    train_only: Names = ()


class Split(Declared):
    """One of the two."""

    folds: Folds | None = None
    official: Official | None = None


def _split(content: Any) -> FoldConfig | Official:
    split = parse(Split, content, "split")
    folds, official = split.folds, split.official
    if official is not None and folds is None:
        if official.train == official.test:
            raise ConfigError("split.official: train and test are the same split")
        return official
    if folds is None or official is not None:
        raise ConfigError("split: give either folds or official")
    return FoldConfig(folds.test, folds.train_only, folds.count, folds.seed)


class Variant(Declared):
    """One way to build target stores: options of ``kg-targets build``; null leaves one out."""

    dataset: Text | None = None
    """Data set whose captions are read, of the same images and cases as the grid's, which it is if none is given."""
    no_ontology: Truth | None = None
    scorer: Text | None = None
    shrinkage: declared.Number | None = None
    max_hops: Whole | None = None
    blocks: Text | None = None
    part_of: Truth | None = None
    flat_ancestors: Truth | None = None
    ontology: Text | None = None
    extractor: Text | None = None
    extractor_options: Text | None = None
    seed: Whole | None = None
    name: str = derived("")
    arguments: tuple[str, ...] = derived(())
    """The options as command-line arguments, in the order of the file."""

    @property
    def options(self) -> dict[str, Any]:
        """Options by field of ``pipelines.build.config.BuildConfig``."""
        given = self.model_dump(exclude={"dataset", "name", "arguments", "no_ontology"}, exclude_none=True)
        return given if self.no_ontology is None else {"use_ontology": not self.no_ontology, **given}


def _variants(content: Any) -> dict[str, Variant]:
    found = {}
    for name, given in declared.named(content).items():
        variant, arguments = parse(Variant, {} if given is None else given, f"stores.{name}"), list[str]()
        for key, value in (given or {}).items():
            option = key.replace("_", "-")
            if value is False and key == "part_of":
                arguments.append(f"--no-{option}")
            elif value is not None and value is not False and key != "dataset":
                arguments += [f"--{option}", *([] if value is True else [str(value)])]
        found[name] = variant.model_copy(update={"name": name, "arguments": tuple(arguments)})
    return found


def _paper_row(content: Any) -> Any:
    return False if content is False else declared.paper_row("retrieval", content)


class Row(Declared):
    """One configuration of the table."""

    title: Text
    store: Text
    """Variant whose stores it is trained with."""
    settings: Fields = Field({}, alias="set")
    """Training fields that differ from the base, dotted name to value; those of the whole grid included."""
    paper: Annotated[Any, PlainValidator(_paper_row)] = None
    """The paper's row beside it: its name, false for none; null goes by the row's own name."""
    name: str = derived("")

    @property
    def figures(self) -> Mapping[str, float]:
        """The paper's, measure to per cent; empty where it has none."""
        named = self.name if self.paper is None else self.paper
        return declared.paper("retrieval").rows.get(named, {})


class Table(Declared):
    """Rows beside each other, and which of them is the baseline."""

    title: Text
    rows: Names
    baseline: Text


class Primary(Declared):
    """The one hypothesis that is tested without a correction."""

    row: Text
    baseline: Text
    measure: Text


SUBSETS = "expected titles and splits, such as {cases of the official test split: test}"


class RetrievalGrid(Grid):
    """A grid of NB-CLIP runs, checked: every name that it uses is defined."""

    out = Path("build/tables")
    split: Annotated[FoldConfig | Official, PlainValidator(_split)]
    stores: Annotated[dict[str, Variant], PlainValidator(_variants)]
    evaluate_on: Text
    """Variant whose test parts score every row, so that captions and concepts are the same for all."""
    rows: Named[Row]
    tables: tuple[Table, ...]
    primary: Primary
    settings: Fields = Field({}, alias="set", exclude=True)
    """Training fields of every row."""
    evaluation: Any = None
    """Measures: fields of ``training.retrieval.config.EvalConfig``; that configuration once it is read."""
    secondary: Names = ()
    """Further measures that are tested, with Holm's correction."""
    against: Names | None = None
    """Rows that the primary row is tested against besides its baseline; ``None``: every other row."""
    subsets: Annotated[Mapping[str, str], declared.texts(SUBSETS)] = Field(default_factory=dict)
    """Title to official split: the primary comparison again on the queries whose case is in it."""
    dev: Text | None = None
    """Official split that chooses the epoch to keep; ``None`` keeps the last. Official splits only."""
    evaluation_arguments: tuple[str, ...] = derived(())
    """``evaluation`` as command-line arguments."""

    @property
    def folds(self) -> tuple[str, ...]:
        """Names of the folds; the test split's name where there is only the official split."""
        return (self.split.test,) if isinstance(self.split, Official) else fold_names(self.split.count)

    def training_seed(self, seed: int, fold: str) -> int:
        """Seed of the models that a fold's training runs of ``seed`` make: folds do not share what one seed does."""
        return fold_seed(seed, self.folds.index(fold))

    @property
    def parts(self) -> tuple[str, str]:
        """Names of the train and the test part of a fold."""
        return (self.split.train, self.split.test) if isinstance(self.split, Official) else (TRAIN, TEST)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Variants of stores that a row or the evaluation uses, in the order of the file."""
        used = {self.evaluate_on, *(row.store for row in self.rows.values())}
        return tuple(variant for name, variant in self.stores.items() if name in used)

    def dataset_of(self, variant: Variant) -> str:
        """Data set whose captions its stores hold."""
        return variant.dataset or self.dataset

    def resolved(self, path: Path, data_root: Path | None) -> Self:
        """See ``Grid``."""
        given = self.of_file(path, data_root, Manifest.load(self.dataset).default_root)
        given["rows"] = {
            name: row.model_copy(update={"name": name, "settings": {**self.settings, **row.settings}})
            for name, row in self.rows.items()
        }
        for name, variant in self.stores.items():
            Manifest.load(self.dataset_of(variant))
            try:
                BuildConfig(dataset=self.dataset_of(variant), **variant.options)
            except ConfigError as error:
                raise ConfigError(f"stores.{name}: {error}") from error
        for name, row in given["rows"].items():
            if name == CHANCE:
                raise ConfigError(f'rows: "{CHANCE}" is the name of the random order: choose another')
            known(f"rows.{name}.store", "store", row.store, self.stores)
            declared.check_training(f"rows.{name}.set", self.base, TASK, row.settings | _PLACES)
        self._check_comparisons()
        given["evaluation"], given["evaluation_arguments"] = _evaluation(self.evaluation)
        return self.model_copy(update=given)

    def fingerprint(self) -> str:
        """See ``Grid``."""
        content, split = self.content(), self.split
        del content["default_root"]
        content["split"] = split.model_dump() if isinstance(split, Official) else dataclasses.asdict(split)
        content["stores"] = {
            name: {
                "name": name,
                "dataset": self.dataset_of(one),
                "options": one.options,
                "arguments": one.arguments,
            }
            for name, one in self.stores.items()
        }
        return declared.fingerprint_of(content, self.base)

    def _check_comparisons(self) -> None:
        """Refuse tables and tests of rows that are not there."""
        primary = self.primary
        known("evaluate_on", "store", self.evaluate_on, self.stores)
        known("primary.row", "row", primary.row, self.rows)
        known("primary.baseline", "row", primary.baseline, self.rows)
        if primary.row == primary.baseline:
            raise ConfigError(f'primary: row and baseline are both "{primary.row}": compare two rows')
        for place, table in enumerate(self.tables):
            for name in table.rows:
                known(f"tables.{place}.rows", "row", name, self.rows)
            known(f"tables.{place}.baseline", "row of the table", table.baseline, table.rows)
        for name in self.rows:
            if not any(name in table.rows for table in self.tables):
                raise ConfigError(f"rows.{name} is in no table: put it into one, or leave it out")
        if primary.measure in self.secondary:
            raise ConfigError(f'secondary: "{primary.measure}" is the primary measure already: leave it out')
        if self.dev is not None and not isinstance(self.split, Official):
            raise ConfigError(
                "dev: folds have no part to choose an epoch by: leave it out, or use official splits"
            )
        for name in self.against or ():
            known("against", "row", name, self.rows)
            if name in (primary.row, primary.baseline):
                raise ConfigError(
                    f'against: "{name}" is in the primary comparison already: name rows that {primary.row} is tested '
                    "against besides"
                )


def _evaluation(content: Any) -> tuple[Any, tuple[str, ...]]:
    """The configuration of the evaluation, and the same as command-line arguments."""
    # They load torch, which takes seconds: not for what is wrong elsewhere in the file.
    from training.retrieval.config import EvalConfig, add_measures, read_config

    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f"evaluation: expected a mapping of names, got {type(content).__name__}")
    arguments: list[str] = []
    for key, value in content.items():
        known("evaluation", "key", key, [one.name for one in dataclasses.fields(EvalConfig)])
        option = "--direction" if key == "directions" else f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            arguments.append(option if value else option.replace("--", "--no-", 1))
        elif value is not None:
            arguments += [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    parser: argparse.ArgumentParser = ArgumentParser(add_help=False)
    add_measures(parser)
    try:
        return read_config(parser.parse_args(arguments)), tuple(arguments)
    except KGTargetsError as error:
        raise ConfigError(f"evaluation: {error}") from error
