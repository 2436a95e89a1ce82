"""Evaluate runs: ``python -m training.retrieval --store STORE --data-root DIR --run RUN [--run RUN …] --out DIR``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from kg_targets.store import TargetStore
from training.command import ArgumentParser, run_command
from training.data.sources import ImageSource, open_source
from training.folders import check_writable, writing
from training.retrieval import outputs
from training.retrieval.config import IMAGE_TEXT, EvalConfig
from training.retrieval.evaluation import Plan, RunResult, evaluate_runs, report_of
from training.retrieval.features import RetrievalSet
from training.retrieval.metrics import label_codes
from training.retrieval.options import add_measures, add_store, read_config
from training.retrieval.pictures import choose_queries, contact_sheet, target_block
from training.retrieval.runs import read_groups
from training.retrieval.sheets import image_sheet, text_sheet
from training.retrieval.tables import as_json, as_markdown, as_text

MAX_RUNS_SHOWN = 4
"""Runs beside one another in a picture; more would be too wide to look at."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = ArgumentParser("python -m training.retrieval", description=__doc__)
    add_store(command)
    command.add_argument(
        "--run", required=True, action="append", help="run folder, or NAME=FOLDER,FOLDER for several seeds of one "
        "configuration; repeat it, the first is the baseline",
    )  # fmt: skip
    command.add_argument("--out", required=True, help="folder for retrieval.json, .md, .txt and pictures")
    add_measures(command)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, print the table, write the report; 2 for a user's error, 130 when interrupted."""
    return run_command(parser(), evaluate, arguments)


def evaluate(options: argparse.Namespace) -> None:
    """Everything that the command does.

    Raises:
        KGTargetsError: an option, a store, a run, an image or the output folder is not usable.
    """
    config, out = read_config(options), Path(options.out)
    check_writable(out, "--out")
    store = TargetStore.open(options.store)
    plan = Plan.of(store, config)
    groups = read_groups(options.run)
    source = open_source(Path(options.data_root), store)
    key = outputs.evaluation_key(store.fingerprint, source.digest(), groups, config)
    if outputs.is_current(out, key):
        sys.stdout.write(f"{(out / outputs.TABLE).read_text(encoding='utf-8')}{out}: up to date\n")
        return
    data, results = evaluate_runs(store, source, groups, plan, say=_say)
    report = report_of(data, results, plan)
    writers = {
        outputs.MARKDOWN: lambda path: path.write_text(as_markdown(report), encoding="utf-8"),
        outputs.TABLE: lambda path: path.write_text(as_text(report), encoding="utf-8"),
        **pictures(data, source, results, config),
    }
    with writing(out, "--out"):
        written = outputs.write_outputs(out, writers, as_json(report), key)
    sys.stdout.write(as_text(report))
    for name in written:
        sys.stdout.write(f"wrote {out / name}\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def pictures(
    data: RetrievalSet, source: ImageSource, results: Sequence[RunResult], config: EvalConfig
) -> outputs.Writers:
    """The pictures of the directions evaluated, each with what draws it."""
    store = data.store
    labels = _shown_labels(store.labels)
    codes = label_codes(*(data.label(name) for name in labels)) if labels else data.cases
    if not (codes >= 0).any():  # no image has all of the labels
        codes = data.cases
    queries = choose_queries(codes, min(config.queries, len(codes)), config.seed)
    agreement = f"green: same {', '.join(labels)}; amber: some of them; red: none" if labels else "no labels"
    found = "own case excluded" if config.group_exclusion == "case" else "only the query itself excluded"
    seeds = "; first seed of each run" if any(len(result.group.seeds) > 1 for result in results) else ""
    shown = results[:MAX_RUNS_SHOWN]
    writers: dict[str, Callable[[Path], None]] = {}
    for view in reversed(config.views):  # reversed: of both kinds of features, the first one is shown
        lists = {result.group.name: result.shown[view] for result in shown}
        title = f"{store.dataset}/{store.split}: {view.title}\nrandom queries and the first found, {found}; {agreement}"
        if not view.crosses:
            orders = {name: one.order for name, one in lists.items()}
            writers[outputs.IMAGES] = partial(
                contact_sheet, data=data, source=source, orders=orders, queries=queries, labels=labels,
                title=title + seeds,
            )  # fmt: skip
        else:
            to_text = view.direction == IMAGE_TEXT
            writers[outputs.TEXTS if to_text else outputs.FROM_TEXTS] = partial(
                text_sheet if to_text else image_sheet, data=data, source=source, shown=lists, queries=queries,
                labels=labels, title=f"{title}; blue: its own{seeds}",
            )  # fmt: skip
    by = next((name for name in ("region", "finding", *store.labels) if name in store.labels), None)
    writers[outputs.BLOCK] = lambda path: target_block(path, store, by, seed=config.seed)
    return dict(reversed(writers.items()))


def _shown_labels(available: Sequence[str]) -> tuple[str, ...]:
    """At most three labels to judge pictures by: the familiar ones where they exist."""
    familiar = tuple(name for name in ("modality", "region", "finding") if name in available)
    return familiar or tuple(available[:3])


if __name__ == "__main__":
    sys.exit(main())
