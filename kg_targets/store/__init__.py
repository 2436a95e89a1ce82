"""The target store: which images and captions are alike, by knowledge or by a teacher, in a folder of Parquet files."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kg_targets.errors import ConfigError, DataError, KGTargetsError, StoreError

if TYPE_CHECKING:
    from kg_targets.store.reader import TargetStore as TargetStore
    from kg_targets.store.schema import SCHEMA_VERSION as SCHEMA_VERSION
    from kg_targets.store.teacher import TeacherStore as TeacherStore
    from kg_targets.store.verify import verify_store as verify_store
    from kg_targets.store.writer import StoreWriter as StoreWriter

_EXPORTS = {
    "SCHEMA_VERSION": "kg_targets.store.schema",
    "StoreWriter": "kg_targets.store.writer",
    "TargetStore": "kg_targets.store.teacher",  # the reader, and a teacher's stores with it: ``open`` finds both
    "TeacherStore": "kg_targets.store.teacher",
    "verify_store": "kg_targets.store.verify",
}
__all__ = [
    "SCHEMA_VERSION",
    "ConfigError",
    "DataError",
    "KGTargetsError",
    "StoreError",
    "StoreWriter",
    "TargetStore",
    "TeacherStore",
    "verify_store",
]


def __getattr__(name: str) -> Any:
    """Import numpy and Arrow on first use: who needs the errors only (a command that sets its threads) goes without."""
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'kg_targets.store' has no attribute {name!r}")
