"""Stage two: the factors of images, by the scorer that a build names."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kg_targets.graph import ConceptGraph
from kg_targets.ontology import Ontology
from kg_targets.scoring import SCORERS, ConceptStatistics, Factors, ScoringInput
from kg_targets.scoring.factors import Vectors
from kg_targets.scoring.ontology import parse_blocks
from pipelines.build.config import BuildConfig
from pipelines.build.executors import Say, bar
from pipelines.build.shards import StagedColumn


def score_images(
    config: BuildConfig,
    ontology: Ontology,
    graph: ConceptGraph,
    statistics: ConceptStatistics,
    parts: Sequence[int],
    *,
    fitted: Vectors | None,
    folder: Path,
    state: Path,
    encode: Callable[..., Any] | None,
    say: Say,
) -> Factors:
    """Factors of the graph's images.

    Args:
        config: options of the build.
        ontology: that knows the concepts' kinds.
        graph: of N images.
        statistics: of the fit split.
        parts: rows of each staged part.
        fitted: vectors of the fit split; None where this is that split.
        folder: of the staged parts.
        state: where a long fit keeps what it resumes from.
        encode: of the scorer that needs an encoder of captions.
        say: receives one line at a time.
    """
    staged = partial(StagedColumn, folder, len(parts), rows=sum(parts))
    return SCORERS[config.scorer](
        ScoringInput(
            graph,
            statistics,
            staged("image_id"),
            shrinkage=config.shrinkage,
            flat_ancestors=config.flat_ancestors,
            blocks=parse_blocks(config.blocks),
            kinds=[ontology[cui].kind if cui in ontology else "" for cui in graph.concepts],
            seed=config.seed,
            options=config.settings,
            captions=partial(staged, "caption"),
            fitted=fitted,
            state=state,
            scratch=folder,
            say=say,
            progress=bar,
            **({"encode": encode} if encode else {}),
        )
    )
