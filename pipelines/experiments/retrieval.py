"""The work of a grid of NB-CLIP: folds, target stores, training runs, and the score sheets of retrieval."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import sparse

import kg_targets
import training.retrieval
from kg_targets.errors import ConfigError, DataError, KGTargetsError, ManifestError, StoreError
from kg_targets.manifest import Manifest
from kg_targets.manifest.folds import MANIFEST, FoldConfig
from kg_targets.store import TargetStore
from kg_targets.store.digest import files_sha256
from pipelines.experiments.grid import shown
from pipelines.experiments.job import Job, KeyedJob, TrainingJob, kg_targets_command
from pipelines.experiments.plan import Plan, Rounds, Say
from pipelines.experiments.retrieval_grid import CHANCE, TASK, Official, RetrievalGrid, Row, Variant
from pipelines.experiments.retrieval_report import run_name, write_report
from training.data.sources import open_source
from training.engine.checkpoint import FINISHED
from training.retrieval import measures
from training.retrieval.config import EvalConfig
from training.retrieval.zero_shot import Task, tasks

FOLDS, STORES, RUNS, SCORES = "folds", "stores", "runs", "scores"
_NEAR = 3
"""Names that a message proposes."""
_LABEL_ENDINGS = tuple(f" P@{k}" for k in measures.LABEL_DEPTHS)

Labels = Mapping[str, Sequence[str]]
"""Label column to its value for each image."""


@dataclass(frozen=True)
class RetrievalPlan(Plan):
    """The stages of a grid of NB-CLIP."""

    grid: RetrievalGrid = field(kw_only=True)
    stages = (FOLDS, STORES, RUNS, SCORES)
    scored = "score sheets"

    def check(self, *, dry: bool, say: Say) -> None:
        """See ``Plan``; splits that are misspelt, and labels and measures that will not be there, are refused."""
        labels: Labels | None = None
        try:
            labels = _query_labels(self.grid)
        except ManifestError as error:
            if not dry:
                raise
            say(f"splits and labels are not checked: {error}")
        check_measures(self.grid, labels)

    def before(self, stage: str) -> None:
        """Refuse runs of variants that do not hold the same images of the same cases: they could not be compared.

        Stores that are missing or damaged are left to the jobs that need them.
        """
        super().before(stage)
        variants = self._variants() if stage == RUNS else []
        for fold, part, variant in product(self.grid.folds, self.grid.parts, variants):
            first, other = (self.store(name, fold, part) for name in (self.grid.evaluate_on, variant.name))
            one, two = _images(first), _images(other)
            if one is not None and two is not None and one != two:
                raise DataError(
                    f"{other} does not hold the images and cases of {first} in their order: give stores of "
                    f"{variant.name} a data set that differs in its texts only"
                )

    def rounds(self, stage: str) -> Rounds:
        """See ``Plan``: one round."""
        jobs: dict[str, Callable[[], Sequence[Job]]] = {
            FOLDS: self._folds,
            STORES: self._stores,
            RUNS: lambda: [run for run, _ in self._runs()],
            SCORES: self.scores,
        }
        return [(stage, jobs[stage])]

    def write_report(self, docs: Path | None) -> list[Path]:
        """See ``Plan``."""
        return write_report(self.grid, self.workspace.out, docs, self.only or None)

    def store(self, variant: str, fold: str, part: str) -> Path:
        """Folder of a target store."""
        return self.workspace.out / STORES / variant / fold / part

    def _variants(self) -> list[Variant]:
        used = {self.grid.evaluate_on, *(row.store for row in self.selected)}
        return [variant for variant in self.grid.variants if variant.name in used]

    def _fold_folder(self, dataset: str) -> Path:
        own = dataset == self.grid.dataset
        return self.workspace.out / (FOLDS if own else f"{FOLDS}-{Manifest.load(dataset).name}")

    def _folds(self) -> list[Job]:
        split = self.grid.split
        if not isinstance(split, FoldConfig):
            return []
        jobs = []
        for dataset in dict.fromkeys([self.grid.dataset, *map(self.grid.dataset_of, self._variants())]):
            options = ["--data-root", shown(self.grid.data_root), "--test", ",".join(split.test)]
            options += ["--train-only", ",".join(split.train_only)] if split.train_only else []
            options += ["--folds", str(split.count), "--seed", str(split.seed)]
            folder = self._fold_folder(dataset)
            command = (kg_targets_command(), "folds", dataset, *options, "--out", shown(folder))
            jobs.append(Job(FOLDS, folder.name, command))
        return jobs

    def _stores(self) -> list[Job]:
        jobs = []
        for variant, fold in product(self._variants(), self.grid.folds):
            data, root, needs = self.grid.dataset_of(variant), self.grid.data_root, []
            if isinstance(self.grid.split, FoldConfig):
                root = self._fold_folder(data) / fold
                needs = [root / MANIFEST]
                data = shown(needs[0])
            options = [
                "--data-root",
                shown(root),
                *variant.arguments,
                "--workers",
                str(self.workspace.threads),
            ]
            out = ["--out", shown(self.workspace.out / STORES / variant.name / fold)]
            command = (kg_targets_command(), "build", data, *options, *out)
            jobs.append(Job(STORES, f"{variant.name}/{fold}", command, tuple(needs)))
        return jobs

    def _runs(self) -> list[tuple[TrainingJob, str]]:
        """Jobs and their folds."""
        runs = product(self.grid.seeds, self.grid.folds, self.selected)
        return [(self._run(row, fold, seed), fold) for seed, fold, row in runs]

    def _run(self, row: Row, fold: str, seed: int) -> TrainingJob:
        grid, name = self.grid, run_name(row.name, fold, seed)
        train = self.store(row.store, fold, grid.parts[0])
        dev = None if grid.dev is None else self.store(row.store, fold, grid.dev)
        own = {
            **self.workspace.run_settings(self.workspace.out / RUNS / name, grid.training_seed(seed, fold)),
            "data.train_store": shown(train),
            "data.dev_store": None if dev is None else shown(dev),
            "data.data_root": shown(grid.data_root),
        }
        needs = tuple(store / "manifest.json" for store in (train, dev) if store is not None)
        settings = {**row.settings, **own}
        return TrainingJob.of(
            RUNS, name, grid.base, settings, needs=needs, task=TASK, workspace=self.workspace
        )

    def scores(self) -> list[KeyedJob]:
        """See ``Plan``: of the random order, then of every run."""
        of_chance = [(None, fold) for fold in self.grid.folds]
        return [self._score(fold, run) for run, fold in (*of_chance, *self._runs())]

    def _score(self, fold: str, run: TrainingJob | None) -> KeyedJob:
        grid, name = self.grid, f"{CHANCE}/{fold}" if run is None else run.name
        store = self.store(grid.evaluate_on, fold, grid.parts[1])
        made = self.workspace.out / SCORES / f"{name}.parquet"
        command = (
            *(kg_targets_command(), "score-sheet", "--store", shown(store)),
            *("--data-root", shown(grid.data_root)),
            *(("--chance",) if run is None else ("--run", shown(run.folder))),
            *("--out", shown(made), *grid.evaluation_arguments),
        )

        def follows_from() -> list[object]:
            key, prints = run and run.finished_key(), _fingerprints(store, grid.data_root)
            return [_scoring_code(), grid.evaluation_arguments, self.workspace.threads, key, prints]

        needs = (store / "manifest.json", *([] if run is None else [run.folder / FINISHED]))
        return KeyedJob(
            SCORES, name, command, needs, self.workspace.environment,
            workspace=self.workspace, made=made, follows_from=follows_from, run=run,
        )  # fmt: skip


@cache
def _images(store: Path) -> tuple[list[str], list[str]] | None:
    try:
        opened = TargetStore.open(store)
        return list(opened.image_ids), list(opened.group_ids)
    except StoreError:
        return None


@cache
def _fingerprints(store: Path, data_root: Path) -> tuple[str, str]:
    """Fingerprints of a store and of its images."""
    opened = TargetStore.open(store)
    return opened.fingerprint, open_source(data_root, opened).digest()


@cache
def _scoring_code() -> str:
    """Version, and sha256 of the code that scores: a sheet is made again in seconds, so newer code does it."""
    files = sorted(Path(training.retrieval.__file__).parent.glob("*.py"))
    return f"{kg_targets.__version__} {files_sha256(files)}"


def _query_labels(grid: RetrievalGrid) -> Labels:
    """Labels of the images that will be queried, from the data set whose stores score every row.

    Raises:
        ManifestError: a split of the grid does not exist, or its captions are not there.
    """
    split = grid.split
    queried = (split.test,) if isinstance(split, Official) else split.test
    trained = (split.train,) if isinstance(split, Official) else split.train_only
    for dataset in dict.fromkeys(map(grid.dataset_of, grid.variants)):
        manifest = Manifest.load(dataset)
        for name in (*trained, *queried, *([grid.dev] if grid.dev else []), *grid.subsets.values()):
            manifest.split_file(name, grid.data_root)
    manifest = Manifest.load(grid.dataset_of(grid.stores[grid.evaluate_on]))
    records = [record for name in queried for record in manifest.records(name, grid.data_root)]
    columns = dict.fromkeys(name for record in records for name in record.labels)
    return {name: [record.labels.get(name, "") for record in records] for name in columns}


def check_measures(grid: RetrievalGrid, labels: Labels | None) -> None:
    """Refuse a grid that tests or classifies what will not be there.

    Args:
        grid: what is to be run.
        labels: of the queries; None where the data are not here: labels are then taken as the grid has them.

    Raises:
        ConfigError: a label does not exist, or a tested measure will not be measured.
    """
    config: EvalConfig = grid.evaluation
    try:
        if labels is None:
            sets: measures.LabelSets = [tuple(name.split("+")) for name in config.labels or ()]
        else:
            tasks(config, labels.__getitem__, tuple(labels))
            sets = measures.label_sets(tuple(labels), config.labels)
    except KGTargetsError as error:
        raise ConfigError(f"{grid.path}: evaluation: {error}") from error
    measured = measure_names(config, sets)
    tested = [("primary.measure", grid.primary.measure), *(("secondary", name) for name in grid.secondary)]
    for key, name in tested:
        any_label = labels is None and config.labels is None and name.endswith(_LABEL_ENDINGS)
        if name not in measured and not any_label:
            near = difflib.get_close_matches(name, measured, n=_NEAR, cutoff=0.5) or measured[:_NEAR]
            raise ConfigError(
                f'{grid.path}: {key}: "{name}" is not among the {len(measured)} measures of this evaluation '
                f"(the nearest: {', '.join(near)})"
            )


def measure_names(config: EvalConfig, labels: measures.LabelSets) -> list[str]:
    """Names of all measures of an evaluation with these labels for P@K: those that one image without concepts has."""
    one, none = np.zeros(1, dtype=np.int64), sparse.csr_array((1, 1), dtype=np.float32)
    image: Any = SimpleNamespace(
        cuis=none, caption_codes=one, label=lambda _: ["none"], excluded=lambda _: one
    )
    classified = [Task(label, ("none",), ()) for label in config.zero_shot]
    return list(measures.measure_chance(image, labels, config, classified))
