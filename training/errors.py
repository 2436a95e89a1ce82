"""The errors that ``training`` raises for people; commands print one line and exit with code 2."""

from kg_targets.errors import ConfigError, DataError, KGTargetsError, ShapeError

__all__ = ["CheckpointError", "ConfigError", "DataError", "KGTargetsError", "ShapeError"]


class CheckpointError(KGTargetsError):
    """A run folder or a checkpoint is missing, unfinished or belongs to another configuration."""
