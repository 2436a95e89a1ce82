"""Likeness of case texts: tf-idf by its definition, and means over the nearest images of other cases."""

import math
from collections import Counter

import numpy as np
import pytest

from pipelines.audit.case_text import shared_text, text_vectors

TEXTS = [
    "Fever and cough, cough.",
    "A cough without fever",
    "",
    "fracture of the hip",
    "Fracture of the hip; cough",
]


def reference(one: str, other: str) -> float:
    """Cosine of two texts, from the formula in docs/evaluate-targets.md."""
    written = [text for text in TEXTS if text]
    split = [Counter("".join(c if c.isalpha() else " " for c in text.lower()).split()) for text in written]
    counts = [Counter({word: n for word, n in count.items() if len(word) > 1}) for count in split]

    def vector(text: str) -> dict[str, float]:
        own = counts[written.index(text)]
        return {
            word: (1 + math.log(n))
            * math.log((1 + len(written)) / (1 + sum(word in count for count in counts)))
            for word, n in own.items()
        }

    a, b = vector(one), vector(other)
    lengths = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
    return sum(v * b.get(word, 0.0) for word, v in a.items()) / lengths


def test_vectors_are_tf_idf_of_distinct_texts() -> None:
    # A text that stands twice, as every image of a case has it, counts once.
    vectors = text_vectors([*TEXTS, TEXTS[3]])
    products = (vectors @ vectors.T).toarray()
    for i, one in enumerate(TEXTS):
        for j, other in enumerate(TEXTS):
            assert products[i, j] == pytest.approx(reference(one, other) if one and other else 0.0)
    assert products[3, 5] == pytest.approx(1.0)


def test_texts_of_the_nearest_images_of_other_cases_are_averaged_over_ties() -> None:
    cases = np.array([0, 1, 2, 3, 3])
    factors = np.array([[1.0, 0, 0], [0.8, 0.6, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    found = shared_text(factors, cases, text_vectors(TEXTS))
    # Fewer than ten others: all that have a text count; the own case and images without a text do not.
    expected = [reference(TEXTS[0], TEXTS[j]) for j in (1, 3, 4)]
    assert found["T@10"][0] == pytest.approx(np.mean(expected)) and np.isnan(found["T@10"][2])
    assert found["T@10"][3] == pytest.approx(np.mean([reference(TEXTS[3], TEXTS[j]) for j in (0, 1)]))
