"""Values of a row as texts: captions, labels, and the ids of images and cases."""

import re
from collections.abc import Callable, Mapping
from typing import Any

_WHOLE = re.compile(r"(-?\d+)\.0+")
_MISSING = ("", "nan", "none", "na", "n/a", "<na>", "null", "nat")
"""How programs write, in any case, that a value is not given."""


def plain_text(value: Any, between: str = " ") -> str:
    """A value as text: nothing for a missing one, the parts of a list one after the other."""
    if value is None or value != value:  # not a number: pandas writes missing values so
        return ""
    if isinstance(value, (list, tuple)):
        return between.join(filter(None, (plain_text(part, between) for part in value)))
    return str(value)


def id_text(value: Any) -> tuple[str, bool]:
    """An id as text, and whether it was written as a fraction: ``7`` for 7.0.

    A column of numbers in which one is missing is one of fractions to pandas, so that the same patient would be 7.0 in
    one file and 7 in another.
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value)), True
    text = plain_text(value)
    whole = _WHOLE.fullmatch(text.strip())
    return (whole[1], True) if whole else (text, False)


def is_missing(text: str) -> bool:
    """Whether a text says that there is nothing: ``NaN``, ``None``, ``N/A``."""
    return text.strip().lower() in _MISSING


def holds_object(value: Any) -> bool:
    """Whether a value is an object, or a list of some."""
    if isinstance(value, (list, tuple)):
        return any(map(holds_object, value))
    return isinstance(value, Mapping)


def with_inner(row: Mapping[str, Any], wanted: Callable[[str], bool]) -> Mapping[str, Any]:
    """A row with wanted values of its objects as columns of their own, one level deep: ``meta.patient_id``."""
    inner = {
        f"{name}.{key}": value
        for name, content in row.items()
        if isinstance(content, Mapping)
        for key, value in content.items()
        if wanted(f"{name}.{key}")
    }
    return {**inner, **row} if inner else row
