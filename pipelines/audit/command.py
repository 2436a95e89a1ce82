"""``kg-targets evaluate concepts``: against hand-marked texts, a data set's own labels, or headings of reports."""

import argparse
import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kg_targets.errors import ConfigError
from pipelines.concepts import add_cache, writable_cache
from training.command import Work, add_json, print_json, write_line


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets evaluate concepts`."""
    parser.description = (
        "How well captions are read: against hand-marked captions (--gold), a data set's own labels, or the\n"
        "MeSH-style headings that annotators gave reports (--mesh)."
    )
    option = parser.add_argument
    option("dataset", nargs="?", help="data set with labels; with --mesh also a .csv, .tsv or .parquet file")
    option(
        "--gold", type=Path, help="hand-marked captions: .jsonl, PubTator (.txt, .pubtator) or a BRAT folder"
    )
    option(
        "--mesh",
        metavar="LABEL",
        help="label or column of headings, Heading/qualifier|…, such as mesh_labels",
    )
    option(
        "--text", default="", help="with --mesh: columns to join (default: findings,impression, else caption)"
    )
    option("--count-uncertain", action="store_true", help="with --mesh: what is held possible counts, too")
    option("--split", default=None, help="split of the data set (default: all) or of the gold file")
    option("--data-root", type=Path, default=None, help="folder of its files (default: data/<data set>)")
    option("--ontology", default="seed", help="as for build")
    add_cache(parser)
    option("--extractor", default="dictionary", help="as for build")
    option("--extractor-options", default="", help="as for build")
    option("--errors", type=int, default=10, help="disagreements to list, ≥ 0")
    option("--seed", type=int, default=0, help="of the bootstrap")
    add_json(parser)
    return _evaluate


def _evaluate(options: argparse.Namespace) -> None:
    from kg_targets.ontology import load_ontology
    from pipelines.audit.concepts import gold_evaluation, gold_lines, label_lines, label_report
    from pipelines.audit.findings import finding_lines, finding_report
    from pipelines.audit.reports import read_reports
    from pipelines.build.extractors import check_extractor, make_extractor

    if (options.dataset is None) == (options.gold is None):
        raise ConfigError("say either a data set or --gold FILE: kg-targets evaluate concepts medpix")
    if options.gold is not None and options.mesh is not None:
        raise ConfigError("--gold and --mesh contradict each other: drop one of them")
    check_extractor(options.extractor, options.extractor_options)
    ontology = load_ontology(options.ontology, writable_cache(options.cache))
    extractor = make_extractor(options.extractor, ontology, options.extractor_options)
    if options.gold is not None:
        found = gold_evaluation(options.gold, options.split, extractor, ontology, options.seed)
        title = f"{options.gold.name}, {options.split or 'all splits'}"
        content = {"file": title, "seed": options.seed, **dataclasses.asdict(found)}
        _show(options.json, content, gold_lines(found, title, options.errors, options.seed))
    elif options.mesh is not None:
        reports = read_reports(options.dataset, options.text, options.split, options.data_root)
        for note in reports.notes:
            write_line(f"note: {note}")
        counted, errors = options.count_uncertain, options.errors
        one = finding_report(reports, options.mesh, ontology, extractor, counted, errors, options.seed)
        _show(options.json, one, finding_lines(one))
    else:
        from kg_targets.manifest import Manifest

        manifest = Manifest.load(options.dataset)
        root = options.data_root or manifest.default_root
        splits = [options.split] if options.split else manifest.present_splits(root) or [manifest.fit_split]
        each = (
            label_report(
                manifest, split, list(manifest.records(split, root)), extractor, ontology, options.errors, options.seed
            )
            for split in splits
        )  # fmt: skip
        if options.json:
            _show(True, [*each], ())
        for report in () if options.json else each:
            _show(False, report, label_lines(report))


def _show(as_json: bool, content: Any, lines: Iterable[str]) -> None:
    from training.statistics.intervals import nan_to_null

    if as_json:
        print_json(nan_to_null(content))
        return
    for line in lines:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
