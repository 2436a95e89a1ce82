"""The README of a store: a dataset card, by which Hugging Face ``datasets`` finds the tables, and what they hold."""

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import yaml

from kg_targets.store.schema import table_files

_COLUMNS = {
    "row": "row number, from 0",
    "image_id": "id of the image",
    "image_path": "its file, relative to the data root",
    "caption": "its caption",
    "group_id": "its case, patient or article",
    "licence": "licence of this row",
    "cuis": "concepts that the caption asserts, ascending",
    "known": "whether anything is known about the image",
    "factor_index": "columns of the image's sparse factor: `concept` in the table concepts",
    "factor_value": "their values; the similarity of two images is the dot product of their factors",
    "factor": "the image's factor; the similarity of two images is the dot product of their factors",
    "image_factor": "the teacher's unit vector of the image; zeros where it could not be read",
    "text_factor": "the teacher's unit vector of the caption",
    "neighbor_rows": "rows of the most similar other images, best first",
    "neighbor_scores": "their similarities",
    "cui": "concept: UMLS identifier",
    "name": "preferred name of the concept",
    "start": "first character of the mention in the caption, in Unicode code points; -1: shipped without a place",
    "end": "character after the mention's last",
    "text": "the mention as written",
    "score": "the extractor's confidence",
    "negated": "whether the caption says that it is absent",
    "uncertain": "whether the caption gives it as one possibility",
    "hypothetical": "whether it was only looked for, or would matter if it were there",
    "historical": "whether the patient once had it",
    "family": "whether it is a relative's",
    "source": "the extractor",
    "concept": "number of the concept: its column in sparse factors",
    "kind": "kind of concept, such as finding or organ",
    "semantic_types": "UMLS semantic types",
    "images": "images of this split that assert the concept itself",
    "fit_asserted": "images of the fit split that assert the concept itself",
    "fit_covered": "images of the fit split that assert it or something that it is an ancestor of",
    "ic": "information content on the fit split, nats",
    "idf": "inverse document frequency on the fit split, nats",
    "child": "CUI of the narrower concept",
    "relation": "how child and parent are related: is_a, part_of or same_as",
    "parent": "CUI of the broader concept",
    "vectors.name": "name of the vector, unique",
    "vector": "what was fitted on the fit split and is reused for other splits",
}
_SPLIT = re.compile(r"\w+(\.\w+)*")


def store_card(manifest: Mapping[str, Any], tables: Mapping[str, pa.Schema]) -> str:
    """The text of ``README.md``; the same inputs give the same bytes.

    Args:
        manifest: the store's.
        tables: columns of each table that the store has.
    """
    name, split = manifest.get("dataset", "a data set"), manifest.get("split", "train")
    # What `datasets` takes as a split's name; "all" it keeps for itself.
    shown = split if _SPLIT.fullmatch(split) and split != "all" else "train"
    rows = {table: sum(table_files(manifest, table).values()) for table in tables}
    configs: list[dict[str, Any]] = [
        {"config_name": table, "data_files": [{"split": shown, "path": f"{table}/*.parquet"}]}
        for table in tables
        if rows[table]  # `datasets` cannot load a table without rows
    ]
    if configs:
        configs[0]["default"] = True
    head = {
        "pretty_name": f"{name}/{split}: soft targets",
        "license": "other",
        "license_name": manifest.get("licence", ""),
        "tags": ["kg-targets", "medical"],
        "configs": configs,
    }
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# Soft targets of {name}/{split}",
        f"{manifest.get('rows', 0):,} images with captions, and factors of each from which the similarity of any two "
        f"follows. {_origin(manifest)}`manifest.json` has the configuration and the checksums. Captions are the data "
        "set's, under its licence.",
        f"```python\n{_READING.format(table=next(iter(tables), ''), split=shown)}```",
    ]
    for table, columns in tables.items():
        lines = "\n".join(
            f"| `{field.name}` | {field.type} | {_described(table, field.name)} |" for field in columns
        )
        parts.append(f"## {table}: {rows[table]:,} rows\n\n| column | type | |\n|---|---|---|\n{lines}")
    return "\n\n".join(parts) + "\n"


def _origin(manifest: Mapping[str, Any]) -> str:
    """Scorer, and ontology or teacher; empty for a store that was not built."""
    if "code_version" not in manifest:
        return ""
    source = manifest["teacher"]["name"] if "teacher" in manifest else manifest["ontology"]["release"]
    joined = "".join(
        f"{entry['rows']:,} rows of {entry['dataset']}/{entry['split']} joined it later. "
        for entry in manifest.get("extensions", ())
    )
    return f"Scorer {manifest['config']['scorer']} ({source}), made by kg-targets {manifest['code_version']}. {joined}"


def _described(table: str, column: str) -> str:
    if column.startswith("label_"):
        return f"label of the data set: {column[6:]}"
    return _COLUMNS.get(f"{table}.{column}") or _COLUMNS.get(column, "")


_READING = """from kg_targets import TargetStore
store = TargetStore.open(STORE)

import pandas, polars, duckdb, datasets  # any of them
pandas.read_parquet(f"{{STORE}}/{table}")
polars.read_parquet(f"{{STORE}}/{table}/*.parquet")
duckdb.sql(f"from '{{STORE}}/{table}/*.parquet'")
datasets.load_dataset(STORE, "{table}", split="{split}")
"""
