"""What the paper reports, to be read beside our rows: AMiF, supplement, Table 5, accuracy in per cent.

Paper sizes (445 M parameters), pre-training on other and more data, single runs; candidates, knowledge and checkpoint
were taken from the test split by the released code: the nearest of our protocols is ``paper``. The order of the rows
can be compared, the figures cannot.
"""

SOURCE = (
    "AMiF, supplement, Table 5 (other sizes, other pre-training data, single runs, candidates and checkpoint from the "
    "test split: compare the order of rows, not figures)"
)

DATASETS = ("vqa_rad", "slake_en", "path_vqa", "vqa_med_2019")
"""Columns of the table by our names; its SLAKE is taken to be the English part."""

_ROWS = {
    "none": "75.64 81.09 60.92 78.14",
    "clip": "76.35 81.32 61.38 78.42",
    "medclip": "78.80 84.82 62.83 81.03",
    "pubmedclip": "80.02 85.32 63.12 80.93",
    "pmcclip": "79.63 84.98 63.01 80.44",
    "biomedclip": "80.26 85.37 63.96 81.26",
}

TEACHERS: dict[str, dict[str, float]] = {
    row: dict(zip(DATASETS, map(float, figures.split()), strict=True)) for row, figures in _ROWS.items()
}
"""Teacher to data set to per cent."""
