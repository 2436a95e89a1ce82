"""RRF files in columns: the same rows and counts as a reader that goes line by line, whatever the bytes."""

import gzip
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kg_targets.errors import OntologyError
from kg_targets.ontology import Ontology, rrf
from kg_targets.ontology.rrf import RrfFile, rrf_parts
from kg_targets.ontology.tables import are_abbreviations, looks_like_abbreviation, single_spaced
from tests.kg_targets.ontology.fixtures import mrconso, mrrel, mrsty, write_umls

WIDTH = 3


def line_by_line(data: bytes) -> tuple[list[list[str]], dict[str, int]]:
    """Rows and counts, as a plain loop over lines finds them."""
    skipped: Counter[str] = Counter()
    lines = []
    for raw in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if b"\0" in raw:
            skipped["f.RRF: line with a NUL byte"] += 1
            continue
        try:
            lines.append(raw.decode().rstrip("\r").replace("\r", " "))
        except UnicodeDecodeError:
            skipped["f.RRF: line that is not UTF-8"] += 1
    cells = Counter(line.count("|") + 1 for line in lines[:100])
    width = WIDTH + (cells[WIDTH + 1] >= cells[WIDTH])
    rows = [line.split("|") for line in lines if line]
    odd = sum(len(row) != width for row in rows)
    if odd:
        skipped[f"f.RRF: row without {width} columns"] = odd
    return [row[:WIDTH] for row in rows if len(row) == width], dict(skipped)


def in_columns(parts) -> tuple[list[list[str]], dict[str, int]]:
    file = RrfFile(parts, WIDTH, Counter())
    batches = list(file.read({"a": 0, "c": 2}, {"b": 1}))
    rows = [
        list(row)
        for batch in batches
        for row in zip(*(batch[name].to_pylist() for name in "abc"), strict=True)
    ]
    return rows, dict(file.skipped)


pieces = st.sampled_from(
    [b"|", b"|", b"|", b"\n", b"|\n", b"C0000001", b"lung", b'"', b"\\", b" ", b"\t", b"\0", b"\r", b"\r\n", b"\xe9",
     b"\xef\xbb\xbf", "größer".encode(), b"a|b|c|\n", b"a|b|c\n", b"''|#|\"\n", b"NULL|NA|1e5|\n"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=40).map(b"".join), st.sampled_from([7, 64, 1 << 20]), st.booleans())
@example(b"", 64, False)
@example(b"x" * 300 + b"|" + b"y" * 300 + b"|z|\na|b|c|", 64, True)
def test_blocks_give_what_lines_give(tmp_path_factory, data, size, packed):
    path = tmp_path_factory.mktemp("rrf") / "f.RRF"
    # The first block decides how rows end; a line loop sees a hundred lines, so they are put first.
    head = b"a|b|c|\n" * 100
    path.write_bytes(gzip.compress(head + data) if packed else head + data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rrf, "_BLOCK", size)
        assert in_columns([path]) == line_by_line(head + data)


def test_parts_of_a_file_are_read_as_one_and_a_gap_is_named(tmp_path):
    names = [mrconso(f"C{number:07d}", f"name {number}") for number in range(1, 400)]
    relations = [mrrel(f"C{number:07d}", "PAR", "C0000001", "inverse_isa") for number in range(2, 400)]
    whole = Ontology.from_umls(write_umls(tmp_path / "a", names, relations, [mrsty("C0000001", "T047")]))
    folder = write_umls(tmp_path / "b", names, relations, [mrsty("C0000001", "T047")])
    for name in ("MRCONSO.RRF", "MRREL.RRF"):
        data = (folder / name).read_bytes()
        (folder / name).unlink()
        for suffix, piece in (
            ("aa.gz", data[:9_001]),
            ("ab.gz", data[9_001:15_000]),
            ("ac.gz", data[15_000:]),
        ):
            (folder / f"{name}.{suffix}").write_bytes(gzip.compress(piece))
        (folder / f"{name}.aa").write_bytes(data[:9_001])  # unpacked as well
        (folder / f"{name}.md5").write_text("no part")
    assert Ontology.from_umls(folder).fingerprint == whole.fingerprint
    assert [path.name for path in rrf_parts(folder, "MRREL.RRF")] == [
        "MRREL.RRF.aa",
        "MRREL.RRF.ab.gz",
        "MRREL.RRF.ac.gz",
    ]
    (folder / "MRREL.RRF.ab.gz").unlink()
    with pytest.raises(
        OntologyError, match=r"MRREL\.RRF\.ab does not exist, but other parts of MRREL\.RRF do"
    ):
        Ontology.from_umls(folder)


@given(st.lists(st.text(st.sampled_from("AbC1 \t\xa0\u2003\u3000\x1c\x85éÉǅ中"), max_size=10)))
def test_names_in_columns_are_tidied_and_judged_as_one_by_one(texts):
    assert single_spaced(pa.array(texts, pa.string())).to_pylist() == [
        " ".join(text.split()) for text in texts
    ]
    judged = are_abbreviations(pa.array(texts, pa.string())).tolist()
    assert judged == [looks_like_abbreviation(text) for text in texts]
