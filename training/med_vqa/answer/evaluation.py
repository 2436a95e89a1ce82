"""A Med-VQA model on the questions of a data set: ``kg-targets evaluate vqa --model RUN --dataset vqa_rad --out DIR``.

DIR/predictions.csv and .json hold every answer and what it rests on; kg-targets compare-vqa puts several side by side.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kg_targets.manifest import PARTS, TEST, Question
from kg_targets.store.digest import json_sha256, shuffle_key
from training.checks import all_within, one_of
from training.clip.config import PRECISIONS
from training.command import Work, add_json, print_json, write_line
from training.data.files import image_digest
from training.errors import ConfigError, DataError
from training.folders import check_writable
from training.med_vqa.answer.answerer import SHORTLIST, Saved
from training.med_vqa.answer.modes import MODES, MODES_HELP, Answer
from training.med_vqa.model.history import FIELD, Digests, as_json, describe, from_json
from training.med_vqa.model.images import ImageCondition, ImageTable
from training.med_vqa.model.saving import MedVQA
from training.statistics.intervals import nan_to_null
from training.vqa.answers import is_blank
from training.vqa.predictions import Predictions, predictions_of, read_predictions, write_predictions
from training.vqa.protocols import PROTOCOLS, Split, add_data, ceiling, read_data, read_split
from training.vqa.scores import accuracies, as_text

PREDICTIONS = "predictions.csv"
FORMAT = 2
"""Version of what is computed; predictions of another one are made again."""
REAL, SHUFFLED, BLANK = IMAGES = ("real", "shuffled", "blank")
PROGRESS = 100
"""Answers between two lines of progress."""


@dataclass(frozen=True)
class EvalOptions:
    """How the questions are answered."""

    part: str = "test"
    """train, validation or test."""
    mode: str = "exact"
    """exact, winner, shortlist or generate."""
    k: int = SHORTLIST
    """Candidates of the short-list of shortlist and winner, >= 1."""
    images: str = "real"
    """real, shuffled (every image stands for another one of the part) or blank (the mean colour)."""
    seed: int = 0
    """Seed of the shuffle, >= 0."""
    precision: str = "fp32"
    """fp32, bf16 or fp16 (GPU only)."""
    max_broken: int = 0
    """Images that may be missing or unreadable, >= 0; their questions count as answered wrongly."""
    name: str = "model"
    """Name of the model in comparisons: the same for all seeds and for its question-only baseline."""

    def __post_init__(self) -> None:
        one_of("--mode", self.mode, tuple(MODES))
        one_of("--images", self.images, IMAGES)
        one_of("--precision", self.precision, PRECISIONS)
        all_within("--", self, k=(1, None), seed=(0, None), max_broken=(0, None))


def check_fits(saved: Saved, split: Split, part: str) -> None:
    """Refuse a split that the model was not trained on: its training questions may be test questions there.

    A question counts as trained on whatever the data set's name. Those that the split repeats in its own train part
    are no reason to refuse; they are counted (``questions_trained_on``).

    Raises:
        ConfigError: the model is of the same data set under another protocol, or of another split; it was trained
            questions of the part; or it is not recorded what it was trained on, and the part may be among it.
    """
    answers, training = saved.answers, saved.training
    if training is None and (part != TEST or split.protocol == "image_disjoint"):
        option = f"--split {part}" if part != TEST else f"--protocol {split.protocol}"
        raise ConfigError(
            f"{option}: it is not recorded what the model was trained on (give its finished run, or train it again), "
            "so that only the official test part, under protocol paper or strict, can be answered"
        )
    if answers.dataset == split.dataset:
        _check_split(saved, split)
    if training is not None and training.digests is not None:
        own = Digests.of(split.part(part)) - Digests.of(split.train)
        leaked = len((training.digests & own).questions)
        if leaked:
            raise ConfigError(
                f"the model was trained on {leaked:,} questions (image and wording) of the {part} part of "
                f"{split.dataset}, whose train part is without them: it was trained on {answers.dataset}, protocol "
                f"{training.protocol}, split seed {training.split_seed}"
            )


def _check_split(saved: Saved, split: Split) -> None:
    answers, training = saved.answers, saved.training
    if answers.protocol != split.protocol:
        raise ConfigError(
            f"the model was trained on {answers.dataset} under protocol {answers.protocol}, not {split.protocol}: "
            f"give --protocol {answers.protocol}, or a model of the other"
        )
    here = split.seed, split.validation_share, len(split.candidates)
    its = (training.split_seed, training.validation_share) if training is not None else here[:2]
    if its != here[:2] or list(split.candidates) != answers.candidates:
        raise ConfigError(
            f"the model was trained on another split of {answers.dataset} (split seed {its[0]}, validation share "
            f"{its[1]:g}, {len(answers.candidates):,} candidates; here {here[0]}, {here[1]:g} and {here[2]:,}): give "
            "the --split-seed, --validation-share and files of its training"
        )


def key_of(saved: Saved, split: Split, root: Path, options: EvalOptions) -> str:
    """sha256 over what decides the predictions: the model, the questions, their images and how they are answered."""
    questions = [asdict(question) for question in split.part(options.part)]
    paths = sorted({question["image_path"] for question in questions if question["image_path"]})
    content = [
        FORMAT, saved.digest, saved.seed, split.protocol, split.seed, questions, asdict(options),
        image_digest(root, paths) if options.images != BLANK else "",
    ]  # fmt: skip
    return json_sha256(content)


def evaluate(
    saved: Saved,
    split: Split,
    root: Path,
    options: EvalOptions,
    say: Callable[[str], object] = lambda line: None,
) -> Predictions:
    """Answer every question of a part.

    Args:
        saved: the model.
        split: the data set under the protocol that the model was trained by, or another data set.
        root: folder that image paths are relative to.
        options: how.
        say: called now and then with a line of progress.

    Raises:
        ConfigError: an option is not possible, or ``check_fits`` refuses the split.
        DataError: images are missing or unreadable beyond ``options.max_broken``.
    """
    check_fits(saved, split, options.part)
    questions = split.part(options.part)
    answerer = saved.answerer(options.precision)
    shown = image_condition(options, questions, root, saved.med_vqa)
    rows = [row for row, question in enumerate(questions) if shown.has(question)]
    texts = [questions[row].question for row in rows]
    found: dict[int, Answer] = {}
    for place, (best,) in answerer.answer_about(
        [shown.name(questions[row]) for row in rows], texts, shown.read, mode=options.mode, k=options.k
    ):
        found[rows[place]] = best
        if len(found) % PROGRESS == 0:
            say(f"{len(found):,} of {len(rows):,} questions answered")
    return predictions_of(
        split,
        options.part,
        [found[row].text if row in found else "" for row in range(len(questions))],
        [found[row].probability if row in found else float("nan") for row in range(len(questions))],
        {
            **_metadata(saved, split, options),
            "key": key_of(saved, split, root, options),
            "images_broken": shown.broken,
            "questions_unanswered": len(questions) - len(rows),
            "questions_truncated": answerer.tokens(texts).truncated,
            "questions_empty": sum(map(is_blank, texts)),
            "candidates_merged": len(answerer.candidates.merged),
        },
    )


def _metadata(saved: Saved, split: Split, options: EvalOptions) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": options.name,
        "model": saved.digest,
        "seed": saved.seed,
        "trained_on": saved.training.images if saved.training else "unknown",
        FIELD: as_json(saved.recorded.pretrainings),
        "mode": options.mode,
        "images": options.images,
        "precision": options.precision,
    }
    if options.mode in ("shortlist", "winner"):
        metadata["k"] = options.k
    if options.images == SHUFFLED:
        metadata["shuffle_seed"] = options.seed
    questions, answers, digests = split.part(options.part), saved.answers, saved.recorded.digests
    seen = None if digests is None else digests & Digests.of(questions)  # None: not recorded
    metadata["questions_trained_on"] = None if seen is None else len(seen.questions)
    metadata["images_trained_on"] = None if seen is None else len(seen.images)
    if answers.dataset != split.dataset:  # its candidates are those of its own training
        metadata["candidates"] = len(answers.candidates)
        metadata["candidate_source"] = f"{answers.source}; of {answers.dataset}, protocol {answers.protocol}"
        metadata["ceiling"] = ceiling(questions, answers.candidates, split.language)
    return metadata


def image_condition(
    options: EvalOptions, questions: Sequence[Question], root: Path, med_vqa: MedVQA
) -> ImageCondition:
    """The images of a part's questions, real, shuffled or blank; ``root`` is not read for blank ones.

    Raises:
        DataError: more images than ``options.max_broken`` are missing or unreadable, or none is left.
        ConfigError: there are not two images to shuffle.
    """
    if options.images == BLANK:
        return ImageCondition(None, med_vqa)
    images = ImageTable(questions, root, med_vqa, options.max_broken, "--max-broken")
    if options.images == REAL:
        return ImageCondition(images, med_vqa)
    paths = [question.image_path for question in questions if images.has(question)]
    return ImageCondition(images, med_vqa, derangement(paths, options.seed))


def derangement(names: Sequence[str], seed: int) -> dict[str, str]:
    """Each of the distinct names to another one, and none to two: the next in a shuffled circle.

    The circle is in the order of sha256(seed, name), which no library version changes.

    Raises:
        ConfigError: there are fewer than two.
    """
    circle = sorted(set(names), key=lambda name: shuffle_key(seed, name))
    if len(circle) < 2:
        raise ConfigError(f"--images {SHUFFLED} needs two images at least, the part has {len(circle)}")
    return dict(zip(circle, [*circle[1:], circle[0]], strict=True))


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets evaluate vqa`."""
    parser.description = __doc__
    add, shown = (
        parser.add_argument,
        "what is shown with each question; by default what the fine-tuning showed",
    )
    broken = "images that may be missing or unreadable; default 0. Their questions count as answered wrongly"
    share = "of the training questions; by default the fine-tuning run's, else 0.1"
    add("--model", required=True, help="finished run of training/run.py, or a model folder")
    add_data(parser)
    add("--protocol", help=f"one of {', '.join(PROTOCOLS)} (default: the model's)")
    add("--split-seed", type=int, help="of the split by image (default: the fine-tuning run's, else 0)")
    add("--validation-share", type=float, help=share)
    add("--split", default=TEST, help="part to answer: train, validation or test (default)")
    add("--mode", default="exact", help=MODES_HELP)
    add("--k", type=int, default=SHORTLIST, help="candidates on the short-list of winner and shortlist")
    add("--images", help=f"one of {', '.join(IMAGES)}: {shown}")
    add("--seed", type=int, default=0, help="of the shuffled images")
    add("--precision", help="fp32, bf16 or fp16 (default: the fine-tuning run's, else fp32)")
    add("--max-broken", type=int, default=0, help=broken)
    add("--name", help="of the model in comparisons, the same for all seeds (default: its preset)")
    add("--out", required=True, help=f"folder for {PREDICTIONS} and its .json")
    add_json(parser)
    return work


def work(options: argparse.Namespace) -> None:
    """Everything that the command does.

    Raises:
        KGTargetsError: an option, the model, the data or the output folder is not usable.
    """
    out = Path(options.out)
    check_writable(out, "--out")
    manifest, root = read_data(options)
    saved = Saved.of(Path(options.model))
    for field in ("split_seed", "validation_share"):
        if getattr(options, field) is None:
            setattr(options, field, getattr(saved.recorded, field))
    protocol = options.protocol or saved.answers.protocol
    one_of("--protocol", protocol, PROTOCOLS)
    one_of("--split", options.split, PARTS)
    how = EvalOptions(
        **{name: getattr(options, name) for name in ("mode", "k", "seed", "max_broken")},
        part=options.split,
        images=options.images or (BLANK if saved.recorded.images == BLANK else REAL),
        precision=options.precision or saved.recorded.precision,
        name=options.name or saved.recorded.preset,
    )
    split = read_split(options, manifest, root, protocol)
    check_fits(saved, split, how.part)
    if not split.part(how.part):
        raise DataError(
            f"the {how.part} part of {split.dataset} is empty under {protocol}: name another --split"
        )
    known = _current(out, key_of(saved, split, root, how))
    predictions = known or evaluate(saved, split, root, how, write_line)
    if known is None:
        write_predictions(out / PREDICTIONS, predictions)
    scores = accuracies([predictions])
    for line in _remarks(predictions.metadata):
        write_line(line)
    if options.json:
        found = {name: asdict(one) for name, one in scores.items()}
        print_json(nan_to_null({"metadata": predictions.metadata, "accuracies": found}))
        return
    sys.stdout.write(f"{_header(predictions)}\n{as_text(scores)}")
    sys.stdout.write(f"{out}: up to date\n" if known else f"wrote {out / PREDICTIONS}\n")


def _current(out: Path, key: str) -> Predictions | None:
    try:
        predictions = read_predictions(out / PREDICTIONS)
    except DataError:
        return None
    return predictions if predictions.metadata.get("key") == key else None


def _header(predictions: Predictions) -> str:
    metadata = predictions.metadata
    ceiling = metadata["ceiling"].get("overall", 0.0)
    before = describe(from_json(metadata.get(FIELD), PREDICTIONS))
    return (
        f"{metadata['dataset']}, protocol {metadata['protocol']}, {metadata['split']} part: model "
        f"{metadata['name']}, mode {metadata['mode']}, images {metadata['images']}; {f'{before}; ' if before else ''}"
        f"{metadata['candidates']:,} candidates: {metadata['candidate_source']}; ceiling {100 * ceiling:.1f}; "
        "per cent of right answers, 95 % intervals by image"
    )


def _remarks(metadata: dict[str, Any]) -> list[str]:
    remarks = {
        "images_broken": "images are missing or unreadable",
        "questions_unanswered": "questions have no image and count as answered wrongly",
        "questions_truncated": "questions were too long and were truncated",
        "questions_empty": "questions are empty and were answered as they are",
        "questions_trained_on": "of the questions, image and wording, were trained on",
        "images_trained_on": "of their images were trained on",
        "candidates_merged": "candidates have the tokens of an earlier one, which stands for them",
    }
    lines = [f"note: {metadata[name]:,} {text}" for name, text in remarks.items() if metadata.get(name)]
    if metadata["questions_trained_on"] is None:
        lines.append("note: the model has no record of its training questions: these may be among them")
    return lines
