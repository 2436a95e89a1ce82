"""Columns and files of a target store; readable with plain pyarrow, pandas, DuckDB or HF datasets."""

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = 1

MANIFEST = "manifest.json"
REPORT = "build_report.json"
CONCEPTS = "concepts.parquet"
IS_A = "is_a.parquet"
SUFFIX = ".parquet"

MENTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("cui", pa.string()),
        ("name", pa.string()),
        ("start", pa.int32()),  # Unicode code points into the caption; −1 for concepts shipped without a span
        ("end", pa.int32()),
        ("text", pa.string()),
        ("score", pa.float32()),
        ("negated", pa.bool_()),
        ("source", pa.string()),
    ]
)
IS_A_EDGES = pa.schema([("child", pa.string()), ("relation", pa.string()), ("parent", pa.string())])
CONCEPT_COLUMNS = pa.schema(
    [
        ("concept", pa.int32()),  # column index of sparse factors
        ("cui", pa.string()),
        ("name", pa.string()),
        ("kind", pa.string()),
        ("semantic_types", pa.list_(pa.string())),
        ("images", pa.int64()),  # images of this split that assert the concept itself
        ("fit_asserted", pa.int64()),  # d_c on the fit split
        ("fit_covered", pa.int64()),  # n_a on the fit split
        ("ic", pa.float64()),
        ("idf", pa.float64()),
    ]
)


def target_columns(labels: tuple[str, ...], dense: int | None) -> pa.Schema:
    """Schema of ``targets-*.parquet``.

    Args:
        labels: names of the data set's labels; each becomes a column ``label_<name>``.
        dense: width of dense factors, or ``None`` for sparse factors over concepts.
    """
    if dense is None:
        factors = [("factor_index", pa.list_(pa.int32())), ("factor_value", pa.list_(pa.float32()))]
    else:
        factors = [("factor", pa.list_(pa.float32(), dense))]
    return pa.schema(
        [
            ("row", pa.int64()),
            ("image_id", pa.string()),
            ("image_path", pa.string()),
            ("caption", pa.string()),
            ("group_id", pa.string()),
            ("licence", pa.string()),
            *((f"label_{name}", pa.string()) for name in labels),
            ("cuis", pa.list_(pa.string())),
            ("known", pa.bool_()),
            *factors,
            ("neighbor_rows", pa.list_(pa.int32())),
            ("neighbor_scores", pa.list_(pa.float32())),
        ]
    )


def write_parquet(table: pa.Table, path: str) -> None:
    """Write one file with fixed settings, so that the same rows give the same bytes."""
    pq.write_table(table, path, compression="zstd", version="2.6", use_dictionary=True, store_schema=True)
