"""A Med-VQA grid's report as Markdown: what was done, our rows beside the paper's, tests, and the whole comparison."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from kg_targets.manifest import Manifest
from pipelines.audit.report import Table
from pipelines.tables.commands import grid_command
from pipelines.vqa_tables.figure import Panel
from pipelines.vqa_tables.grid import Grid, Row
from pipelines.vqa_tables.paper import SOURCE, TEACHERS
from pipelines.vqa_tables.plan import Plan
from pipelines.vqa_tables.results import DRAWS, Results
from training.statistics.intervals import per_cent
from training.statistics.paired_tests import p_text
from training.vqa.compare import as_markdown
from training.vqa.comparison import Table as Compared
from training.vqa.scores import FLOOR, OVERALL, Accuracy

DEFAULT_OUT = Path("build/vqa_tables")


def page(plan: Plan, results: Results, picture: str | None) -> str:
    """The report.

    Args:
        plan: what was run.
        results: its numbers.
        picture: name of the plot's file beside the page; ``None`` without a plot.
    """
    parts: list[tuple[str, Callable[[], list[str]]]] = [
        ("Beside the paper", lambda: _paper(plan, results)),
        (
            f"Accuracy over {plan.grid.plot.x}" if plan.grid.plot else "",
            lambda: _plot(plan, results, picture),
        ),
        ("Against the baseline", lambda: _against(plan, results)),
        ("Rows", lambda: _rows(plan, results)),
        ("Not run", lambda: _absent(plan)),
    ]
    lines = [f"# {plan.grid.title}", "", *_header(plan, results), ""]
    for title, make in parts:
        made = make()
        lines += [f"## {title}", "", *made, ""] if made else []
    comparison = as_markdown(results.tables, DRAWS).split("\n", 2)[2]  # without its title
    return "\n".join([*lines, comparison])


def fingerprint(grid: Grid) -> str:
    """sha256 of what the grid says and of its configurations; where files lie plays no part."""
    bases = [grid.base, *(stage.base for row in grid.rows.values() for stage in row.pretrain)]
    rows = {
        name: replace(
            row, pretrain=tuple(replace(stage, base=Path(stage.base.name)) for stage in row.pretrain)
        )
        for name, row in grid.rows.items()
    }
    nowhere = Path()
    bare = replace(grid, path=nowhere, data_root=nowhere, default_root=nowhere, base=nowhere, rows=rows)
    digest = hashlib.sha256(json.dumps(asdict(bare), sort_keys=True, default=str).encode())
    for base in dict.fromkeys(bases):
        digest.update(base.read_bytes())
    return digest.hexdigest()


def command_of(plan: Plan, row: Row | None = None) -> str:
    """What makes everything, or one row, again."""
    grid = plan.grid
    whole = grid_command(
        "pipelines.vqa_tables",
        grid.path,
        (grid.data_root, grid.default_root),
        plan.out,
        DEFAULT_OUT,
        plan.threads,
    )
    return whole if row is None else f"{whole} --only {row.name}"


def panels(plan: Plan, results: Results) -> list[Panel]:
    """What the plot shows, a panel for each table."""
    return [
        Panel(
            _protocol(table),
            {
                name: {x: accuracy.interval for x, accuracy in line.items()}
                for name, line in _lines(plan, results, table).items()
            },
            _best_floor(table),
        )
        for table in results.tables
    ]


def _lines(plan: Plan, results: Results, table: Compared) -> dict[str, dict[float, Accuracy]]:
    lines: dict[str, dict[float, Accuracy]] = {}
    for row in plan.rows:
        accuracy = results.accuracy(table, row)
        if row.point is not None and accuracy is not None:
            for name in row.point.series:
                lines.setdefault(name, {})[row.point.x] = accuracy
    return lines


def _best_floor(table: Compared) -> float | None:
    floors = [row.accuracies[OVERALL].interval.mean for row in table.rows if row.mode == FLOOR]
    return max(floors, default=None)


def _header(plan: Plan, results: Results) -> list[str]:
    grid = plan.grid
    manifest = Manifest.load(grid.dataset, "questions")
    known = [one for one in results.times if one is not None]
    said = {
        "Data": f"{manifest.name}: {manifest.title}; licence {manifest.licence}",
        "Parts": ", ".join(f"`{part.name}`" for part in grid.parts)
        + ("; cuts of one protocol are put end to end" if grid.pooled else ""),
        "Training seeds": _seeds(plan),
        "Time": f"{sum(one.seconds for one in known) / 3600:.1f} hours of {len(known)} trainings"
        + (
            f" (not known of {len(results.times) - len(known)} others)"
            if len(known) < len(results.times)
            else ""
        )
        + f", {plan.threads} CPU thread(s) each",
        "Versions": "; ".join(
            f"{name} {version(name)}" for name in ("torch", "transformers", "open_clip_torch")
        ),
        "Grid": f"{grid.name}, {fingerprint(grid)[:16]}",
        "Command": f"`{command_of(plan)}`",
    }
    return [f"- **{name}:** {text}" for name, text in said.items()]


def _seeds(plan: Plan) -> str:
    grid = plan.grid
    text = ", ".join(map(str, grid.seeds)) + " (the cuts by image have seeds of their own)"
    if not any(row.pretrain for row in plan.rows) or grid.pretrain_seeds == grid.seeds:
        return text
    pairs = ", ".join(
        f"{one} from {start}" for one, start in zip(grid.seeds, grid.pretrain_seeds, strict=True)
    )
    shared = len(set(grid.pretrain_seeds)) < len(grid.seeds)
    luck = (
        "; where fine-tunings share a pre-training, its luck is in no interval and no test" if shared else ""
    )
    return f"{text}; fine-tunings start from pre-trainings of seed: {pairs}{luck}"


def _paper(plan: Plan, results: Results) -> list[str]:
    rows = [row for row in plan.asked if row.paper is not None]
    if not rows:
        return []
    name = Manifest.load(plan.grid.dataset, "questions").name
    header = ["row", "the paper's", *(f"ours, {_protocol(table)}" for table in results.tables)]
    cells = []
    for row in plan.asked:
        figure = TEACHERS[row.paper].get(name) if row.paper is not None else None
        ours = [_cell(results.accuracy(table, row)) for table in results.tables]
        if row.name in plan.absent:
            ours = ["not run" for _ in ours]
        cells.append([row.title, "–" if figure is None else f"*{figure:.2f}*", *ours])
    return [f"Accuracy, per cent. *The paper's*: {SOURCE}.", "", *Table(header, cells).markdown()]


def _plot(plan: Plan, results: Results, picture: str | None) -> list[str]:
    if plan.grid.plot is None or picture is None:
        return []
    lines = [f"![Accuracy over {plan.grid.plot.x}]({picture})", ""]
    every = sorted({row.point.x for row in plan.rows if row.point is not None})
    for table in results.tables:
        cells = [
            [name, *(_cell(line.get(x)) for x in every)]
            for name, line in _lines(plan, results, table).items()
        ]
        lines += [f"{_protocol(table)}, overall accuracy, per cent:", ""]
        lines += [*Table([plan.grid.plot.x, *(f"{x:g}" for x in every)], cells).markdown(), ""]
    if plan.grid.plot.marked is not None:
        lines.append(f"The paper chose {plan.grid.plot.marked:g}.")
    return lines


def _against(plan: Plan, results: Results) -> list[str]:
    if plan.grid.baseline is None or not results.against:
        return []
    titles = {row.name: row.title for row in plan.rows}
    cells = [
        [
            titles[one.row],
            one.protocol,
            one.group,
            per_cent(one.difference.interval, signed=True),
            "t" if one.difference.seeds else "sign flips",
            p_text(one.difference.p_value),
            p_text(one.corrected),
        ]
        for one in results.against
    ]
    return [
        f"Points of accuracy above {titles[plan.grid.baseline]}. Tests as below (trainings of one seed are paired); "
        f"Holm corrects these {len(cells)} tests together, apart from those below.",
        "",
        *Table(
            ["row", "protocol", "questions", "points [95 %]", "test", "p", "p corrected"], cells, 3
        ).markdown(),
    ]


def _rows(plan: Plan, results: Results) -> list[str]:
    cells = []
    for row in plan.rows:
        facts = results.rows[row.name]
        cells.append(
            [
                row.title,
                "–" if facts.parameters is None else f"{facts.parameters / 1e6:.1f}",
                " + ".join(map(_seconds, facts.pretraining)) or "–",
                str(facts.runs),
                _seconds(facts.seconds),
                f"`{command_of(plan, row)}`",
            ]
        )
    header = ["row", "parameters, M", "pre-training, s", "runs", "a run, s", "command"]
    return Table(header, cells).markdown()


def _absent(plan: Plan) -> list[str]:
    titles = {row.name: row.title for row in plan.asked}
    return [
        f"- {titles[name]}: `{path}` is not there. To run it: {how}"
        for name, (path, how) in plan.absent.items()
    ]


def _protocol(table: Compared) -> str:
    """A table's protocol, with its cuts where these have other test questions."""
    protocol, cuts = str(table.facts["protocol"]), str(table.facts["split_seed"])
    if protocol != "image_disjoint":
        return protocol
    return f"{protocol}, {'cuts' if ',' in cuts else 'cut'} {cuts}"


def _cell(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return "–"
    spread = "" if accuracy.seed_sd is None else f" ± {100 * accuracy.seed_sd:.1f}"
    return per_cent(accuracy.interval) + spread


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.0f}"
