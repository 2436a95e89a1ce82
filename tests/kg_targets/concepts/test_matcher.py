"""The search finds what a plain comparison at every place finds, whatever the patterns, the texts and the hashes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kg_targets.concepts import matcher
from kg_targets.concepts.matcher import PatternIndex, TextBatch
from kg_targets.concepts.text import fold, fold_alias

Place = tuple[int, int, int, str]
LETTERS = st.sampled_from(
    ["a", "b", "s", "e", "es", " ", " ", ", ", "-", "(", ")", "é", "肺", "炎", "ﬁ", "\n", "𝒳"]
)
TEXTS = st.lists(LETTERS, max_size=24).map("".join)


def is_word(text: str, place: int) -> bool:
    return 0 <= place < len(text) and text[place].isalnum() and text[place] < "\u2e80"


def everywhere(patterns: list[str], texts: list[str]) -> list[list[Place]]:
    """Start, end and text of each pattern at each place of each text, by comparison."""
    return [
        sorted(
            (start, start + len(pattern), start + len(pattern), pattern)
            for pattern in patterns
            for start in range(len(text))
            if text.startswith(pattern, start)
            and not is_word(text, start - 1)
            and not is_word(text, start + len(pattern))
        )
        for text in texts
    ]


def found(index: PatternIndex, texts: list[str]) -> list[list[Place]]:
    matches = index.find(TextBatch.of(texts))
    places: list[list[Place]] = [[] for _ in texts]
    for text, *where, pattern in zip(*(column.tolist() for column in matches[1:]), strict=True):
        places[text].append((*where, index.pattern(pattern)))
    return [sorted(place) for place in places]


def distinct(aliases: list[str]) -> list[str]:
    return sorted({alias for text in aliases if any(map(str.isalnum, alias := fold_alias(text)))})


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=12), st.lists(TEXTS, max_size=6))
@example(["a", "a b", "a, b", "(a) b", "a (b)"], ["a b a, b (a) b a (b)", "a", "b", "", "a b"])
@example(["肺炎", "肺", "a肺"], ["x肺炎", "肺炎肺", "a肺a", "a肺"])
def test_all_patterns_are_found_where_they_stand_between_words(aliases: list[str], texts: list[str]) -> None:
    patterns, folded = distinct(aliases), [fold(text).text for text in texts]
    assert found(PatternIndex.of(patterns), folded) == everywhere(patterns, folded)


@pytest.mark.parametrize("kept", [0, 1 << 62])
def test_patterns_whose_hashes_clash_are_told_apart(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TextBatch.hashes
    monkeypatch.setattr(
        TextBatch, "hashes", lambda self, start, end: whole(self, start, end) & np.uint64(kept)
    )
    patterns = ["lung", "left lung", "left, lung", "left", "pleural effusion", "effusion"]
    texts = ["left lung, left, lung", "pleural effusion of the right lung"]
    assert found(PatternIndex.of(patterns), texts) == everywhere(patterns, texts)


def test_names_have_positions_and_what_is_no_name_has_none() -> None:
    index = PatternIndex.of(["lung", "left lung", "effusion"])
    positions = index.positions(["left lung", "left", "lung", "lungs", "", "a lung"]).tolist()
    assert [index.pattern(position) if position >= 0 else "" for position in positions] == [
        "left lung", "", "lung", "", "", "",
    ]  # fmt: skip


def test_an_index_without_patterns_finds_nothing() -> None:
    assert found(PatternIndex.of([]), ["lung", ""]) == [[], []]
    assert found(PatternIndex.of(["lung"]), []) == []


def test_text_with_more_signs_before_its_words_than_are_counted_is_not_found() -> None:
    long = "(" * 300 + "a b"
    assert found(PatternIndex.of([long]), [long]) == [[]]
    assert found(PatternIndex.of([long[50:]]), [long]) == [[(50, 303, 303, long[50:])]]


def test_tables_that_overflow_their_last_slots_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matcher, "_SPARE", 2)
    monkeypatch.setattr(
        matcher, "_home", lambda hashes, capacity: np.full(len(hashes), capacity - 3, np.int64)
    )
    patterns = ["lung", "liver", "left lung"]
    assert found(PatternIndex.of(patterns), ["left lung, liver"]) == everywhere(
        patterns, ["left lung, liver"]
    )
