"""Protocols: which questions train, select and test a model, and which answers it may choose from.

protocol            train, validation                       test                candidates and knowledge
``paper``           official train; none: the last epoch    official            the test answers (authors' code)
``strict``          official train, less a validation part  official            answers of train and validation
``image_disjoint``  the other images; of these a part       one fold of images  answers of train and validation

``image_disjoint`` deals all questions out by whole images, into folds as large as the official test part. The seeds
0, 1, … of the split are the folds of a cross-validation: each image tests once (``folds_of`` says how many there are).

Under ``paper`` a model is told what can be right, so that its ceiling is 100 %; under the others a test answer that
never occurs in training cannot be given, and the ceiling says so. Answers are normalised ones throughout.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kg_targets.manifest import ALL, PARTS, TEST, TRAIN, VALIDATION, Manifest, Question, ReadReport
from kg_targets.manifest.folds import assign_cases
from kg_targets.store.digest import shuffle_key
from training.checks import all_within, one_of, within
from training.errors import ConfigError, DataError
from training.vqa.answers import accepted_answers, is_blank, normalise_question

PROTOCOLS = ("paper", "strict", "image_disjoint")
PUBLISHED = "published"
"""Name of ``as_published``: no protocol, nothing is trained under it."""
VALIDATION_SHARES = (1e-6, 0.5)
"""Shares of the training questions that may validate."""
UNSPLIT_TEST_SHARE = 0.2
"""Share of the questions that test where there is no official test split to be as large as."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A data set under a protocol."""

    dataset: str
    protocol: str
    seed: int = 0
    """Seed of the split into parts, not of a training run."""
    validation_share: float = 0.0
    """Share of the training questions, as asked for: where an official part validates, or none does, it is not used."""
    language: str
    train: tuple[Question, ...]
    validation: tuple[Question, ...]
    """Empty under ``paper``: nothing is selected, the last epoch is kept."""
    test: tuple[Question, ...]
    candidates: tuple[str, ...] = ()
    """Normalised answers to choose from, and that the gate sees; each once, in alphabetical order."""
    candidate_source: str = "none"
    """For people: where candidates and knowledge come from."""
    ceiling: dict[str, float] = field(default_factory=dict)
    """``overall``, ``open``, ``closed``: share of the test questions with a right answer among the candidates; a key
    is missing where there is no such question."""
    skipped: dict[str, int]
    """Reason to number of questions that are in no part."""
    notes: tuple[str, ...]
    """For people: what was noticed about the data."""

    def part(self, name: str) -> tuple[Question, ...]:
        """The questions of ``train``, ``validation`` or ``test``.

        Raises:
            ConfigError: another name.
        """
        one_of("split", name, PARTS)
        return {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}[name]


def prepare(
    manifest: Manifest,
    data_root: str | Path,
    protocol: str,
    *,
    seed: int = 0,
    validation_share: float = 0.1,
) -> Split:
    """Read a data set and split it as the protocol says; the same arguments give the same parts on every machine.

    A question whose answer normalises to nothing, or that asks nothing, is skipped in training and validation. In the
    test part it stays: it is in every denominator, and nobody answers it.

    Args:
        manifest: the data set.
        data_root: where its files are.
        protocol: one of ``PROTOCOLS``.
        seed: of the split by image, ≥ 0. Keep it fixed over training seeds: other splits have other questions.
            Under ``image_disjoint`` consecutive seeds are the folds of a cross-validation.
        validation_share: of the training questions, in (0, 0.5]; not used where there is an official validation part
            or the protocol has none.

    Raises:
        ConfigError: a name or number is not usable, or the data set has no official splits to follow.
        DataError: files are missing or malformed, or a part would be empty.
    """
    one_of("protocol", protocol, PROTOCOLS)
    within("seed", seed, 0, None)
    within("validation_share", validation_share, *VALIDATION_SHARES)
    report = ReadReport()
    parts = _official(manifest, Path(data_root), protocol, report)
    notes: list[str] = []
    if protocol == "image_disjoint":
        parts = _dealt_out(parts, seed, validation_share)
    elif protocol == "paper":
        left_out = len(parts.get(VALIDATION, ()))
        if left_out:
            notes.append(f"the official validation part ({left_out:,} questions) is not used")
        parts[VALIDATION] = []
    elif VALIDATION not in parts:
        held = images_for(parts[TRAIN], validation_share * len(parts[TRAIN]), seed, VALIDATION)
        parts |= _parted(parts[TRAIN], held, VALIDATION)

    train, validation = (_usable(parts[name], manifest.language, report) for name in (TRAIN, VALIDATION))
    test = parts[TEST]
    for name, questions in ((TRAIN, train), (TEST, test)):
        if not questions:
            raise DataError(f"{manifest.name}: no question is left in the {name} part under {protocol}")
    source = test if protocol == "paper" else [*train, *validation]
    accepted = (accepted_answers(question, manifest.language) for question in source)
    candidates = tuple(sorted({answer for answers in accepted for answer in answers}))
    if not candidates:
        raise DataError(f"{manifest.name}: no answer is left to choose from under {protocol}")
    return Split(
        dataset=manifest.name,
        protocol=protocol,
        seed=seed,
        validation_share=validation_share,
        language=manifest.language,
        train=tuple(train),
        validation=tuple(validation),
        test=tuple(test),
        candidates=candidates,
        candidate_source=_SOURCES[protocol],
        ceiling=ceiling(test, candidates, manifest.language),
        skipped=dict(report.skipped),
        notes=(*notes, *_remarks(train, validation, test, manifest.language), *report.lines()),
    )


def as_published(manifest: Manifest, data_root: str | Path) -> Split:
    """The official parts that are there, whole, without candidates: to look at, not to train on.

    Questions of a set without official splits are its test part.

    Raises:
        DataError: no part is there, or a file is malformed.
    """
    report = ReadReport()
    present = manifest.present_splits(data_root)
    if not present:
        raise DataError(f"{manifest.name}: no part is under {data_root}. {manifest.how_to_get}")
    parts = {split: tuple(manifest.questions(split, data_root, report)) for split in present}
    return Split(
        dataset=manifest.name,
        protocol=PUBLISHED,
        language=manifest.language,
        train=parts.get(TRAIN, ()),
        validation=parts.get(VALIDATION, ()),
        test=parts.get(TEST, ()) or parts.get(ALL, ()),
        skipped=dict(report.skipped),
        notes=tuple(report.lines()),
    )


_SOURCES = {
    "paper": "the test answers (as in the released code: the model is told what can be right)",
    "strict": "answers of the train and validation parts",
    "image_disjoint": "answers of the train and validation parts",
}


def ceiling(questions: Sequence[Question], candidates: Iterable[str], language: str) -> dict[str, float]:
    """Share of the questions that can be answered with ``candidates``: overall, and of the open and the closed."""
    known = set(candidates)
    groups: dict[str, list[bool]] = {"overall": [], "open": [], "closed": []}
    for question in questions:
        reached = not known.isdisjoint(accepted_answers(question, language))
        groups["overall"].append(reached)
        groups["closed" if question.closed else "open"].append(reached)
    return {name: sum(group) / len(group) for name, group in groups.items() if group}


def question_key(question: Question) -> tuple[str, str]:
    """Image and wording: questions that agree in both are the same question."""
    return question.image_id, normalise_question(question.question)


def images_for(questions: Sequence[Question], size: float, seed: int, part: str) -> frozenset[str]:
    """Images that together have about ``size`` questions.

    Images are put into the order of sha256(seed, part, image), a shuffle that no library version changes, and taken
    until one more would lead further away from ``size``; one at least, and never all.
    """
    counts = Counter(question.image_id for question in questions)
    order = sorted(counts, key=lambda image: shuffle_key(seed, part, image))
    taken: list[str] = []
    held = 0
    for image in order[:-1]:
        if taken and abs(held + counts[image] - size) > abs(held - size):
            break
        taken.append(image)
        held += counts[image]
    return frozenset(taken)


def _official(manifest: Manifest, root: Path, protocol: str, report: ReadReport) -> dict[str, list[Question]]:
    """The official parts, each question with an id of its own."""
    if protocol != "image_disjoint" and not {TRAIN, TEST} <= set(manifest.splits):
        raise ConfigError(
            f"{manifest.name} has no official train and test splits: use protocol image_disjoint"
        )
    parts = {split: manifest.questions(split, root, report) for split in manifest.splits}
    seen: dict[str, str] = {}
    for split, questions in parts.items():
        for question in questions:
            if question.id in seen:
                raise DataError(
                    f"{manifest.name}: question id {question.id!r} is in {seen[question.id]} and in {split}: "
                    "ids must be unique in the data set"
                )
            seen[question.id] = split
    return parts


def _dealt_out(
    parts: dict[str, list[Question]], seed: int, validation_share: float
) -> dict[str, list[Question]]:
    """All questions dealt out by image into folds about as large as the official test part; one of them tests.

    ``seed`` counts folds first: with 8 folds, the seeds 0 to 7 test every image once, and 8 begins another dealing.
    """
    everything = [question for questions in parts.values() for question in questions]
    size = len(parts[TEST]) if TEST in parts else UNSPLIT_TEST_SHARE * len(everything)
    count = folds_of(len(everything), size)
    images = Counter(question.image_id for question in everything)
    assigned = assign_cases(dict(images), count, seed // count)
    tested = frozenset(image for image, fold in assigned.items() if fold == seed % count)
    parts = _parted(everything, tested, TEST)
    held = images_for(parts[TRAIN], validation_share * len(parts[TRAIN]), seed, VALIDATION)
    return {**_parted(parts[TRAIN], held, VALIDATION), TEST: parts[TEST]}


def folds_of(questions: int, size: float) -> int:
    """Into how many folds ``questions`` are dealt out, for each to have about ``size``; at least 2."""
    return max(2, round(questions / size)) if size else 2


def _parted(questions: Sequence[Question], held: frozenset[str], name: str) -> dict[str, list[Question]]:
    """Train and the part ``name``, which has the images ``held``."""
    return {
        TRAIN: [question for question in questions if question.image_id not in held],
        name: [question for question in questions if question.image_id in held],
    }


def _usable(questions: Iterable[Question], language: str, report: ReadReport) -> list[Question]:
    kept = []
    for question in questions:
        if not accepted_answers(question, language):
            report.skip("the answer normalises to nothing", f"question {question.id}")
        elif is_blank(question.question):
            report.skip("the question is empty", f"question {question.id}")
        else:
            kept.append(question)
    return kept


def _remarks(
    train: Sequence[Question], validation: Sequence[Question], test: Sequence[Question], language: str
) -> list[str]:
    """Remarks that a reader of the scores should know."""
    remarks = []
    seen = {question.image_id for question in (*train, *validation)}
    shared = {question.image_id for question in test} & seen
    if shared:
        remarks.append(f"{len(shared):,} images of the test part are also in train or validation")
    nothing = sum(not accepted_answers(question, language) for question in test)
    if nothing:
        remarks.append(
            f"{nothing:,} test question(s) have an answer that normalises to nothing: nobody answers them, they count"
        )
    return remarks


def add_data(command: argparse.ArgumentParser) -> None:
    """``--dataset`` and ``--data-root``."""
    add = command.add_argument
    add("--dataset", required=True, help="name of a Med-VQA data set, or a manifest's .yaml")
    add("--data-root", help="folder of its files (default: the manifest's, such as data/vqa_rad)")


def add_split(command: argparse.ArgumentParser, default: str, known: Sequence[str] = PROTOCOLS) -> None:
    """``--protocol``, ``--split-seed`` and ``--validation-share``."""
    add, split = command.add_argument, "of the split by image; not the training seed"
    add("--protocol", default=default, help=f"one of {', '.join(known)}")
    add("--split-seed", type=int, default=0, help=split)
    add("--validation-share", type=float, default=0.1, help="of the training questions")


def read_data(options: argparse.Namespace) -> tuple[Manifest, Path]:
    """The manifest and the data root.

    Raises:
        ConfigError: no such data set, or the data root is no folder.
    """
    manifest = Manifest.load(options.dataset, "questions")
    root = Path(options.data_root) if options.data_root else manifest.default_root
    if not root.is_dir():
        raise ConfigError(
            f"data root {root} is not a folder. {manifest.how_to_get} Give its place with --data-root."
        )
    return manifest, root


def read_split(options: argparse.Namespace, manifest: Manifest, root: Path, protocol: str) -> Split:
    """The data set under a protocol, split as the options say, or ``published``.

    Raises:
        ConfigError: a name or number is not usable.
        DataError: files are missing or malformed.
    """
    all_within("--", options, split_seed=(0, None), validation_share=VALIDATION_SHARES)
    if protocol == PUBLISHED:
        return as_published(manifest, root)
    one_of("--protocol", protocol, PROTOCOLS)
    share = options.validation_share
    return prepare(manifest, root, protocol, seed=options.split_seed, validation_share=share)
