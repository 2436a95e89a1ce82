"""Writes a store shard by shard into a hidden folder and shows it only when it is whole, by one rename."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from kg_targets.errors import StoreError
from kg_targets.store import schema


class StoreWriter:
    """Context manager: everything is written beside ``target`` and renamed on success, removed on any failure.

    A killed process (``kill -9``) leaves a hidden ``.<name>.partial`` folder, which the next build replaces.
    """

    def __init__(self, target: str | Path) -> None:
        self.target = Path(target)
        self.folder = self.target.parent / f".{self.target.name}.partial"
        self._shards: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        if self.target.exists() and not (self.target / schema.MANIFEST).is_file():
            raise StoreError(
                f"{self.target} exists and is not a target store: it will not be replaced, choose another OUT"
            )
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise StoreError(
                f"{self.folder.parent} cannot be written ({error.strerror}): choose another OUT"
            ) from error
        return self

    def write(self, name: str, table: pa.Table) -> None:
        """Write one Parquet file and record its rows and checksum.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        path = self.folder / name
        try:
            schema.write_parquet(table, str(path))
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written ({error}): free some space or choose another OUT"
            ) from error
        self.adopt(name, table.num_rows)

    def adopt(self, name: str, rows: int) -> None:
        """Record a file that someone else (a worker process) has already written into ``folder``."""
        with (self.folder / name).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self._shards[name] = {"rows": rows, "sha256": digest}

    def finish(self, manifest: dict[str, Any], report: dict[str, Any]) -> None:
        """Write ``manifest.json`` (same inputs, same bytes) and ``build_report.json`` (times, memory)."""
        shards = [{"file": name, **self._shards[name]} for name in sorted(self._shards)]
        content = {"schema_version": schema.SCHEMA_VERSION, **manifest, "files": shards}
        content["fingerprint"] = fingerprint(content)
        (self.folder / schema.MANIFEST).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        (self.folder / schema.REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        retired = self.target.parent / f".{self.target.name}.old"
        shutil.rmtree(retired, ignore_errors=True)
        if self.target.exists():
            os.replace(self.target, retired)
        os.replace(self.folder, self.target)
        shutil.rmtree(retired, ignore_errors=True)


def fingerprint(manifest: dict[str, Any]) -> str:
    """sha256 over a manifest's content (checksums, configuration); two stores with the same one hold the same targets.

    ``inputs``, which decides whether a store is up to date, stays out: newer code that gives the same bytes gives the
    same store.
    """
    content = {key: value for key, value in manifest.items() if key not in ("fingerprint", "inputs")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
