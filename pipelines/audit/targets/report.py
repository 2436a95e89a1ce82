"""Sections of a report, and how they look on a terminal, in Markdown and in JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """Cells as text; the first row of the printed table is ``header``."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """How many columns are aligned to the left; the others to the right."""

    def text(self) -> list[str]:
        """Aligned lines for a terminal."""
        widths = [
            max(len(row[column]) for row in (self.header, *self.rows)) for column in range(len(self.header))
        ]
        return [
            "  ".join(
                cell.ljust(width) if column < self.left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (self.header, *self.rows)
        ]

    def markdown(self) -> list[str]:
        """A Markdown table."""
        rule = ["---" if column < self.left else "---:" for column in range(len(self.header))]
        return [
            "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in row) + " |"
            for row in (self.header, rule, *self.rows)
        ]


@dataclass(frozen=True)
class Section:
    """One part of the report."""

    name: str
    """Key in the JSON file."""
    title: str
    lines: Sequence[str] = ()
    """Said before the table: what was counted, and what was left out and why."""
    table: Table | None = None
    private: Sequence[str] = ()
    """Lines with captions: for the terminal only."""
    data: dict[str, Any] = field(default_factory=dict)
    """Everything, for JSON."""

    def text(self, number: int) -> str:
        """The section for a terminal."""
        table = self.table.text() if self.table else []
        return "\n".join(
            [f"{number}. {self.title}", *(f"  {line}" for line in (*self.lines, *table, *self.private)), ""]
        )

    def markdown(self, number: int) -> str:
        """The section in Markdown, without captions."""
        table = ["", *self.table.markdown()] if self.table else []
        return "\n".join(
            [f"## {number}. {self.title}", "", *(f"- {line}" for line in self.lines), *table, ""]
        )


def to_json(content: dict[str, Any]) -> str:
    """Standard JSON: sorted keys, ``null`` where a number does not exist; same input, same bytes."""
    return json.dumps(_plain(content), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
