"""When two answers are the same: rules, applied in this order (docs/vqa_data.md has an example of each).

1. Apostrophes and invisible format characters (zero-width spaces, byte order marks) go: ``crohn's`` is ``crohns``;
   an apostrophe before one or two digits of a number is a space (``5'6`` is not ``56``).
2. Unicode NFKC: full-width letters, ligatures and superscripts become plain ones; ``×`` becomes ``x``. Behind a digit
   a superscript is a power and a subscript an index (``10⁶`` is ``10^6``, not ``106``), and a fraction a word alone
   (``1½`` is ``1 1/2``). Hyphens, dashes and minus signs are one character, as are slashes.
3. Case is folded.
4. A full stop stays before a digit, unless a letter that is not Chinese stands before it; a comma between a digit and
   three more goes. Between two digits ``/ - : ^ _ , ·`` stay (``1/2``, ``1-2`` and ``1,5`` are not ``1 2`` and ``15``),
   so does a minus sign at the front of a number (``-5``, ``$-5`` and ``- 5`` are not ``5``; with a space it must be at
   the front of the answer, behind a bracket or a comparison). All other punctuation and symbols become spaces, hyphens
   and slashes too; what stays is ``% ‰ + < > = ± ≤ ≥ °``.
5. Next to a Chinese character white space goes, and so does the punctuation that has become one.
6. English: a number is parted from a unit of measure (``5mm`` is ``5 mm``), number words zero to twelve become
   digits, and the articles a, an, the go where a word follows (``hepatitis a`` keeps its last word).
7. White space becomes one space, and none at the ends.

Normalising twice changes nothing more, so that a candidate is found equal to itself.

Nothing else is merged. ``yes`` is neither ``yeah`` nor ``yes it is``, ``none`` is not ``0``, plurals and synonyms are
different answers: a rule that merges answers raises every score, so there is none that needs to know medicine.
"""

import re
import unicodedata
from functools import lru_cache

from kg_targets.manifest import LANGUAGES, Question
from training.checks import one_of

KEPT_SYMBOLS = frozenset("%‰+<>=±≤≥°")
_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
NUMBERS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
_APOSTROPHES = frozenset("'’‘ʼ`´′")
_HAN = r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
_SPACE_BY_HAN = re.compile(rf"(?<={_HAN})\s+|\s+(?={_HAN})")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NO_DECIMAL_POINT = re.compile(rf"(?<=[^\W\d_])(?<!{_HAN})\.|\.(?!\d)")
_POWER = re.compile(r"(?<=\d)(?=[⁺⁻]?[⁰¹²³⁴-⁹])")
_INDEX = re.compile(r"(?<=\d)(?=[₀-₉])")
_FRACTION = re.compile(r"(?<=[\d¼-¾⅐-⅞↉])(?=[¼-¾⅐-⅟↉])|(?<=[¼-¾⅐-⅞↉])(?=\d)")
_FEET = re.compile(rf"(?<=\d)[{''.join(_APOSTROPHES)}](?=\d\d?(?!\d))")
_ONE_CHARACTER = str.maketrans(dict.fromkeys("‐‒–—―−", "-") | dict.fromkeys("⁄∕", "/") | {"×": "x"})
_SIGN = re.compile(r"(^|[(\[{<>=≤≥])([\s\"“„«$€£¥]*)-[\s$€£¥]*(?=\.?\d)|(?<=[\s$€£¥]-)[$€£¥]\s*(?=\.?\d)")
"""What stands about a minus sign that is a number's: white space, quotes and currency in front, currency anywhere."""
_JOINTS = frozenset("/-:^_,·")
_LOOSE_JOINT = re.compile(
    rf"(?!(?<=\d)[-/:_,·]\d|(?<=\d)\^[-+]?\d|(?:(?<![^\s(\[{{<>=≤≥≈~^,;:/$€£¥])|(?<={_HAN}))-\.?\d)[-/:^_,·]"
)
"""Neither between two digits nor a number's sign: at the front, or behind white space, a bracket or a comparison."""
_UNIT = re.compile(r"(?<=\d)(?=(?:mm|cm|ml|mg|kg|hu|kv|hz|mhz)\b|%)")
_ARTICLE = re.compile(r"\b(?:a|an|the)\s+(?=\w)")


def normalise_answer(text: str, language: str = "en") -> str:
    """The form in which answers are compared, ranked and learnt; the rules stand at the top of this file.

    Args:
        text: an answer as in the data, or as a model gave it.
        language: ``en`` or ``zh``.

    Returns:
        The normalised answer. Empty for an answer of punctuation only: such a question cannot be answered.

    Raises:
        ConfigError: another language.
    """
    one_of("language", language, LANGUAGES)
    return _normalised(text, language)


@lru_cache(maxsize=65536)
def _normalised(text: str, language: str) -> str:
    plain = _plain(text)
    if language != "en":
        return plain
    words = [NUMBERS.get(word, word) for word in _UNIT.sub(" ", plain).split()]
    return _ARTICLE.sub("", " ".join(words))


def accepted_answers(question: Question, language: str = "en") -> tuple[str, ...]:
    """A question's right answers, normalised, each once; those that normalise to nothing are left out."""
    texts = (normalise_answer(text, language) for text in question.references or (question.answer,))
    return tuple(dict.fromkeys(text for text in texts if text))


def normalise_question(text: str) -> str:
    """The form in which two questions count as the same: rules 1 to 5 and 7, any language."""
    return _plain(text)


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: white space and invisible format characters only."""
    return not _visible(text).strip()


def _plain(text: str) -> str:
    apart = _FRACTION.sub(" ", _INDEX.sub("_", _POWER.sub("^", _visible(_FEET.sub(" ", text)))))
    folded = unicodedata.normalize("NFKC", apart).casefold().translate(_ONE_CHARACTER)
    folded = _visible(
        unicodedata.normalize("NFKC", folded)
    )  # a few letters fold into an apostrophe and another
    folded = _SIGN.sub(lambda found: "" if found[1] is None else f"{found[1]}{found[2] and ' '}-", folded)
    folded = _LOOSE_JOINT.sub(" ", _NO_DECIMAL_POINT.sub(" ", _THOUSANDS.sub("", folded)))
    words = "".join(char if _is_kept(char) else " " for char in folded).split()
    return _SPACE_BY_HAN.sub("", " ".join(words))


def _visible(text: str) -> str:
    return "".join(char for char in text if char not in _APOSTROPHES and unicodedata.category(char) != "Cf")


def _is_kept(char: str) -> bool:
    """Letters, marks, numbers; the full stops and joints that rule 4 left; some symbols."""
    return char == "." or char in KEPT_SYMBOLS or char in _JOINTS or unicodedata.category(char)[0] in "LMN"
