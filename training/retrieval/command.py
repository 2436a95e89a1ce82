"""Retrieval by finished training runs, side by side: CUI@K, P@K, paired recall, with intervals and pictures."""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kg_targets.store import TargetStore, with_labels
from training.command import Work, add_json, write_line
from training.data.config import LONG_CAPTIONS
from training.data.sources import ImageSource, open_source
from training.folders import check_writable, write_json, writing
from training.retrieval.config import IMAGE_TEXT, EvalConfig, add_measures, add_store, read_config
from training.retrieval.evaluation import Plan, RunResult, evaluate_runs, report_of
from training.retrieval.features import RetrievalSet
from training.retrieval.metrics import label_codes
from training.retrieval.pictures import Sheet, choose_queries, target_block
from training.retrieval.report import as_json, as_markdown, as_text
from training.retrieval.runs import RunGroup, read_groups
from training.statistics.intervals import nan_to_null

MAX_RUNS_SHOWN = 4
"""Runs beside one another in a picture; more would be too wide to look at."""
_LABELS_SHOWN = 3
"""Labels below a picture."""

RESULT = "retrieval.json"
TABLE = "retrieval.txt"
MARKDOWN = "retrieval.md"
IMAGES = "contact_sheet.png"
TEXTS = "image_to_text.png"
FROM_TEXTS = "text_to_image.png"
BLOCK = "target_block.png"
OUTPUTS = (RESULT, MARKDOWN, TABLE, IMAGES, TEXTS, FROM_TEXTS, BLOCK)
"""Everything that an evaluation may write; which pictures it does depends on its directions."""

FORMAT = 2
"""Version of RESULT; an evaluation in another one is done again."""

Writers = Mapping[str, Callable[[Path], None]]
"""File name to what writes the file at a path."""


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets evaluate retrieval`."""
    parser.description = __doc__
    add_store(parser)
    parser.add_argument(
        "--run", required=True, action="append", help="run folder, or NAME=FOLDER,FOLDER for several seeds of one "
        "configuration; repeat it, the first is the baseline",
    )  # fmt: skip
    parser.add_argument("--out", required=True, help="folder for retrieval.json, .md, .txt and pictures")
    parser.add_argument(
        "--label-table", type=Path, default=None, help="further labels by image_id or group_id, as from label"
    )
    add_measures(parser)
    add_json(parser)
    return evaluate


def evaluate(options: argparse.Namespace) -> None:
    """Everything that the command does.

    Raises:
        KGTargetsError: an option, a store, a run, an image or the output folder is not usable.
    """
    config, out = read_config(options), Path(options.out)
    check_writable(out, "--out")
    store = TargetStore.open(options.store)
    content = store.fingerprint
    if options.label_table is not None:
        store, joined = with_labels(store, options.label_table)
        write_line(joined)
        content += hashlib.sha256(options.label_table.read_bytes()).hexdigest()
    plan = Plan.of(store, config)
    groups = read_groups(options.run)
    source = open_source(Path(options.data_root), store)
    key = evaluation_key(content, source.digest(), groups, config)
    if is_current(out, key):
        _report(out, f"{out}: up to date\n", options.json)
        return
    data, results = evaluate_runs(store, source, groups, plan, say=write_line)
    report = report_of(data, results, plan)
    writers = {
        MARKDOWN: lambda path: path.write_text(as_markdown(report), encoding="utf-8"),
        TABLE: lambda path: path.write_text(as_text(report), encoding="utf-8"),
        **pictures(data, source, results, config),
    }
    with writing(out, "--out"):
        written = write_outputs(out, writers, as_json(report), key)
    _report(out, "".join(f"wrote {out / name}\n" for name in written), options.json)


def _report(out: Path, state: str, as_json: bool) -> None:
    text = (out / (RESULT if as_json else TABLE)).read_text(encoding="utf-8")
    sys.stdout.write(text if as_json else text + state)


def pictures(
    data: RetrievalSet, source: ImageSource, results: Sequence[RunResult], config: EvalConfig
) -> Writers:
    """The pictures of the directions evaluated, each with what draws it."""
    store = data.store
    labels = _shown_labels(store.labels, config.labels)
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
        title += f"; blue: its own{seeds}" if view.crosses else seeds
        sheet = Sheet(data, source, lists, queries, labels, title)
        if not view.crosses:
            writers[IMAGES] = sheet.image_to_image
        elif view.direction == IMAGE_TEXT:
            writers[TEXTS] = sheet.image_to_text
        else:
            writers[FROM_TEXTS] = sheet.text_to_image
    by = next(
        (
            name
            for name in (*(labels if config.labels else ()), "region", "finding", *store.labels)
            if name in store.labels
        ),
        None,
    )
    writers[BLOCK] = lambda path: target_block(path, store, by, seed=config.seed)
    return dict(reversed(writers.items()))


def _shown_labels(available: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """At most three labels to judge pictures by: those of ``--labels``, else the familiar ones where they exist."""
    if wanted:
        return tuple(dict.fromkeys("+".join(wanted).split("+")))[:_LABELS_SHOWN]
    familiar = tuple(name for name in ("modality", "region", "finding") if name in available)
    return familiar or tuple(available[:_LABELS_SHOWN])


def evaluation_key(
    store_fingerprint: str, images: str, groups: Sequence[RunGroup], config: EvalConfig
) -> str:
    """Tells one evaluation from another: store, images, finished runs and options, each by its content."""
    digest = hashlib.sha256(f"{FORMAT}\n{store_fingerprint}\n{images}".encode())
    for group in groups:
        for run_key in group.keys:
            digest.update(f"\n{group.name}\n{run_key}".encode())
        if group.long_captions != LONG_CAPTIONS[0]:  # former evaluations truncated
            digest.update(f"\n{group.long_captions}".encode())
    digest.update(json.dumps(asdict(config), sort_keys=True).encode())
    return digest.hexdigest()


def is_current(out: Path, key: str) -> bool:
    """Whether ``out`` holds this very evaluation, with all its files."""
    try:
        written = json.loads((out / RESULT).read_text(encoding="utf-8"))
        return bool(written["key"] == key) and all((out / name).is_file() for name in written["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_outputs(out: Path, writers: Writers, result: dict[str, Any], key: str) -> list[str]:
    """Write the files and RESULT: made in a folder beside ``out``, and moved in once all are there.

    Args:
        out: folder, made if missing; files of ours from another evaluation go away, others stay.
        writers: every file but RESULT.
        result: content of RESULT.
        key: see ``evaluation_key``.

    Returns:
        The names written.
    """
    names = [*writers, RESULT]
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{Path(RESULT).stem}-", dir=out.absolute().parent) as made_in:
        made = Path(made_in)
        for file, write in writers.items():
            write(made / file)
        write_json(made / RESULT, {**nan_to_null(result), "files": names, "key": key})
        out.mkdir(exist_ok=True)
        # Away first and back last: its presence says that everything else is there and of the same evaluation.
        (out / RESULT).unlink(missing_ok=True)
        for file in OUTPUTS:
            if file not in names:
                (out / file).unlink(missing_ok=True)
        for file in names:
            shutil.move(made / file, out / file)
    return names
