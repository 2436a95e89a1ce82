"""What two parts of a data set share: images by id, repeated questions, and pictures that are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from training.data.files import resolve
from training.leakage.hashing import RADIUS, Hashes, hash_images, near
from training.vqa.items import Question
from training.vqa.manifest import PARTS
from training.vqa.normalise import normalise_question
from training.vqa.protocols import Split


@dataclass(frozen=True)
class Shared:
    """What two parts have in common."""

    parts: tuple[str, str]
    images: tuple[str, ...]
    questions: tuple[str, ...]
    """Ids of the second part's questions that the first one asks of the same image, in the same words."""
    same_answer: int
    """How many of them it also answers alike."""


@dataclass(frozen=True)
class Near:
    """Two images of different parts that look alike."""

    images: tuple[str, str]
    bits: int
    """Of 256 that differ."""


def shared(split: Split) -> list[Shared]:
    """For every two parts that are there: images in both, and questions of the second that repeat one of the first."""
    found = []
    for one, other in combinations(PARTS, 2):
        first, second = split.part(one), split.part(other)
        if not first or not second:
            continue
        images = {question.image_id for question in first} & {question.image_id for question in second}
        answers: dict[tuple[str, str], set[str]] = {}
        for question in first:
            answers.setdefault(asked(question), set()).update(question.accepted(split.language))
        repeated = [question for question in second if asked(question) in answers]
        alike = sum(
            not answers[asked(question)].isdisjoint(question.accepted(split.language))
            for question in repeated
        )
        ids = tuple(question.id for question in repeated)
        found.append(Shared((one, other), tuple(sorted(images)), ids, alike))
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
    return hash_images((image, resolve(root, paths[image])) for image in sorted(paths))


def asked(question: Question) -> tuple[str, str]:
    """Image and wording: questions that agree in both are the same question."""
    return question.image_id, normalise_question(question.question)
