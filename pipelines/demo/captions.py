"""Figure captions by a small grammar: every choice comes from the generator that is passed in.

A caption may name its finding or leave it out, may deny other findings of the region, and rarely says nothing
medical at all. A denial always follows what is asserted, in a sentence of its own or after "without".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.demo.cases import Case, Series

NO_CONCEPT_SHARE = 0.025
"""Share of captions that carry no medical concept."""
OMIT_FINDING_SHARE = 0.08
"""Share of captions that name the imaging only."""
OMIT_MODALITY_SHARE = 0.1
"""Share of captions that name the finding only."""


@dataclass(frozen=True)
class Terms:
    """Names of one finding in one region; ``vocabulary.yaml`` says what they mean."""

    names: Sequence[str]
    place: str = ""
    article: bool = True
    plurals: Sequence[str] = ()


WORDS: dict[str, Any] = yaml.safe_load(
    Path(__file__).with_name("vocabulary.yaml").read_text(encoding="utf-8")
)
FINDINGS = {
    (region, finding): Terms(**terms)
    for region, findings in WORDS["findings"].items()
    for finding, terms in findings.items()
}


@dataclass(frozen=True)
class Caption:
    """A caption and what it says, in terms of the finding labels."""

    text: str
    asserted: tuple[str, ...]
    """Findings that the text asserts."""
    negated: tuple[str, ...]
    """Findings that the text denies."""


def compose_caption(case: Case, series: Series, rng: np.random.Generator, *, arrow: bool) -> Caption:
    """Write the caption of one image; with ``arrow`` it may mention the arrow that points at the finding."""
    kind = rng.random()
    if kind < NO_CONCEPT_SHARE:
        text = _pick(rng, WORDS["empty"]).format(
            n=rng.integers(1, 9), letter="ABCD"[int(rng.integers(4))], months=rng.integers(2, 13)
        )
        return Caption(text, (), ())
    imaging = _imaging(case, series, rng)
    asserted: tuple[str, ...] = ()
    kind -= NO_CONCEPT_SHARE
    if kind < OMIT_FINDING_SHARE:
        text = _capitalised(f"{imaging}{_person(case, rng)}.")
    elif case.finding == "normal":
        person = _person(case, rng)
        text = _capitalised(_pick(rng, WORDS["normal"]).format(imaging=imaging, person=person))
    else:
        omit_modality = kind < OMIT_FINDING_SHARE + OMIT_MODALITY_SHARE
        text = _positive(case, "" if omit_modality else imaging, rng, arrow=arrow)
        asserted = (case.finding,)
    text, negated = _deny_others(case, text, rng)
    if rng.random() < 0.1:
        text = f"Figure {rng.integers(1, 9)}{'ABC'[int(rng.integers(3))]}. {text}"
    return Caption(text, asserted, negated)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _with_article(noun: str) -> str:
    vowel = noun[0] in "aeiou" or noun.startswith(("MR", "X-ray", "x-ray", "MLO", "AP ", "FLAIR"))
    return f"{'an' if vowel else 'a'} {noun}"


def _imaging(case: Case, series: Series, rng: np.random.Generator) -> str:
    """A noun phrase such as "axial contrast-enhanced CT of the chest" or "chest X-ray"."""
    word = _pick(rng, WORDS["imaging"][series.modality])
    view = _pick(rng, WORDS["views"][series.modality][series.view])
    if case.region in ("spine", "knee") and series.modality == "mri":
        view = view.replace("axial", "sagittal")
    if case.region == "chest" and series.modality == "x-ray":
        view = _pick(rng, ("", "", "frontal", "posteroanterior", "PA"))
        if rng.random() < 0.15:
            return "CXR"
    nouns, adjectives = WORDS["body"][case.region].values()
    if series.modality == "ultrasound" and rng.random() < 0.5:
        kidney = series.view == "kidney"
        nouns = (f"{case.laterality} kidney".strip() if kidney else "liver",)
        adjectives = ("renal" if kidney else "liver",)
    body = _pick(rng, nouns).format(side=case.laterality)
    if series.modality == "mammography" and rng.random() < 0.5:
        return f"{view} {word}".strip()
    if rng.random() < 0.45 and "(" not in word:
        return f"{view} {_pick(rng, adjectives).format(side=case.laterality)} {word}".strip()
    return f"{view} {word} of the {body}".strip()


def _person(case: Case, rng: np.random.Generator, links: Sequence[str] = ("in", "of")) -> str:
    """An age and sex phrase such as " in a 54-year-old woman with cough"; often empty."""
    if rng.random() < 0.4:
        return ""
    adult = {"female": "woman", "male": "man"}[case.sex]
    who = f"{case.age}-year-old {_pick(rng, (adult, adult, f'{case.sex} patient', 'patient'))}"
    complaint = f" with {_pick(rng, WORDS['complaints'][case.region])}" if rng.random() < 0.3 else ""
    article = "an" if case.age // 10 == 8 else "a"
    return f" {_pick(rng, links)} {article} {who}{complaint}"


def _finding(case: Case, rng: np.random.Generator) -> str:
    """The finding with side and article: "a left pleural effusion", "pneumonia in the right upper lobe"."""
    terms = FINDINGS[case.region, case.finding]
    name, side = _pick(rng, terms.names), case.laterality
    lobe = f"{side} {case.zone} lobe" if rng.random() < 0.7 else f"{side} lung"
    place = f" {terms.place.format(side=side, lobe=lobe)}" if terms.place else ""
    style = rng.random()
    if "of the" in name or name.startswith(("hip", "fracture")) or not side:
        phrase = name + (place if side or style < 0.4 else "")
    elif style < 0.4:
        phrase = name + place
    elif style < 0.6 and case.zone:
        phrase = f"{lobe} {name}"
    elif style < 0.8 or case.region in ("knee", "hand", "pelvis", "breast"):
        phrase = f"{side} {name}"
    else:
        phrase = f"{side}-sided {name}"
    size = ("small", "", "large")[int(case.severity * 2.999)]
    if size and terms.article and rng.random() < 0.3:
        phrase = f"{size} {phrase}"
    return _with_article(phrase) if terms.article and rng.random() < 0.85 else phrase


def _positive(case: Case, imaging: str, rng: np.random.Generator, *, arrow: bool) -> str:
    finding, person = _finding(case, rng), _person(case, rng, ("in",))
    pointer = _pick(rng, (" (arrow)", " (arrow)", " (white arrow)", "")) if arrow else ""
    if not imaging:
        return _capitalised(f"{_pick(rng, ('', 'appearance of '))}{finding}{pointer}{person}.")
    show = _pick(rng, ("showing", "demonstrating", "revealing", "shows", "demonstrates", "reveals", "with"))
    words = {"imaging": imaging, "an_imaging": _with_article(imaging), "person": person, "show": show}
    words |= {"finding": finding, "Finding": _capitalised(finding), "pointer": pointer}
    text = _pick(rng, WORDS["positive"]).format(**words)
    for plural in ("microcalcifications", "stones"):
        text = text.replace(f"{plural} is", f"{plural} are")
    return _capitalised(text)


def _deny_others(case: Case, text: str, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
    """Append denials of one or two other findings of the region; more often where everything is normal."""
    if rng.random() >= (0.55 if case.finding == "normal" else 0.28):
        return text, ()
    others = [
        finding
        for region, finding in FINDINGS
        if region == case.region and finding not in (case.finding, *WORDS["related"].get(case.finding, ()))
    ]
    chosen = tuple(others[int(k)] for k in rng.permutation(len(others))[: 1 + int(rng.random() < 0.3)])
    names = []
    for finding in chosen:
        terms = FINDINGS[case.region, finding]
        plural = terms.plurals and rng.random() < 0.35
        names.append(_pick(rng, terms.plurals if plural else terms.names))
    denied = " or ".join(names)
    if " no " not in text and rng.random() < 0.3:
        return f"{text[:-1]}, {_pick(rng, WORDS['without'])} {denied}.", chosen
    return f"{text} {_pick(rng, WORDS['denials']).format(denied)}", chosen
