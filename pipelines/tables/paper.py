"""What the paper reports, to be read beside our rows: NB-CLIP, supplement, Table 2, in per cent.

Other data (ROCO for CUI@K, a labelled set of the authors' for P@K), another start and single runs: the order of the
rows can be compared, the figures cannot. P@K rests on about 50, 48 and 21 queries, those of modality+organ being
others than those of organ. The paper does not define CUI@K; see docs/evaluation.md for our reading.
"""

from collections.abc import Mapping

from kg_targets.errors import ConfigError
from kg_targets.manifest.model import unknown_name

SOURCE = "NB-CLIP, supplement, Table 2 (other data and single runs: compare the order of rows, not figures)"

MEASURES = (
    "CUI@5", "CUI@10", "CUI@50",
    "modality P@5", "modality P@10", "modality P@30",
    "organ P@5", "organ P@10", "organ P@30",
    "modality+organ P@5", "modality+organ P@10", "modality+organ P@30",
)  # fmt: skip

_ROWS = {
    "infonce": "39.85 40.84 44.86 91.20 88.60 84.60 67.92 66.46 54.86 92.38 90.48 75.24",
    "noise": "38.75 39.80 43.61 89.60 87.80 81.20 64.17 60.00 49.03 92.29 90.00 76.03",
    "none": "39.72 40.88 44.79 90.65 88.47 84.73 67.98 66.52 54.76 92.54 90.37 75.08",
    "mse": "39.76 40.97 45.74 92.40 90.80 88.27 58.75 55.83 46.25 96.19 93.33 84.44",
    "sigmoid": "39.84 41.06 45.73 90.80 90.80 89.93 59.92 55.21 44.17 95.24 94.76 86.67",
    "sm": "41.82 43.25 48.61 92.80 92.00 89.33 76.67 72.50 57.67 95.24 95.25 81.92",
}

PAPER: dict[str, dict[str, float]] = {
    row: dict(zip(MEASURES, map(float, figures.split()), strict=True)) for row, figures in _ROWS.items()
}
"""Row to measure to per cent."""


def paper_row(row: str, named: object = None) -> Mapping[str, float]:
    """The paper's figures for a row of a grid, empty where it has none.

    Args:
        row: name of the row; one of the paper's own names finds its figures.
        named: the row's ``paper`` in the grid: one of those names, or false for nothing; None goes by ``row``.

    Raises:
        ConfigError: the paper has no row of that name.
    """
    if named is None:
        return PAPER.get(row, {})
    if named is False:
        return {}
    if named not in PAPER:
        raise ConfigError(f"rows.{row}.paper: {unknown_name('row of the paper', str(named), list(PAPER))}")
    return PAPER[str(named)]
