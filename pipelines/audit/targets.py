"""``kg-targets evaluate-targets``: how good are the targets of a store, measured without training on them.

Five sections: neighbours that share a label (``agreement``), concepts that can be put back after hiding them
(``recovery``), the shape of the target rows (``shape``), images of one case, and the most similar images of different
cases (both ``pairs``). What each number means: docs/evaluate-targets.md.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kg_targets.errors import DataError
from pipelines.audit.agreement import agreement_section
from pipelines.audit.pairs import pairs_section, separation_section
from pipelines.audit.recovery import recovery_section
from pipelines.audit.report import Section, to_json
from pipelines.audit.shape import shape_section
from pipelines.audit.subjects import EvaluationSettings, Subjects, open_subjects
from pipelines.build.executors import Say

SECTIONS: tuple[Callable[[Subjects, EvaluationSettings], Section], ...] = (
    agreement_section,
    recovery_section,
    shape_section,
    separation_section,
    pairs_section,
)


def evaluate_targets(
    paths: Sequence[str | Path],
    settings: EvaluationSettings,
    say: Say,
    json_file: Path | None = None,
    markdown_file: Path | None = None,
) -> dict[str, Any]:
    """Score stores side by side, without training; the first is the reference of the paired differences.

    Args:
        paths: folders of stores over the same images in the same order.
        say: receives the report piece by piece.
        json_file: receives everything, captions of the most similar pairs included.
        markdown_file: receives the tables, without captions.

    Returns:
        What ``json_file`` holds.

    Raises:
        KGTargetsError: the stores cannot be compared or scored, or an output file cannot be written.
    """
    for file in (json_file, markdown_file):
        _prepare(file)
    subjects = open_subjects(paths)
    head = _head(subjects, settings)
    say("\n".join(head) + "\n")
    sections = []
    for number, make in enumerate(SECTIONS, 1):
        section = make(subjects, settings)
        sections.append(section)
        say(section.text(number))
    content = {
        "dataset": subjects.reference.dataset,
        "split": subjects.reference.split,
        "images": len(subjects.reference),
        "cases": subjects.case_count,
        "seed": settings.seed,
        "bootstrap_draws": settings.bootstrap,
        "sign_flips": settings.flips,
        "stores": subjects.described(),
        "sections": {section.name: {"notes": list(section.lines), **section.data} for section in sections},
    }
    title = f"# Targets of {content['dataset']}/{content['split']}, scored without training\n"
    parts = [section.markdown(number) for number, section in enumerate(sections, 1)]
    _write(json_file, to_json(content))
    _write(markdown_file, "\n".join([title, *(f"- {line}" for line in head), "", *parts]))
    return content


def _head(subjects: Subjects, settings: EvaluationSettings) -> list[str]:
    store = subjects.reference
    lines = [
        f"{store.dataset}/{store.split}: {len(store):,} images, {subjects.case_count:,} cases; seed {settings.seed}",
        f"[low, high]: 95 % percentile bootstrap over cases, {settings.bootstrap:,} draws",
    ]
    if len(subjects.stores) > 1:
        lines.append(
            f"p: paired sign-flip test over cases against [1], {settings.flips:,} flips; * = below 0.05 after Holm's "
            "correction over the section"
        )
    for number, entry in enumerate(subjects.described(), 1):
        hops = "" if entry["max_hops"] is None else f" within {entry['max_hops']} hop(s)"
        edges = f"with is_a{hops}" if entry["use_ontology"] else "without is_a"
        lines.append(
            f"[{number}] {entry['store']}: scorer {entry['scorer']}, {edges}, {entry['ontology']}, extractor "
            f"{entry['extractor']}, fitted on {entry['fitted_on']}, θ {entry['threshold']:.3f}, "
            f"{entry['unknown_images']:,} unknown images"
        )
    return lines


def _prepare(file: Path | None) -> None:
    """Find out before the work whether the file can be written after it."""
    if file is None:
        return
    if file.is_dir():
        raise DataError(f"{file} is a folder: name a file in it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{file.parent} cannot be made ({error.strerror}): choose another place") from error


def _write(file: Path | None, text: str) -> None:
    if file is None:
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file} cannot be written ({error.strerror}): choose another place") from error
