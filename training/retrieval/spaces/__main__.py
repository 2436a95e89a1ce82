"""What spaces learned: ``python -m training.retrieval.spaces --store STORE --data-root DIR --run A --run B --out DIR``.

The targets and the learned similarities of two runs or more, and the queries whose retrieval changed most.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from kg_targets.store import TargetStore
from training.command import ArgumentParser, run_command
from training.data.sources import ImageSource, open_source
from training.errors import ConfigError
from training.folders import check_writable, writing
from training.nb_clip.config import POLICY_NAMES
from training.retrieval.config import FEATURES
from training.retrieval.options import add_store
from training.retrieval.outputs import Writers, is_current, write_outputs
from training.retrieval.runs import read_groups
from training.retrieval.spaces.changes import shown_labels
from training.retrieval.spaces.config import SpacesConfig
from training.retrieval.spaces.figure import similarity_figure
from training.retrieval.spaces.files import (
    LOSSES,
    MARKDOWN,
    NAMES,
    RESULT,
    SIMILARITY,
    WINS,
    spaces_key,
)
from training.retrieval.spaces.reading import Reading, read_spaces
from training.retrieval.spaces.render import as_markdown
from training.retrieval.spaces.report import (
    SpacesReport,
    as_json,
    describe_targets,
    make_report,
    picture_title,
)
from training.retrieval.spaces.sheets import Side, change_sheet
from training.retrieval.spaces.starts import check_one_start, read_configs, untrained


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = ArgumentParser("python -m training.retrieval.spaces", description=__doc__)
    add = command.add_argument
    add_store(command)
    add("--run", required=True, action="append", help="run folder, or NAME=FOLDER,FOLDER for several seeds of one "
        "configuration; two or more: the first is the baseline, the contact sheets show the second")  # fmt: skip
    add(
        "--out",
        required=True,
        help="folder for spaces.json, spaces.md, similarity.png, wins.png and losses.png",
    )
    add("--start", action="store_true", help="also show the untrained models that the runs started from")
    add(
        "--features",
        default="before",
        help=f"{' or '.join(FEATURES)} the projection, of image-image (default before)",
    )
    add("--measure", help="image-image measure of wins and losses, such as CUI@10 (default CUI@50)")
    add("--targets", help="store whose targets are described, such as the train store (default: --store)")
    add("--policy", help=f"its policy: {', '.join(POLICY_NAMES)} (default: the first run's that has one)")
    add("--batch-size", type=int, help="images of a batch of targets (default: the same run's)")
    add("--queries", type=int, default=6, help="largest wins, and losses, that are shown (default 6)")
    add("--draws", type=int, default=1000, help="bootstrap samples (default 1000)")
    add("--max-broken", type=int, default=0, help="unreadable images to skip (default 0)")
    add("--seed", type=int, default=0, help="of bootstrap, sampled pairs and batches (default 0)")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, write the files, say where; 2 for a user's error, 130 when interrupted."""
    return run_command(parser(), compare_spaces, arguments)


def compare_spaces(options: argparse.Namespace) -> None:
    """Everything that the command does.

    Raises:
        KGTargetsError: an option, a store, a run, an image or the output folder is not usable.
    """
    config, out = _read_config(options), Path(options.out)
    check_writable(out, "--out")
    if len(options.run) < 2:
        raise ConfigError("--run: name two runs or more, the baseline first")
    store = TargetStore.open(options.store)
    targets = TargetStore.open(options.targets) if options.targets else store
    runs = read_configs(read_groups(options.run))
    if config.start:
        check_one_start(runs)
    source = open_source(Path(options.data_root), store)
    groups = [run.group for run in runs]
    key = spaces_key(store.fingerprint, targets.fingerprint, source.digest(), groups, config)
    if is_current(out, key, RESULT):
        sys.stdout.write(f"{out}: up to date\n")
        return
    knowledge = describe_targets(targets, runs, config)
    with ExitStack() as stack:
        starts = [stack.enter_context(untrained(runs))] if config.start else []
        reading = read_spaces(store, source, [*groups, *starts], config, _say)
    report = make_report(reading, knowledge, runs, config)
    with writing(out, "--out"):
        writers = _writers(reading, report, source, config)
        write_outputs(out, writers, as_json(report), key, RESULT, NAMES)
    for name in NAMES:
        sys.stdout.write(f"wrote {out / name}\n")
    sys.stdout.write(
        f"{WINS} and {LOSSES} show images and captions of {store.dataset}: if those are private, do not share them\n"
    )


def _read_config(options: argparse.Namespace) -> SpacesConfig:
    return SpacesConfig(
        features=options.features,
        start=options.start,
        measure=options.measure,
        policy=options.policy,
        batch_size=options.batch_size,
        draws=options.draws,
        queries=options.queries,
        max_broken=options.max_broken,
        seed=options.seed,
    )


def _writers(reading: Reading, report: SpacesReport, source: ImageSource, config: SpacesConfig) -> Writers:
    """Every file but the JSON, with what writes it."""
    data, change = reading.data, report.changes[0]
    sides = [
        Side(name, reading.spaces[name].order, reading.spaces[name].score)
        for name in (report.baseline, change.name)
    ]
    header = report.header
    title = (
        f"{header['data']}: learned similarity and target similarity\n{len(reading.pairs):,} pairs of images with "
        f"concepts, own case excluded; {header['features']}\nbands: 95 %, bootstrap over cases; training seeds: "
        f"{header['training seeds']}"
    )

    def sheet(path: Path, gains: bool) -> None:
        queries = change.wins if gains else change.losses
        caption = picture_title(report, change, config, shown_labels(data.store.labels), gains)
        change_sheet(path, data, source, sides, queries, reading.measure, caption)

    def markdown(path: Path) -> None:
        path.write_text(as_markdown(report), encoding="utf-8")

    return {
        MARKDOWN: markdown,
        SIMILARITY: lambda path: similarity_figure(path, report.similarities, title),
        WINS: partial(sheet, gains=True),
        LOSSES: partial(sheet, gains=False),
    }


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
