"""The last stage: predictions of a grid to ``report.json`` (everything, shares of 1), ``report.md`` and its plot."""

import os
from pathlib import Path

from pipelines.audit.report import to_json
from pipelines.vqa_tables.figure import draw
from pipelines.vqa_tables.page import command_of, fingerprint, page, panels
from pipelines.vqa_tables.paper import TEACHERS
from pipelines.vqa_tables.plan import Plan
from pipelines.vqa_tables.results import Results, as_dict, results_of
from training.folders import write_text, writing

REPORT, PART = "report", "part"
"""Names of the files, and of those of some rows only."""


def write_report(plan: Plan, docs: Path | None = None) -> list[Path]:
    """Compare the predictions of a finished grid.

    Args:
        plan: what was run; with ``only``, the files have names of their own.
        docs: Markdown file that gets the page, too; a plot stands beside it.

    Returns:
        The files written.

    Raises:
        DataError: predictions are damaged or do not fit together.
        CheckpointError: a file cannot be written.
    """
    results = results_of(plan)
    name = PART if plan.only else REPORT
    content = {
        "grid": plan.grid.name,
        "fingerprint": fingerprint(plan.grid),
        "title": plan.grid.title,
        "command": command_of(plan),
        "seeds": plan.grid.seeds,
        "pretrain_seeds": plan.grid.pretrain_seeds,
        "baseline": plan.grid.baseline,
        "titles": {row.name: row.title for row in plan.asked},
        "paper": {row.name: TEACHERS[row.paper] for row in plan.asked if row.paper is not None},
        "not_run": {row: {"needs": path, "how": how} for row, (path, how) in plan.absent.items()},
        "points": {row.name: row.point.x for row in plan.rows if row.point is not None},
        **as_dict(results),
    }
    write_text(plan.out / f"{name}.json", to_json(content))
    written = [plan.out / f"{name}.json"]
    for file, option in [(plan.out / f"{name}.md", "--out"), *([(docs, "--docs")] if docs else [])]:
        picture = file.with_suffix(".png") if plan.grid.plot is not None else None
        if picture is not None:
            _write_picture(picture, plan, results, option)
            written.append(picture)
        write_text(file, page(plan, results, picture.name if picture else None), option)
        written.append(file)
    return written


def _write_picture(path: Path, plan: Plan, results: Results, option: str) -> None:
    """The grid's plot, by atomic rename."""
    plot, partial = plan.grid.plot, path.with_name(path.name + ".partial")
    if plot is None:
        return
    with writing(path, option):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        try:
            draw(partial, panels(plan, results), plan.grid.title, plot)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
