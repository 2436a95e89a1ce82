"""A store's folder in other people's tools, its card, and stores of the layout before."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import yaml

from kg_targets.concepts.mention import STATUSES, Mention
from kg_targets.store import TargetStore, schema, verify_store
from tests.builds import CAPTIONS, build
from tests.training.teachers.stores import write_teacher_store

SCHEMA_1 = Path(__file__).parents[2] / "data" / "written_by_v0"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return build(tmp_path_factory.mktemp("a store=1") / "with blanks", CAPTIONS * 3, rows_per_shard=5)


def rows_of(store: TargetStore) -> dict[str, int]:
    """Rows of each table, as the manifest counts them."""
    counts = dict.fromkeys(schema.TABLES, 0)
    for entry in store.manifest["files"]:
        counts[entry["file"].split("/")[0]] += entry["rows"]
    return counts


def test_pandas_reads_every_table_by_its_folder(store: TargetStore) -> None:
    frames = {table: pd.read_parquet(store.path / table) for table in schema.TABLES}
    assert {table: len(frame) for table, frame in frames.items()} == rows_of(store)
    assert frames["targets"]["image_id"].tolist() == store.image_ids
    pd.testing.assert_frame_equal(frames["edges"], store.edges)
    pd.testing.assert_frame_equal(frames["mentions"], store.mentions)


def test_pyarrow_reads_a_folder_as_one_data_set(store: TargetStore) -> None:
    table = ds.dataset(store.path / "targets").to_table(columns=["row", "known"])
    assert table.column("row").to_pylist() == list(range(len(store)))


def test_duckdb_reads_and_joins_the_tables(store: TargetStore) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    (count,) = duckdb.execute(
        "select count(*) from read_parquet($m) m join read_parquet($t) t using (image_id) "
        "where substr(t.caption, m.start + 1, m.end - m.start) = m.text",
        {"m": f"{store.path}/mentions/*.parquet", "t": f"{store.path}/targets/*.parquet"},
    ).fetchone()
    assert count == len(store.mentions) > 10


def test_polars_reads_every_table(store: TargetStore) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    for table, rows in rows_of(store).items():
        assert len(polars.read_parquet(store.path / table / "*.parquet")) == rows
    frame = polars.read_parquet(store.path / "targets" / "*.parquet")
    assert frame["image_id"].to_list() == store.image_ids


@pytest.mark.parametrize("captions", [CAPTIONS * 3, ("Figure 2B. Follow-up.",)], ids=["many", "no mention"])
def test_hugging_face_datasets_loads_every_table_by_name(tmp_path: Path, captions: tuple[str, ...]) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    store = build(tmp_path, captions, rows_per_shard=5)
    path, cache = str(store.path), str(tmp_path / "cache")
    filled = {table: rows for table, rows in rows_of(store).items() if rows}  # it loads no table without rows
    assert datasets.get_dataset_config_names(path) == list(filled)
    for table, rows in filled.items():
        assert len(datasets.load_dataset(path, table, split="train", cache_dir=cache)) == rows
    loaded = datasets.load_dataset(path, cache_dir=cache)
    assert list(loaded) == ["train"] and list(loaded["train"]["image_id"]) == store.image_ids


def test_the_columns_of_mentions_are_the_fields_of_a_mention() -> None:
    assert schema.MENTION_COLUMNS.names == ["image_id", *Mention._fields]
    assert set(STATUSES) == {field.name for field in schema.MENTION_COLUMNS if field.type == pa.bool_()}


def test_statuses_that_an_older_store_lacks_are_false() -> None:
    mentions = TargetStore.open(SCHEMA_1 / "stores" / "train").mentions
    assert list(mentions) == schema.MENTION_COLUMNS.names
    assert mentions["negated"].any() and not mentions[
        ["uncertain", "hypothetical", "historical", "family"]
    ].any(axis=None)


def test_a_teachers_store_has_one_table_for_all_tools(tmp_path: Path) -> None:
    store = write_teacher_store(tmp_path, CAPTIONS)
    assert pd.read_parquet(store.path / "targets")["caption"].tolist() == store.captions == list(CAPTIONS)
    assert [path.name for path in store.path.iterdir() if path.is_dir()] == ["targets"]
    _, head, _ = (store.path / schema.CARD).read_text(encoding="utf-8").split("---\n", 2)
    assert [config["config_name"] for config in yaml.safe_load(head)["configs"]] == ["targets"]


def test_the_card_describes_every_column_and_names_the_split(store: TargetStore) -> None:
    _, head, text = (store.path / schema.CARD).read_text(encoding="utf-8").split("---\n", 2)
    configs: list[dict[str, Any]] = yaml.safe_load(head)["configs"]
    assert [config["config_name"] for config in configs] == list(schema.TABLES)
    assert configs[0] == {
        "config_name": "targets",
        "data_files": [{"split": "train", "path": "targets/*.parquet"}],
        "default": True,
    }
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| `")]
    columns = [name for table in schema.TABLES for name in pd.read_parquet(store.path / table)]
    assert [cells[0].strip(" `") for cells in rows] == columns
    assert all(cells[2].strip() for cells in rows)
    assert str(store.path.parent) not in text


def test_labels_that_only_some_shards_have_are_columns_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kg_targets.manifest import Record
    from pipelines.build import extract

    plain = extract.row_table

    def some(records: list[Record]) -> Any:
        rows = plain(records)
        return rows if records[0].image_id == "train000" else rows.drop_columns("label_region")

    monkeypatch.setattr(extract, "row_table", some)
    store = build(tmp_path, CAPTIONS, rows_per_shard=5)
    assert store.labels == ("region",)
    assert store.label("region") == ["chest", "head", "", "chest", "head", "", "", ""]


@pytest.mark.parametrize("path", ["stores/test", "noise/test", "teacher/train"])
def test_a_store_of_the_layout_before_is_read_and_verified(path: str) -> None:
    store = TargetStore.open(SCHEMA_1 / path)
    assert store.manifest["schema_version"] == 1 and len(store.captions) == len(store)
    if store.kind == schema.KNOWLEDGE:
        assert list(store.edges) == schema.EDGE_COLUMNS.names and store.is_a is store.edges
        assert list(store.mentions) == schema.MENTION_COLUMNS.names
        assert list(store.concepts) == schema.CONCEPT_COLUMNS.names
    assert verify_store(store.path)[0].endswith("files match their checksums")


def test_an_up_to_date_store_of_the_layout_before_is_kept_and_said_to_be_one() -> None:
    from pipelines.build.write import open_if_current

    path, said = SCHEMA_1 / "teacher" / "train", list[str]()
    inputs = TargetStore.open(path).manifest["inputs"]
    assert open_if_current(path, inputs, said.append) is not None
    assert said == [f"{path}: up to date (in the layout of 0.2: --force writes the new one)"]


def test_shards_are_in_the_order_of_their_numbers() -> None:
    names = [schema.part(schema.TARGETS, index) for index in (99_999, 100_000, 100_001)]
    files = [{"file": name, "rows": 1} for name in sorted(names)]
    assert list(schema.table_files({"schema_version": 2, "files": files}, schema.TARGETS)) == names
