"""Anybody's answers: matched to questions, scored as our own are."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.vqa.fakes import write_data
from training.errors import DataError
from training.vqa.answer_files import AnswerFile, GivenAnswer
from training.vqa.baselines import majority_baseline
from training.vqa.protocols import Split, prepare
from training.vqa.referee import MATCHES, judge, match_by_id, match_by_position, unseen_images
from training.vqa.scores import accuracies, differences


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return prepare(write_data(tmp_path), tmp_path, "strict")


def answers(*rows: tuple[object, ...]) -> AnswerFile:
    found = tuple(GivenAnswer(str(row[0]), str(row[1]), str(row[2]) if len(row) > 2 else "") for row in rows)
    return AnswerFile(found, "id", "answer", ())


def right(split: Split) -> list[tuple[object, ...]]:
    return [(question.id, question.answer) for question in split.test]


def test_right_answers_score_one_and_their_order_plays_no_part(split: Split) -> None:
    verdict = judge(split, match_by_id(answers(*right(split)[::-1]), split), "mine")
    assert {one.interval.mean for one in verdict.accuracies.values()} == {1.0}
    assert repr(verdict.accuracies) == repr(accuracies([verdict.predictions]))  # NaN is not NaN


def test_questions_without_an_answer_are_wrong_unless_only_part_is_scored(split: Split) -> None:
    given = answers(*right(split)[:6], (split.test[6].id, ""))
    matched = match_by_id(given, split)
    whole, part = (judge(split, matched, "mine", partial) for partial in (False, True))
    assert whole.accuracies["overall"].interval.mean == 6 / len(split.test)
    assert part.accuracies["overall"].interval.mean == 1.0 and len(part.predictions.rows) == 6
    assert sum(matched.answered) == 6


def test_unknown_foreign_and_repeated_ids_are_told_apart(split: Split) -> None:
    first = split.test[0]
    given = answers(
        *right(split)[1:], (first.id, "yes"), (first.id, " YES."), (first.id, "no"), (first.id, "no"),
        ("x9", "yes"), (split.train[0].id, "yes"), (f"{split.test[1].id}.0", split.test[1].answer),
    )  # fmt: skip
    matched = match_by_id(given, split)
    assert (matched.unknown, matched.elsewhere) == (("x9",), (split.train[0].id,))
    assert (matched.repeated, matched.conflicting) == ((first.id, split.test[1].id), 1)
    assert matched.predicted[0] == "yes"  # the first of several


def test_a_file_with_other_ids_says_how_to_go_on(split: Split) -> None:
    with pytest.raises(DataError, match=r"none of the 2 ids from 'id' .*--id-field.*--by position"):
        match_by_id(answers((0, "yes"), (1, "yes")), split)


@pytest.mark.parametrize("first", [0, 1])
def test_places_are_counted_from_nought_or_one(split: Split, first: int) -> None:
    rows = [(place + first, answer) for place, (_, answer) in enumerate(right(split))]
    assert match_by_position(answers(*rows[::-1]), split).predicted == tuple(answer for _, answer in rows)


def test_ids_with_another_questions_text_stop_everything(split: Split) -> None:
    rows = [(one.id, one.answer, f"<image> {one.question}") for one in split.test]
    assert all(match_by_id(answers(*rows), split).answered)
    with pytest.raises(DataError, match=r"id '1001' asks another question than .*another numbering"):
        match_by_id(answers(rows[0], ("1001", "yes", "How many?")), split)


def test_ids_of_another_numbering_are_refused_and_answers_to_all_parts_are_not(split: Split) -> None:
    others = [(one.id, "yes") for one in (*split.train, *split.validation)]
    with pytest.raises(
        DataError, match=r"5 ids are questions of .* other parts and 4 of its 12 .*--by order"
    ):
        match_by_id(given := answers(*right(split)[:4], *others[:5]), split)
    assert match_by_id(
        given, replace(split, protocol="image_disjoint")
    ).elsewhere  # parts are not the official ones
    assert len(match_by_id(answers(*right(split)[:5], *others[:5]), split).elsewhere) == 5
    assert len(match_by_id(answers(*right(split)[1:], *others), split).elsewhere) == len(others)


def test_rows_in_order_need_no_ids_of_ours(split: Split) -> None:
    rows = [(7 * place, answer) for place, (_, answer) in enumerate(right(split))]
    with pytest.raises(DataError, match=r"has place 78.*--by order"):
        match_by_position(answers(*rows), split)
    found = MATCHES["order"](answers(*rows), split)
    assert found.predicted == tuple(answer for _, answer in rows) and "in their order" in found.places
    with pytest.raises(DataError, match="asks another question"):
        MATCHES["order"](answers((7, "yes", "How many?")), split)


def test_numbers_of_a_part_need_texts_or_their_first_number(split: Split) -> None:
    texts = [one.question for one in split.test]
    rows = [(place, f"answer {place}", texts[place]) for place in range(1, 6)]
    found = match_by_position(answers(*rows), split)
    assert found.predicted[:3] == ("", "answer 1", "answer 2") and "counted from 0" in found.places
    found = match_by_position(answers(*((place + 1, answer, text) for place, answer, text in rows)), split)
    assert found.predicted[:3] == ("", "answer 1", "answer 2") and "counted from 1" in found.places
    bare = answers(*(row[:2] for row in rows))
    with pytest.raises(DataError, match=r"1 to 5, may count 12 .*--by position0 or --by position1"):
        match_by_position(bare, split)
    assert MATCHES["position0"](bare, split).predicted[:2] == ("", "answer 1")
    assert MATCHES["position1"](bare, split).predicted[:2] == ("answer 1", "answer 2")
    with pytest.raises(DataError, match="number 0"):
        MATCHES["position1"](answers((0, "yes"), (2, "no")), split)
    with pytest.raises(DataError, match="asks another question"):
        match_by_position(answers((1, "yes", "How many?")), split)
    with pytest.raises(DataError, match="has place 13"):
        match_by_position(answers((1, "yes"), (13, "no")), split)


def test_rows_without_whole_numbers_are_taken_in_their_order(split: Split) -> None:
    rows = [(f"row {place}", answer) for place, (_, answer) in enumerate(right(split))]
    assert match_by_position(answers(*rows[:5]), split).predicted[:6] == (
        *(answer for _, answer in rows[:5]),
        "",
    )


def test_a_place_that_asks_another_question_stops_everything(split: Split) -> None:
    asked = [
        (place, "yes", f"<image>\n{question.question.upper()} Answer:")
        for place, question in enumerate(split.test)
    ]
    assert len(match_by_position(answers(*asked), split).predicted) == len(split.test)
    with pytest.raises(DataError, match=r"place 2 asks another question .* another order"):
        match_by_position(answers(asked[0], (1, "yes", "How many?")), split)
    with pytest.raises(DataError, match="the file has place 99"):
        match_by_position(answers((98, "yes"), (0, "yes")), split)


def test_baselines_and_differences_are_those_of_the_other_commands(split: Split) -> None:
    verdict = judge(split, match_by_id(answers(*right(split)[:9]), split), "mine", draws=200)
    best = majority_baseline(split, verdict.best)
    assert repr(verdict.baselines[verdict.best]) == repr(accuracies([best], 200))
    assert repr(verdict.differences) == repr(differences([verdict.predictions], [best], draws=200))
    means = {name: found["overall"].interval.mean for name, found in verdict.baselines.items()}
    assert means[verdict.best] == max(means.values())


def test_sentences_and_answers_outside_the_candidates_are_counted(split: Split) -> None:
    rows = [
        (question.id, f"The image clearly shows: {question.answer} is right") for question in split.test[:2]
    ]
    verdict = judge(split, match_by_id(answers(*rows, (split.test[2].id, "zebra")), split), "mine")
    assert (verdict.sentences, verdict.naming, verdict.outside) == (2, 2, 3)
    assert verdict.accuracies["overall"].interval.mean == 0.0


def test_questions_about_unseen_images_are_scored_apart(split: Split) -> None:
    image = split.test[0].image_id
    rows = [(one.id, one.answer if one.image_id == image else "wrong") for one in split.test]
    verdict = judge(split, match_by_id(answers(*rows), split), "mine")
    assert unseen_images(verdict, [image])["overall"].interval.mean == 0.0
    assert unseen_images(verdict, [one.image_id for one in split.test]) == {}


def test_nothing_answered_is_an_error(split: Split) -> None:
    with pytest.raises(DataError, match="nothing can be scored"):
        judge(split, match_by_id(answers((split.test[0].id, "")), split), "mine")
