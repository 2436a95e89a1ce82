"""The errors that ``training`` raises for people; commands print one line and exit with code 2."""

from kg_targets.errors import ConfigError, DataError, KGTargetsError, ShapeError

__all__ = ["CheckpointError", "ConfigError", "DataError", "KGTargetsError", "ShapeError", "one_line"]


class CheckpointError(KGTargetsError):
    """A run folder or a checkpoint is missing, unfinished or belongs to another configuration."""


def one_line(error: BaseException) -> str:
    """An exception's message on one line, or its type if it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
