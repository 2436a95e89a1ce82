"""``kg-targets evaluate targets``: how good are the targets of a store, measured without training on them.

Seven sections: neighbours that share a label (``agreement``), concepts that can be put back after hiding them
(``recovery``), the shape of the target rows (``shape``), images of one case, the most similar images of different cases
(both ``pairs``), neighbours that stores have in common (``stability``), and neighbours whose case has a similar text
(``case_text``). What each number means: docs/evaluate-targets.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kg_targets.errors import DataError
from kg_targets.store import with_labels
from pipelines.audit.agreement import agreement_section
from pipelines.audit.case_text import text_section
from pipelines.audit.pairs import pairs_section, separation_section
from pipelines.audit.recovery import recovery_section
from pipelines.audit.report import Section
from pipelines.audit.shape import shape_section
from pipelines.audit.stability import stability_section
from pipelines.audit.subjects import EvaluationSettings, Subjects, in_half, open_subjects
from pipelines.build.executors import Say
from training.folders import check_writable, write_text
from training.statistics.intervals import nan_to_null

SECTIONS: tuple[Callable[[Subjects, EvaluationSettings], Section], ...] = (
    agreement_section,
    recovery_section,
    shape_section,
    separation_section,
    pairs_section,
    stability_section,
    text_section,
)


def evaluate_targets(
    paths: Sequence[str | Path],
    settings: EvaluationSettings,
    say: Say,
    markdown_file: Path | None = None,
    label_table: Path | None = None,
    text_table: Path | None = None,
) -> dict[str, Any]:
    """Score stores side by side, without training; the first is the reference of the paired differences.

    Args:
        paths: folders of stores over the same images in the same order.
        say: receives the report piece by piece.
        markdown_file: receives the tables, without captions.
        label_table: further labels, see `kg_targets.store.labels`.
        text_table: longer texts of the images or their cases, in the same form.

    Returns:
        Every number, for ``--json``; captions of the most similar pairs included.

    Raises:
        KGTargetsError: the stores cannot be compared or scored, or an output file cannot be written.
    """
    if markdown_file is not None and markdown_file.is_dir():
        raise DataError(f"{markdown_file} is a folder: name a file in it")
    if markdown_file is not None:
        check_writable(markdown_file.parent, "--markdown")
    subjects = open_subjects(paths)
    head = _head(subjects, settings)
    if label_table is not None:
        store, joined = with_labels(subjects.reference, label_table)
        subjects = Subjects((store, *subjects.stores[1:]))
        head.append(joined)
    if text_table is not None:
        texts, joined = with_labels(subjects.reference, text_table)
        subjects = replace(subjects, texts=texts.joined)
        head.append(joined)
    say("\n".join(head) + "\n")
    sections: list[Section] = []
    for make in SECTIONS:
        sections.append(make(subjects, settings))
        say(sections[-1].text(len(sections)))
    content = {
        "dataset": subjects.reference.dataset,
        "split": subjects.reference.split,
        "images": len(subjects.reference),
        "cases": subjects.case_count,
        "seed": settings.seed,
        "bootstrap_draws": settings.bootstrap,
        "sign_flips": settings.flips,
        "half": settings.half,
        "stores": subjects.described(),
        "sections": {section.name: {"notes": list(section.lines), **section.data} for section in sections},
    }
    title = f"# Targets of {content['dataset']}/{content['split']}, scored without training\n"
    parts = [section.markdown(number) for number, section in enumerate(sections, 1)]
    if markdown_file is not None:
        page = "\n".join([title, *(f"- {line}" for line in head), "", *parts])
        write_text(markdown_file, page, "--markdown")
    return dict(nan_to_null(content))


def _head(subjects: Subjects, settings: EvaluationSettings) -> list[str]:
    store = subjects.reference
    lines = [
        f"{store.dataset}/{store.split}: {len(store):,} images, {subjects.case_count:,} cases; seed {settings.seed}",
        f"[low, high]: 95 % percentile bootstrap over cases, {settings.bootstrap:,} draws, t below 200 cases",
    ]
    if settings.half != "all":
        inside = np.unique(subjects.cases[in_half(subjects.cases, settings.half)])
        lines.append(
            f"queries: the {settings.half} half of the cases, {len(inside):,}; neighbours: all images"
        )
    if len(subjects.stores) > 1:
        lines.append(
            "differences are to [1]; p: paired sign-flip test over cases against it, "
            f"{settings.flips:,} flips; * = below 0.05 after Holm's correction over the section"
        )
    for number, entry in enumerate(subjects.described(), 1):
        hops = "" if entry["max_hops"] is None else f" within {entry['max_hops']} hop(s)"
        edges = f"with is_a{hops}" if entry["use_ontology"] else "without is_a"
        how = f"{entry['settings']}, " if entry["settings"] else ""
        lines.append(
            f"[{number}] {entry['store']}: scorer {entry['scorer']}, {edges}, {how}{entry['ontology']}, extractor "
            f"{entry['extractor']}, fitted on {entry['fitted_on']}, θ {entry['threshold']:.3f}, "
            f"{entry['unknown_images']:,} unknown images; {entry['bytes_per_image']:,.0f} bytes an image, built in "
            f"{entry['build_seconds']:.1f} s"
        )
    return lines
