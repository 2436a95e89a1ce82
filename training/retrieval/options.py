"""The options that say what an evaluation measures: the same for reports and for score sheets."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from training.retrieval.concepts import VARIANTS
from training.retrieval.config import DIRECTIONS, EXCLUSIONS, FEATURES, EvalConfig
from training.retrieval.zero_shot import read_prompts, read_templates


def add_store(command: argparse.ArgumentParser) -> None:
    """Add the options that name the images."""
    command.add_argument("--store", required=True, help="target store of the split to evaluate")
    command.add_argument(
        "--data-root", required=True, help="where the images are: folder, Parquet files or tar shards"
    )


def add_measures(command: argparse.ArgumentParser) -> None:
    """Add the options that ``read_config`` reads."""
    add, several = command.add_argument, partial(command.add_argument, action="append")
    several("--direction", help=f"{', '.join(DIRECTIONS)} (default image-image); comma-separated or repeated")
    several("--features", help=f"{', '.join(FEATURES)} the projection, of image-image (default before); with texts "
            "always after")  # fmt: skip
    several("--cui-variants", help=f"{', '.join(VARIANTS)} (default oracle); formulas in docs/evaluation.md")
    several("--labels", help="columns for P@K, a+b for a conjunction (default: each, and modality+region)")
    add(
        "--recall", action=argparse.BooleanOptionalAction, default=True, help="paired Recall@K (default: yes)"
    )
    several("--zero-shot", help="label columns to classify by prompts, written modality or label=modality")
    add("--templates", help="text file of prompts, one a line, {} for the class (default: four general ones)")
    add("--prompts", help="YAML file, label: class: prompts; such a class does not use the templates")
    add("--group-exclusion", default="case", help=f"what a query cannot find, {' or '.join(EXCLUSIONS)} (default "
        "case)")  # fmt: skip
    add("--queries", type=int, default=8, help="queries in each picture (default 8)")
    add("--draws", type=int, default=2000, help="bootstrap samples (default 2000)")
    add("--max-broken", type=int, default=0, help="unreadable images to skip (default 0)")
    add("--seed", type=int, default=0, help="of bootstrap, sign flips and shown queries (default 0)")


def read_config(options: argparse.Namespace) -> EvalConfig:
    """The options as a configuration.

    Raises:
        ConfigError: one of them is not possible.
    """
    defaults = EvalConfig()
    return EvalConfig(
        directions=_several(options.direction) or defaults.directions,
        features=_several(options.features) or defaults.features,
        recall=options.recall,
        cui_variants=_several(options.cui_variants) or defaults.cui_variants,
        labels=_several(options.labels),
        zero_shot=tuple(name.removeprefix("label=") for name in _several(options.zero_shot) or ()),
        templates=read_templates(Path(options.templates)) if options.templates else defaults.templates,
        prompts=read_prompts(Path(options.prompts)) if options.prompts else (),
        group_exclusion=options.group_exclusion,
        draws=options.draws,
        queries=options.queries,
        max_broken=options.max_broken,
        seed=options.seed,
    )


def _several(given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Values of an option that is repeated or comma-separated, each once, in their order; None if not given."""
    if given is None:
        return None
    return tuple(dict.fromkeys(value.strip() for text in given for value in text.split(",")))
