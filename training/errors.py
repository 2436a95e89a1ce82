"""The errors that ``training`` raises for people; commands print one line and exit with code 2."""

from kg_targets.store import ConfigError, DataError, KGTargetsError

__all__ = ["CheckpointError", "ConfigError", "DataError", "KGTargetsError", "ShapeError"]


class ShapeError(KGTargetsError):
    """Two tensors that must agree in shape do not."""


class CheckpointError(KGTargetsError):
    """A run folder or a checkpoint is missing, unfinished or belongs to another configuration."""
