"""Every query's retrieval scores of one run, as a Parquet file: a score sheet."""

import argparse
import json
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from training.command import Work
from training.data.decode import BrokenImage
from training.data.sources import ImageSource, open_source
from training.errors import DataError
from training.folders import check_writable
from training.retrieval.config import EvalConfig, add_measures, add_store, read_config
from training.retrieval.evaluation import Plan, evaluate_runs
from training.retrieval.features import RetrievalSet
from training.retrieval.measures import Measures, measure_chance
from training.retrieval.runs import CHANCE, read_groups
from training.retrieval.score_sheets import (
    CLASSES,
    ScoreSheet,
    Value,
    case_names,
    pool,
    read_sheet,
    write_sheet,
)

__all__ = ["ScoreSheet", "pool", "read_sheet", "score_chance", "score_run", "write_sheet"]


def score_run(store: TargetStore, source: ImageSource, run: Path, config: EvalConfig) -> ScoreSheet:
    """Every query's score by one finished run: what ``kg-targets evaluate retrieval`` takes its means of.

    Args:
        store: captions, labels and concepts; its readable images are queries and gallery at once.
        source: its images.
        run: folder of a finished training run.
        config: measures and protocol; what concerns intervals and pictures plays no part.

    Raises:
        KGTargetsError: the run, an option or an image is not usable.
    """
    plan = Plan.of(store, config)
    groups = read_groups([str(run)])
    data, (result,) = evaluate_runs(store, source, groups, plan)
    (key,), (seed,), (measures,) = result.group.keys, result.group.seeds, result.measures
    return _sheet(data, measures, plan, {"run": key, "training seed": seed})


def score_chance(store: TargetStore, source: ImageSource, config: EvalConfig) -> ScoreSheet:
    """Expected scores of a gallery in random order, of the same queries as ``score_run``.

    Raises:
        KGTargetsError: an option is not possible, or images are broken beyond ``config.max_broken``.
    """
    plan = Plan.of(store, config)
    data = RetrievalSet(store, _readable(source, config.max_broken))
    measures = measure_chance(data, plan.labels, config, plan.tasks)
    return _sheet(data, measures, plan, {"run": CHANCE})


def _readable(source: ImageSource, max_broken: int) -> NDArray[np.int64]:
    """Store rows that a model would be shown; without an allowance for broken images it is all or an error."""
    rows = source.check_present(max_broken, "--max-broken")
    if not max_broken:
        return rows
    good = []
    for row in rows.tolist():
        with suppress(BrokenImage):
            source.read(row)
            good.append(row)
    broken = len(source.store) - len(good)
    if broken > max_broken:
        raise DataError(f"{broken} broken image(s), {max_broken} allowed (--max-broken)")
    return np.array(good, dtype=np.int64)


def _sheet(data: RetrievalSet, measures: Measures, plan: Plan, model: dict[str, Value]) -> ScoreSheet:
    store, config = data.store, plan.config
    _, sizes = np.unique(data.excluded(config.group_exclusion), return_counts=True)
    images = len(data.rows)
    metadata: dict[str, Value] = {
        "dataset": store.dataset,
        "split": store.split,
        "store": store.fingerprint,
        **model,
        "features": ", ".join(config.features),
        "exclusion": config.group_exclusion,
        "images": images,
        "cases": len(np.unique(data.cases)),
        "gallery": images - float((sizes**2).sum()) / images,
        "torch": version("torch"),
        "open_clip": version("open_clip_torch"),
        **{f"{CLASSES}{task.label}": json.dumps(task.classes, ensure_ascii=False) for task in plan.tasks},
    }
    ids, groups = store.image_ids, store.group_ids
    kept = [ids[row] for row in data.rows]
    return ScoreSheet(kept, case_names(kept, [groups[row] for row in data.rows]), measures, metadata)


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets score-sheet`."""
    parser.description = __doc__
    add_store(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", help="folder of a finished training run")
    which.add_argument("--chance", action="store_true", help="what a random order is expected to score")
    parser.add_argument("--out", required=True, help="Parquet file to write")
    add_measures(parser)
    return _score


def _score(options: argparse.Namespace) -> None:
    config, out = read_config(options), Path(options.out)
    if out.is_dir():
        raise DataError(f"--out {out} is a folder: name a file")
    check_writable(out.absolute().parent, "--out")
    store = TargetStore.open(options.store)
    source = open_source(Path(options.data_root), store)
    sheet = (
        score_chance(store, source, config)
        if options.chance
        else score_run(store, source, Path(options.run), config)
    )
    write_sheet(out, sheet)
    sys.stdout.write(f"wrote {out}: {len(sheet.image_ids):,} queries, {len(sheet.measures)} measures\n")
