"""Labels from a table of one's own, joined to a store by image or by case."""

from pathlib import Path

import pandas as pd
import pytest

from kg_targets.errors import StoreError
from kg_targets.store import TargetStore, with_labels
from tests.builds import build


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return build(tmp_path_factory.mktemp("labels"))


def table(folder: Path, *lines: str) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_table_of_findings_gives_its_columns_and_one_label_of_those_present(
    store: TargetStore, tmp_path: Path
) -> None:
    path = table(
        tmp_path, "id,Effusion,Mass", "train000,present,present", "train001,absent,", "elsewhere,present,"
    )
    labelled, joined = with_labels(store, path)
    assert labelled.labels == ("region", "Effusion", "Mass", "findings")
    assert labelled.label("Effusion")[:3] == ["present", "absent", ""]
    assert labelled.label("findings")[:3] == ["Effusion+Mass", "", ""]
    assert labelled.label("region") == store.label("region") and store.labels == ("region",)
    assert "by image_id: 2 of 8 images have a row, 1 of 3 rows have no image here" in joined


def test_reports_that_several_images_share_are_joined_by_case_also_from_parquet(
    store: TargetStore, tmp_path: Path
) -> None:
    path = tmp_path / "labels.parquet"
    pd.DataFrame({"id": ["train-case1"], "organ": ["lung"]}).to_parquet(path)
    labelled, joined = with_labels(store, path)
    assert labelled.label("organ") == ["", "", "lung", "lung", "", "", "", ""]
    assert "findings" not in labelled.labels and "by group_id: 2 of 8 images" in joined


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("id,mass", "nobody,present"), "no id of its first column is an image_id or a group_id"),
        (("id,region", "train000,head"), "has a label 'region' already"),
        (("id,mass", "train000,present", "train000,absent"), "two rows of 'train000'"),
        (("id", "train000"), "needs a column of ids and at least one of labels"),
    ],
)
def test_tables_that_do_not_fit_say_what_to_change(
    store: TargetStore, tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        with_labels(store, table(tmp_path, *lines))


def test_a_table_that_is_not_there_is_one_line(store: TargetStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no table of labels"):
        with_labels(store, tmp_path / "none.csv")
