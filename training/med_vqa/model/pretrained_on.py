"""Which pre-trainings a model has been through: kept in its folder, and told with its answers.

A list, the earliest first, named ``pretrainings`` in pretraining.json and trained_on.json, in the data.json of a
fine-tuning and among the facts of predictions. ``null`` in it, or no such list: what came before is not recorded.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.errors import CheckpointError
from training.med_vqa.model.saving import plain_fields

FIELD = "pretrainings"


@dataclass(frozen=True)
class Excluded:
    """A list of cases that a pre-training did not see; counts, never a case."""

    by: str
    """``data.exclude``, or ``kg-targets build``: the store was built without them."""
    sha256: str
    """Of the listed cases, ascending (``kg_targets.manifest.ExcludedCases.digest``)."""
    cases_listed: int
    cases_found: int
    """Those of them that there were to leave out."""
    images: int
    """Of the cases found."""


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
    """That trained."""
    dev_images: int
    """That chose the epoch."""
    excluded: tuple[Excluded, ...] = ()

    def told(self) -> str:
        """What it was on, for a person."""
        cases, images = (
            sum(getattr(one, name) for one in self.excluded) for name in ("cases_found", "images")
        )
        left_out = f"{cases:,} cases with {images:,} images excluded" if cases else "nothing excluded"
        return f"{self.dataset} {self.split}, {left_out}"


History = tuple[Pretraining | None, ...]
"""The earliest first; None: what came before is not recorded."""
UNRECORDED: History = (None,)


def told(history: History) -> str:
    """All of them in one clause for a person, what several stages have in common once; empty without any."""
    known = list(dict.fromkeys(one.told() for one in history if one is not None))
    if not known:
        return "pre-training not recorded" if history else ""
    before = ", what came before is not recorded" if None in history else ""
    return f"pre-trained on {', then on '.join(known)}{before}"


def as_json(history: History) -> list[dict[str, Any] | None]:
    """Plain JSON values."""
    return [
        None if one is None else {**asdict(one), "excluded": [asdict(left_out) for left_out in one.excluded]}
        for one in history
    ]


def from_json(content: Any, where: str) -> History:
    """What ``as_json`` gave; None, since the list is missing: not recorded.

    Args:
        content: the list.
        where: begins the message of an error, such as ``FILE is damaged``.

    Raises:
        CheckpointError: it is no such list.
    """
    if content is None:
        return UNRECORDED
    return tuple(None if one is None else _pretraining(one, where) for one in _objects(content, FIELD, where))


def _pretraining(content: Any, where: str) -> Pretraining:
    lists = _objects(content.get("excluded"), "excluded", where)
    excluded = tuple(Excluded(**plain_fields(Excluded, one, where)) for one in lists)
    return Pretraining(**plain_fields(Pretraining, content, where), excluded=excluded)


def _objects(content: Any, name: str, where: str) -> Sequence[Any]:
    nulls = name == FIELD
    if not isinstance(content, list) or not all(
        isinstance(one, dict) or (nulls and one is None) for one in content
    ):
        raise CheckpointError(f'{where}: "{name}" is not a list of objects')
    return content
