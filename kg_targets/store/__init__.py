"""The target store: what a caption set's knowledge says about which images are alike, in a folder of Parquet files."""

from kg_targets.errors import ConfigError, DataError, KGTargetsError, StoreError
from kg_targets.store.reader import TargetStore
from kg_targets.store.schema import SCHEMA_VERSION
from kg_targets.store.verify import verify_store
from kg_targets.store.writer import StoreWriter

__all__ = [
    "SCHEMA_VERSION",
    "ConfigError",
    "DataError",
    "KGTargetsError",
    "StoreError",
    "StoreWriter",
    "TargetStore",
    "verify_store",
]
