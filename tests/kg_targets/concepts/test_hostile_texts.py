"""Texts made to cost time: work grows with the text and no faster, whatever it holds."""

from __future__ import annotations

import time

import pytest

from kg_targets.concepts import DictionaryExtractor
from kg_targets.ontology import Ontology

EXTRACTOR = DictionaryExtractor(Ontology.seed())
LENGTH = 80_000
SECONDS = 2.5  # ten times what each takes; quadratic work took from 3 to 70


@pytest.mark.parametrize(
    ("before", "repeated", "after"),
    [
        ("", "LA, ", ""),
        ("", "LA: ", ""),
        ("", "LA (", ""),
        ("", "LA (RA) CT, MR = ", ""),
        ("no ", "effusion, ", " or mass"),
        ("", "effusion is not seen, ", ""),
        ("", "atelectasis versus pneumonia ", ""),
        ("no effusion", " and effusion", ""),
        ("", "pneumonia (-) ", ""),
        ("", "no, ", "effusion"),
        ("", "effusion is large and ", "not seen"),
        ("no effusion", ".", "x"),
        ("no effusion", "?", "x"),
        ("FINDINGS: ", "OA ", ""),
        ("no effusion", " ", "(LA)"),
        ("no effusion ", "A", "b"),
        ("", "no effusion\n", ""),
        ("no effusion", "\n ", "Mass"),
    ],
)
def test_work_is_proportional_to_the_text(before: str, repeated: str, after: str) -> None:
    text = before + repeated * (LENGTH // len(repeated)) + after
    start = time.process_time()
    EXTRACTOR.extract([text])
    assert time.process_time() - start < SECONDS
