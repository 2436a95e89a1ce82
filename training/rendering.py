"""Reports from Jinja templates: the tables and figures that all of them share, in Markdown."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from training.statistics.intervals import Interval, per_cent
from training.statistics.paired_tests import p_text

NOTHING = "–"
"""Stands for a figure that cannot be given."""


def percent(share: float) -> str:
    """A share of 1, in per cent."""
    return NOTHING if math.isnan(share) else f"{100 * share:.1f}"


def interval(one: Interval, signed: bool = False) -> str:
    """A mean with its bounds, per cent."""
    if math.isnan(one.mean):
        return NOTHING
    return f"{100 * one.mean:{'+' if signed else ''}.1f}" + bounds(one, signed)


def bounds(one: Interval, signed: bool = False) -> str:
    """Nothing where they cannot be estimated: too few cases for a t interval."""
    sign = "+" if signed else ""
    return "" if math.isnan(one.low) else f" [{100 * one.low:{sign}.1f}, {100 * one.high:{sign}.1f}]"


def span(values: Iterable[float]) -> str:
    """From the least to the largest."""
    found = list(values)
    low, high = f"{min(found):,.0f}", f"{max(found):,.0f}"
    return low if low == high else f"{low} to {high}"


def number(value: float | None, digits: int = 0) -> str:
    """With so many digits; nothing where it is not known."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def cells(texts: Iterable[object]) -> str:
    """A line of a Markdown table."""
    return (
        "| " + " | ".join(str(cell).strip().replace("|", "\\|").replace("\n", " ") for cell in texts) + " |"
    )


def header(names: Sequence[str], left: int = 1) -> str:
    """The first two lines of a Markdown table; all columns but the first ``left`` are aligned to the right."""
    return f"{cells(names)}\n{cells('---' if place < left else '---:' for place in range(len(names)))}"


@cache
def templates(package: str) -> Environment:
    """The templates in a package's folder ``templates``, with the functions of this module to use in them."""
    found = Environment(
        loader=PackageLoader(package), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    found.filters |= {
        "percent": percent, "interval": interval, "bounds": bounds, "number": number, "per_cent": per_cent,
        "p": p_text, "span": span, "thousands": "{:,}".format,
    }  # fmt: skip
    found.tests["known"] = lambda value: not math.isnan(value)
    found.globals |= {"cells": cells, "header": header}
    return found


def render(package: str, template: str, **content: Any) -> str:
    """A page from ``<package>/templates/<template>``."""
    return templates(package).get_template(template).render(content)
