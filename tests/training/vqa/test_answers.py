from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.errors import ConfigError
from training.vqa.answers import normalise_answer, normalise_question


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Crohn’s  disease", "crohns disease"),  # rule 1
        ("lung\u200b mass\ufeff", "lung mass"),
        ("ＣＴ ﬁlm 5²", "ct film 5^2"),  # rule 2
        ("2.5cm × 1.7cm", "2.5 cm x 1.7 cm"),
        ("YES", "yes"),  # rule 3
        ("On the left.", "on left"),  # rule 4
        ("3.4 cm.", "3.4 cm"),
        (".5 cm", ".5 cm"),
        ("vs. edema", "vs edema"),
        ("fig.1", "fig 1"),
        ("1,000 and 2,3", "1000 and 2,3"),
        ("x-ray / plain_film", "x ray plain film"),
        ("~15\tminutes (or more?)", "15 minutes or more"),
        ("< 5%", "< 5 %"),
        ("−5 HU", "-5 hu"),
        ("（－0.5）", "-0.5"),
        ("grade -2", "grade -2"),
        ("<-5", "<-5"),
        ("x-5, T-2", "x 5 t 2"),
        ("- 5", "-5"),
        ("2–3 cm", "2-3 cm"),
        ("2-3mm", "2-3 mm"),
        ("5%-6%", "5 % 6 %"),
        ("½", "1/2"),
        ("1½ cm", "1 1/2 cm"),
        ("１／２", "1/2"),
        ("left/right", "left right"),
        ("10⁶", "10^6"),
        ("10⁻⁶", "10^-6"),
        ("5 cm² CO₂", "5 cm2 co2"),
        ("5₂", "5_2"),
        ("1:2 ratio: 3", "1:2 ratio 3"),
        ("5‰", "5‰"),
        ("5mm", "5 mm"),  # rule 6
        ("T2 weighted", "t2 weighted"),
        ("Two lobes", "2 lobes"),
        ("someone", "someone"),
        ("the left lobe of a lung", "left lobe of lung"),
        ("hepatitis A", "hepatitis a"),
        ("A", "a"),
        ("  spleen \n", "spleen"),  # rule 7
    ],
)
def test_each_rule_does_what_its_example_says(text: str, expected: str) -> None:
    assert normalise_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("肝脏。", "肝脏"),
        ("左肺，右侧", "左肺右侧"),
        ("左肺, 右侧", "左肺右侧"),
        ("生物转化、解毒", "生物转化解毒"),
        ("Ｔ２ 加权", "t2加权"),
        ("MRI", "mri"),
        ("a型", "a型"),
        ("肺、.2", "肺.2"),
        ("two", "two"),  # English words are not counted in Chinese answers
    ],
)
def test_chinese_answers_lose_punctuation_and_spaces_only(text: str, expected: str) -> None:
    assert normalise_answer(text, "zh") == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("yes", "yeah"),
        ("yes", "yes it is"),
        ("no", "none"),
        ("none", "0"),
        ("lung", "lungs"),
        ("left", "left side"),
        ("-5", "5"),
        ("−.5", ".5"),
        ("½", "1 2"),
        ("½", "12"),
        ("1½", "11/2"),
        ("10⁶", "106"),
        ("10⁶", "10⁻⁶"),
        ("5₂", "52"),
        ("2-3", "2 3"),
        ("2-3", "-2 3"),
        ("2-3", "2 -3"),
        ("2/3", "2-3"),
        ("2.3", "2 3"),
        ("1:2", "1 2"),
        ("5%", "5"),
        ("5‰", "5"),
        ("5‰", "5%"),
        ("—5", "5"),
        ("- 5", "5"),
        ("– .5", ".5"),
        ("(- 5)", "5"),
        ("> - 5", "> 5"),
        ('"-5"', "5"),
        ("$-5", "5"),
        ("-$5", "5"),
        ("a loss of -€ 5", "a loss of 5"),
        ("about ~-5", "about ~5"),
        ("1,5", "15"),
        ("1,5", "1 5"),
        ("1,50", "150"),
        ("1·5", "15"),
        ("1·5", "1 5"),
        ("5'6", "56"),
        ("5’10", "510"),
    ],
)
def test_answers_that_only_mean_the_same_stay_apart(one: str, other: str) -> None:
    assert normalise_answer(one) != normalise_answer(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-5", "－５"),
        ("2-3", "2–3"),
        ("½", "1/2"),
        ("1½", "1 1/2"),
        ("10⁶", "10^6"),
        ("5mm", "5 mm"),
        ("５％", "5 %"),
        ("-5", "—5"),
        ("-5", "- 5"),
        ("-5", "$ -5"),
        ("-5", "-$ 5"),
        ("1,000", "1000"),
        ("1,000,000", "1000000"),
        ("1'000", "1000"),
        ("lung - 5", "lung 5"),  # a dash between words is no sign
        ("lung — left", "lung left"),
        ("5%-10%", "5% 10%"),
        ("levels 4, 5", "levels 4 5"),
    ],
)
def test_ways_to_write_one_number_are_one(one: str, other: str) -> None:
    assert normalise_answer(one) == normalise_answer(other)
    assert normalise_answer(one, "zh").replace(" ", "") == normalise_answer(other, "zh").replace(" ", "")


@given(st.decimals(-10_000, 10_000, places=2), st.decimals(-10_000, 10_000, places=2))
def test_two_numbers_are_one_answer_only_where_they_are_written_alike(one: Decimal, other: Decimal) -> None:
    assert (normalise_answer(f"about {one} cm") == normalise_answer(f"about {other} cm")) == (
        str(one) == str(other)
    )


def test_chinese_ways_to_say_yes_stay_apart() -> None:
    assert len({normalise_answer(text, "zh") for text in ("是", "是的", "包含", "有", "存在")}) == 5


@pytest.mark.parametrize("text", ["", " \t", "?!", "—", "\u200b", "...", "“”"])
def test_punctuation_normalises_to_nothing(text: str) -> None:
    assert normalise_answer(text) == ""


@given(st.text(), st.sampled_from(["en", "zh"]))
def test_a_normalised_answer_is_its_own_normal_form(text: str, language: str) -> None:
    once = normalise_answer(text, language)
    assert normalise_answer(once, language) == once


@settings(max_examples=2000)
@given(st.text(alphabet="ab thenowmx5.,·-—/^:_($½²₂⁻−<'\"%肺 、", max_size=12))
def test_the_same_holds_where_rules_meet(text: str) -> None:
    once = normalise_answer(text)
    assert normalise_answer(once) == once
    assert once == once.strip() and "  " not in once


def test_another_language_is_refused() -> None:
    with pytest.raises(ConfigError, match="en, zh"):
        normalise_answer("ja", "de")


def test_questions_keep_articles_and_number_words() -> None:
    assert normalise_question("Is  the x-ray normal?") == "is the x ray normal"
    assert normalise_question("Two?") != normalise_question("2?")
