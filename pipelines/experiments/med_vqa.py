"""The work of a grid of Med-VQA: stores, pre-training, fine-tuning, and predictions beside the baselines."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

from kg_targets.errors import ConfigError
from kg_targets.manifest import Manifest
from kg_targets.store.digest import json_sha256
from pipelines.experiments import med_vqa_grid as declared
from pipelines.experiments.grid import shown
from pipelines.experiments.job import Job, KeyedJob, TrainingJob, kg_targets_command, train
from pipelines.experiments.med_vqa_grid import MedVQAGrid, Part, Row
from pipelines.experiments.med_vqa_report import Finished, write_report
from pipelines.experiments.plan import Plan, Rounds, Say
from training.data.files import image_digest
from training.engine.checkpoint import FINISHED
from training.med_vqa.answer.evaluation import FORMAT
from training.med_vqa.finetune.config import FinetuneConfig
from training.statistics.seed_variance import fold_seed
from training.vqa import predictions
from training.vqa.baselines import BASELINES
from training.vqa.protocols import Split, prepare

STORES, PRETRAIN, FINETUNE, SCORE = "stores", "pretrain", "finetune", "score"
PRETRAIN_ROUNDS = (PRETRAIN, f"{PRETRAIN} (stage two)")
PREDICTIONS = "predictions.csv"


@dataclass(frozen=True)
class Questions:
    """A data set under the protocol and fold of a part."""

    dataset: str
    data_root: Path
    part: Part
    validation_share: float


@cache
def split_of(of: Questions) -> Split:
    """The questions.

    Raises:
        KGTargetsError: files are missing or malformed.
    """
    manifest, part = Manifest.load(of.dataset, "questions"), of.part
    return prepare(
        manifest, of.data_root, part.protocol, seed=part.fold, validation_share=of.validation_share
    )


@cache
def digest_of_test(questions: Questions) -> tuple[str, str]:
    """Digests of the test questions and candidates of a part, and of their images."""
    split = split_of(questions)
    paths = sorted({question.image_path for question in split.test if question.image_path})
    content = [[asdict(question) for question in split.test], split.candidates]
    return json_sha256(content), image_digest(questions.data_root, paths)


@cache
def digest_of_all(questions: Questions) -> str:
    """Digest of all questions of a part."""
    split = split_of(questions)
    return json_sha256(
        [[asdict(one) for one in part] for part in (split.train, split.validation, split.test)]
    )


@dataclass(frozen=True)
class Finetuning:
    """One fine-tuning run of the grid, and the images with which it is evaluated."""

    row: Row
    part: Part
    seed: int
    blank: bool = False
    """Whether it is the question-only baseline, trained and evaluated with blank images."""
    shuffled: bool = False
    """Whether it is evaluated with other images."""

    @property
    def run(self) -> str:
        """Name of the training run."""
        baseline = f"-{declared.QUESTION_ONLY}" if self.blank else ""
        return f"{self.row.name}{baseline}-{self.part.name}-seed{self.seed}"

    @property
    def name(self) -> str:
        """Name of its predictions."""
        return f"{self.run}-{declared.SHUFFLED}" if self.shuffled else self.run


@dataclass(frozen=True)
class MedVQAPlan(Plan):
    """The stages of a grid of Med-VQA."""

    grid: MedVQAGrid = field(kw_only=True)
    stages = (STORES, PRETRAIN, FINETUNE, SCORE)
    scored = "predictions"

    @property
    def rows(self) -> list[Row]:
        """The selected rows of which everything is there that only the user can provide."""
        return [row for row in self.selected if row.name not in self.absent]

    @property
    def absent(self) -> dict[str, tuple[str, str]]:
        """Row that cannot be run to the first path that is missing and how to get it."""
        lacks = {
            row.name: [one for one in row.requires.items() if not Path(one[0]).exists()]
            for row in self.selected
        }
        return {name: lacking[0] for name, lacking in lacks.items() if lacking}

    def check(self, *, dry: bool, say: Say) -> None:
        """See ``Plan``; rows that cannot be run are reported, folds that cannot be put end to end refused."""
        absent = self.absent
        if len(absent) == len(self.selected):
            name, (path, how) = next(iter(absent.items()))
            raise ConfigError(f"no row can be run; {name} needs {path}: {how}")
        for name, (path, how) in absent.items():
            say(f"row {name} is not run, {path} is not there: {how}")
        if dry:
            return
        seen: dict[tuple[str, str], int] = {}
        for part in self.grid.parts:
            for question in split_of(self.questions(part)).test:
                other = seen.setdefault((part.protocol, question.id), part.fold)
                if other != part.fold:
                    raise ConfigError(
                        f"parts: folds {other} and {part.fold} of {part.protocol} share test questions: folds of one "
                        "cross-validation share none, see `Folds` in docs/vqa_data.md"
                    )

    def rounds(self, stage: str) -> Rounds:
        """See ``Plan``: of stores by what they need of each other, of pre-training its stages."""
        if stage == STORES:
            return [(STORES, partial(list, jobs)) for jobs in self._store_rounds()]
        if stage == PRETRAIN:
            return [(name, partial(self.pretraining_jobs, n)) for n, name in enumerate(PRETRAIN_ROUNDS)]
        return [(stage, self.finetuning_jobs if stage == FINETUNE else self.scores)]

    def write_report(self, docs: Path | None) -> list[Path]:
        """See ``Plan``."""
        models = [(one.row.title, self.predictions(one)) for one in self.answers()]
        baselines = [("", file) for part in self.grid.parts for file in self.baseline_files(part)]
        folders = {
            row.name: [
                [self._run_folder(one) for one in self.finetunings() if one.row is row],
                *([self._pretraining(row, n, seed) for seed in self._pretrain_seeds] for n in range(len(row.pretrain))),
            ]
            for row in self.rows
        }  # fmt: skip
        finished = Finished(
            self.grid, self.workspace, self.selected, self.rows, self.absent, [*models, *baselines], folders
        )
        return write_report(finished, docs, part=bool(self.only))

    def place(self, store: str) -> Path:
        """Folder of a store."""
        return self.workspace.out / STORES / store

    def _filled(self, content: Any, **own: str) -> Any:
        """Names in braces replaced by places; in lists and mappings, too."""
        if isinstance(content, str):
            return declared.PLACE.sub(lambda found: own.get(found[1]) or shown(self.place(found[1])), content)
        if isinstance(content, Mapping):
            return {key: self._filled(value, **own) for key, value in content.items()}
        if isinstance(content, list | tuple):
            return [self._filled(value, **own) for value in content]
        return content

    def _store_rounds(self) -> list[list[Job]]:
        """The commands that make stores, those that need other stores after the ones that make these."""
        used = {store for row in self.rows for store in row.stores}
        rounds: dict[int, list[Job]] = {}
        depths = dict[str, int]()
        for name, store in self.grid.stores.items():  # a grid's store names earlier ones only
            depths[name] = 1 + max((depths[other] for other in store.stores), default=-1)
            if name in used:
                rounds.setdefault(depths[name], []).append(self._store(name))
        return [rounds[depth] for depth in sorted(rounds)]

    def _store(self, name: str) -> Job:
        store, place = self.grid.stores[name], self.place(name)
        own = {declared.HERE: shown(place), declared.DATA_ROOT: shown(self.grid.data_root)}
        words = self._filled(store.command, **own)
        own_command = words[0] == "kg-targets"
        command = (kg_targets_command(), *words[1:]) if own_command else (*train(), *words[2:])
        return KeyedJob(
            STORES, name, command, tuple(self.place(other) for other in store.stores), self.workspace.environment,
            workspace=self.workspace, made=place, follows_from=lambda: command, checks_itself=own_command,
        )  # fmt: skip

    @property
    def _pretrain_seeds(self) -> list[int]:
        return list(dict.fromkeys(self.grid.pretrain_seeds or self.grid.seeds))

    def _pretraining(self, row: Row, stage: int, seed: int) -> Path:
        """Folder of a stage of a row's pre-training."""
        return self.workspace.out / PRETRAIN / f"{row.name}-stage{stage + 1}-seed{seed}"

    def pretraining_jobs(self, stage: int) -> list[TrainingJob]:
        """The runs of the first (0) or the second (1) stage."""
        rows = [row for row in self.rows if len(row.pretrain) > stage]
        return [self._pretraining_job(row, stage, seed) for seed, row in product(self._pretrain_seeds, rows)]

    def _pretraining_job(self, row: Row, stage: int, seed: int) -> TrainingJob:
        one, start = row.pretrain[stage], self._pretraining(row, stage - 1, seed) if stage else None
        own = self.workspace.run_settings(self._pretraining(row, stage, seed), seed)
        settings = {**self._filled(one.settings), **own}
        return self._training_job(PRETRAIN, row, one.base, declared.PRETRAIN_TASK, settings, start)

    def _training_job(
        self, stage: str, row: Row, base: Path, task: str, settings: dict[str, Any], start: Path | None
    ) -> TrainingJob:
        """A run that needs the row's stores, and the run that it goes on from."""
        needs = [self.place(store) for store in row.stores]
        if start is not None:
            settings[declared.INIT_FROM] = shown(start)
            needs.append(start / FINISHED)
        name, more = Path(settings["output"]).name, {"needs": tuple(needs), "workspace": self.workspace}
        return TrainingJob.of(stage, name, base, settings, task=task, **more)

    def finetunings(self) -> list[Finetuning]:
        """All fine-tuning runs, question-only baselines after those of their row and part."""
        return [
            Finetuning(row, part, seed, blank)
            for seed, part, row, blank in product(self.grid.seeds, self.grid.parts, self.rows, (False, True))
            if not blank or declared.QUESTION_ONLY in row.controls
        ]

    def _run_folder(self, of: Finetuning) -> Path:
        return self.workspace.out / "runs" / of.run

    def finetuning_jobs(self) -> list[TrainingJob]:
        """A job for each fine-tuning run."""
        return list(map(self._finetuning_job, self.finetunings()))

    def _finetuning_job(self, one: Finetuning) -> TrainingJob:
        grid, row = self.grid, one.row
        settings = {
            **self._filled(row.settings),
            **self.workspace.run_settings(self._run_folder(one), fold_seed(one.seed, one.part.fold)),
            "data.dataset": grid.dataset,
            "data.data_root": shown(grid.data_root),
            "data.protocol": one.part.protocol,
            "data.split_seed": one.part.fold,
            "data.images": "blank" if one.blank else "real",
        }
        start = (
            self._pretraining(row, len(row.pretrain) - 1, grid.pretrain_seed_of()[one.seed])
            if row.pretrain
            else None
        )
        return self._training_job(FINETUNE, row, grid.base, declared.FINETUNE_TASK, settings, start)

    def scores(self) -> list[KeyedJob]:
        """See ``Plan``: the baselines of every part, the predictions of every fine-tuning."""
        return [*map(self._baselines, self.grid.parts), *map(self._score, self.answers())]

    def answers(self) -> list[Finetuning]:
        """Predictions to make: of every fine-tuned model, and for some with shuffled images, too."""
        return [
            replace(one, shuffled=shuffled)
            for one, shuffled in product(self.finetunings(), (False, True))
            if not shuffled or (declared.SHUFFLED in one.row.controls and not one.blank)
        ]

    def predictions(self, of: Finetuning) -> Path:
        """File of predictions."""
        return self.workspace.out / "scores" / of.name / PREDICTIONS

    def _score(self, one: Finetuning) -> KeyedJob:
        grid, run, made = self.grid, self._finetuning_job(one), self.predictions(one)
        images = ("--images", declared.SHUFFLED, "--seed", str(one.seed)) if one.shuffled else ()
        command = (
            *(kg_targets_command(), "evaluate", "vqa", "--model", shown(run.folder)),
            *("--dataset", grid.dataset, "--data-root", shown(grid.data_root), *images),
            *("--name", one.row.name, *grid.evaluation, "--out", shown(made.parent)),
        )

        def follows_from() -> list[object]:
            options = [*grid.evaluation, one.row.name, one.shuffled]
            digests = digest_of_test(self.questions(one.part))
            return [FORMAT, run.finished_key(), *digests, options, self.workspace.threads]

        return KeyedJob(
            SCORE, one.name, command, (run.folder / FINISHED,), self.workspace.environment, workspace=self.workspace,
            made=made.with_suffix(".json"), follows_from=follows_from, run=run,  # its metadata are written last
        )  # fmt: skip

    def baseline_files(self, part: Part) -> list[Path]:
        """Predictions of each baseline of a part."""
        return [self._baseline_folder(part) / f"{part.protocol}-{one}.csv" for one in BASELINES]

    def _baseline_folder(self, part: Part) -> Path:
        return self.workspace.out / "scores" / f"baselines-{part.name}"

    def _baselines(self, part: Part) -> KeyedJob:
        folder, last = self._baseline_folder(part), self.baseline_files(part)[-1]
        command = (
            *(kg_targets_command(), "evaluate", "baselines", "--dataset", self.grid.dataset),
            *("--data-root", shown(self.grid.data_root), "--protocol", part.protocol),
            *("--split-seed", str(part.fold), "--validation-share", str(self._validation_share)),
            *("--out", shown(folder)),
        )
        return KeyedJob(
            SCORE, folder.name, command, workspace=self.workspace, made=last.with_suffix(".json"),
            follows_from=lambda: [predictions.FORMAT, part.recorded(), digest_of_all(self.questions(part))],
        )  # fmt: skip

    @cached_property
    def _validation_share(self) -> float:
        """The rows' validation share: it decides which answers are candidates of a fold.

        Raises:
            ConfigError: rows differ in it, so that their questions are not the same.
        """
        shares: dict[float, str] = {}
        for one in self.finetunings():
            config = self._finetuning_job(one).config()
            if isinstance(config, FinetuneConfig):
                shares.setdefault(config.data.validation_share, one.row.name)
        if len(shares) > 1:
            first, other, *_ = shares.values()
            raise ConfigError(
                f"rows {first} and {other} have another data.validation_share: set it for the whole grid"
            )
        return next(iter(shares), 0.1)

    def questions(self, part: Part) -> Questions:
        """The questions of a part."""
        return Questions(self.grid.dataset, self.grid.data_root, part, self._validation_share)
