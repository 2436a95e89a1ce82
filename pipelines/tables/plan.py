"""The stages of a grid as lists of commands: what each needs, and how one tells that it need not be run again."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import kg_targets
import training
from kg_targets.errors import DataError, StoreError
from kg_targets.manifest import Manifest
from kg_targets.manifest.folds import MANIFEST, FoldConfig
from kg_targets.store import TargetStore
from pipelines.tables.common import as_arguments
from pipelines.tables.grid import Grid, Row, Variant
from pipelines.tables.job import Job, KeyedJob, TrainingJob, python, shown
from pipelines.tables.read_grid import training_config
from training.clip.config import ModelConfig
from training.clip.starts import weights_digest
from training.data.sources import open_source
from training.engine.checkpoint import FINISHED, run_key
from training.nb_clip.config import TrainConfig


@dataclass(frozen=True)
class RunJob(TrainingJob):
    """A training run; current by the key that training itself goes by."""

    plan: "Plan" = field(kw_only=True)
    row: Row = field(kw_only=True)
    fold: str = field(kw_only=True)
    seed: int = field(kw_only=True)

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.plan.run_folder(self.row, self.fold, self.seed)

    def config(self) -> TrainConfig:
        """What ``training/run.py`` will make of the command, but for the places of stores, images and output."""
        given = (f"--seed={self.seed}", f"--threads={self.plan.threads}")
        return training_config(self.plan.grid.base, self.row.settings, *given)

    def key(self) -> str:
        """By which training knows this very run.

        Raises:
            KGTargetsError: a store is damaged, or its images are not there.
        """
        plan, grid, config = self.plan, self.plan.grid, self.config()
        parts = (grid.parts[0], grid.dev)
        stores = [plan.store(self.row.store, self.fold, part) for part in parts if part is not None]
        prints = [text for store in stores for text in _fingerprints(store, grid.data_root)]
        return run_key(config, [*prints, _weights(config.model)], plan.threads)


@dataclass(frozen=True)
class ScoreJob(KeyedJob):
    """A score sheet."""

    plan: "Plan" = field(kw_only=True)
    fold: str = field(kw_only=True)
    run: RunJob | None = field(kw_only=True)
    """The run that is scored; ``None`` for the random order."""

    @property
    def made(self) -> Path:
        """The sheet."""
        return self.plan.out / self.stage / f"{self.name}.parquet"

    def key(self) -> str:
        """Of the run, the store, the options, the threads and the code that scores."""
        plan = self.plan
        run = None if self.run is None else (self.run.folder / FINISHED).read_bytes().decode(errors="replace")
        store = plan.store(plan.grid.evaluate_on, self.fold, plan.grid.parts[1])
        prints = _fingerprints(store, plan.grid.data_root)
        content = [_scoring_code(), plan.grid.evaluation_arguments, plan.threads, run, prints]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def is_current(self) -> bool:
        """Whether the sheet was made from this run, which is current itself, with these options and this code."""
        return (self.run is None or self.run.is_current()) and super().is_current()


@dataclass(frozen=True)
class Plan:
    """A grid, where it is worked on, and with how much of the machine."""

    grid: Grid
    out: Path
    jobs: int
    """Commands at a time, ≥ 1."""
    threads: int
    """CPU threads of each, ≥ 1."""
    only: tuple[str, ...] = ()
    """Rows that are trained and scored; empty for all."""

    @property
    def rows(self) -> list[Row]:
        """The rows asked for."""
        return [row for name, row in self.grid.rows.items() if not self.only or name in self.only]

    def stage(self, name: str) -> list[Job]:
        """The jobs of the stage ``folds``, ``stores``, ``runs`` or ``scores``, in the order of the grid."""
        makers: dict[str, Callable[[], Sequence[Job]]] = {
            "folds": self._folds,
            "stores": self._stores,
            "runs": self.runs,
            "scores": self._scores,
        }
        return list(makers[name]())

    def store(self, variant: str, fold: str, part: str) -> Path:
        """Folder of a target store."""
        return self.out / "stores" / variant / fold / part

    def run_folder(self, row: Row, fold: str, seed: int) -> Path:
        """Folder of a training run."""
        return self.out / "runs" / row.name / f"{fold}-s{seed}"

    def _variants(self) -> list[Variant]:
        used = {self.grid.evaluate_on, *(row.store for row in self.rows)}
        return [variant for variant in self.grid.variants if variant.name in used]

    def _fold_folder(self, dataset: str) -> Path:
        return self.out / (
            "folds" if dataset == self.grid.dataset else f"folds-{Manifest.load(dataset).name}"
        )

    def _folds(self) -> list[Job]:
        split = self.grid.split
        if not isinstance(split, FoldConfig):
            return []
        jobs = []
        for dataset in dict.fromkeys([self.grid.dataset, *(variant.dataset for variant in self._variants())]):
            options = ["--data-root", shown(self.grid.data_root), "--test", ",".join(split.test)]
            options += ["--train-only", ",".join(split.train_only)] if split.train_only else []
            options += ["--folds", str(split.count), "--seed", str(split.seed)]
            folder = self._fold_folder(dataset)
            command = (python(), "-m", "pipelines.cli", "folds", dataset, *options, "--out", shown(folder))
            jobs.append(Job("folds", folder.name, command))
        return jobs

    def _stores(self) -> list[Job]:
        jobs = []
        for variant in self._variants():
            for fold in self.grid.folds:
                data, root, needs = variant.dataset, self.grid.data_root, []
                if isinstance(self.grid.split, FoldConfig):
                    root = self._fold_folder(variant.dataset) / fold
                    needs = [root / MANIFEST]
                    data = shown(needs[0])
                options = ["--data-root", shown(root), *variant.arguments, "--workers", str(self.threads)]
                out = ["--out", shown(self.out / "stores" / variant.name / fold)]
                command = (python(), "-m", "pipelines.cli", "build", data, *options, *out)
                jobs.append(Job("stores", f"{variant.name}/{fold}", command, tuple(needs)))
        return jobs

    def runs(self) -> list[RunJob]:
        """The jobs of the stage ``runs``."""
        return [
            self._run(row, fold, seed)
            for seed in self.grid.seeds
            for fold in self.grid.folds
            for row in self.rows
        ]

    def _run(self, row: Row, fold: str, seed: int) -> RunJob:
        train = self.store(row.store, fold, self.grid.parts[0])
        dev = None if self.grid.dev is None else self.store(row.store, fold, self.grid.dev)
        own = {
            "seed": seed,
            "threads": self.threads,
            "data.train_store": shown(train),
            "data.dev_store": None if dev is None else shown(dev),
            "data.data_root": shown(self.grid.data_root),
            "log.trackers": "none",
            "output": shown(self.run_folder(row, fold, seed)),
            "overwrite": True,
        }
        script = shown(Path(training.__file__).parent / "run.py")
        command = (
            python(),
            script,
            "--config",
            shown(self.grid.base),
            *as_arguments({**row.settings, **own}),
        )
        needs = tuple(store / "manifest.json" for store in (train, dev) if store is not None)
        return RunJob(
            "runs", f"{row.name}/{fold}-s{seed}", command, needs, plan=self, row=row, fold=fold, seed=seed
        )

    def _scores(self) -> list[ScoreJob]:
        jobs = [self._score(fold, None) for fold in self.grid.folds]
        return jobs + [self._score(run.fold, run) for run in self.runs()]

    def _score(self, fold: str, run: RunJob | None) -> ScoreJob:
        store = self.store(self.grid.evaluate_on, fold, self.grid.parts[1])
        name = f"chance/{fold}" if run is None else run.name
        command = (
            *(python(), "-m", "training.retrieval.scores", "--store", shown(store)),
            *("--data-root", shown(self.grid.data_root)),
            *(("--chance",) if run is None else ("--run", shown(run.folder))),
            *("--out", shown(self.out / "scores" / f"{name}.parquet"), *self.grid.evaluation_arguments),
        )
        needs = [store / "manifest.json", *([] if run is None else [run.folder / FINISHED])]
        threads = {"OMP_NUM_THREADS": str(self.threads)}
        return ScoreJob("scores", name, command, tuple(needs), threads, plan=self, fold=fold, run=run)

    def check_stores(self) -> None:
        """Refuse variants that do not hold the same images of the same cases: their rows could not be compared.

        Raises:
            DataError: two variants differ; stores that are missing or damaged are left to the jobs that need them.
        """
        for fold in self.grid.folds:
            for part in self.grid.parts:
                first = self.store(self.grid.evaluate_on, fold, part)
                for variant in self._variants():
                    other = self.store(variant.name, fold, part)
                    one, two = _images(first), _images(other)
                    if one is not None and two is not None and one != two:
                        raise DataError(
                            f"{other} does not hold the images and cases of {first} in their order: give stores of "
                            f"{variant.name} a data set that differs in its texts only"
                        )


@cache
def _images(store: Path) -> tuple[list[str], list[str]] | None:
    try:
        opened = TargetStore.open(store)
        return opened.image_ids, opened.group_ids
    except StoreError:
        return None


@cache
def _fingerprints(store: Path, data_root: Path) -> tuple[str, str]:
    """Of a store and of its images."""
    opened = TargetStore.open(store)
    return opened.fingerprint, open_source(data_root, opened).digest()


@cache
def _weights(model: ModelConfig) -> str:
    return weights_digest(model)


@cache
def _scoring_code() -> str:
    """Version, and sha256 of the code that scores: a sheet is made again in seconds, so newer code does it."""
    files = sorted((Path(training.__file__).parent / "evaluate").glob("*.py"))
    content = b"\n".join(file.name.encode() + file.read_bytes() for file in files)
    return f"{kg_targets.__version__} {hashlib.sha256(content).hexdigest()}"
