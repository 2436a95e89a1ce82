"""Columns of UMLS's RRF files, read block by block: rows end with ``|`` or not, quotes are no quotes.

A file may be plain, gzip, or in parts (``MRCONSO.RRF.aa.gz``, ``MRCONSO.RRF.ab.gz``, …), which are joined as they are:
a row may begin in one and end in the next. Lines that are not UTF-8, or hold a NUL byte, and rows of another width are
left out and counted; a byte-order mark and Windows line ends change nothing. Memory does not grow with the files.

pyarrow's CSV reader parses the blocks: over the columns used here it takes as long as polars' scan and half as long as
DuckDB, needs nothing more to be installed, and reports every row of another width, which the two others repair or pass
over in silence (docs/ontology.md).
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from kg_targets.errors import OntologyError
from kg_targets.ontology.concept import parse_cui
from kg_targets.ontology.tables import BOM, malformed_cui, open_bytes

_BLOCK = 1 << 23
"""Bytes parsed at once; larger blocks leave the processor's cache and take twice the time."""
_HEAD = 100
"""Rows that show whether a file ends its rows with ``|``; some exports do not."""
_PART = re.compile(r"\.(?!gz$)[a-z]{2}(\.gz)?")
_CODED = pa.dictionary(pa.int32(), pa.string())


def rrf_parts(directory: Path, name: str) -> list[Path]:
    """The file of a release with this name, plain, compressed or in parts; the plain path where there is none.

    Raises:
        OntologyError: a part is missing between others.
    """
    whole = [path for path in (directory / name, directory / f"{name}.gz") if path.is_file()]
    parts: dict[str, Path] = {}
    for path in sorted(
        directory.glob(f"{name}.*")
    ):  # a part that lies there plain and packed is read once, plain
        if _PART.fullmatch(path.name.removeprefix(name)):
            parts.setdefault(path.name.removesuffix(".gz"), path)
    expected = [f"{name}.{first}{second}" for first in ascii_lowercase for second in ascii_lowercase]
    missing = [part for part in expected[: len(parts)] if part not in parts]
    if missing and not whole:
        raise OntologyError(
            f"{directory / missing[0]} does not exist, but other parts of {name} do; unpack it again"
        )
    return whole[:1] or list(parts.values()) or [directory / name]


class RrfFile:
    """One file of a release.

    Attributes:
        name: what messages and counts call it.
        skipped: rows left out, by file and reason; shared by the files of a release.
    """

    def __init__(self, parts: Sequence[Path], width: int, skipped: Counter[str]) -> None:
        self._parts, self._width, self.skipped = parts, width, skipped
        self.name = parts[0].name if len(parts) == 1 else parts[0].name.partition(".RRF")[0] + ".RRF"

    def __str__(self) -> str:
        return str(self._parts[0].with_name(self.name))

    def skip(self, reason: str, count: int = 1) -> None:
        """Count rows that are left out."""
        if count:
            self.skipped[f"{self.name}: {reason}"] += count

    def read(self, texts: Mapping[str, int], coded: Mapping[str, int]) -> Iterator[pa.RecordBatch]:
        """Stream columns by name and place: ``texts`` as strings, ``coded``, which have few values, as dictionaries.

        Raises:
            OntologyError: the file cannot be opened, or its compression is broken.
        """
        width = 0
        for block in self._clean_blocks():
            width = width or self._width + _is_ended(block, self._width)
            names = [str(place) for place in range(width)]
            for name, place in {**texts, **coded}.items():
                names[place] = name
            table = csv.read_csv(
                pa.BufferReader(block),
                csv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=False),
                csv.ParseOptions(delimiter="|", quote_char=False, invalid_row_handler=self._other_width),
                csv.ConvertOptions(
                    check_utf8=False,
                    include_columns=[*texts, *coded],
                    column_types={**dict.fromkeys(texts, pa.string()), **dict.fromkeys(coded, _CODED)},
                ),
            )
            yield from table.combine_chunks().to_batches()

    def cuis(self, column: pa.Array, counted: bool = True) -> npt.NDArray[np.int32]:
        """Number of each CUI, -1 for anything else; ``counted`` says whether that is a row left out."""
        numbers = _plain_cuis(column)
        odd = np.flatnonzero(numbers < 0)
        for place, text in zip(odd, column.take(pa.array(odd)).to_pylist(), strict=True):
            number = parse_cui(text)
            if number is not None:
                numbers[place] = number
            elif counted:
                self.skip(malformed_cui(text))
        return numbers

    def _other_width(self, row: csv.InvalidRow) -> str:
        self.skip(f"row without {row.expected_columns} columns")
        return "skip"

    def _clean_blocks(self) -> Iterator[bytes]:
        """Whole lines with ``\\n`` at their ends, all of them UTF-8 without NUL bytes."""
        for block in self._blocks():
            while b"\r\n" in block:
                block = block.replace(b"\r\n", b"\n")
            # Within a line a carriage return is white space, not the end of a row.
            block = b"".join(self._good_lines(block.replace(b"\r", b" ")))
            if block.lstrip(b"\n"):
                # pyarrow would take these bytes from the first line of any block, not only the file's.
                yield b"\n" + block if block.startswith(BOM) else block

    def _blocks(self) -> Iterator[bytes]:
        rest, first = b"", True
        try:
            for path in self._parts:
                with open_bytes(path) as stream:
                    while data := stream.read(_BLOCK):
                        data = rest + (data.removeprefix(BOM) if first else data)
                        first, end = False, data.rfind(b"\n") + 1
                        rest = data[end:]
                        if end:
                            yield data[:end]
        except (OSError, EOFError, zlib.error) as error:
            raise OntologyError(
                f"{path}: cannot be read ({error}); check the file and its permissions"
            ) from error
        if rest:
            yield rest + b"\n"

    def _good_lines(self, block: bytes) -> Iterator[bytes]:
        """The block without its broken lines, which are found by halving it."""
        nul = b"\0" in block
        if not nul and _is_utf8(block):
            yield block
            return
        half = len(block) // 2
        middle = block.find(b"\n", half, len(block) - 1) + 1 or block.rfind(b"\n", 0, half) + 1
        if middle:
            yield from self._good_lines(block[:middle])
            yield from self._good_lines(block[middle:])
        else:
            self.skip("line with a NUL byte" if nul else "line that is not UTF-8")


def _is_utf8(data: bytes) -> bool:
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def _is_ended(block: bytes, width: int) -> bool:
    """Whether rows have a separator after the last column: one empty cell more."""
    cells = Counter(line.count(b"|") + 1 for line in block.split(b"\n", _HEAD)[:_HEAD])
    return cells[width + 1] >= cells[width]


def _plain_cuis(column: pa.Array) -> npt.NDArray[np.int32]:
    """Numbers of the cells that are the letter C and seven digits, -1 for the others."""
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    numbers = np.full(len(column), -1, dtype=np.int32)
    rows = np.flatnonzero(np.diff(offsets) == 8)
    if len(rows) == len(column):
        cells = data[offsets[0] : offsets[0] + 8 * len(rows)].reshape(-1, 8)
    else:
        cells = data[offsets[rows][:, None] + np.arange(8)]
    digits = cells[:, 1:] - ord("0")
    plain = ((cells[:, 0] | 32) == ord("c")) & (digits < 10).all(axis=1)
    value = np.zeros(len(rows), dtype=np.int32)
    for place in range(7):
        value = value * 10 + digits[:, place]
    numbers[rows[plain]] = value[plain]
    return numbers
