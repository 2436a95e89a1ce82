"""Writer of a store: shard by shard into a hidden folder, shown only when it is whole, by one rename."""

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from kg_targets.errors import StoreError
from kg_targets.store import schema
from kg_targets.store.card import store_card
from kg_targets.store.digest import file_sha256, fingerprint
from kg_targets.store.files import exchanged, sync
from kg_targets.store.lock import FolderLock

_RESUME = "resume"


class StoreWriter:
    """Context manager: everything is written beside ``target`` and renamed on success, removed on any failure.

    A lock beside the target keeps two builds into one place from mixing. A killed process (``kill -9``) leaves the
    hidden ``.<name>.partial`` folder behind, and the next build empties and uses it.

    Args:
        target: folder of the store.
        kind: of the store; one of another kind is never replaced.
        resume: names everything that the content follows from. If given, whole files are left behind on failure, and
            the next writer with the same name finds them (``has``); others empty the folder.

    Raises:
        StoreError: the target is no store of this kind, another build is writing it, or the disk is full or not
            writable.
    """

    def __init__(self, target: str | Path, kind: str = schema.KNOWLEDGE, resume: str | None = None) -> None:
        self.target = Path(target)
        self.kind, self.resume = kind, resume
        self.folder = self.target.parent / f".{self.target.name}.partial"
        self._files: dict[str, dict[str, Any]] = {}
        self._staged: dict[str, str] = {}
        """Checksums of files when they were written: what is damaged later is never signed."""
        self._made_parent = False
        self._lock = FolderLock(self.target)

    def __enter__(self) -> Self:
        if self.target.exists() and not (self.target / schema.MANIFEST).is_file():
            raise StoreError(
                f"{self.target} exists and is not a target store: it will not be replaced, choose another OUT"
            )
        other = _kind_of(self.target)
        if other not in ("", self.kind):
            raise StoreError(
                f"{self.target} holds a {other} store: it will not be replaced, choose another OUT"
            )
        self._made_parent = not self.target.parent.exists()
        with schema.writing(self.folder):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._lock.__enter__()
        try:
            self._begin()
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def _begin(self) -> None:
        """Make the hidden folder, empty but for what an interrupted build of the same content left in it."""
        with schema.writing(self.folder):
            if self.folder.is_symlink():  # of somebody who wants other files removed
                self.folder.unlink()
            self.folder.mkdir(exist_ok=True)
            if self.resume is None or self._left_behind() != self.resume:
                self._clear(keep=())
            for table in schema.ALL_TABLES:  # worker processes write into them
                (self.folder / table).mkdir(exist_ok=True)
            if self.resume is not None:
                (self.folder / _RESUME).write_text(self.resume)

    def _left_behind(self) -> str:
        marker = self.folder / _RESUME
        return marker.read_text() if marker.is_file() else ""

    def _clear(self, keep: Collection[str]) -> None:
        """Remove all files but those to ``keep``, then the folders that are empty."""
        for path in sorted(self.folder.rglob("*"), reverse=True):  # what is in a folder comes before it
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(self.folder).as_posix() not in keep:
                path.unlink()

    def has(self, name: str, rows: int) -> bool:
        """Whether an interrupted build has left this file, with so many rows and the bytes that it wrote."""
        path = self.folder / name
        try:
            self._staged[name] = _marker(path).read_text(encoding="utf-8")
            return file_sha256(path) == self._staged[name] and int(pq.read_metadata(path).num_rows) == rows
        except (OSError, ValueError):
            return False

    def write(self, name: str, table: pa.Table) -> None:
        """Write one Parquet file and record its rows and checksum."""
        self.stage(name, table)
        self.adopt(name, table.num_rows)

    def stage(self, name: str, table: pa.Table) -> None:
        """Write one Parquet file, at once whole, that is not part of the store unless it is adopted."""
        path = self.folder / name
        partial = path.with_name(f".{path.name}.partial")
        schema.write_parquet(table, str(partial))
        with schema.writing(path):
            sync(partial)
            self._staged[name] = file_sha256(partial)
            os.replace(partial, path)
            if self.resume is not None:
                _marker(path).write_text(self._staged[name], encoding="utf-8")

    def link(self, source: Path, entry: Mapping[str, Any]) -> None:
        """Have a file of another store in this one, without a copy where the disk can.

        Args:
            source: folder of that store.
            entry: of the file in its manifest.
        """
        name = str(entry["file"])
        with schema.writing(self.folder / name):
            try:
                os.link(source / name, self.folder / name)
            except OSError:  # another disk, or one without hard links
                shutil.copyfile(source / name, self.folder / name)
        self.adopt(name, entry["rows"], entry["sha256"])

    def adopt(self, name: str, rows: int, sha256: str = "") -> None:
        """Record a file that someone else (a worker process, which may know its checksum) has written already."""
        with schema.writing(self.folder / name):
            known = sha256 or self._staged.get(name) or file_sha256(self.folder / name)
            self._files[name] = {"rows": rows, "sha256": known}

    def finish(self, manifest: dict[str, Any], report: dict[str, Any]) -> None:
        """Write ``manifest.json`` and ``README.md`` (same inputs, same bytes) and ``build_report.json`` (times)."""
        with schema.writing(self.folder):
            self._clear(keep=self._files)
        files = [{"file": name, **self._files[name]} for name in sorted(self._files, key=schema.file_order)]
        content = {"schema_version": schema.SCHEMA_VERSION, **manifest, "files": files}
        content["fingerprint"] = fingerprint(content)
        with schema.writing(self.folder):
            (self.folder / schema.REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
            (self.folder / schema.CARD).write_text(store_card(content, self._columns()), encoding="utf-8")
            (self.folder / schema.MANIFEST).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
            for name in (schema.REPORT, schema.CARD, schema.MANIFEST):
                sync(self.folder / name)
            for folder in (*(path for path in self.folder.iterdir() if path.is_dir()), self.folder):
                sync(folder)

    def _columns(self) -> dict[str, pa.Schema]:
        """Columns of each table that the store has."""
        first = {table: schema.part(table, 0) for table in schema.ALL_TABLES}
        return {
            table: pq.read_schema(self.folder / name) for table, name in first.items() if name in self._files
        }

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._show()
            elif self.resume is None or not any(self.folder.rglob(f"*{schema.SUFFIX}")):
                shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            self._lock.__exit__()
        if kind is not None and self._made_parent and not any(self.target.parent.iterdir()):
            self.target.parent.rmdir()

    def _show(self) -> None:
        """Put the store in its place; a store that is there stays, whole, until the new one has its name."""
        there = self.target.exists() and not self.target.is_symlink()
        if there and exchanged(self.folder, self.target):
            sync(self.target.parent)
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        retired = self.target.parent / f".{self.target.name}.old"
        shutil.rmtree(retired, ignore_errors=True)
        schema.replace_folder(self.folder, self.target, retired)
        sync(self.target.parent)
        shutil.rmtree(retired, ignore_errors=True)


def _marker(path: Path) -> Path:
    """Completion marker of a staged file: its checksum."""
    return path.with_name(f".{path.name}.sha256")


def _kind_of(target: Path) -> str:
    """Kind of the store in a folder; empty if it holds none, or one that is damaged."""
    try:
        manifest = json.loads((target / schema.MANIFEST).read_text(encoding="utf-8"))
        return str(manifest.get("kind", schema.KNOWLEDGE))
    except (OSError, ValueError, AttributeError):
        return ""
