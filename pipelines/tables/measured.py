"""What the evaluation of a grid will measure, by name, found out from its captions before anything is trained."""

import difflib
from collections.abc import Mapping, Sequence

from kg_targets.errors import ConfigError, KGTargetsError
from kg_targets.manifest import Manifest
from pipelines.tables.grid import Grid, Official
from training.retrieval.config import EvalConfig
from training.retrieval.measures import (
    CUI_DEPTHS,
    LABEL_DEPTHS,
    PAIR_DEPTHS,
    PAIR_VIEWS,
    LabelSets,
    cui_name,
    label_name,
    label_sets,
)
from training.retrieval.zero_shot import tasks

_NEAR = 3
"""Names that a message proposes."""

Labels = Mapping[str, Sequence[str]]
"""Label column to its value for each image."""


def read_labels(grid: Grid) -> Labels:
    """Labels of the images that will be queried, from the data set whose stores score every row.

    Raises:
        ManifestError: a split does not exist, or its captions are not there.
        DataError: they are malformed.
    """
    manifest = Manifest.load(grid.stores[grid.evaluate_on].dataset)
    splits = (grid.split.test,) if isinstance(grid.split, Official) else grid.split.test
    records = [record for split in splits for record in manifest.records(split, grid.data_root)]
    columns = dict.fromkeys(name for record in records for name in record.labels)
    return {name: [record.labels.get(name, "") for record in records] for name in columns}


def check_measures(grid: Grid, labels: Labels | None) -> None:
    """Refuse a grid that tests or classifies what will not be there.

    Args:
        grid: what is to be run.
        labels: see ``read_labels``; None where the data are not here: labels are then taken as the grid has them.

    Raises:
        ConfigError: a label does not exist, or a tested measure will not be measured.
    """
    config = grid.evaluation
    try:
        if labels is not None:
            tasks(config, labels.__getitem__, tuple(labels))
        sets = label_sets(tuple(labels), config.labels) if labels is not None else _asked(config)
    except KGTargetsError as error:
        raise ConfigError(f"{grid.path}: evaluation: {error}") from error
    known = measure_names(config, sets)
    tested = [("primary.measure", grid.primary.measure), *(("secondary", name) for name in grid.secondary)]
    for key, name in tested:
        any_label = labels is None and config.labels is None and name.endswith(_LABEL_ENDINGS)
        if name not in known and not any_label:
            near = difflib.get_close_matches(name, known, n=_NEAR, cutoff=0.5) or known[:_NEAR]
            raise ConfigError(
                f'{grid.path}: {key}: "{name}" is not among the {len(known)} measures of this evaluation '
                f"(the nearest: {', '.join(near)})"
            )


def measure_names(config: EvalConfig, labels: LabelSets) -> list[str]:
    """Names of everything that ``training.retrieval.measures.measure_run`` measures, with these labels for P@K."""
    names = []
    for view in config.views:
        names += [cui_name(view, variant, k) for variant in config.cui_variants for k in CUI_DEPTHS]
        names += [label_name(view, columns, k) for columns in labels for k in LABEL_DEPTHS]
    if config.recall:
        names += [f"{view.prefix}Recall@{k}" for view in PAIR_VIEWS for k in PAIR_DEPTHS]
    for label in config.zero_shot:
        names += [f"zero-shot {label} accuracy", f"zero-shot {label} balanced accuracy"]
    return names


_LABEL_ENDINGS = tuple(f" P@{k}" for k in LABEL_DEPTHS)


def _asked(config: EvalConfig) -> LabelSets:
    return [tuple(name.split("+")) for name in config.labels or ()]
