"""A comparison of spaces as Markdown; scores and shares in per cent, correlations and entropies as they are."""

from collections.abc import Iterable, Sequence

from training.retrieval.spaces.changes import MIN_CASES, Group
from training.retrieval.spaces.correlate import Estimate
from training.retrieval.spaces.report import Change, Knowledge, SpacesReport
from training.retrieval.spaces.similarity import Similarity
from training.statistics.intervals import Interval

HINT = "**Contact sheets show images and captions of the split: those of private data must not be shared.**"


def as_markdown(report: SpacesReport) -> str:
    """The whole report."""
    lines = ["# What the spaces learned", "", *(f"- {name}: {text}" for name, text in report.header.items())]
    for kind, similarity in report.similarities.items():
        lines += ["", f"## Cosine and target similarity, {kind.replace('-', ' to ')}", ""]
        lines += _correlations(similarity, report.baseline)
        lines += ["", "Mean cosine by S:", "", *_bins(similarity)]
    lines += ["", "![mean cosine against S](similarity.png)", "", *_targets(report.knowledge)]
    lines += ["", f"## {report.measure}: where the runs differ", "", *_scores(report)]
    for change in report.changes:
        lines += ["", *_change(change, report)]
    if report.changes:
        shown = report.changes[0].name
        lines += [
            "",
            f"Largest gains and losses of {shown}, at most one query per case, chosen for their size: they show what "
            "changed, not how often.",
            *("", "![gains](wins.png)", "", "![losses](losses.png)", "", HINT),
        ]
    return "\n".join(lines) + "\n"


def _correlations(similarity: Similarity, baseline: str) -> list[str]:
    section = next(iter(similarity.sections.values()))
    models = list(section.correlations)
    head = ["pairs compared", "pairs", *(f"{model} {kind}" for kind in ("ρ", "r") for model in models)]
    head += [f"{model} − {baseline}, ρ" for model in section.differences]
    rows = []
    for name, one in similarity.sections.items():
        values = [
            _estimate(one.correlations[model][kind]) for kind in ("spearman", "pearson") for model in models
        ]
        differences = [_estimate(kinds["spearman"], signed=True) for kinds in one.differences.values()]
        inside = name if one.values == 1 else f"{name} ({one.values})"
        rows.append([inside, f"{one.pairs:,}", *values, *differences])
    return [
        "ρ: Spearman, r: Pearson, of S and cosine over pairs; *same label*: pairs of one value (number of values) are "
        "ranked among themselves, so that differences between values do not count.",
        "",
        *_table(head, rows),
    ]


def _bins(similarity: Similarity) -> list[str]:
    models = list(similarity.bins[0].cosines)
    rows = [
        [f"{bin_.low:g} to {bin_.high:g}", f"{bin_.pairs:,}", *(_estimate(bin_.cosines[m]) for m in models)]
        for bin_ in similarity.bins
    ]
    return _table(["S", "pairs", *models], rows)


def _targets(knowledge: Knowledge) -> list[str]:
    known, soft = knowledge.coverage, knowledge.softness
    spread = ", ".join(f"{name} {value:.2f}" for name, value in known.similarity.items() if name[0] in "mp")
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in known.concepts.items())
    above = known.similarity.get("above threshold", float("nan"))
    rows = [[name, _percent(found), _percent(chance)] for name, (found, chance) in soft.agreement.items()]
    mean_s = [
        "S of the image it goes to, mean",
        _plain(soft.similarity, 2),
        _plain(soft.similarity_by_chance, 2),
    ]
    return [
        f"## The targets: {knowledge.store}",
        "",
        f"- coverage: {_percent(known.known)} % of {known.images:,} images ({known.cases:,} cases) have concepts; "
        f"concepts per image: {numbers}",
        f"- S of {known.pairs:,} pairs of images with concepts of different cases: {spread}; {_percent(above)} % above "
        f"the store's threshold {known.threshold:.2f}",
        f"- policy {soft.policy['name']} with the settings of {knowledge.policy_of}, {soft.batches} batches of "
        f"{soft.batch_size} ({soft.sampler}): mean diagonal mass {soft.diagonal:.3f}; {_percent(soft.without)} % of "
        "rows without relatives",
        f"- soft part of the other rows: entropy {_plain(soft.entropy, 2)} nats, {_plain(soft.relatives, 1)} effective "
        "relatives (mean of exp H)",
        "",
        "Where soft mass goes, in per cent of it, beside the same mass spread evenly over the images that may get any:",
        "",
        *_table(["to images of the same", "soft mass", "by chance"], [*rows, mean_s]),
    ]


def _scores(report: SpacesReport) -> list[str]:
    rows = [[name, f"{one.queries:,}", _interval(one)] for name, one in report.scores.items()]
    return _table(["model", "queries", f"{report.measure} (%)"], rows)


def _change(change: Change, report: SpacesReport) -> list[str]:
    rows = [
        [
            _name(group),
            f"{group.change.queries:,}",
            f"{group.change.cases:,}",
            _interval(group.change, signed=True),
        ]
        for group in change.groups
    ]
    same = report.scores[report.baseline].queries - change.gained - change.lost
    return [
        f"### {change.name} − {report.baseline}",
        "",
        f"{change.gained:,} queries higher, {change.lost:,} lower, {same:,} equal. Descriptive: no group was named "
        f"beforehand, no p value is given; groups of fewer than {MIN_CASES} cases have no interval.",
        "",
        *_table(["queries of", "queries", "cases", "mean difference (points)"], rows),
    ]


def _name(group: Group) -> str:
    pairs = zip(group.labels, group.values, strict=True)
    return ", ".join(f"{label} {value}" for label, value in pairs) or "all"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def _estimate(estimate: Estimate, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if estimate.value != estimate.value:
        return "–"
    if estimate.low != estimate.low:
        return f"{estimate.value:{sign}z.2f}"
    return f"{estimate.value:{sign}z.2f} [{estimate.low:{sign}z.2f}, {estimate.high:{sign}z.2f}]"


def _interval(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if interval.low != interval.low:
        return f"{100 * interval.mean:{sign}z.1f}"
    return f"{100 * interval.mean:{sign}z.1f} [{100 * interval.low:{sign}z.1f}, {100 * interval.high:{sign}z.1f}]"


def _percent(share: float) -> str:
    return _plain(100 * share, 1)


def _plain(value: float, digits: int) -> str:
    return "–" if value != value else f"{value:.{digits}f}"
