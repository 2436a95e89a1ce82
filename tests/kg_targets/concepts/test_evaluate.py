"""Agreement with hand-marked captions: counts by hand, Wilson intervals, and the shipped gold set."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from kg_targets.concepts import Mention
from kg_targets.concepts.evaluate import GoldCaption, GoldMention, Rate, evaluate, read_jsonl
from kg_targets.errors import ExtractionError
from tests import REPOSITORY

GOLD = REPOSITORY / "tests" / "gold" / "captions.jsonl"
TEXT = "No bowel ischemia, CT of the liver"


def mention(text: str, cui: str, negated: bool = False) -> Mention:
    start = TEXT.index(text)
    return Mention(cui, cui, start, start + len(text), text, negated=negated, source="test")


def gold(text: str, cui: str, kind: str, negated: bool = False) -> GoldMention:
    start = TEXT.index(text)
    return GoldMention(start, start + len(text), text, text, kind, negated, cui)


CAPTION = GoldCaption(
    "g1",
    TEXT,
    (
        gold("bowel ischemia", "C1", "finding", negated=True),
        gold("CT", "C2", "modality"),
        gold("liver", "", "anatomy"),
    ),
)


def test_spans_concepts_and_polarity_are_counted_as_by_hand() -> None:
    predicted = [mention("bowel", "C9"), mention("ischemia", "C1", negated=True), mention("CT", "C3")]
    result = evaluate([CAPTION], [predicted], {"C9": "organ", "C1": "finding", "C3": "modality"})
    assert (result.exact.precision.successes, result.exact.precision.total, result.exact.recall.total) == (
        1,
        3,
        3,
    )
    assert result.overlap.f1 == pytest.approx(4 / 6)
    assert (result.concepts.successes, result.concepts.total) == (1, 2)
    assert result.negation.value == 1.0
    assert result.recall_by_type["anatomy"].value == 0.0
    assert result.precision_by_type["organ"].value == 0.0
    assert sorted(item.kind for item in result.discrepancies) == ["boundary", "concept", "missed", "spurious"]


def test_perfect_predictions_leave_no_discrepancy() -> None:
    predicted = [[mention(g.text, g.cui, g.negated) for g in CAPTION.mentions]]
    result = evaluate([CAPTION], predicted)
    assert result.exact.f1 == result.overlap.f1 == result.negated.f1 == 1.0
    assert result.discrepancies == ()


def test_wilson_intervals_agree_with_published_values() -> None:
    low, high = Rate(8, 10).interval
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert Rate(0, 10).interval[0] == 0.0 and Rate(10, 10).interval[1] == pytest.approx(1.0)
    assert math.isnan(Rate(0, 0).value)


def test_the_number_of_predictions_must_fit() -> None:
    with pytest.raises(ExtractionError, match="1 gold captions but 0"):
        evaluate([CAPTION], [])


def test_the_shipped_gold_set_is_large_consistent_and_split_in_halves() -> None:
    captions = read_jsonl(GOLD)
    assert len(captions) >= 220
    assert len({caption.id for caption in captions}) == len(captions)
    assert len(read_jsonl(GOLD, "tune")) == len(read_jsonl(GOLD, "held_out")) == len(captions) / 2
    for caption in captions:
        ends = [0, *(m.end for m in caption.mentions)]
        assert all(m.start >= end for m, end in zip(caption.mentions, ends, strict=False))


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"id": 1, "text": "abc", "mentions": [{"start": 0, "end": 2, "text": "x"}]}', "\ufeff"],
)
def test_a_malformed_gold_file_names_its_line_or_its_emptiness(tmp_path: Path, line: str) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ExtractionError, match=r"gold\.jsonl"):
        read_jsonl(path)


def gold_line(**changes: object) -> str:
    item = {"start": 0, "end": 2, "text": "CT", "type": "modality", "negated": False, **changes}
    row = {"id": "g1", "text": "CT", "mentions": [{k: v for k, v in item.items() if v is not None}]}
    return json.dumps(row)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"not valid JSON"),
        ("[]", r"the caption is not a JSON object with the keys id, text, mentions"),
        ('{"id": "g1", "mentions": []}', r"the caption lacks the key 'text'$"),
        ("{}", r"the caption lacks the key 'id', 'text', 'mentions'$"),
        ('{"id": "g1", "text": 5, "mentions": []}', r"'text' must be a string"),
        ('{"id": "g1", "text": "CT", "mentions": [7]}', r"mention 1 is not a JSON object"),
        (gold_line(start=None), r"mention 1 lacks the key 'start'$"),
        (gold_line(end=1), r"offsets 0:1 do not give 'CT'"),
    ],
)
def test_a_wrong_gold_line_is_told_in_words_with_file_and_line(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(gold_line() + "\n\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ExtractionError, match=r"gold\.jsonl:3: .*" + message) as caught:
        read_jsonl(path)
    assert "KeyError" not in str(caught.value)
