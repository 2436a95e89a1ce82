"""Ask a Med-VQA model: ``kg-targets predict --model DIR --image X --question "Is the heart enlarged?"``.

Several questions: repeat --question (all about one --image, or one --image for each), or give a CSV file with the
columns image and question, whose paths are relative to the file. --attention draws where in the image the words of a
single question look.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from training.checks import all_within, one_of
from training.clip.config import PRECISIONS
from training.command import Work, add_json, print_json
from training.data.decode import BrokenImage, decode, read_bytes
from training.errors import ConfigError, DataError
from training.folders import check_writable
from training.med_vqa.answer import MODES, MODES_HELP, Answer, Answerer, Saved
from training.med_vqa.answer.attention_maps import KINDS, draw, word_maps
from training.med_vqa.model.saving import MedVQA
from training.vqa.answers import is_blank

COLUMNS = ("image", "question")


@dataclass(frozen=True)
class Pair:
    """A question about an image file."""

    image: str
    question: str


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets predict`."""
    parser.description = __doc__
    add = parser.add_argument
    add("--model", required=True, help="finished run of training/run.py, or a model folder")
    add("--image", action="append", default=[], help="image file; repeat it")
    add("--question", action="append", default=[], help="question; repeat it")
    add("--csv", help="file with the columns image and question")
    add("--top", type=int, default=5, help="answers shown for each question")
    add("--mode", default="exact", help=MODES_HELP)
    add("--k", type=int, default=32, help="candidates on the short-list of winner and shortlist")
    add("--precision", help="fp32, bf16 or fp16, the last on a GPU only (default: as trained, else fp32)")
    add_json(parser)
    add(
        "--attention", type=Path, metavar="PNG", help="picture of each word over the image; one question only"
    )
    add("--attention-kind", default=KINDS[0], help=f"one of {', '.join(KINDS)}")
    return work


def work(options: argparse.Namespace) -> None:
    """Everything that the command does; it prints all answers or none.

    Raises:
        KGTargetsError: an option, the model, an image or a question is not usable.
    """
    one_of("--mode", options.mode, tuple(MODES))
    one_of("--precision", options.precision or "fp32", PRECISIONS)
    all_within("--", options, top=(1, None), k=(1, None))
    one_of("--attention-kind", options.attention_kind, KINDS)
    pairs = read_pairs(options.image, options.question, options.csv)
    if options.attention is not None:
        _check_picture(options.attention, len(pairs))
    saved = Saved.of(Path(options.model))
    answerer = saved.answerer(options.precision)
    found = answer_pairs(answerer, pairs, mode=options.mode, k=options.k, top=options.top)
    truncated = [answerer.tokens([pair.question]).truncated > 0 for pair in pairs]
    for number, (pair, long) in enumerate(zip(pairs, truncated, strict=True), start=1):
        note = f"note: question {number} ({pair.question[:40]}…)"
        if long:
            sys.stderr.write(f"{note} is too long and lost its end\n")
        if not answerer.knows(pair.question):
            sys.stderr.write(f"{note} holds no word that the model knows: it was not read\n")
    if options.attention is not None:
        best, kind = found[0][0], options.attention_kind
        draw_attention(options.attention, answerer, saved.med_vqa, pairs[0], best, kind)
    if options.json:
        print_json(as_json(pairs, found, truncated))
    else:
        sys.stdout.write(as_text(pairs, found))


def read_pairs(images: Sequence[str], questions: Sequence[str], table: str | None = None) -> list[Pair]:
    """The questions that a command asks.

    Args:
        images: files; one for all questions, or one for each.
        questions: texts; one about all images, or one about each.
        table: CSV file in their place.

    Raises:
        ConfigError: they do not go together, or an image's name or a question is empty.
        DataError: the table cannot be read, or has no line; a name cannot be one of a file.
    """
    if table is not None:
        if images or questions:
            raise ConfigError("--csv brings images and questions: leave --image and --question out")
        pairs = _read_table(Path(table))
    else:
        if not images or not questions:
            raise ConfigError("give --image and --question, or --csv (--help lists the options)")
        count = max(len(images), len(questions))
        if not {len(images), len(questions)} <= {1, count}:
            raise ConfigError(
                f"{len(images)} images and {len(questions)} questions: give one of either, or as many of both"
            )
        repeated = ([*given] * (count // len(given)) for given in (images, questions))
        pairs = [Pair(*pair) for pair in zip(*repeated, strict=True)]
    for number, pair in enumerate(pairs, start=1):
        if "\0" in pair.image:
            raise DataError(
                f"image of question {number}: {pair.image!r} holds a NUL byte: name an image file"
            )
        if is_blank(pair.question):
            raise ConfigError(f"question {number} (about {pair.image}) is empty: ask something")
    return pairs


def answer_pairs(answerer: Answerer, pairs: Sequence[Pair], **options: Any) -> list[list[Answer]]:
    """The answers to each pair's question; an image is read once, however many questions are about it.

    Args:
        answerer: the model.
        pairs: at least one.
        options: ``mode``, ``k`` and ``top`` of ``Answerer.answer``.

    Raises:
        DataError: an image is missing, damaged or of a format that is not read.
    """
    names, questions = [pair.image for pair in pairs], [pair.question for pair in pairs]
    found = dict(answerer.answer_about(names, questions, partial(read_image, answerer), **options))
    return [found[row] for row in range(len(pairs))]


def read_image(answerer: Answerer, name: str) -> Tensor:
    """An image file as the model sees it, float32 ``[3, S, S]``.

    Raises:
        DataError: it is missing, damaged or of a format that is not read.
    """
    try:
        return answerer.preprocess(decode(read_bytes(Path(name)), name))
    except BrokenImage as error:
        raise DataError(f"image {error}: name an image file that can be read") from error


def draw_attention(
    path: Path, answerer: Answerer, med_vqa: MedVQA, pair: Pair, best: Answer, kind: str
) -> None:
    """Write the picture of each word of a question over its image.

    Raises:
        ConfigError: the model or the question has nothing that can be drawn.
        CheckpointError: the file cannot be written.
    """
    pixels = read_image(answerer, pair.image)
    maps = word_maps(med_vqa, pixels, pair.question, answerer.tokens([pair.question]), kind)
    title = f"{' '.join(pair.question.split())}\n{best.text} ({best.probability:.2f})"
    draw(path, maps, pixels, med_vqa, title, kind)


def as_text(pairs: Sequence[Pair], found: Sequence[Sequence[Answer]]) -> str:
    """Each question with its answers and their probabilities below."""
    parts = []
    for pair, ranked in zip(pairs, found, strict=True):
        lines = [f"  {one.probability:6.4f}  {one.text}" for one in ranked]
        parts.append("\n".join([f"{pair.image}: {' '.join(pair.question.split())[:200]}", *lines]) + "\n")
    return "".join(parts)


def as_json(pairs: Sequence[Pair], found: Sequence[Sequence[Answer]], truncated: Sequence[bool]) -> list[Any]:
    """A list with an object for each question."""
    answers = [[{"answer": of.pop("text"), **of} for of in map(asdict, ranked)] for ranked in found]
    return [
        {**asdict(pair), "question_truncated": long, "answers": ranked}
        for pair, ranked, long in zip(pairs, answers, truncated, strict=True)
    ]


def _check_picture(path: Path, questions: int) -> None:
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--attention {path}: pictures are PNG files: let its name end in .png")
    if questions != 1:
        raise ConfigError(f"--attention draws one question about one image, not {questions}")
    check_writable(path.absolute().parent, "--attention")


def _read_table(path: Path) -> list[Pair]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--csv {path} cannot be read ({' '.join(str(error).split())})") from error
    if not rows:
        raise DataError(f"--csv {path} has no line below its header")
    for column in COLUMNS:
        if any(row.get(column) is None for row in rows):
            raise DataError(
                f"--csv {path}: a line has no {column}: it needs the columns {' and '.join(COLUMNS)}"
            )
    empty = next((line for line, row in enumerate(rows, start=1) if not row["image"].strip()), None)
    if empty is not None:
        raise DataError(f"--csv {path}: question {empty} names no image: fill in the column image")
    return [Pair(str(path.parent / row["image"]), row["question"]) for row in rows]
