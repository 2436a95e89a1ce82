"""Findings of reports: what a text says of each of a list of findings, as a labeller does.

A finding is one or several concepts and everything that is a kind of them. A text says that it is present if it states
one of them, else uncertain if it holds one possible, else absent if it denies one; what is hypothetical, historical or
a relative's counts for nothing.

Lists of findings are named: ``chexpert``, the 14 classes of CheXpert (Irvin et al. 2019), ``mesh``, headings by which
Open-i's chest X-ray reports are indexed, each with its labels there. Or CUIs: ``C0032227,C0032326``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kg_targets.concepts.mention import Extractor, Mention
from kg_targets.concepts.stop_list import read_table
from kg_targets.errors import ExtractionError
from kg_targets.ontology import Ontology

SHIPPED = Path(__file__).with_name("findings.tsv")
COLUMNS = ["scheme", "finding", "phrases", "labels", "normal"]
STATES = ("", "absent", "uncertain", "present")
"""What a text says of a finding, by the numbers of ``states``; "" is not mentioned."""
ABSENT, UNCERTAIN, PRESENT = 1, 2, 3
NO_FINDING = "No Finding"
"""CheXpert's class of texts that have none of the others but support devices."""
_DEVICES = "Support Devices"
_CUI = re.compile(r"C\d{7}")
_NORMAL = (
    r"\b(?:{0})\b(?:(?!\b(?:not|no|but|than|upper|borderline|prominent|mildly|enlarged|large)\b)[^.;:]){{0,80}}?"
    r"\b(?:normal|unremarkable)\b"
    r"|\bnormal (?:size of the |size |sized )?(?:{0})\b"
)


class Finding(NamedTuple):
    """One finding of a list."""

    name: str
    cuis: frozenset[str]
    """Its concepts; empty where the ontology has none of them."""
    labels: tuple[str, ...] = ()
    """Labels by which annotators mark it: a heading, or heading and qualifier ("Cardiac Shadow/enlarged")."""
    normal: str = ""
    """What a text calls normal where the finding is absent, joined by ``|``: "heart" for cardiomegaly."""

    def labelled(self, labels: str) -> bool:
        """Whether MeSH-style labels, ``Heading/qualifier/…`` joined by ``|``, hold one of the finding's."""
        for parts in (label.split("/") for label in labels.split("|")):
            for wanted in self.labels:
                heading, *qualifiers = wanted.split("/")
                if parts[0] == heading and set(qualifiers) <= set(parts[1:]):
                    return True
        return False


def findings(scheme: str, ontology: Ontology, extractor: Extractor) -> list[Finding]:
    """Look the findings of a list up.

    Args:
        scheme: ``chexpert``, ``mesh``, or CUIs joined by commas.
        extractor: reads the phrases by which the table names concepts.

    Raises:
        ExtractionError: there is no such list, or the ontology lacks a CUI.
    """
    rows = read_table(SHIPPED, COLUMNS)
    named = [row for row in rows if row[0] == scheme]
    if not named:
        cuis = [cui.strip() for cui in scheme.split(",")]
        if not all(map(_CUI.fullmatch, cuis)):
            known = ", ".join(dict.fromkeys(row[0] for row in rows))
            raise ExtractionError(f"findings {scheme!r} are none of {known} and no CUIs joined by commas")
        for cui in cuis:
            if cui not in ontology:
                raise ExtractionError(f"findings: the ontology does not have {cui}")
        return [Finding(ontology.name(cui), frozenset([cui])) for cui in cuis]
    return [
        Finding(
            name, _concepts(phrases.split("|"), extractor), tuple(filter(None, labels.split("|"))), normal
        )
        for _, name, phrases, labels, normal in named
    ]


def states(
    found: Sequence[Sequence[Mention]], listed: Sequence[Finding], ontology: Ontology
) -> NDArray[np.int8]:
    """What each text says of each finding, int8 [texts, findings], by position in ``STATES``."""
    columns: dict[str, list[int]] = {}
    table = np.zeros((len(found), len(listed)), np.int8)
    for row, mentions in enumerate(found):
        for mention in mentions:
            state = _state(mention)
            if state:
                if mention.cui not in columns:
                    columns[mention.cui] = _columns(mention.cui, listed, ontology)
                for column in columns[mention.cui]:
                    table[row, column] = max(table[row, column], state)
    return table


def mark_normal(table: NDArray[np.int8], texts: Sequence[str], listed: Sequence[Finding]) -> None:
    """Set absent what a text does not mention but calls normal: "heart size is normal" is no cardiomegaly."""
    for column, finding in enumerate(listed):
        if finding.normal:
            pattern = re.compile(_NORMAL.format(finding.normal), re.IGNORECASE)
            for row in np.flatnonzero(table[:, column] == 0):
                if pattern.search(texts[row]):
                    table[row, column] = ABSENT


def no_finding(table: NDArray[np.int8], texts: Sequence[str], listed: Sequence[Finding]) -> NDArray[np.int8]:
    """CheXpert's *No Finding* of each text: present where no other class but devices is present or uncertain.

    A text without a word says nothing.
    """
    others = [index for index, finding in enumerate(listed) if finding.name != _DEVICES]
    without = (table[:, others] < UNCERTAIN).all(axis=1) & np.array(
        [bool(text.strip()) for text in texts], bool
    )
    return np.where(without, PRESENT, 0).astype(np.int8)


def _state(mention: Mention) -> int:
    if mention.hypothetical or mention.historical or mention.family:
        return 0
    return ABSENT if mention.negated else UNCERTAIN if mention.uncertain else PRESENT


def _columns(cui: str, listed: Sequence[Finding], ontology: Ontology) -> list[int]:
    """The findings that a concept is, or is a kind of."""
    above = {cui, *(ontology.ancestors(cui) if cui in ontology else ())}
    return [index for index, finding in enumerate(listed) if finding.cuis & above]


def _concepts(phrases: Iterable[str], extractor: Extractor) -> frozenset[str]:
    """The concepts that whole phrases name."""
    wordings = list(phrases)
    return frozenset(
        mention.cui
        for phrase, mentions in zip(wordings, extractor.extract(wordings), strict=True)
        for mention in mentions
        if mention.text == phrase
    )
