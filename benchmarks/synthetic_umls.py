"""A made-up UMLS release of any size: RRF files of the right shape, with words, sources and concepts that do not exist.

    python benchmarks/synthetic_umls.py build/umls/META --names 1000000 --relations 3000000

Shares follow the real Metathesaurus roughly: 4.7 names to a concept, 70 % of them English, 14 % suppressed, 30 source
vocabularies, a fifth of the relations hierarchical and stated in both directions. ``--dirty`` is the share of rows that
are broken in one of the ways that real exports are. The same seed and sizes give the same bytes.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BATCH = 1 << 18
SOURCES = [f"VOC{number:02d}" for number in range(30)]
TERM_TYPES = ["PT", "SY", "FN", "OAP", "LN", "AB", "ACR"]
LANGUAGES = ["ENG", "SPA", "FRE", "GER", "JPN"]
SEMANTIC_TYPES = [
    "T023",
    "T029",
    "T033",
    "T046",
    "T047",
    "T060",
    "T061",
    "T074",
    "T080",
    "T109",
    "T121",
    "T191",
]
_SYLLABLES = [
    "ba",
    "cor",
    "dem",
    "fil",
    "gan",
    "hyr",
    "jol",
    "kes",
    "lum",
    "mar",
    "nep",
    "osi",
    "pra",
    "quel",
    "ros",
    "sti",
    "tem",
    "ulo",
    "vax",
    "zin",
    "thé",
    "ßen",
]
_NAMES_PER_CONCEPT = 4.7
Column = pa.Array | str


def write_release(folder: Path, names: int, relations: int, seed: int = 0, dirty: float = 1e-5) -> int:
    """Write MRCONSO, MRREL, MRSTY, MRCUI and MRRANK; returns the number of concepts."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "MRCONSO.RRF").open("wb") as stream:
        concepts = 0
        for batch, rows in enumerate(_sizes(names)):
            random = np.random.default_rng([seed, 0, batch])
            concepts = _names(random, rows, concepts, dirty, stream.write)
    for file, (name, count, columns) in enumerate(
        [
            ("MRREL.RRF", relations, _relations),
            ("MRSTY.RRF", concepts, _types),
            ("MRCUI.RRF", concepts // 100, _retired),
        ]
    ):
        with (folder / name).open("wb") as stream:
            start = 0
            for batch, rows in enumerate(_sizes(count)):
                random = np.random.default_rng([seed, file + 1, batch])
                _write(columns(random, start, rows, concepts), random, dirty, stream.write)
                start += rows
    ranked = [f"{rank}|{source}|{kind}|N|\n" for rank, (kind, source) in enumerate(_ranks(), start=1)]
    (folder / "MRRANK.RRF").write_text("".join(ranked[::-1]))
    return concepts


def _sizes(count: int) -> Iterator[int]:
    return (min(BATCH, count - start) for start in range(0, count, BATCH))


def _ranks() -> list[tuple[str, str]]:
    return [(kind, source) for kind in reversed(TERM_TYPES) for source in reversed(SOURCES)]


def _names(random: np.random.Generator, rows: int, concepts: int, dirty: float, write) -> int:  # type: ignore[no-untyped-def]
    first = random.random(rows) < 1 / _NAMES_PER_CONCEPT
    first[0] |= concepts == 0
    concept = concepts - 1 + np.cumsum(first)
    language = _pick(random, LANGUAGES, [0.62, 0.2, 0.08, 0.05, 0.05], rows)
    columns: list[Column] = [
        _cuis(concept),
        pc.if_else(pa.array(first), "ENG", language),
        pc.if_else(pa.array(first), "P", _pick(random, ["S", "P"], [0.8, 0.2], rows)),
        _numbered("L", random, rows),
        pc.if_else(pa.array(first), "PF", _pick(random, ["PF", "VO", "VC"], [0.5, 0.3, 0.2], rows)),
        _numbered("S", random, rows),
        pc.if_else(pa.array(first), "Y", _pick(random, ["Y", "N"], [0.6, 0.4], rows)),
        _numbered("A", random, rows),
        *["", _numbered("", random, rows), ""],
        _pick(random, SOURCES, None, rows),
        _pick(random, TERM_TYPES, [0.4, 0.38, 0.08, 0.06, 0.05, 0.02, 0.01], rows),
        _numbered("X", random, rows),
        _texts(random, concept),
        *["0", _pick(random, ["N", "O", "Y", "E"], [0.86, 0.07, 0.05, 0.02], rows), "256"],
    ]
    _write(columns, random, dirty, write)
    return concepts + int(first.sum())


def _relations(random: np.random.Generator, start: int, rows: int, concepts: int) -> list[Column]:
    child = random.integers(1, max(concepts, 2), rows)
    parent = np.maximum(child // 8 - random.integers(0, 3, rows), 0)  # smaller: no cycles
    kind = random.choice(6, rows, p=[0.12, 0.12, 0.03, 0.03, 0.35, 0.35])  # PAR CHD RB RN SIB RO
    downward = np.isin(kind, [1, 3])
    apart = kind > 3
    parent = np.where(apart, random.integers(0, max(concepts, 1), rows), parent)
    ends = np.where(downward, parent, child), np.where(downward, child, parent)
    stated = pa.array(np.where(random.random(rows) < 0.6, kind, 6), pa.int8())
    meanings = pa.array(["inverse_isa", "isa", "inverse_isa", "isa", "", "has_part", ""])
    source = _pick(random, SOURCES, None, rows)
    return [
        *[_cuis(ends[0]), _numbered("A", random, rows), "AUI"],
        pa.array(["PAR", "CHD", "RB", "RN", "SIB", "RO"]).take(pa.array(kind)),
        *[_cuis(ends[1]), _numbered("A", random, rows), "AUI", meanings.take(stated)],
        *[_numbered("R", random, rows), "", source, source, "", ""],
        *[_pick(random, ["N", "O"], [0.95, 0.05], rows), ""],
    ]


def _types(random: np.random.Generator, start: int, rows: int, concepts: int) -> list[Column]:
    types = _pick(random, SEMANTIC_TYPES, None, rows)
    return [
        _cuis(np.arange(start, start + rows)),
        types,
        "B1.2",
        "A type",
        _numbered("AT", random, rows),
        "256",
    ]


def _retired(random: np.random.Generator, start: int, rows: int, concepts: int) -> list[Column]:
    old, new = _cuis(np.arange(start, start + rows), even=True), _cuis(random.integers(0, concepts, rows))
    return [old, "2019AA", _pick(random, ["SY", "DEL", "RO"], [0.6, 0.3, 0.1], rows), "", "", new, "Y"]


def _cuis(concept: np.ndarray, even: bool = False) -> pa.Array:
    """Odd numbers for concepts, even ones for what was retired."""
    digits = pc.utf8_lpad(pa.array(concept * 2 + (not even)).cast(pa.string()), 7, "0")
    return pc.binary_join_element_wise("C", digits, "")


def _numbered(prefix: str, random: np.random.Generator, rows: int) -> pa.Array:
    return pc.binary_join_element_wise(
        prefix, pa.array(random.integers(10**6, 10**8, rows)).cast(pa.string()), ""
    )


def _pick(random: np.random.Generator, values: list[str], shares: list[float] | None, rows: int) -> pa.Array:
    return pa.array(values).take(pa.array(random.choice(len(values), rows, p=shares)))


def _words() -> pa.Array:
    return pa.array([a + b + c for a in _SYLLABLES for b in _SYLLABLES for c in ("", *_SYLLABLES)])


def _texts(random: np.random.Generator, concept: np.ndarray) -> pa.Array:
    """Two to five words; names of a concept mostly share their first one."""
    words, rows = _words(), len(concept)
    own = np.where(
        random.random(rows) < 0.7, concept * 7919 % len(words), random.integers(0, len(words), rows)
    )
    # Squares make small numbers frequent, as a few words are in real names.
    others = [(random.random(rows) ** 2 * len(words)).astype(np.int64) for _ in range(4)]
    count = random.integers(1, 5, rows)
    indices = [pa.array(own)] + [pa.array(index, mask=place >= count) for place, index in enumerate(others)]
    return pc.binary_join_element_wise(*(words.take(index) for index in indices), " ", null_handling="skip")


def _write(columns: Sequence[Column], random: np.random.Generator, dirty: float, write) -> None:  # type: ignore[no-untyped-def]
    lines = pc.binary_join_element_wise(*columns, "\n", "|").cast(pa.binary())
    start = 0
    for row in np.flatnonzero(random.random(len(lines)) < dirty):
        write(_bytes(lines[start:row]))
        write(_broken(lines[row].as_py(), int(random.integers(7))))
        start = int(row) + 1
    write(_bytes(lines[start:]))


def _bytes(lines: pa.Array) -> bytes | pa.Buffer:
    offsets = np.frombuffer(lines.buffers()[1], np.int32)[lines.offset : lines.offset + len(lines) + 1]
    return lines.buffers()[2][offsets[0] : offsets[-1]] if len(lines) else b""


def _broken(line: bytes, way: int) -> bytes:
    """A row as real exports break it."""
    half = len(line) // 2
    return [
        line[:half] + b"\0" + line[half:],
        line[:half] + b"\xe9" + line[half:],
        line.replace(b"|", b"", 1),
        b"|" + line,
        b"CL" + line[2:],
        b"c" + line[1:-1] + b"\r\n",
        line.replace(b" ", b"  \t", 1) + b"\n",
    ][way]


def main() -> None:
    """Write a release into a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", type=int, default=1_000_000, help="rows of MRCONSO.RRF")
    parser.add_argument("--relations", type=int, default=3_000_000, help="rows of MRREL.RRF")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dirty", type=float, default=1e-5, help="share of broken rows")
    write_release(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
