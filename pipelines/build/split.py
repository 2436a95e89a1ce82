"""One split of a data set as a build reads it: by ranges of its files in many processes, or from the front."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

import kg_targets
from kg_targets.errors import DataError
from kg_targets.manifest import ExcludedCases, Manifest, ReadReport, Record
from kg_targets.manifest.ranges import FileRange, RangeReader
from pipelines.build.executors import map_in_order

Part = FileRange | list[Record]
"""A run of records: where they are, or themselves."""


@dataclass
class Split:
    """One split of a data set, as a build reads it."""

    manifest: Manifest
    name: str
    root: Path
    licences: frozenset[str] | None
    """Licences of the rows that are kept; None keeps all."""
    excluded: ExcludedCases | None = None
    read: ReadReport = field(default_factory=ReadReport)
    """Counts and problems of reading."""
    reader: RangeReader | None = None
    """Reads ranges of the files, where ``parts`` could cut them."""

    def parts(self, size: int, workers: int) -> Iterable[Part]:
        """The records in runs, in their order: ranges of files where these can be cut, else the records themselves.

        Args:
            size: rows of a run.
            workers: processes that may look for the keys of JSON lines.
        """
        reader = self.manifest.range_reader(self.name, self.root)
        ranges = None if reader is None else reader.ranges(size)
        if reader is not None and ranges:
            keys: list[dict[str, None]] = [{} for _ in reader.files]
            if reader.is_json:
                found = map_in_order(reader.keys, ranges, workers)
                for part, names in zip(ranges, found, strict=True):
                    keys[part.file].update(dict.fromkeys(names))
            read = ReadReport()
            if (all(keys) or not reader.is_json) and reader.take_columns(keys, read):
                self.reader, self.read = reader, read
                return ranges
        return self.chunks(size)

    def chunks(self, size: int) -> Iterator[list[Record]]:
        """The records, ``size`` at a time."""
        records = self._from_the_front(self.read)
        while chunk := list(islice(records, size)):
            yield chunk

    def read_part(self, part: Part) -> tuple[list[Record], ReadReport | None, list[str]]:
        """The records of a run, and of a range the counts of reading and all image ids that it has."""
        if isinstance(part, list):
            return part, None, []
        if self.reader is None:
            raise DataError(f"{self.name} is not read by ranges")
        report, ids = ReadReport(), list[str]()
        records = self.reader.records(part, report, self.licences, self._left_out, ids)
        return list(records), report, ids

    def check_from_the_front(self) -> None:
        """Raise what a reader from the first row to the last one meets, in the order of rows.

        Raises:
            KGTargetsError: a row is malformed, or two have one image id.
        """
        for _ in self._from_the_front(ReadReport()):
            pass

    def _from_the_front(self, report: ReadReport) -> Iterator[Record]:
        return self.manifest.records(self.name, self.root, report, self.licences, self._left_out)

    @property
    def _left_out(self) -> frozenset[str]:
        return self.excluded.cases if self.excluded else frozenset()

    def check_read(self) -> None:
        """Once all chunks are read.

        Raises:
            DataError: there was no usable row.
        """
        if not self.read.read:
            source = self.manifest.split_file(self.name, self.root)
            reasons = "; ".join(self.read.lines()[:3])
            raise DataError(f"{source} has no usable row: a store needs at least one caption. {reasons}")

    def inputs(self) -> dict[str, Any]:
        """The data set's part of what a store's content follows from."""
        digest = self.manifest.split_digest(self.name, self.root)
        return {"captions_sha256": digest, **(self.excluded.inputs() if self.excluded else {})}

    def metadata(self) -> dict[str, Any]:
        """Description of the data set for the store's manifest."""
        return {
            "dataset": self.manifest.name,
            "split": self.name,
            "licence": self.manifest.licence,
            "code_version": kg_targets.__version__,
            "skipped_rows": self.read.skipped,
            **(self.excluded.metadata(self.read) if self.excluded else {}),
        }


def row_table(records: list[Record]) -> pa.Table:
    """The columns of the table ``targets`` that come from the data set, all text."""
    labels = list(dict.fromkeys(name for record in records for name in record.labels))
    columns = {
        name: [getattr(record, name) for record in records]
        for name in ("image_id", "image_path", "caption", "group_id", "licence")
    }
    columns |= {f"label_{name}": [record.labels.get(name, "") for record in records] for name in labels}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
