"""``kg-targets evaluate-targets``: how good are the targets of a store, measured without training on them.

Five sections, one file each: neighbours that share a label (``agreement``), concepts that can be put back after hiding
them (``recovery``), the shape of the target rows (``shape``), images of one case (``separation``), and the most similar
images of different cases (``pairs``). What each number means: docs/evaluate-targets.md.
"""

from pipelines.audit.targets.run import evaluate_targets
from pipelines.audit.targets.settings import EvaluationSettings

__all__ = ["EvaluationSettings", "evaluate_targets"]
