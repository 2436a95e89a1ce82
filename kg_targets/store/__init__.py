"""The target store: which images and captions are alike, by knowledge or by a teacher, in a folder of Parquet files."""

from typing import TYPE_CHECKING

from kg_targets.errors import ConfigError, DataError, KGTargetsError, StoreError
from kg_targets.lazy import lazy_names

if TYPE_CHECKING:
    from kg_targets.store.labels import with_labels as with_labels
    from kg_targets.store.reader import TargetStore as TargetStore
    from kg_targets.store.schema import SCHEMA_VERSION as SCHEMA_VERSION
    from kg_targets.store.teacher import TeacherStore as TeacherStore
    from kg_targets.store.verify import verify_store as verify_store
    from kg_targets.store.writer import StoreWriter as StoreWriter

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
    "with_labels",
]

# Numpy and Arrow on first use: who needs the errors only (a command that sets its threads) goes without.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "SCHEMA_VERSION": "kg_targets.store.schema",
        "StoreWriter": "kg_targets.store.writer",
        "TargetStore": "kg_targets.store.teacher",  # with a teacher's stores: ``open`` finds both kinds
        "TeacherStore": "kg_targets.store.teacher",
        "verify_store": "kg_targets.store.verify",
        "with_labels": "kg_targets.store.labels",
    },
)
