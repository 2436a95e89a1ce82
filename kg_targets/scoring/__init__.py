"""Scorers turn a concept graph into one factor per image; the similarity of two images is their factors' product.

Each file here begins with what its scorer believes about similarity. N×N is never formed: see ``neighbors`` and the
target store's ``block``.
"""

from collections.abc import Callable

from kg_targets.scoring import embedding, identity, noise, ontology, permuted, transe
from kg_targets.scoring.factors import Factors, ScoringInput
from kg_targets.scoring.statistics import ConceptStatistics
from kg_targets.transe.settings import TransESettings

SCORERS: dict[str, Callable[[ScoringInput], Factors]] = {
    "ontology": ontology.score,
    "embedding": embedding.score,
    "noise": noise.score,
    "permuted": permuted.score,
    "identity": identity.score,
    "transe": transe.score,
}

DENSE = ("embedding", "noise", "transe")
"""Scorers whose factors are dense."""

SETTINGS: dict[str, type] = {"embedding": embedding.EmbeddingSettings, "transe": TransESettings}
"""Scorer to the frozen dataclass of its options (``--scorer-options``); a scorer that is not here has none."""

__all__ = ["DENSE", "SCORERS", "SETTINGS", "ConceptStatistics", "Factors", "ScoringInput"]
