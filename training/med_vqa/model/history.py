"""Records of what a model has been trained on, kept beside its weights, so that a copy of the folder tells it.

``trained_on.json`` is of its last fine-tuning. Questions and images are known again under any data set's name and in
any split, but not by their text: of each question (image id and normalised wording) and of each image id the first 16
hexadecimal digits of a sha256 are kept.

``pretrainings``, in pretraining.json and trained_on.json, in the data.json of a fine-tuning run and in the metadata of
predictions, lists all pre-training runs, the earliest first. ``null`` in it, or no such list: what came before is not
recorded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from kg_targets.manifest import Question
from kg_targets.store.digest import text_sha256
from training.engine.config import RunConfig
from training.folders import write_json
from training.med_vqa.model.saving import model_folder, parsed, read_json
from training.vqa.protocols import Split, question_key

PRETRAINING = "pretraining.json"
"""File of a pre-trained model's folder, which holds a ``PretrainingRecord``."""
FILE = "trained_on.json"
DIGITS = 16
Part = Literal[
    "vision", "text", "image_projection", "text_projection", "co_attention", "knowledge_projection", "gate"
]  # fmt: skip
"""Attribute of ``MedVQAModel`` that training can be continued from."""
Temperature = Literal["image_text", "views", "texts"]
"""Temperature of one of a pre-training's contrastive terms."""
FIELD = "pretrainings"


@dataclass(frozen=True)
class Excluded:
    """A list of cases that a pre-training did not see; counts, never a case."""

    by: str
    """``data.exclude``, or ``kg-targets build``: the store was built without them."""
    sha256: str
    """Digest of the listed cases, ascending (``kg_targets.manifest.ExcludedCases.digest``)."""
    cases_listed: int
    cases_found: int
    """How many of them the store had."""
    images: int
    """Number of images of the cases found."""


@dataclass(frozen=True)
class Pretraining:
    """One pre-training."""

    stage: str
    """``one`` or ``two``."""
    dataset: str
    split: str
    store: str
    """Fingerprint of the target store."""
    images: int
    """Number of training images."""
    dev_images: int
    """Number of images that chose the epoch."""
    excluded: tuple[Excluded, ...]

    def describe(self) -> str:
        """Name the data and what was left out of it, for a person."""
        cases, images = (
            sum(getattr(one, name) for one in self.excluded) for name in ("cases_found", "images")
        )
        left_out = f"{cases:,} cases with {images:,} images excluded" if cases else "nothing excluded"
        return f"{self.dataset} {self.split}, {left_out}"


Pretrainings = tuple[Pretraining | None, ...]
"""The earliest first; None: what came before is not recorded."""
UNRECORDED: Pretrainings = (None,)


def describe(history: Pretrainings) -> str:
    """One clause for a person, what several stages have in common once; empty without any."""
    known = list(dict.fromkeys(one.describe() for one in history if one is not None))
    if not known:
        return "pre-training not recorded" if history else ""
    before = ", what came before is not recorded" if None in history else ""
    return f"pre-trained on {', then on '.join(known)}{before}"


def as_json(history: Pretrainings) -> list[dict[str, Any] | None]:
    """Plain JSON values."""
    return [None if one is None else asdict(one) for one in history]


def from_json(content: Any, where: str) -> Pretrainings:
    """Read what ``as_json`` gave; None, since the list is missing: not recorded.

    Args:
        content: the list.
        where: begins the message of an error, such as ``FILE is damaged``.

    Raises:
        CheckpointError: it is no such list.
    """
    if content is None:
        return UNRECORDED
    return parsed(dict[str, Pretrainings], {FIELD: content}, where)[FIELD]


@dataclass(frozen=True)
class Digests:
    """Questions and images that can be known again."""

    questions: frozenset[str]
    images: frozenset[str]

    @classmethod
    def of(cls, questions: Iterable[Question]) -> "Digests":
        """Digests of questions and of the images that they are about."""
        known = [question_key(question) for question in questions]
        return cls(
            frozenset(_digest(image, wording) for image, wording in known),
            frozenset(_digest(image) for image, _ in known),
        )

    def __and__(self, other: "Digests") -> "Digests":
        return Digests(self.questions & other.questions, self.images & other.images)

    def __sub__(self, other: "Digests") -> "Digests":
        return Digests(self.questions - other.questions, self.images - other.images)

    def __or__(self, other: "Digests") -> "Digests":
        return Digests(self.questions | other.questions, self.images | other.images)


@dataclass(frozen=True)
class TrainedOn:
    """A fine-tuning; the values without a record are the defaults of its configuration."""

    dataset: str
    protocol: str
    split_seed: int = 0
    validation_share: float = 0.1
    images: str = "real"
    """``real``, or ``blank``."""
    seed: int = 0
    """Seed of the training run."""
    preset: str = "model"
    precision: str = "fp32"
    max_question_tokens: int = 64
    pretrainings: Pretrainings = UNRECORDED
    """Pre-training runs before it."""
    digests: Digests | None = None
    """Digests of its training questions, and of those of the fine-tuning runs before it; None: not recorded."""

    @classmethod
    def of(cls, config: RunConfig, split: Split) -> "TrainedOn":
        """Record of a run on the train part of a split.

        Args:
            config: of the fine-tuning.
            split: the data set under its protocol.

        Raises:
            CheckpointError: a record of its initial model is damaged.
        """
        content = asdict(config)
        history = TrainingHistory.of(content["model"]["init_from"])
        digests = history.and_then(Digests.of(split.train))
        trained_on = cls.of_config(content, split.dataset, split.protocol)
        return replace(trained_on, pretrainings=history.pretrainings, digests=digests)

    @classmethod
    def of_config(cls, config: Mapping[str, Any], dataset: str, protocol: str) -> "TrainedOn":
        """Record from a run's config.yaml, which says nothing of what its initial model had been trained on.

        Raises:
            CheckpointError: a value is of another type.
        """
        data, model = config.get("data") or {}, config.get("model") or {}
        sources = dict.fromkeys(("split_seed", "validation_share", "images", "max_question_tokens"), data)
        sources |= {"preset": model, "precision": model, "seed": config}
        content = {name: source[name] for name, source in sources.items() if name in source}
        content |= {"dataset": dataset, "protocol": protocol}
        if model.get("init_from", model.get("start")) is None:  # named start before version 0.2.0
            content["pretrainings"] = []
        return parsed(cls, content, "the run's configuration")


@dataclass(frozen=True)
class PretrainingRecord:
    """``pretraining.json``: what a pre-training trained, and all that came before it."""

    stage: str | None = None
    trained: tuple[Part, ...] = get_args(Part)
    """Parts that it trained; all where that is not recorded."""
    embed_dim: int | None = None
    """Width of its heads."""
    temperatures: dict[str, float] = field(default_factory=dict)
    learnt_temperatures: tuple[Temperature, ...] | None = None
    """None: not recorded."""
    fine_tuned: bool = False
    """Whether a fine-tuning run came before it."""
    pretrainings: Pretrainings = UNRECORDED
    """Up to this one."""


def read_pretraining(folder: Path) -> PretrainingRecord | None:
    """The record in a model folder; None where the folder is no pre-training's.

    Raises:
        CheckpointError: it is damaged.
    """
    if not (folder / PRETRAINING).is_file():
        return None
    content, where = read_json(folder, PRETRAINING), f"{folder / PRETRAINING} is damaged"
    return parsed(PretrainingRecord, content, where)


def save_trained_on(folder: Path, trained_on: TrainedOn) -> None:
    """Write the record into a model's folder.

    Raises:
        OSError: it cannot be written.
    """
    digests = trained_on.digests
    content = asdict(trained_on) | {
        "digests": digests and {"questions": sorted(digests.questions), "images": sorted(digests.images)}
    }
    write_json(folder / FILE, content)


def load_trained_on(folder: Path) -> TrainedOn | None:
    """The record in a model's folder; None where there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    required = dict.fromkeys(one.name for one in fields(TrainedOn) if one.name not in (FIELD, "digests"))
    content = required | read_json(folder, FILE)
    return parsed(TrainedOn, content, f"{folder / FILE} is damaged")


@dataclass(frozen=True)
class TrainingHistory:
    """Training that a run's initial model has been through."""

    pretrainings: Pretrainings = ()
    fine_tuned: bool = False
    fine_tuning: TrainedOn | None = None
    """The last one, with the questions of those before it; None: there was none, or it is not recorded."""

    @classmethod
    def of(cls, start: str | None) -> "TrainingHistory":
        """History of ``model.init_from``, a finished run or a model folder; empty for None.

        A pre-training records whether a fine-tuning run came before it, and keeps its record; any other model was
        fine-tuned.

        Raises:
            CheckpointError: it is neither, or a record of it is damaged.
        """
        if start is None:
            return cls()
        folder = model_folder(Path(start))
        fine_tuning = load_trained_on(folder)
        if record := read_pretraining(folder):
            return cls(record.pretrainings, record.fine_tuned or fine_tuning is not None, fine_tuning)
        return cls(UNRECORDED if fine_tuning is None else fine_tuning.pretrainings, True, fine_tuning)

    def and_then(self, digests: Digests) -> Digests | None:
        """Add the digests of all fine-tuning runs before; None: those of one before are not known."""
        if not self.fine_tuned:
            return digests
        before = None if self.fine_tuning is None else self.fine_tuning.digests
        return None if before is None else digests | before


def _digest(*parts: str) -> str:
    return text_sha256("\n".join(parts))[:DIGITS]
