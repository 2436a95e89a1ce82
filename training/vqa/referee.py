"""Scores for anybody's answers: matched to the questions of a test part, and measured as our own models are.

What is right, the groups, the intervals by image and the baselines are those of ``training.vqa.scores`` and
``training.vqa.baselines``. A question without an answer is wrong, unless only answered ones are asked for.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kg_targets.manifest import TEST, Question
from training.errors import DataError
from training.statistics.intervals import nan_to_null
from training.statistics.paired_tests import Difference
from training.vqa.answer_files import AnswerFile, GivenAnswer
from training.vqa.answers import accepted_answers, normalise_answer, normalise_question
from training.vqa.baselines import BASELINES, majority_baseline
from training.vqa.predictions import Predictions, predictions_of
from training.vqa.protocols import Split
from training.vqa.scores import OVERALL, Accuracy, accuracies, differences

_SENTENCE = 5
"""Answers of more words count as sentences."""
_MOST = 0.9
"""Share of the test questions above which answers to the whole data set are believed."""
_NUMBERING = (
    "the ids seem to be of another numbering; give those of the data set's test file (docs/vqa_score.md), or rows in "
    "its order with --by order"
)


@dataclass(frozen=True)
class Matched:
    """The answers of a file, by the questions of a part."""

    predicted: tuple[str, ...]
    """One for each question of the part; empty for none."""
    answered: tuple[bool, ...]
    unknown: tuple[str, ...]
    """Ids that are no question's of the data set."""
    elsewhere: tuple[str, ...]
    """Ids of questions of its other parts."""
    repeated: tuple[str, ...]
    """Ids given more than once; the first answer counts."""
    conflicting: int
    """Number of them whose answers are not the same after normalisation."""
    places: str = ""
    """For people: how rows were taken that have no ids of the data set's."""


def match_by_id(given: AnswerFile, split: Split) -> Matched:
    """Match rows to the questions of the test part by their ids.

    Raises:
        DataError: no id is a question's of that part, a row has another question's text than its id, or the ids seem
            to be of another numbering.
    """
    questions = {question.id: question for question in (*split.train, *split.validation, *split.test)}
    test = {question.id for question in split.test}
    others = questions.keys() - test
    answers: dict[str, str] = {}
    repeated: Counter[str] = Counter()
    differing: set[str] = set()
    for row in given.rows:
        name = (
            row.id if row.id in test | others else row.id.removesuffix(".0")
        )  # ids that a spreadsheet made numbers
        if row.question and name in questions and not _asks(row.question, questions[name]):
            raise DataError(
                f"the row with id {row.id!r} asks another question than {split.dataset}'s question {name!r}: "
                f"{_NUMBERING}"
            )
        if name not in answers:
            answers[name] = row.answer
            continue
        repeated[name] += 1
        first, again = (normalise_answer(text, split.language) for text in (answers[name], row.answer))
        if first != again:
            differing.add(name)
    if not test & answers.keys():
        ours, theirs = split.test[0].id, given.rows[0].id
        raise DataError(
            f"none of the {len(answers):,} ids from {given.id_field!r} (the first: {theirs!r}) is a test question of "
            f"{split.dataset}, whose ids look like {ours!r}: name another column with --id-field, or take rows in the "
            "order of the test part with --by position"
        )
    found, elsewhere = len(test & answers.keys()), len(others & answers.keys())
    dealt_anew = split.protocol == "image_disjoint"  # official test questions are in all of its parts
    if elsewhere > found and found < _MOST * len(test) and not dealt_anew:
        raise DataError(
            f"{elsewhere:,} ids are questions of {split.dataset}'s other parts and {found:,} of its {len(test):,} test "
            f"questions: {_NUMBERING}"
        )
    return Matched(
        predicted=tuple(answers.get(question.id, "") for question in split.test),
        answered=tuple(bool(answers.get(question.id)) for question in split.test),
        unknown=tuple(name for name in answers if name not in test | others),
        elsewhere=tuple(name for name in answers if name in others),
        repeated=tuple(repeated),
        conflicting=len(differing),
    )


def match_by_position(given: AnswerFile, split: Split, first: int | None = None) -> Matched:
    """Match rows by their places in the official test part, as kits that know no ids number them.

    Places are the ids where these are whole numbers, none twice; else the order of the rows. A row whose text does not
    hold its question's words stops everything.

    Args:
        given: rows.
        split: the data set under a protocol.
        first: number of the first test question; by default what the numbers themselves or the questions' texts tell.

    Raises:
        DataError: a place is outside the part, a question is another one, or numbers may count from 0 or from 1.
    """
    numbers = [int(row.id) if row.id.isdecimal() else -1 for row in given.rows]
    if -1 in numbers or len(set(numbers)) < len(numbers):
        numbers, told = list(range(len(given.rows))), "rows are taken in their order"
    else:
        first = _first_number(given, numbers, split) if first is None else first
        numbers = [number - first for number in numbers]
        told = f"rows are taken by their numbers, counted from {first}"
    if min(numbers) < 0:
        raise DataError("--by position1: the file has a row with number 0")
    if max(numbers) >= len(split.test):
        raise DataError(
            f"--by position: the file has place {max(numbers) + 1:,}, the test part {len(split.test):,} questions; "
            "--by order takes rows as they follow each other, whatever their numbers"
        )
    rows: dict[int, GivenAnswer] = dict(zip(numbers, given.rows, strict=True))
    for place, row in rows.items():
        if row.question and not _asks(row.question, split.test[place]):
            raise DataError(
                f"--by position: place {place + 1} asks another question than test question {split.test[place].id!r}: "
                "the file is in another order"
            )
    found = [rows.get(place) for place in range(len(split.test))]
    predicted = tuple(row.answer if row else "" for row in found)
    return Matched(predicted, tuple(map(bool, predicted)), (), (), (), 0, told)


def match_in_order(given: AnswerFile, split: Split) -> Matched:
    """Match rows to the official test part in their order, whatever ids they have."""
    return match_by_position(replace(given, rows=tuple(replace(row, id="") for row in given.rows)), split)


def _first_number(given: AnswerFile, numbers: list[int], split: Split) -> int:
    """0 or 1, from which the numbers count: 0 where it is there, 1 where the last is, else by the questions' texts."""
    if 0 in numbers or len(split.test) <= max(numbers):
        return int(0 not in numbers)
    asked = [(number, row.question) for number, row in zip(numbers, given.rows, strict=True) if row.question]
    fits = [
        first for first in (0, 1) if all(_asks(text, split.test[number - first]) for number, text in asked)
    ]
    if len(fits) < 2:
        return fits[0] if fits else 0  # where none fits, match_by_position names the row
    raise DataError(
        f"--by position: the numbers, {min(numbers):,} to {max(numbers):,}, may count {len(split.test):,} test "
        "questions from 0 or from 1: say --by position0 or --by position1"
    )


def _asks(text: str, question: Question) -> bool:
    return normalise_question(question.question) in normalise_question(text)


MATCHES: dict[str, Callable[[AnswerFile, Split], Matched]] = {
    "id": match_by_id,
    "position": match_by_position,
    "position0": functools.partial(match_by_position, first=0),
    "position1": functools.partial(match_by_position, first=1),
    "order": match_in_order,
}
"""Ways in which rows find their questions."""


@dataclass(frozen=True)
class Verdict:
    """Everything that is said about a file of answers."""

    split: Split
    """Its test part holds the questions that were scored."""
    predictions: Predictions
    matched: Matched
    accuracies: dict[str, Accuracy]
    baselines: dict[str, dict[str, Accuracy]]
    """Accuracies of what answers without an image."""
    best: str
    """Name of the baseline with the highest accuracy."""
    differences: dict[str, Difference]
    """The answers against the best baseline, by group."""
    outside: int
    """Answers that are none of the protocol's candidates."""
    sentences: int
    """Answers of more than five words: under exact match, wrong even where they name the right answer."""
    naming: int
    """Number of them that hold a right answer's words."""

    def as_json(self) -> dict[str, Any]:
        """Every number, as shares of 1; ``null`` for what is not a number."""
        matched = self.matched
        counts = {
            "questions": len(matched.predicted),
            "answered": sum(matched.answered),
            "scored": len(self.predictions.rows),
            **{key: len(getattr(matched, key)) for key in ("unknown", "elsewhere", "repeated")},
            "conflicting": matched.conflicting,
            **{key: getattr(self, key) for key in ("outside", "sentences", "naming")},
        }
        taken = (
            "dataset",
            "protocol",
            "split",
            "split_seed",
            "candidates",
            "candidate_source",
            "ceiling",
            "name",
        )
        found: dict[str, Any] = nan_to_null(
            {
                **{key: self.predictions.metadata.get(key) for key in taken},
                "places": matched.places,
                "counts": counts,
                "accuracies": _plain(self.accuracies),
                "baselines": {name: _plain(one) for name, one in self.baselines.items()},
                "best_baseline": self.best,
                "differences": {name: asdict(one) for name, one in self.differences.items()},
            }
        )
        return found


def _plain(found: dict[str, Accuracy]) -> dict[str, Any]:
    return {name: asdict(one) for name, one in found.items()}


def judge(
    split: Split, matched: Matched, name: str, partial: bool = False, draws: int = 2000, seed: int = 0
) -> Verdict:
    """Score matched answers, and set them beside the baselines on the same questions.

    Args:
        split: the data set under a protocol.
        matched: answers to its test part.
        name: of the model, for tables.
        partial: leave questions without an answer out, instead of counting them as wrong.
        draws: bootstrap samples.
        seed: of bootstrap and sign flips.

    Raises:
        DataError: nothing was answered.
    """
    predicted = list(matched.predicted)
    if partial:
        kept = [place for place, there in enumerate(matched.answered) if there]
        split = replace(split, test=tuple(split.test[place] for place in kept))
        predicted = [predicted[place] for place in kept]
    if not any(predicted):
        raise DataError("no question of the test part has an answer: nothing can be scored")
    told = {"name": name, "mode": "generate", "images": "real", "trained_on": "real"}
    ours = predictions_of(split, TEST, predicted, metadata=told)
    baselines = {one: majority_baseline(split, one) for one in BASELINES}
    scores = {one: accuracies([answers], draws, seed) for one, answers in baselines.items()}
    best = max(BASELINES, key=lambda one: scores[one][OVERALL].interval.mean)
    normal = [normalise_answer(text, split.language) for text in predicted]
    known = set(split.candidates)
    long = [place for place, text in enumerate(normal) if len(text.split()) > _SENTENCE]
    return Verdict(
        split=split,
        predictions=ours,
        matched=matched,
        accuracies=accuracies([ours], draws, seed),
        baselines=scores,
        best=best,
        differences=differences([ours], [baselines[best]], draws=draws, seed=seed),
        outside=sum(bool(text) and text not in known for text in normal),
        sentences=len(long),
        naming=sum(_names_answer(normal[place], split.test[place], split.language) for place in long),
    )


def _names_answer(text: str, question: Question, language: str) -> bool:
    edge = " " if language == "en" else ""  # Chinese has no spaces between words
    return any(
        f"{edge}{answer}{edge}" in f"{edge}{text}{edge}" for answer in accepted_answers(question, language)
    )


def unseen_images(
    verdict: Verdict, seen: Sequence[str], draws: int = 2000, seed: int = 0
) -> dict[str, Accuracy]:
    """Accuracies on the questions about images that are not among ``seen``; empty where none is left."""
    rows = tuple(row for row in verdict.predictions.rows if row.image_id not in set(seen))
    return accuracies([Predictions(rows, verdict.predictions.metadata)], draws, seed) if rows else {}
