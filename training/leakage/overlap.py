"""Overlap of two parts of a data set, and cases of a pre-training data set that show an image of the test part.

Parts: images by id, repeated questions, and pictures that are alike. Pre-training: by id, then by hash; whole cases are
listed, never single images: other images of a case show the same patient and finding.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

from kg_targets.manifest import PARTS, Manifest, Question, Record
from kg_targets.manifest.model import unknown_name
from training.errors import ConfigError
from training.leakage.hashing import RADIUS, Hashes, hash_images, near
from training.vqa.answers import accepted_answers
from training.vqa.protocols import Split, question_key

ALL = "all"
BY_ID, BY_NEIGHBOUR, BY_HASH = "id", "neighbour", "hash"


@dataclass(frozen=True)
class Shared:
    """Overlap of two parts."""

    parts: tuple[str, str]
    images: tuple[str, ...]
    questions: tuple[str, ...]
    """Ids of the second part's questions that the first one asks of the same image, in the same words."""
    same_answer: int
    """Number of them that it also answers alike."""


@dataclass(frozen=True)
class Near:
    """Two images of different parts that look alike."""

    images: tuple[str, str]
    bits: int
    """Differing bits of 256."""


def shared(split: Split) -> list[Shared]:
    """For every two parts that are there: images in both, and questions of the second that repeat one of the first."""
    found, right = [], partial(accepted_answers, language=split.language)
    for one, other in combinations(PARTS, 2):
        first, second = split.part(one), split.part(other)
        if not first or not second:
            continue
        images = {question.image_id for question in first} & {question.image_id for question in second}
        answers: dict[tuple[str, str], set[str]] = {}
        for question in first:
            answers.setdefault(question_key(question), set()).update(right(question))
        repeated = [question for question in second if question_key(question) in answers]
        same = sum(not answers[question_key(one)].isdisjoint(right(one)) for one in repeated)
        ids = tuple(question.id for question in repeated)
        found.append(Shared((one, other), tuple(sorted(images)), ids, same))
    return found


def alike(split: Split, hashes: Hashes, radius: int = RADIUS) -> list[Near]:
    """Pairs of different images, at least one part apart, that differ in at most ``radius`` bits."""
    parts: dict[str, set[str]] = {}
    for name in PARTS:
        for question in split.part(name):
            parts.setdefault(question.image_id, set()).add(name)
    return [
        Near((one, other), bits)
        for one, other, bits in near(hashes, hashes, radius)
        if one < other and len(parts[one] | parts[other]) > 1
    ]


def hash_questions(questions: Sequence[Question], root: Path) -> Hashes:
    """Hashes of the images of some questions, each image once, in the order of the ids."""
    paths = {question.image_id: question.image_path for question in questions if question.image_path}
    images = sorted(paths)
    return hash_images(root, images, [paths[image] for image in images])


@dataclass(frozen=True, order=True)
class Touch:
    """An image of a pre-training case that is, or may be, one of ours."""

    case: str
    image: str
    """In the pre-training data set."""
    ours: str
    by: str
    """``id``; ``neighbour``: their numbers are near; ``hash``: the pictures are alike."""
    distance: int
    """Between the numbers, or differing bits of the hashes."""


@dataclass(frozen=True)
class Pretraining:
    """Images of a pre-training data set."""

    dataset: str
    splits: tuple[str, ...]
    root: Path
    records: tuple[Record, ...]

    @property
    def cases(self) -> int:
        """Number of cases."""
        return len({record.group_id for record in self.records})


def read_pretraining(name: str, root: str | None, splits: str) -> Pretraining:
    """Images and cases of a manifest of kg-targets.

    Args:
        name: of the data set, or its manifest's path.
        root: its data root; ``None`` for the manifest's own.
        splits: names separated by commas, or ``all``: those that are there.

    Raises:
        ConfigError: no split is there, or one of those named is not.
        KGTargetsError: the manifest or a file of it is missing or malformed.
    """
    manifest = Manifest.load(name)
    folder = Path(root) if root else manifest.default_root
    present = manifest.present_splits(folder)
    names = present if splits == ALL else splits.split(",")
    if not names:
        raise ConfigError(f"{manifest.name} is not under {folder}. {manifest.how_to_get} Set --against-root.")
    for split in names:
        if split not in present:
            raise ConfigError(f"--against-split: {unknown_name('split', split, present)}")
    records = tuple(record for split in names for record in manifest.records(split, folder))
    return Pretraining(manifest.name, tuple(names), folder, records)


def touching(
    ours: Sequence[str],
    our_hashes: Hashes | None,
    pretraining: Pretraining,
    id_pattern: str,
    id_distance: int = 0,
    radius: int = RADIUS,
) -> tuple[list[Touch], Hashes | None]:
    """Images of ``pretraining`` that are in the data set, too, each pair once: by id, else by number, else by hash.

    Args:
        ours: image ids of the data set.
        our_hashes: of the same images; ``None`` to go by ids only.
        id_pattern: regular expression of what names an image in both data sets (``synpic[0-9]+``); empty: no ids match.
        id_distance: largest difference of the numbers at the end of what the pattern finds, ≥ 0.
        radius: most differing bits of the hashes.

    Returns:
        The pairs in order, and the hashes of the pre-training images.
    """
    by_id = _by_id(ours, pretraining.records, id_pattern, id_distance)
    found = {(touch.image, touch.ours): touch for touch in by_id}
    if our_hashes is None:
        return sorted(found.values()), None
    cases = {record.image_id: record.group_id for record in pretraining.records}
    # Splits may have one id for two images.
    shown = sorted({(one.image_id, one.image_path) for one in pretraining.records if one.image_path})
    theirs = hash_images(pretraining.root, [name for name, _ in shown], [path for _, path in shown])
    for image, other, bits in near(our_hashes, theirs, radius):
        kept = found.get((other, image))
        if kept is None or kept.by == BY_NEIGHBOUR:
            found[other, image] = Touch(cases[other], other, image, BY_HASH, bits)
    return sorted(found.values()), theirs


def ids_can_match(ours: Iterable[str], pretraining: Pretraining, id_pattern: str) -> bool:
    """Whether image ids of both data sets hold what names an image in both."""
    if not id_pattern:
        return False
    pattern = re.compile(id_pattern)
    theirs = (record.image_id for record in pretraining.records)
    return all(any(map(pattern.search, images)) for images in (ours, theirs))


def _by_id(
    ours: Iterable[str], records: Iterable[Record], id_pattern: str, id_distance: int
) -> Iterable[Touch]:
    if not id_pattern:
        return
    pattern = re.compile(id_pattern)
    known = {key.group(): image for image in ours for key in pattern.finditer(image)}
    for record in records:
        for key in (found.group() for found in pattern.finditer(record.image_id)):
            for step in range(-id_distance, id_distance + 1):
                image = known.get(_moved(key, step))
                if image is not None:
                    by = BY_NEIGHBOUR if step else BY_ID
                    yield Touch(record.group_id, record.image_id, image, by, abs(step))


def _moved(key: str, step: int) -> str:
    """``synpic100`` and 1 give ``synpic101``; what does not end in a number has no neighbours."""
    if not step:
        return key
    name, number = re.fullmatch(r"(.*?)(\d*)", key, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{name}{int(number) + step}" if number else ""
