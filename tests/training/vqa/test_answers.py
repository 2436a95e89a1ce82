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
        ("ＣＴ ﬁlm 5²", "ct film 52"),  # rule 2
        ("2.5cm × 1.7cm", "2.5 cm x 1.7 cm"),
        ("YES", "yes"),  # rule 3
        ("On the left.", "on left"),  # rule 4
        ("3.4 cm.", "3.4 cm"),
        (".5 cm", ".5 cm"),
        ("vs. edema", "vs edema"),
        ("fig.1", "fig 1"),
        ("1,000 and 2,3", "1000 and 2 3"),
        ("x-ray / plain_film", "x ray plain film"),
        ("~15\tminutes (or more?)", "15 minutes or more"),
        ("< 5%", "< 5 %"),
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
    ],
)
def test_answers_that_only_mean_the_same_stay_apart(one: str, other: str) -> None:
    assert normalise_answer(one) != normalise_answer(other)


def test_chinese_ways_to_say_yes_stay_apart() -> None:
    assert len({normalise_answer(text, "zh") for text in ("是", "是的", "包含", "有", "存在")}) == 5


@pytest.mark.parametrize("text", ["", " \t", "?!", "—", "\u200b", "...", "“”"])
def test_punctuation_normalises_to_nothing(text: str) -> None:
    assert normalise_answer(text) == ""


@given(st.text(), st.sampled_from(["en", "zh"]))
def test_a_normalised_answer_is_its_own_normal_form(text: str, language: str) -> None:
    once = normalise_answer(text, language)
    assert normalise_answer(once, language) == once


@settings(max_examples=500)
@given(st.text(alphabet="ab thenowmx5.,-'%肺 、", max_size=12))
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
