"""The stages of a Med-VQA grid as lists of commands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import training
from kg_targets.errors import ConfigError
from pipelines.tables.common import as_arguments
from pipelines.tables.job import Job, python, shown
from pipelines.vqa_tables.grid import (
    FINETUNE,
    PRETRAIN,
    PRETRAIN_STAGES,
    QUESTION_ONLY,
    SCORE,
    SHUFFLED,
    STORES,
    Grid,
    Part,
    Row,
    Stage,
)
from pipelines.vqa_tables.jobs import (
    FinetuneJob,
    FloorsJob,
    ScoreJob,
    StoreJob,
    VQARun,
    forget,
    questions_digest,
    split_of,
    test_digest,
)
from pipelines.vqa_tables.read_grid import DATA_ROOT, FINETUNE_TASK, HERE, PLACE, PRETRAIN_TASK
from training.engine.checkpoint import FINISHED
from training.med_vqa.finetune.config import FinetuneConfig


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
        """The rows asked for, of which everything is there that only the user can provide."""
        return [row for row in self.asked if row.name not in self.absent]

    @property
    def asked(self) -> list[Row]:
        """The rows asked for."""
        return [row for name, row in self.grid.rows.items() if not self.only or name in self.only]

    @property
    def absent(self) -> dict[str, tuple[str, str]]:
        """Row that cannot be run to the first path that is missing and how to get it."""
        missing = {
            row.name: [(path, how) for path, how in row.requires.items() if not Path(path).exists()]
            for row in self.asked
        }
        return {name: paths[0] for name, paths in missing.items() if paths}

    def runs(self, stages: Sequence[str]) -> list[VQARun]:
        """The trainings of some stages."""
        made: list[VQARun] = [*self.pretrainings(0), *self.pretrainings(1)] if PRETRAIN in stages else []
        return [*made, *(self.finetunings() if FINETUNE in stages else ())]

    def stage(self, name: str) -> list[Job]:
        """The jobs of a stage of trainings or scores, in the order of the grid."""
        forget()
        makers: dict[str, Callable[[], Sequence[Job]]] = {
            PRETRAIN_STAGES[0]: lambda: self.pretrainings(0),
            PRETRAIN_STAGES[1]: lambda: self.pretrainings(1),
            FINETUNE: self.finetunings,
            SCORE: lambda: [*self.floors(), *self.scores()],
        }
        return list(makers[name]())

    def place(self, store: str) -> Path:
        """Of a store."""
        return self.out / STORES / store

    def _filled(self, content: Any, **own: str) -> Any:
        """Names in braces replaced by places; in lists and mappings, too."""
        if isinstance(content, str):
            return PLACE.sub(lambda found: own.get(found[1]) or shown(self.place(found[1])), content)
        if isinstance(content, dict):
            return {key: self._filled(value, **own) for key, value in content.items()}
        return [self._filled(value, **own) for value in content] if isinstance(content, list) else content

    def store_rounds(self) -> list[list[Job]]:
        """The commands that make stores, those that need other stores after the ones that make these."""
        jobs, depths = self._stores(), dict[str, int]()
        for job in jobs:  # a grid's store names earlier ones only
            needed = self.grid.stores[job.name].stores
            depths[job.name] = 1 + max((depths[other] for other in needed), default=-1)
        return [[job for job in jobs if depths[job.name] == depth] for depth in sorted(set(depths.values()))]

    def _stores(self) -> list[Job]:
        used = {store for row in self.rows for store in row.stores}
        jobs: list[Job] = []
        for name, store in self.grid.stores.items():
            if name not in used:
                continue
            own = {HERE: shown(self.place(name)), DATA_ROOT: shown(self.grid.data_root)}
            first, *words = self._filled(list(store.command), **own)
            command = (python(), *(("-m", "pipelines.cli") if first == "kg-targets" else ()), *words)
            needs = tuple(self.place(other) for other in store.stores)
            jobs.append(
                StoreJob(
                    STORES, name, command, needs, {"OMP_NUM_THREADS": str(self.threads)},
                    place=self.place(name), plan=self, checks_itself=first == "kg-targets",
                )
            )  # fmt: skip
        return jobs

    def pretraining(self, row: Row, stage: int, seed: int) -> Path:
        """Folder of a stage of a row's pre-training."""
        return self.out / PRETRAIN / f"{row.name}-stage{stage + 1}-seed{seed}"

    def pretrainings(self, stage: int) -> list[VQARun]:
        """The runs of the first (0) or the second (1) stage."""
        return [
            self._pretraining(row, stage, row.pretrain[stage], seed)
            for seed in dict.fromkeys(self.grid.pretrain_seeds)
            for row in self.rows
            if len(row.pretrain) > stage
        ]

    def _pretraining(self, row: Row, place: int, stage: Stage, seed: int) -> VQARun:
        folder = self.pretraining(row, place, seed)
        before = self.pretraining(row, place - 1, seed) if place else None
        settings = self._settings(stage.settings, seed, folder)
        needs = [self.place(store) for store in row.stores]
        if before is not None:
            settings["model.start"] = shown(before)
            needs.append(before / FINISHED)
        return VQARun(
            PRETRAIN, folder.name, self._run(stage.base, settings), tuple(needs),
            plan=self, row=row, seed=seed, task=PRETRAIN_TASK, base=stage.base, settings=settings,
        )  # fmt: skip

    def finetunings(self) -> list[FinetuneJob]:
        """All fine-tunings, those of twins after those of their seed."""
        return [
            self._finetuning(row, part, place, blank)
            for place in range(len(self.grid.seeds))
            for part in self.grid.parts
            for row in self.rows
            for blank in ((False, True) if QUESTION_ONLY in row.controls else (False,))
        ]

    def _finetuning(self, row: Row, part: Part, place: int, blank: bool) -> FinetuneJob:
        grid, seed = self.grid, self.grid.seeds[place]
        twin = f"-{QUESTION_ONLY}" if blank else ""
        folder = self.out / "runs" / f"{row.name}{twin}-{part.name}-seed{seed}"
        settings = self._settings(row.settings, seed, folder)
        settings |= {
            "data.dataset": grid.dataset,
            "data.data_root": shown(grid.data_root),
            "data.protocol": part.protocol,
            "data.split_seed": part.cut,
            "data.images": "blank" if blank else "real",
        }
        needs = [self.place(store) for store in row.stores]
        if row.pretrain:
            start = self.pretraining(row, len(row.pretrain) - 1, grid.pretrain_seeds[place])
            settings["model.start"] = shown(start)
            needs.append(start / FINISHED)
        return FinetuneJob(
            FINETUNE, folder.name, self._run(grid.base, settings), tuple(needs),
            plan=self, row=row, seed=seed, task=FINETUNE_TASK, base=grid.base, settings=settings,
            part=part, blank=blank,
        )  # fmt: skip

    def _settings(self, settings: Any, seed: int, folder: Path) -> dict[str, Any]:
        own = {
            "seed": seed,
            "threads": self.threads,
            "log.trackers": "none",
            "output": shown(folder),
            "overwrite": True,
        }
        return {**self._filled(dict(settings)), **own}

    def _run(self, base: Path, settings: dict[str, Any]) -> tuple[str, ...]:
        script = shown(Path(training.__file__).parent / "run.py")
        return (python(), script, "--config", shown(base), *as_arguments(settings))

    def scores(self) -> list[ScoreJob]:
        """The predictions of every fine-tuning, and of those that are asked with other images, too."""
        return [
            self._score(run, shuffled)
            for run in self.finetunings()
            for shuffled in ((False, True) if SHUFFLED in run.row.controls and not run.blank else (False,))
        ]

    def _score(self, run: FinetuneJob, shuffled: bool) -> ScoreJob:
        grid, name = self.grid, f"{run.name}-{SHUFFLED}" if shuffled else run.name
        images = ("--images", SHUFFLED, "--seed", str(run.seed)) if shuffled else ()
        command = (
            *(python(), "-m", "training.med_vqa.answer", "--model", shown(run.folder)),
            *("--dataset", grid.dataset, "--data-root", shown(grid.data_root)),
            *(*images, "--name", run.row.name, *grid.evaluation),
            *("--out", shown(self.out / "scores" / name)),
        )
        threads = {"OMP_NUM_THREADS": str(self.threads)}
        return ScoreJob(
            SCORE, name, command, (run.folder / FINISHED,), threads, plan=self, run=run, shuffled=shuffled
        )

    def floors(self) -> list[FloorsJob]:
        """The floors of every part."""
        return [self._floors(part) for part in self.grid.parts]

    def _floors(self, part: Part) -> FloorsJob:
        name = f"floors-{part.name}"
        command = (
            *(python(), "-m", "training.vqa.floors", "--dataset", self.grid.dataset),
            *("--data-root", shown(self.grid.data_root), "--protocol", part.protocol),
            *("--split-seed", str(part.cut), "--validation-share", str(self._validation_share)),
            *("--out", shown(self.out / "scores" / name)),
        )
        return FloorsJob(SCORE, name, command, plan=self, part=part)

    @cached_property
    def _validation_share(self) -> float:
        """That of the rows: it decides which answers are candidates of a cut.

        Raises:
            ConfigError: rows differ in it, so that their questions are not the same.
        """
        shares: dict[float, str] = {}
        for job in self.finetunings():
            config = job.config()
            if isinstance(config, FinetuneConfig):
                shares.setdefault(config.data.validation_share, job.row.name)
        if len(shares) > 1:
            one, other, *_ = shares.values()
            raise ConfigError(
                f"rows {one} and {other} have another data.validation_share: set it for the whole grid"
            )
        return next(iter(shares), 0.1)

    def test_digest(self, part: Part) -> tuple[str, str]:
        """Of a part's test questions with their candidates, and of their images."""
        return test_digest(self.grid.dataset, self.grid.data_root, part, self._validation_share)

    def questions_digest(self, part: Part) -> tuple[str, ...]:
        """Of all questions of a part."""
        return questions_digest(self.grid.dataset, self.grid.data_root, part, self._validation_share)

    def check_data(self) -> None:
        """Refuse data that are not there, and cuts that cannot be put end to end, before anything is trained.

        Raises:
            KGTargetsError: files are missing or malformed, or a question would test twice.
        """
        seen: dict[tuple[str, str], int] = {}
        for part in self.grid.parts:
            split = split_of(self.grid.dataset, self.grid.data_root, part, self._validation_share)
            for question in split.test:
                other = seen.setdefault((part.protocol, question.id), part.cut)
                if other != part.cut:
                    raise ConfigError(
                        f"parts: cuts {other} and {part.cut} of {part.protocol} share test questions: cuts of one "
                        "dealing share none, see `Cuts` in docs/vqa_data.md"
                    )
