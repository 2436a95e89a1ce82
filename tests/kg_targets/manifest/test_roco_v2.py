"""ROCOv2 as files and as Parquet: manual concepts are labels, the article is the case, images are found in both."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kg_targets.errors import ManifestError
from kg_targets.manifest import Manifest, ReadReport, Record
from kg_targets.store import TargetStore
from pipelines.cli import main
from tests.images import png
from training.data.sources import open_source

CAPTIONS = {"ROCOv2_1": "CT of the chest, axial", "ROCOv2_2": "Chest X-ray", "ROCOv2_3": "MRI of the brain"}
MANUAL = {"ROCOv2_1": "C0040405", "ROCOv2_2": "C1306645;C0817096;C1999039", "ROCOv2_3": ""}
LICENCES = """ID,PMCID,Attribution,Link
ROCOv2_1,PMC11,CC BY [Somebody et al. (2021)],https://invented.example/11
ROCOv2_2,PMC11,CC BY [Somebody et al. (2021)],https://invented.example/11
ROCOv2_3,PMC12,CC BY-NC,https://invented.example/12
"""


def as_files(root: Path) -> Path:
    def table(name: str, header: str, rows: dict[str, str]) -> None:
        (root / name).write_text(f"{header}\n" + "".join(f'{key},"{value}"\n' for key, value in rows.items()))

    table("test_captions.csv", "ID,Caption", CAPTIONS)
    # As published, the concepts repeat the manual ones.
    automatic = {
        "ROCOv2_1": "C0040405;C0024109",
        "ROCOv2_2": MANUAL["ROCOv2_2"],
        "ROCOv2_3": "C9999999;C0006104",
    }
    table("test_concepts.csv", "ID,CUIs", automatic)
    table("test_concepts_manual.csv", "ID,CUIs", MANUAL | {"ROCOv2_3": "C0024485;C9999999"})
    (root / "cui_mapping.csv").write_text('CUI,Canonical name\nC9999999,"Something, else"\n')
    (root / "license_information.csv").write_text(LICENCES)
    (root / "test_images" / "test").mkdir(parents=True)
    for row, name in enumerate(CAPTIONS):
        (root / "test_images" / "test" / f"{name}.jpg").write_bytes(png(row))
    return root


def as_parquet(root: Path) -> Path:
    (root / "data").mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for part, names in enumerate((["ROCOv2_1", "ROCOv2_2"], ["ROCOv2_3"])):
        rows = [{"bytes": png(list(CAPTIONS).index(name)), "path": None} for name in names]
        cuis = [list(filter(None, MANUAL[name].split(";"))) for name in names]
        table = {
            "image": pa.array(rows, kind),
            "image_id": names,
            "caption": [CAPTIONS[name] for name in names],
        }
        pq.write_table(pa.table({**table, "cui": cuis}), root / "data" / f"test-0000{part}-of-00002.parquet")
    return root


def read(root: Path) -> tuple[list[Record], ReadReport]:
    report = ReadReport()
    return list(Manifest.load("roco_v2").records("test", root, report)), report


def test_files_give_labels_articles_and_licences(tmp_path: Path) -> None:
    records, report = read(as_files(tmp_path))
    assert [record.caption for record in records] == list(CAPTIONS.values())
    assert [record.cuis for record in records] == [("C0024109",), (), ("C0006104",)]
    assert [tuple(record.labels.values()) for record in records] == [
        ("CT", "", ""),
        ("x-ray", "chest", "anterior-posterior"),
        ("MR", "", ""),
    ]
    assert [record.group_id for record in records] == ["PMC11", "PMC11", "PMC12"]
    assert [record.licence for record in records] == ["CC BY", "CC BY", "CC BY-NC"]
    assert records[0].image_path == "test_images/test/ROCOv2_1.jpg"
    first, second = sorted(report.lines(), reverse=True)
    assert first.startswith("5 × manual concept is a label and makes no targets (options: manual_concepts)")
    assert second.startswith(
        "1 × manual concept C9999999 (Something, else) is no modality, region or direction"
    )


def test_parquet_gives_the_same_but_for_what_it_lacks(tmp_path: Path) -> None:
    root = as_parquet(tmp_path)
    assert Manifest.load("roco_v2").present_splits(root) == ["test"]
    records, report = read(root)
    assert [record.image_id for record in records] == list(CAPTIONS)
    assert records[1].labels == {"modality": "x-ray", "region": "chest", "direction": "anterior-posterior"}
    assert [record.cuis for record in records] == [(), (), ()] and records[0].group_id == "ROCOv2_1"
    assert "license_information.csv is not there" in report.lines()[0]
    (root / "license_information.csv").write_text(LICENCES)
    assert [record.group_id for record in read(root)[0]] == ["PMC11", "PMC11", "PMC12"]


@pytest.mark.parametrize(
    ("write", "cuis"),
    [
        (
            as_files,
            [("C0040405", "C0024109"), ("C1306645", "C0817096", "C1999039"), ("C9999999", "C0006104")],
        ),
        (as_parquet, [("C0040405",), ("C1306645", "C0817096", "C1999039"), ()]),
    ],
)
def test_an_option_keeps_manual_concepts_among_the_targets(
    write: type, cuis: list[tuple[str, ...]], tmp_path: Path
) -> None:
    manifest = Manifest.load("roco_v2")
    both = manifest.model_copy(update={"options": {"manual_concepts": "labels_and_targets"}})
    records = list(both.records("test", write(tmp_path)))
    assert [record.cuis for record in records] == cuis and records[0].labels["modality"] == "CT"
    wrong = manifest.model_copy(update={"options": {"manual_concepts": "yes"}})
    with pytest.raises(ManifestError, match="must be labels or labels_and_targets, not 'yes'"):
        list(wrong.records("test", tmp_path))


def test_parquet_without_concepts_is_read_and_without_captions_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "test-0.parquet"
    pq.write_table(pa.table({"image_id": ["a"], "caption": ["CT"]}), file)
    (record,), _ = read(tmp_path)
    assert (record.caption, record.cuis) == ("CT", ())
    pq.write_table(pa.table({"image_id": ["a"], "text": ["CT"]}), file)
    with pytest.raises(ManifestError, match="column 'caption' is missing; the header has image_id"):
        read(tmp_path)


def test_labels_stay_out_where_nobody_gave_any(tmp_path: Path) -> None:
    root = as_files(tmp_path)
    (root / "test_concepts_manual.csv").unlink()
    assert read(root)[0][0].labels == {}
    (root / "license_information.csv").write_text("ID,Article\nx,y\n")
    with pytest.raises(ManifestError, match="column 'PMCID' is missing; the header has ID, Article"):
        read(root)


@pytest.mark.parametrize("write", [as_files, as_parquet])
def test_check_build_card_and_training_take_either_root(
    write: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = str(write(tmp_path)), str(tmp_path / "out")
    assert main(["check", "roco_v2", "--data-root", root]) == 0
    assert "3 of 3 images" in capsys.readouterr().out
    assert main(["build", "roco_v2", "--data-root", root, "--split", "test", "--out", out]) == 0
    store = TargetStore.open(tmp_path / "out" / "test")
    assert set(store.labels) == {"modality", "region", "direction"}
    source = open_source(tmp_path, store)
    assert [source.read(row).getpixel((0, 0)) for row in range(3)] == [0, 1, 2]
    card = ["card", str(store.path), "--out", str(tmp_path / "card.html"), "--data-root", root]
    assert main(card) == 0
