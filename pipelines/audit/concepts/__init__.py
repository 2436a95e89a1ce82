"""``kg-targets evaluate-concepts``: how well an extractor reads, against a gold file or against label columns."""

from pipelines.audit.concepts.by_gold import gold_lines
from pipelines.audit.concepts.by_labels import label_lines

__all__ = ["gold_lines", "label_lines"]
