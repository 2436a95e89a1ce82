"""Writers of small, made-up ontology files in the forms that the readers take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

TERMS_HEADER = "cui\tsource\tsource_id\tlabel\tsynonyms"
IS_A_HEADER = "child_cui\tparent_cui\tsource"

LUNG, ORGAN, THORAX, BODY = "C0000001", "C0000002", "C0000003", "C0000004"


def write_tsv(
    folder: Path, terms: Sequence[Sequence[str]], edges: Sequence[Sequence[str]] = ()
) -> tuple[Path, Path]:
    """Write the pair of tables; rows are given cell by cell."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "cui_terms.tsv", folder / "cui_isa.tsv"
    for path, header, rows in zip(paths, (TERMS_HEADER, IS_A_HEADER), (terms, edges), strict=True):
        path.write_text("\n".join([header, *("\t".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return paths


def term(cui: str, label: str, source: str = "HP", source_id: str = "", synonyms: str = "") -> list[str]:
    """A row of the terms table; each CUI has a term of its own unless ``source_id`` says otherwise."""
    return [cui, source, source_id or f"{source}:{cui}", label, synonyms]


def mrconso(
    cui: str,
    text: str,
    *,
    language: str = "ENG",
    status: str = "P",
    form: str = "PF",
    preferred: str = "Y",
    source: str = "SRC_A",
    term_type: str = "PT",
    suppress: str = "N",
) -> str:
    """One row of MRCONSO.RRF."""
    cells = [
        cui,
        language,
        status,
        "L1",
        form,
        "S1",
        preferred,
        "A1",
        "",
        "",
        "",
        source,
        term_type,
        "X1",
        text,
    ]
    return "|".join([*cells, "0", suppress, "", ""])


def mrrel(
    first: str, rel: str, second: str, rela: str = "", source: str = "SRC_A", suppress: str = "N"
) -> str:
    """One row of MRREL.RRF: ``second`` stands in ``rel`` to ``first``."""
    cells = [
        first,
        "A1",
        "AUI",
        rel,
        second,
        "A2",
        "AUI",
        rela,
        "R1",
        "",
        source,
        source,
        "",
        "",
        suppress,
        "",
    ]
    return "|".join([*cells, ""])


def mrsty(cui: str, tui: str) -> str:
    """One row of MRSTY.RRF."""
    return "|".join([cui, tui, "B1", "A semantic type", "AT1", "", ""])


def mrcui(retired: str, relation: str, successor: str = "") -> str:
    """One row of MRCUI.RRF."""
    return "|".join([retired, "2020AA", relation, "", "", successor, "Y" if successor else "", ""])


def mrrank(rank: int, source: str, term_type: str) -> str:
    """One row of MRRANK.RRF; the highest rank is the most preferred."""
    return "|".join([f"{rank:04d}", source, term_type, "N", ""])


def write_umls(
    folder: Path,
    names: Sequence[str],
    relations: Sequence[str] = (),
    types: Sequence[str] = (),
    retired: Sequence[str] = (),
    ranks: Sequence[str] = (),
) -> Path:
    """Write a META folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"MRCONSO.RRF": names, "MRREL.RRF": relations, "MRSTY.RRF": types}
    optional = {"MRCUI.RRF": retired, "MRRANK.RRF": ranks}
    for name, rows in (files | {name: rows for name, rows in optional.items() if rows}).items():
        (folder / name).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return folder
