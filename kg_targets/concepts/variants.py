"""Spellings of one alias that a caption may use: plural forms, hyphens, British and American, "X of the Y" for "Y X".

Regular plurals in -s and -es are not listed here: the matcher accepts them at a word's end (:func:`plural_suffix`),
which keeps the lexicon a third smaller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from kg_targets.concepts.text import WORDLESS_FROM

_MIN_STEM = 4

# (ending of the singular, ending of the plural), tried on the last word, both ways
_IRREGULAR = (
    ("sis", "ses"),  # metastasis, diagnosis
    ("xis", "xes"),
    ("us", "i"),  # thrombus, bronchus
    ("um", "a"),  # diverticulum
    ("ex", "ices"),  # apex, cortex
    ("ix", "ices"),  # appendix
    ("yx", "yces"),  # calyx
    ("ax", "aces"),  # pneumothorax
    ("nx", "nges"),  # phalanx
    ("oma", "omata"),
    ("ma", "mata"),
    ("a", "ae"),  # bulla
    ("glion", "glia"),
    ("foot", "feet"),
    ("tooth", "teeth"),
)
_SIBILANT = ("s", "x", "z", "ch", "sh")

# (American, British); applied to the whole alias, all at once, in either direction
_SPELLING = tuple(
    (re.compile(american), british_form, re.compile(british), american_form)
    for american, british_form, british, american_form in (
        (r"\besoph", "oesoph", r"oesoph", "esoph"),
        (r"edema", "oedema", r"oedema", "edema"),
        (r"\bhem(?=[ao])", "haem", r"\bhaem", "hem"),
        (r"(?<=[a-z])hemorrh", "haemorrh", r"haemorrh", "hemorrh"),
        (r"(?<=[a-z])emia\b", "aemia", r"aemia\b", "emia"),
        (r"(?<=[a-z])emic\b", "aemic", r"aemic\b", "emic"),
        (r"\btumor", "tumour", r"tumour", "tumor"),
        (r"\bfiber", "fibre", r"\bfibre", "fiber"),
        (r"\bcenter", "centre", r"\bcentre", "center"),
        (r"\bgoiter", "goitre", r"\bgoitre", "goiter"),
        (r"\bcolor", "colour", r"\bcolour", "color"),
        (r"diarrhea", "diarrhoea", r"diarrhoea", "diarrhea"),
        (r"\bfet(?=al|us)", "foet", r"\bfoet", "fet"),
        (r"\bcec(?=um|al)", "caec", r"\bcaec", "cec"),
        (r"\bceliac", "coeliac", r"\bcoeliac", "celiac"),
        (r"\borthoped", "orthopaed", r"\borthopaed", "orthoped"),
        (r"\bpediatr", "paediatr", r"\bpaediatr", "pediatr"),
        (r"anesthe", "anaesthe", r"anaesthe", "anesthe"),
        (r"\banem", "anaem", r"\banaem", "anem"),
        (r"pnea\b", "pnoea", r"pnoea\b", "pnea"),
        (r"\bgynec", "gynaec", r"\bgynaec", "gynec"),
        (r"\betiolog", "aetiolog", r"\baetiolog", "etiolog"),
        (r"\bgray\b", "grey", r"\bgrey\b", "gray"),
        (r"\bsulf", "sulph", r"\bsulph", "sulf"),
        (r"iz(?=ed\b|ation\b|ing\b)", "is", r"is(?=ed\b|ation\b|ing\b)", "iz"),
    )
)
_PREFIXES = frozenset(
    [
        "anti",
        "cardio",
        "endo",
        "extra",
        "hydro",
        "hyper",
        "hypo",
        "infra",
        "inter",
        "intra",
        "micro",
        "mid",
        "multi",
        "non",
        "para",
        "peri",
        "post",
        "pre",
        "pseudo",
        "retro",
        "semi",
        "sub",
        "supra",
        "trans",
        "ultra",
        "un",
    ]
)
_JOINED_PREFIX = re.compile(
    rf"\b({'|'.join(p for p in sorted(_PREFIXES) if len(p) > 3)})(?=[a-z]{{{_MIN_STEM}}})"
)
_HEADS = frozenset((
    "abscess", "agenesis", "aneurysm", "atresia", "atrophy", "calcification", "cancer", "carcinoma",
    "collapse", "compression", "cyst", "dilatation", "dilation", "dislocation", "dissection", "edema",
    "enlargement", "fracture", "hematoma", "hemorrhage", "herniation", "hypoplasia", "infarct",
    "infarction", "injury", "laceration", "mass", "metastasis", "narrowing", "necrosis", "neoplasm",
    "obstruction", "occlusion", "osteonecrosis", "perforation", "rupture", "stenosis", "stricture",
    "tear", "thickening", "thrombosis", "tumor",
))  # fmt: skip
"""Nouns that also stand before what they befall."""
_ADJECTIVE = re.compile(r"(?:al|ar|ary|ed|eal|ic|ine|ing|ive|ous|oid)$")
_WORDS_CACHED = 1 << 18  # aliases repeat their words: each is respelled once


def variants(alias: str) -> list[str]:
    """All spellings of a folded alias other than itself, sorted; abbreviations have none."""
    *_, last = words = alias.split(" ")
    if last not in _HEADS and "'s " not in alias and not any(map(_has_spellings, words)):
        head = alias[: len(alias) - len(last)]  # as most names: what follows would give no more
        return sorted({head + form for form in _inflected(last)} - {alias})
    spellings = {alias}
    for step in (_possessives, _inverted, _hyphens, _national, _number):
        for spelling in tuple(spellings):
            spellings.update(step(spelling))
    spellings.discard(alias)
    return sorted(spellings)


def plural_suffix(alias: str) -> str:
    """The regular plural ending that may follow a folded alias: ``s``, ``es``, or ``""`` where none may."""
    if len(alias) < 2 or not alias[-1].isalpha() or ord(alias[-1]) >= WORDLESS_FROM:
        return ""
    return "es" if alias.endswith(_SIBILANT) else "s"


def _possessives(alias: str) -> Iterator[str]:
    if "'s " in alias:  # Crohn's disease -> Crohn disease, Crohns disease
        yield alias.replace("'s ", " ")
        yield alias.replace("'s ", "s ")


def _inverted(alias: str) -> Iterator[str]:
    """Femur fracture -> fracture of the femur; not where the first part is an adjective."""
    subject, _, head = alias.rpartition(" ")
    if head in _HEADS and subject and not _ADJECTIVE.search(subject) and " of " not in alias:
        yield f"{head} of {subject}"
        yield f"{head} of the {subject}"


def _hyphens(alias: str) -> Iterator[str]:
    words = alias.split(" ")
    if len(words) > 1:
        yield _joined(words)
    split = [_split_prefix(word) for word in words]
    if split != words:
        yield " ".join(split)


def _joined(words: list[str]) -> str:
    """Close the gap behind prefixes and single letters: "non contrast" -> "noncontrast", "x ray" -> "xray"."""
    text = words[0]
    for word, following in pairwise(words):
        prefix = word in _PREFIXES and len(following) >= _MIN_STEM
        letter = len(word) == 1 and word.isalpha() and len(following) >= 3
        text += following if (prefix or letter) and following.isalpha() else " " + following
    return text


@lru_cache(_WORDS_CACHED)
def _split_prefix(word: str) -> str:
    return _JOINED_PREFIX.sub(r"\1 ", word)


def _national(alias: str) -> Iterator[str]:
    british, american = zip(*map(_respelled, alias.split(" ")), strict=True)
    yield " ".join(british)
    yield " ".join(american)


@lru_cache(_WORDS_CACHED)
def _has_spellings(word: str) -> bool:
    """Whether a word, or the gap behind it, can be written in more than one way, its number aside."""
    letter = len(word) == 1 and word.isalpha()
    return letter or word in _PREFIXES or _split_prefix(word) != word or {*_respelled(word)} != {word}


@lru_cache(_WORDS_CACHED)
def _respelled(word: str) -> tuple[str, str]:
    """The British and the American spelling of a word."""
    british = american = word
    for to_british, british_form, to_american, american_form in _SPELLING:
        if not to_american.search(british):
            british = to_british.sub(british_form, british)
        american = to_american.sub(american_form, american)
    return british, american


def _number(alias: str) -> Iterator[str]:
    """Irregular plurals of the last word, and the singular of a plural alias."""
    head, blank, last = alias.rpartition(" ")
    for form in _inflected(last):
        yield head + blank + form


@lru_cache(_WORDS_CACHED)
def _inflected(word: str) -> tuple[str, ...]:
    if len(word) < _MIN_STEM or not word.isalpha():
        return ()
    forms = []
    if word.endswith("y") and word[-2] not in "aeiou":
        forms.append(f"{word[:-1]}ies")
    elif word.endswith("ies"):
        forms.append(f"{word[:-3]}y")
    elif word.endswith("s") and not word.endswith(("ss", "us", "is", "ses", "xes")):
        forms.append(word[:-1])
    for singular, plural in _IRREGULAR:
        if singular == "a" and word.endswith(("ia", "ma")):
            continue  # anemia, hematoma: no Latin plural in -ae
        if word.endswith(singular) and len(word) - len(singular) >= 2:
            forms.append(word.removesuffix(singular) + plural)
        elif word.endswith(plural) and len(plural) > 1 and len(word) - len(plural) >= 2:
            forms.append(word.removesuffix(plural) + singular)
    return tuple(forms)
