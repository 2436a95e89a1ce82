"""The protocol of an evaluation in words: printed above every table, kept in every result."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.retrieval.config import AFTER, IMAGE_IMAGE, EvalConfig
from training.retrieval.features import RetrievalSet
from training.retrieval.runs import RunGroup
from training.retrieval.zero_shot import Task


def header(
    data: RetrievalSet, groups: Sequence[RunGroup], config: EvalConfig, tasks: Sequence[Task], flips: int
) -> dict[str, Any]:
    """What the numbers below it rest on, one line each."""
    lines = {
        "data": f"{data.store.dataset}, split {data.store.split}, {len(data.rows):,} images of "
        f"{len(set(data.cases.tolist())):,} cases",
        "protocol": _protocol(config),
        "features": _features(config),
    }
    if config.recall:
        lines["pairs"] = _pairs(data, config)
    for task in tasks:
        own = len(dict(config.prompts).get(task.label, ()))
        given = f", {own} of them with prompts of their own" if own else ""
        lines[f"zero-shot {task.label}"] = (
            f"{len(task.classes)} classes{given}, {len(config.templates)} templates; chance is the answer that is "
            "always the most frequent class"
        )
    lines["training seeds"] = "; ".join(f"{g.name} {', '.join(map(str, g.seeds))}" for g in groups)
    lines["intervals"] = _intervals(groups, config, flips)
    return lines


def _protocol(config: EvalConfig) -> str:
    found = "its own case excluded" if config.group_exclusion == "case" else "only itself excluded"
    directions = ", ".join(direction.replace("-", " to ") for direction in config.directions)
    texts = "; a text stands for its image (concepts, labels, case)" if config.views[-1].crosses else ""
    return (
        f"{directions}; every image queries all others of the split, {found}{texts}; chance is the expectation of a "
        "random order; P@K: labelled images only, a query without the label drops out of the mean"
    )


def _features(config: EvalConfig) -> str:
    said = []
    if IMAGE_IMAGE in config.directions:
        kinds = [
            f"{kind} the projection" + (" (projected)" if kind == AFTER else "") for kind in config.features
        ]
        said.append(f"{' and '.join(kinds)}, image to image")
    if config.texts or config.zero_shot:
        said.append("after the projection wherever texts take part")
    return "; ".join(said)


def _pairs(data: RetrievalSet, config: EvalConfig) -> str:
    _, copies = np.unique(data.caption_codes, return_counts=True)
    shared = int(copies[copies > 1].sum())
    others = "those of other cases" if config.group_exclusion == "case" else "all others"
    return (
        f"Recall@K looks for the query's own caption or image among {others}; an equal caption is as right as its own "
        f"({shared:,} images share theirs); equal scores count against the model"
    )


def _intervals(groups: Sequence[RunGroup], config: EvalConfig, flips: int) -> str:
    text = (
        f"95 %, percentile bootstrap over cases, {config.draws} draws, seed {config.seed}; "
        f"p: paired sign-flip test over cases, {flips:,} flips; "
    )
    counts = {len(group.seeds) for group in groups}
    if counts == {1}:
        return text + "one trained model per run, so training noise is in neither"
    return text + (
        "scores averaged over a run's seeds before both: they tell how sure these trained models' mean is over cases, "
        "not what another seed would give; ± is the standard deviation between seeds"
        + (", none for a run of one seed" if 1 in counts else "")
    )
