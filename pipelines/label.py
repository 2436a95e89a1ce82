"""``kg-targets label``: a table of reports × findings, present, uncertain, absent or not mentioned."""

import argparse
import sys
import time
from pathlib import Path

from kg_targets.errors import ConfigError, printable
from pipelines.concepts import add_cache, writable_cache
from training.command import Work, write_line

CHUNK = 4096
"""Texts read at a time."""


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets label`."""
    parser.description = (
        "What each report says of each finding: present, uncertain, absent, or empty where it is not mentioned.\n"
        "For instance: kg-targets label reports.csv --findings chexpert --out labels.parquet"
    )
    option = parser.add_argument
    option("source", help="a .csv, .tsv or .parquet file, or a data set: a name, or the path of a manifest")
    option("--out", type=Path, required=True, help="file to write, .csv or .parquet")
    option("--findings", default="chexpert", help="chexpert, mesh, or CUIs joined by commas")
    option(
        "--text",
        default="",
        help="columns to join (default: findings,impression, else caption, text or report)",
    )
    option("--split", default=None, help="of a data set (default: all)")
    option("--data-root", type=Path, default=None, help="folder of its files (default: data/<data set>)")
    option("--ontology", default="seed", help="as for build")
    add_cache(parser)
    return _label


def _label(options: argparse.Namespace) -> None:
    import numpy as np
    import pandas as pd

    from kg_targets.concepts.annotate import named_extractor
    from kg_targets.concepts.findings import NO_FINDING, STATES, findings, mark_normal, no_finding, states
    from kg_targets.ontology import load_ontology
    from kg_targets.store.schema import writing
    from pipelines.audit.reports import read_reports

    if options.out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out {options.out} must end in .csv or .parquet")
    ontology = load_ontology(options.ontology, writable_cache(options.cache))
    extractor = named_extractor("dictionary", ontology)
    listed = findings(options.findings, ontology, extractor)
    reports = read_reports(options.source, options.text, options.split, options.data_root)
    for note in reports.notes:
        write_line(f"note: {note}")
    start = time.perf_counter()
    parts = [
        states(extractor.extract(reports.texts[row : row + CHUNK]), listed, ontology)
        for row in range(0, len(reports.texts), CHUNK)
    ]
    seconds = time.perf_counter() - start
    table = np.concatenate([np.zeros((0, len(listed)), np.int8), *parts])
    mark_normal(table, reports.texts, listed)
    columns = {finding.name: table[:, at] for at, finding in enumerate(listed)}
    if options.findings == "chexpert":
        columns = {NO_FINDING: no_finding(table, reports.texts, listed), **columns}
    frame = pd.DataFrame({name: np.asarray(STATES)[column] for name, column in columns.items()})
    frame.insert(0, "id", reports.ids)
    partial = options.out.with_name(f"{options.out.name}.partial")
    with writing(options.out):
        options.out.parent.mkdir(parents=True, exist_ok=True)
        if options.out.suffix == ".csv":
            frame.to_csv(partial, index=False, lineterminator="\n")
        else:
            frame.to_parquet(partial, index=False)
        partial.replace(options.out)
    counts = ", ".join(
        f"{name} {int((column == len(STATES) - 1).sum()):,}" for name, column in columns.items()
    )
    sys.stdout.write(
        f"{options.out}: {len(frame):,} reports × {len(columns)} findings, "
        f"{len(frame) / max(seconds, 1e-9):,.0f} a second\n"
        f"  present: {counts}\n"
    )
    if reports.columns:
        sys.stdout.write(f"  read: {printable(', '.join(reports.columns))}\n")
    lacking = [finding.name for finding in listed if not finding.cuis]
    if lacking:
        sys.stdout.write(f"  the ontology has no concept for: {', '.join(lacking)}\n")
