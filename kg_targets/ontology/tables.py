"""The three tables that every source is read into, and the builder that fills them row by row.

``names``: one row per concept, name and vocabulary. ``terms``: one row per concept and source term.
``edges``: one row per asserted relation, ends that no concept carries included (a merge may bring them). CUIs
are stored as numbers (int32): the whole Metathesaurus, 4 M concepts, then needs 16 MB for them instead
of hundreds.

HPO's modifiers ("Severe", "Acute", "Diffuse") are no findings, though HPO's other terms are.

Source files are read line by line as they come: gzip or plain, byte-order mark, CRLF, and lines that are no UTF-8.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kg_targets.errors import OntologyError
from kg_targets.ontology.closure import ParentLists
from kg_targets.ontology.concept import parse_cui

IS_A = "is_a"
PART_OF = "part_of"
SAME_AS = "same_as"
"""Both CUIs stand on one source term; kept in both directions, and followed wherever ``is_a`` is."""
RELATIONS = (IS_A, PART_OF, SAME_AS)
REPLACED_BY = "replaced_by"
"""From a retired CUI to the one that has its meaning now; no relation between concepts, see `Ontology.current`."""

PREFERRED, SYNONYM = 0, 5
"""Ranks of a name within its source, best first; UMLS grades its preferred names with those between."""

NAMES = pa.schema(
    [
        ("cui", pa.int32()),
        ("layer", pa.uint8()),
        ("rank", pa.uint8()),
        ("abbreviation", pa.bool_()),
        ("asserted", pa.bool_()),
        ("source", pa.string()),
        ("text", pa.string()),
    ]
)
TERMS = pa.schema(
    [
        ("cui", pa.int32()),
        ("layer", pa.uint8()),
        ("source", pa.string()),
        ("term", pa.string()),
        ("kind", pa.string()),
        ("semantic_types", pa.string()),
    ]
)
EDGES = pa.schema([("child", pa.int32()), ("parent", pa.int32()), ("relation", pa.string())])

_LONGEST_ABBREVIATION = 8
_FLUSH_ROWS = 1 << 18
_NCI = re.compile(r"CL\d{6,7}")
"""Concepts that the NCI Metathesaurus has beyond UMLS; its RRF files mix them with CUIs."""


@dataclass(frozen=True)
class Tables:
    """Everything read from a source, before it is resolved.

    Attributes:
        release: which release of what, for people to read.
        names, terms, edges: Arrow tables with the schemas of this module.
        skipped: rows left out, by reason.
        self_loops: edges to themselves that were dropped before.
    """

    release: str
    names: pa.Table
    terms: pa.Table
    edges: pa.Table
    skipped: dict[str, int] = field(default_factory=dict)
    self_loops: int = 0


def looks_like_abbreviation(text: str) -> bool:
    """Whether a name must be matched case-sensitively: one short token with more capitals than small letters.

    Sources mostly do not mark them, and lower-casing ``ALL``, ``AIDS`` or ``AS`` would link everyday words.
    """
    if len(text) > _LONGEST_ABBREVIATION or any(character.isspace() for character in text):
        return False
    upper = sum(character.isupper() for character in text)
    lower = sum(character.islower() for character in text)
    return upper > lower and len(text) > 1


def are_abbreviations(texts: pa.Array) -> npt.NDArray[np.bool_]:
    """`looks_like_abbreviation` of many names."""
    length = pc.utf8_length(texts).to_numpy(False)
    found = (length > 1) & (length <= _LONGEST_ABBREVIATION)
    short = texts.filter(pa.array(found)).to_pylist()
    found[found] = [looks_like_abbreviation(text) for text in short]
    return np.asarray(found, dtype=bool)


_ODD_SPACE = (
    r"^ | $|  |[\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
)


def single_spaced(texts: pa.Array) -> pa.Array:
    """Runs of white space turned into one space, none at the ends."""
    odd = pc.match_substring_regex(texts, _ODD_SPACE)
    tidy = [" ".join(text.split()) for text in texts.filter(odd).to_pylist()]
    return pc.replace_with_mask(texts, odd, pa.array(tidy, pa.string())) if tidy else texts


def malformed_cui(text: str) -> str:
    """Reason to leave out a row whose identifier `parse_cui` does not take."""
    own = _NCI.fullmatch(text.strip())
    return "identifier of the NCI Metathesaurus (CL…), no CUI of UMLS" if own else "malformed CUI"


class _Rows:
    """Columns that grow by row and turn into Arrow chunks on the way: Python objects never pile up."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows: list[tuple[object, ...]] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, *row: object) -> None:
        self._rows.append(row)
        if len(self._rows) >= _FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True) if self._rows else ([] for _ in self._schema)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._rows = []

    def table(self) -> pa.Table:
        self._flush()
        return pa.Table.from_batches(self._batches, schema=self._schema)


class TableBuilder:
    """Fills `Tables`; takes CUIs as they are written, counts what it refuses, never raises on a row."""

    def __init__(self) -> None:
        self._names, self._terms, self._edges = _Rows(NAMES), _Rows(TERMS), _Rows(EDGES)
        self.skipped: Counter[str] = Counter()

    def cui(self, text: str, where: str) -> int | None:
        """Read a CUI; anything else gives None and is counted under ``where``, the name of the file."""
        number = parse_cui(text)
        if number is None:
            self.skipped[f"{where}: {malformed_cui(text)}"] += 1
        return number

    def add_name(
        self,
        cui: int,
        text: str,
        source: str,
        *,
        rank: int = SYNONYM,
        abbreviation: bool = False,
        asserted: bool = False,
    ) -> None:
        """Add a name; runs of white space become one space, an empty name is ignored."""
        text = " ".join(text.split())
        if text:
            self._names.add(
                cui, 0, rank, abbreviation or looks_like_abbreviation(text), asserted, source, text
            )

    def add_term(
        self, cui: int, source: str, term: str = "", *, kind: str = "", semantic_types: Iterable[str] = ()
    ) -> None:
        """Add the term of a vocabulary that the concept comes from."""
        self._terms.add(cui, 0, source, term, kind, "|".join(sorted(set(semantic_types))))

    def add_edge(self, child: int, parent: int, relation: str = IS_A) -> None:
        """Add ``child relation parent``; self-loops are counted later and dropped."""
        self._edges.add(child, parent, relation)

    def add_equivalents(self, cuis: Sequence[int]) -> None:
        """Declare the CUIs that one term carries together to be the same thing.

        They are tied to the smallest of them in both directions (linear in their number; one term of DOID
        carries 18).
        """
        first, *others = sorted(set(cuis)) or [0]
        for other in others:
            self._edges.add(first, other, SAME_AS)
            self._edges.add(other, first, SAME_AS)

    def build(self, release: str) -> Tables:
        """Close the builder."""
        skipped = {reason: count for reason, count in self.skipped.items() if count}
        edges = self._edges.table()
        terms = with_qualifiers(self._terms.table(), edges)
        return Tables(release, self._names.table(), terms, edges, skipped)


ROOTS = ("HP:0000005", "HP:0012823", "HP:0040279", "HP:0032223")
"""Mode of inheritance, clinical modifier, frequency, blood group: everything below them qualifies something else."""


def with_qualifiers(terms: pa.Table, edges: pa.Table) -> pa.Table:
    """``terms`` with kind ``qualifier`` for HPO's rows at or below one of the roots.

    Args:
        terms: as `Tables.terms`.
        edges: as `Tables.edges`; only ``is_a`` is followed.
    """
    roots = terms.filter(pc.is_in(terms["term"], value_set=pa.array(ROOTS)))["cui"].to_numpy()
    if not len(roots):
        return terms
    is_a = edges.filter(pc.equal(edges["relation"], "is_a"))
    child, parent = is_a["child"].to_numpy(), is_a["parent"].to_numpy()
    cuis = np.unique(np.concatenate([child, parent, roots]))
    # Edges turned around: what is reachable from a root is below it.
    below = ParentLists.from_edges(np.searchsorted(cuis, parent), np.searchsorted(cuis, child), len(cuis))
    found = pa.array(cuis[below.reachable(np.searchsorted(cuis, np.unique(roots)))], terms["cui"].type)
    modifier = pc.and_(pc.equal(terms["source"], "HP"), pc.is_in(terms["cui"], value_set=found))
    kind = pc.if_else(modifier, "qualifier", terms["kind"])
    return terms.set_column(terms.column_names.index("kind"), "kind", kind)


BOM = b"\xef\xbb\xbf"


def read_lines(path: Path, skipped: Counter[str]) -> Iterator[str]:
    """Stream the lines of a file without their ends.

    A line that is not UTF-8, or has a NUL byte in it, is left out and counted in ``skipped``.

    Raises:
        OntologyError: the file cannot be opened, or its compression is broken.
    """
    try:
        with open_bytes(path) as stream:
            for number, raw in enumerate(stream):
                line = raw.removeprefix(BOM) if number == 0 else raw
                if b"\0" in line:
                    skipped[f"{path.name}: line with a NUL byte"] += 1
                    continue
                try:
                    yield line.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    skipped[f"{path.name}: line that is not UTF-8"] += 1
    except (OSError, EOFError, zlib.error) as error:
        raise OntologyError(
            f"{path}: cannot be read ({error}); check the file and its permissions"
        ) from error


def read_table(path: Path, header: list[str], skipped: Counter[str]) -> Iterator[list[str]]:
    """Stream the rows of a tab-separated table below its header line.

    Raises:
        OntologyError: the first line is not the expected header.
    """
    rows = read_lines(path, skipped)
    first = next(rows, "")
    if first.split("\t") != header:
        expected = ", ".join(header)
        raise OntologyError(
            f"{path}: the first line is not the header of this table; it must hold, by tabs: {expected}"
        )
    yield from _split(rows, path, len(header), "\t", skipped)


def _split(
    rows: Iterator[str], path: Path, width: int, separator: str, skipped: Counter[str]
) -> Iterator[list[str]]:
    for row in filter(None, rows):
        cells = row.split(separator)
        if len(cells) == width:
            yield cells
        else:
            skipped[f"{path.name}: row without {width} columns"] += 1


def require_file(path: Path, what: str) -> Path:
    """The path itself, if a file is there.

    Raises:
        OntologyError: there is none; ``what`` says what to do about it.
    """
    if not path.is_file():
        raise OntologyError(f"{path} does not exist. {what}")
    return path


def open_bytes(path: Path) -> BinaryIO:
    """Open for reading bytes; gzip is recognised by its first two bytes, whatever the file is called."""
    stream = path.open("rb")
    if stream.peek(2)[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    return stream
