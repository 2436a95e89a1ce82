"""The embedding scorer against its formula in float64, with an encoder of these tests."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kg_targets.errors import ConfigError
from kg_targets.graph import ConceptGraph
from kg_targets.scoring import SCORERS, ConceptStatistics, Factors, ScoringInput
from kg_targets.scoring.factors import Vectors

CAPTIONS = ["CT of the chest", "", "MRI of the brain", "CT of the chest", "  ", "Ultrasound"]


@dataclass
class Encoder:
    """A random unit vector for each text, and which texts it was asked for."""

    asked: list[str] = field(default_factory=list)
    fail_after: int = 10**9

    def __call__(self, texts: Sequence[str], ids: Sequence[str], advance: Callable[[int], Any]) -> np.ndarray:
        assert len(texts) == len(ids)
        if len(self.asked) >= self.fail_after:
            raise KeyboardInterrupt
        self.asked += texts
        advance(len(texts))
        return np.array([self.vector(text) for text in texts], dtype=np.float32).reshape(-1, 6)

    @staticmethod
    def vector(text: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        vector = np.random.default_rng(seed).standard_normal(6) + 1.0
        return vector / np.linalg.norm(vector)


def scored(
    captions: list[str], encoder: Encoder, fitted: Vectors | None = None, state: Path | None = None
) -> Factors:
    graph = ConceptGraph.build([[] for _ in captions], None)
    ids = [f"image{row}" for row in range(len(captions))]
    data = ScoringInput(
        graph,
        ConceptStatistics.fit(graph),
        ids,
        captions=lambda: captions,
        encode=encoder,
        fitted=fitted,
        state=state,
    )
    return SCORERS["embedding"](data)


def test_similarity_is_the_cosine_of_centred_embeddings_each_text_encoded_once() -> None:
    encoder = Encoder()
    factors = scored(CAPTIONS, encoder)
    present = [0, 2, 3, 5]
    embeddings = np.array([Encoder.vector(CAPTIONS[row]) for row in present])
    centre = embeddings.mean(axis=0)
    centred = embeddings - centre
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(factors.matrix[present], expected, atol=1e-6)
    np.testing.assert_allclose(factors.vectors["centre"], centre, atol=1e-7)
    assert encoder.asked == ["CT of the chest", "MRI of the brain", "Ultrasound"]


def test_an_image_without_a_caption_is_unknown_and_one_without_a_concept_is_not() -> None:
    factors = scored(CAPTIONS, Encoder())
    assert factors.known.tolist() == [True, False, True, True, False, True]
    assert not factors.matrix[~factors.known].any()


def test_the_centre_of_the_fit_split_is_reused() -> None:
    fit = scored(CAPTIONS, Encoder())
    other = scored(["MRI of the brain", "X-ray"], Encoder(), fitted=fit.vectors)
    np.testing.assert_array_equal(other.matrix[0], fit.matrix[2])
    assert other.vectors == fit.vectors or np.array_equal(other.vectors["centre"], fit.vectors["centre"])


def test_a_caption_at_the_centre_is_unknown() -> None:
    assert not scored(["the only one", "the only one"], Encoder()).known.any()


def test_a_fit_split_without_captions_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no image of the fit split has a caption"):
        scored(["", " "], Encoder())


def test_other_splits_may_have_no_caption() -> None:
    fit = scored(CAPTIONS, Encoder())
    factors = scored(["", ""], Encoder(), fitted=fit.vectors)
    assert factors.matrix.shape == (2, 6) and not factors.known.any()


def test_an_interrupted_encoding_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kg_targets.scoring.embedding._AT_ONCE", 1)
    with pytest.raises(KeyboardInterrupt):
        scored(CAPTIONS, Encoder(fail_after=2), state=tmp_path / "state")
    encoder = Encoder()
    factors = scored(CAPTIONS, encoder, state=tmp_path / "state")
    assert encoder.asked == ["Ultrasound"]
    np.testing.assert_array_equal(factors.matrix, scored(CAPTIONS, Encoder()).matrix)


def test_a_scorer_that_needs_an_encoder_says_so() -> None:
    graph = ConceptGraph.build([[]], None)
    data = ScoringInput(graph, ConceptStatistics.fit(graph), ["a"], captions=lambda: ["text"])
    with pytest.raises(ConfigError, match="needs an encoder"):
        SCORERS["embedding"](data)
