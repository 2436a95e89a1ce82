"""Check the seed ontology's sources and regenerate the table in docs/seed-ontology.md.

    python tools/seed_sources.py --write                      # regenerate the table from the TSV files
    python tools/seed_sources.py --check ../shared/data       # compare cited ontology terms with the local files

``--check`` reads the merged ``cui_terms.tsv.gz`` and says which cited DOID, MONDO, HP, EFO and UBERON identifiers no
longer carry the CUI they are cited for. Public files and ROCO counts are not re-read: they are cited as found.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEED = ROOT / "kg_targets" / "ontology" / "seed"
DOC = ROOT / "docs" / "seed-ontology.md"
BEGIN, END = "<!-- generated: tools/seed_sources.py -->", "<!-- end generated -->"
ONTOLOGIES = {"DOID", "MONDO", "HP", "EFO", "UBERON"}


def read_concepts() -> list[dict[str, str]]:
    """Read the rows of ``concepts.tsv``, in file order."""
    with (SEED / "concepts.tsv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))


def lineage(source: str) -> str:
    """Name what a source goes back to: two sources of one lineage count once.

    The DICOM standard's tables and the toolkits by its editors are one lineage, whichever file states them; so are
    ROCO's shipped concepts and ROCOv2's table of names, both made by linking captions to UMLS.
    """
    if source.startswith("ROCO"):
        return "ROCO"
    if "dicom" in source.lower():
        return "DICOM"
    prefix = source.partition(":")[0]
    return prefix if prefix in ONTOLOGIES or prefix == "UMLS-sample" else source


def short(source: str) -> str:
    """Shorten a source for the table; the TSV keeps it in full."""
    return source.replace("github:bvdh/dicom-terminology-in-fhir:input/fsh/", "DICOM ")


def counts_table(rows: list[dict[str, str]]) -> list[str]:
    """Count concepts per kind, verified and not."""
    counts = Counter((row["kind"], row["verified"]) for row in rows)
    lines = ["| kind | verified | unverified |", "|---|---:|---:|"]
    for kind in sorted({kind for kind, _ in counts}):
        lines.append(f"| {kind} | {counts[kind, 'true']} | {counts[kind, 'false']} |")
    verified = sum(row["verified"] == "true" for row in rows)
    return [*lines, f"| **all** | **{verified}** | **{len(rows) - verified}** |"]


def concept_table(rows: list[dict[str, str]]) -> list[str]:
    """List every concept with its sources."""
    lines = ["| CUI | name | sources | verified |", "|---|---|---|---|"]
    for row in rows:
        sources = ", ".join(short(source) for source in row["sources"].split("|"))
        lines.append(
            f"| {row['cui']} | {row['name']} | {sources} | {'yes' if row['verified'] == 'true' else 'no'} |"
        )
    return lines


def generated_block(rows: list[dict[str, str]]) -> str:
    """Compose the generated part of the document, markers included."""
    notes = [f"- {row['cui']} {row['name']}: {row['note']}" for row in rows if row["note"]]
    parts = [
        BEGIN,
        "## Counts\n",
        *counts_table(rows),
        "\n## Notes on single concepts\n",
        *notes,
        "\n## All concepts\n",
        *concept_table(rows),
        END,
    ]
    return "\n".join(parts)


def write_document(rows: list[dict[str, str]]) -> None:
    """Replace the generated part of docs/seed-ontology.md."""
    text = DOC.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    DOC.write_text(head + generated_block(rows) + rest.partition(END)[2], encoding="utf-8", newline="\n")


def disagreements(rows: list[dict[str, str]], data: Path) -> list[str]:
    """Say which cited ontology terms do not carry their CUI in ``data/ontologies/cui_terms.tsv.gz``."""
    known: set[tuple[str, str]] = set()
    with gzip.open(data / "ontologies" / "cui_terms.tsv.gz", "rt", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE):
            known.add((row["cui"], row["source_id"].rpartition(":")[2]))
    found = []
    for row in rows:
        for source in row["sources"].split("|"):
            prefix, _, identifier = source.partition(":")
            if prefix in ONTOLOGIES and (row["cui"], identifier) not in known:
                found.append(f"{row['cui']} {row['name']}: {source} does not carry this CUI")
    return found


def main() -> int:
    """Run the command line; the exit code is 1 when a cited term disagrees."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="regenerate the table in docs/seed-ontology.md")
    parser.add_argument(
        "--check", type=Path, metavar="DATA", help="folder that holds ontologies/cui_terms.tsv.gz"
    )
    arguments = parser.parse_args()
    rows = read_concepts()
    if arguments.write:
        write_document(rows)
    problems = disagreements(rows, arguments.check) if arguments.check else []
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
