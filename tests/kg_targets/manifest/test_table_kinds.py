"""Tables that are not CSV: JSON lines, JSON, Parquet, tar shards; the same rows from each, images inside or beside."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from kg_targets.errors import DataError, ManifestError
from kg_targets.manifest import Manifest, ReadReport, Record
from kg_targets.store import TargetStore
from pipelines.cli import main
from tests.images import png
from training.data.sources import open_source

CAPTIONS = ["CT of the chest", "MRI of the brain", "Chest X-ray", "Ultrasound of the liver"]
ROWS = [
    {"file_name": f"{row}.png", "text": caption, "patient": f"p{row // 2}", "organ": "x"}
    for row, caption in enumerate(CAPTIONS)
]


def manifest(root: Path, captions: Any, images: str = "", **options: str) -> Path:
    content = {
        "name": "mine", "title": "Mine", "format": "table", "licence": "CC0-1.0", "how_to_get": "Invented.",
        "fit_split": "train", "options": options,
        "splits": {"train": {"files": {"captions": captions}, "images": images}},
    }  # fmt: skip
    path = root / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def read(path: Path) -> tuple[list[Record], ReadReport]:
    report = ReadReport()
    return list(Manifest.load(path).records("train", path.parent, report)), report


def beside(root: Path) -> None:
    (root / "images").mkdir()
    for row in range(4):
        (root / "images" / f"{row}.png").write_bytes(png(row))


def json_lines(root: Path) -> Path:
    beside(root)
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "{\n[1]\n")
    return manifest(root, "metadata.jsonl", "images", group_id="patient", labels="organ")


def json_lines_gzip(root: Path) -> Path:
    beside(root)
    (root / "a.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    return manifest(root, "a.jsonl", "images", group_id="patient", labels="organ")


def json_list(root: Path) -> Path:
    beside(root)
    (root / "a.json").write_text(json.dumps(ROWS))
    return manifest(root, ["missing.json", "a.json"], "images", group_id="patient", labels="organ")


def parquet_beside(root: Path) -> Path:
    beside(root)
    for part in range(2):
        pq.write_table(pa.Table.from_pylist(ROWS[part * 2 : part * 2 + 2]), root / f"part-{part}.parquet")
    return manifest(root, "part-*.parquet", "images", group_id="patient", labels="organ")


def parquet(root: Path, paths: str = "{row}.png") -> Path:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for part in range(2):
        rows = ROWS[part * 2 : part * 2 + 2]
        images = [
            {"bytes": png(row), "path": paths.format(row=row, n=row % 2) or None}
            for row in range(part * 2, part * 2 + 2)
        ]
        columns = {name: [row[name] for row in rows] for name in ("text", "patient", "organ")}
        # A column of numbers from another numbering must not be taken for the images' ids.
        table = pa.table({"id": ["1", "0"], "image": pa.array(images, kind), **columns})
        pq.write_table(table, root / f"train-{part}.parquet")
    return manifest(root, "train-*.parquet", group_id="patient", labels="organ", ignore="id")


def parquet_without_any_name(root: Path) -> Path:
    return parquet(root, paths="")


def parquet_with_paths_that_repeat(root: Path) -> Path:
    return parquet(root, paths="PMC{n}.png")


def tars(root: Path, same: bool = False) -> Path:
    (root / "shards").mkdir()
    for part in range(2):
        with tarfile.open(root / "shards" / f"{part}.tar", "w") as shard:
            for row in range(part * 2, part * 2 + 2):
                name = f"{row % 2 if same else row:06d}"
                extra = {key: ROWS[row][key] for key in ("patient", "organ")} | {"filepath": "else/where.png"}
                for end, data in (
                    ("png", png(row)),
                    ("txt", CAPTIONS[row].encode()),
                    ("json", json.dumps(extra).encode()),
                ):
                    member = tarfile.TarInfo(f"./{name}.{end}")
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data))
    return manifest(root, "shards/*.tar", group_id="patient", labels="organ")


def tars_with_the_same_keys(root: Path) -> Path:
    return tars(root, same=True)


KINDS = [
    json_lines, json_lines_gzip, json_list, parquet_beside, parquet, parquet_without_any_name,
    parquet_with_paths_that_repeat, tars, tars_with_the_same_keys,
]  # fmt: skip


@pytest.mark.parametrize("write", KINDS)
def test_every_kind_gives_the_same_rows_to_check_build_card_and_training(
    write: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path)
    records, _ = read(path)
    assert [record.caption for record in records] == CAPTIONS
    assert [record.group_id for record in records] == ["p0", "p0", "p1", "p1"]
    assert [record.labels for record in records] == [{"organ": "x"}] * 4
    root = ["--data-root", str(tmp_path)]
    assert main(["check", str(path), *root]) == 0
    assert "4 of 4 images present" in capsys.readouterr().out
    assert main(["build", str(path), *root, "--out", str(tmp_path / "out")]) == 0
    store = TargetStore.open(tmp_path / "out" / "train")
    source = open_source(tmp_path, store)
    assert [source.read(row).getpixel((0, 0)) for row in range(4)] == [0, 1, 2, 3]
    card = ["card", str(store.path), "--out", str(tmp_path / "card.html"), *root]
    assert main(card) == 0


def test_a_single_shard_is_a_data_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, root = tars(tmp_path), ["--data-root", str(tmp_path / "shards" / "1.tar")]
    assert main(["check", str(path), *root]) == 0
    assert "train: 2 captions, 1 cases, 2 of 2 images present (tar shards)" in capsys.readouterr().out
    assert main(["build", str(path), *root, "--out", str(tmp_path / "out")]) == 0
    store = TargetStore.open(tmp_path / "out" / "train")
    source = open_source(tmp_path / "shards" / "1.tar", store)
    assert [source.read(row).getpixel((0, 0)) for row in range(2)] == [2, 3]


def late(root: Path, key: str, **options: str) -> tuple[list[Record], ReadReport]:
    """A table whose last row alone has a key."""
    rows: list[dict[str, Any]] = [{"file_name": f"{n}.png", "text": "CT"} for n in range(3_000)]
    rows[-1][key] = "p7"
    (root / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(manifest(root, "a.jsonl", **options))


def test_keys_that_first_come_in_the_last_row_are_columns_too(tmp_path: Path) -> None:
    records, report = late(tmp_path, "group_id")
    assert records[-1].group_id == "p7" and list(report.notes.values()) == [2_999]
    assert "organ" in late(tmp_path, "organ")[1].ignored
    with pytest.raises(ManifestError, match="column 'patient_id' looks like the patient"):
        late(tmp_path, "patient_id")


def test_where_shards_repeat_each_others_paths_ids_are_places(tmp_path: Path) -> None:
    path = parquet_with_paths_that_repeat(tmp_path)
    records, report = read(path)
    places = ["train-0.parquet/0", "train-0.parquet/1", "train-1.parquet/0", "train-1.parquet/1"]
    assert [record.image_id for record in records] == [record.image_path for record in records] == places
    assert any("image ids and paths are file/row" in line for line in report.lines())
    path = manifest(tmp_path, "train-*.parquet", ignore="id, patient", case_pattern="PMC[0-9]")
    assert [record.group_id for record in read(path)[0]] == ["PMC0", "PMC1"] * 2  # of the path that is given
    path = manifest(tmp_path, "train-*.parquet", group_id="patient", image_id="text", ignore="id")
    assert [(record.image_id, record.image_path) for record in read(path)[0]] == list(
        zip(CAPTIONS, places, strict=True)
    )


def test_a_path_that_is_in_one_parquet_file_twice_is_still_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="several captions of one image"):
        read(parquet(tmp_path, paths="same.png"))


def test_lines_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    assert read(json_lines(tmp_path))[1].skipped == {"is not valid JSON": 1, "is not a JSON object": 1}


def test_samples_without_image_and_damaged_json_are_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        members = [
            ("a.txt", b"CT"),
            ("b.png", png(0)),
            ("b.json", b"{"),
            ("c.png", png(1)),
            ("c.txt", b"MRI"),
            ("d.cls", b"1"),
        ]
        for name, data in [
            *members,
            ("e.png", png(2)),
            ("e.txt", b"\xff"),
            ("f.png", png(2)),
            ("f.json", b"[]"),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    records, report = read(manifest(tmp_path, "a.tar"))
    assert [record.image_id for record in records] == ["c"] and records[0].image_path == "a.tar/c.png"
    assert report.skipped == {
        "has no image": 2, "json is not valid JSON": 1, "txt is not valid UTF-8 (save the file as UTF-8)": 1,
        "json is not an object": 1
    }  # fmt: skip


def shard(path: Path, *members: str, **texts: str) -> None:
    """A tar; a text member holds its name where ``texts`` gives nothing else for it."""
    with tarfile.open(path, "w") as archive:
        for number, name in enumerate(members):
            data = png(number) if name.endswith("png") else texts.get(name.replace(".", "_"), name).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_dotted_names_in_a_tar_are_samples_of_their_own(tmp_path: Path) -> None:
    names = [f"d/1.2.840.{number}.{end}" for number in range(4) for end in ("png", "txt")]
    shard(tmp_path / "a.tar", *names[:5], *names[6:])  # the third has no text
    records, report = read(manifest(tmp_path, "a.tar"))
    assert [record.image_id for record in records] == [f"1.2.840.{number}" for number in range(4)]
    assert [record.caption for record in records] == [names[1], names[3], "", names[7]]
    assert [record.image_path for record in records] == [f"a.tar/{name}" for name in names[::2]]
    assert not report.skipped and not report.notes


def test_images_without_a_text_belong_to_webdatasets_key_and_further_ones_are_counted(tmp_path: Path) -> None:
    own = [
        "k7.jpg.png",
        "k7.json",
        "k8.png",
        "k8.mask.png",
        "k8.txt",
        "k8.CAPTION",
        "k8.view2.png",
        "k8.view2.txt",
    ]
    shard(tmp_path / "a.tar", *own, "k9.a.png", "k9.b.png", "k9.c.png", "k9.c.json", "k9.txt",
          k7_json='{"caption": "CT"}', k9_c_json='{"caption_source": "x"}')  # fmt: skip
    records, report = read(manifest(tmp_path, "a.tar"))
    assert [(record.image_path, record.caption) for record in records] == [
        ("a.tar/k7.jpg.png", "CT"), ("a.tar/k8.png", "k8.txt"), ("a.tar/k8.view2.png", "k8.view2.txt"),
        ("a.tar/k9.a.png", "k9.txt"),
    ]  # fmt: skip
    assert report.notes == {
        "text of a sample that is not read: too large, or its second one": 1,
        "further image of a sample, not read": 3,
    }


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.tar", gzip.compress(b"x", mtime=0), "is not a readable plain tar"),
        ("a.tar", b"no tar at all", "is not a readable plain tar"),
        ("a.parquet", b"PAR1 broken", "is not a readable Parquet file"),
        ("a.json", b"{}", "must hold a JSON list"),
        ("a.json", b"[{", "is not readable as JSON"),
        ("a.jsonl", b"", r"no row can be used \(it is empty\)"),
        ("a.jsonl", b"\x1f\x8bxx", "cannot be read"),
    ],
)
def test_damaged_files_are_one_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ManifestError, match=message) as told:
        read(manifest(tmp_path, name))
    assert str(told.value).isprintable()


MEDCONCEPT = {
    "pmid": "1", "pmc": "22", "image": "a.jpg", "fig_caption": "x",
    "caption": "CT, of the chest: pleural effusion.",
    "umls_meta_info": [
        {"umls_cui": "C0040405", "umls_similarity": 1.0, "start_char": 0, "end_char": 2, "tokens": ["CT"]},
        {"umls_cui": "C0032227", "start_char": 20, "end_char": 36, "tokens": ["Pleural", "effusion"]},
        {"umls_cui": "C0817096", "start_char": 9, "end_char": 14, "tokens": ["thorax"]},
        {"umls_cui": "X1", "start_char": 0, "end_char": 1},
    ],
}  # fmt: skip


def test_nested_concepts_with_offsets_become_mentions_at_their_places(tmp_path: Path) -> None:
    (tmp_path / "medconcept_23m.jsonl").write_text(json.dumps(MEDCONCEPT) + "\n")
    report = ReadReport()
    (record,) = Manifest.load("medconcept_23m").records("all", tmp_path, report)
    assert record.cuis == ("C0040405", "C0032227", "C0817096") and record.group_id == "22"
    assert record.places == ((0, 2), (18, 34), (-1, -1))  # offsets count blanks around punctuation
    assert any("1 × shipped CUI is malformed" in line for line in report.lines())
    build = ["build", "medconcept_23m", "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*build, "--extractor", "provided"]) == 0
    mentions = pq.read_table(tmp_path / "out" / "all" / "mentions").to_pylist()
    assert [(one["cui"], one["text"]) for one in mentions] == [
        ("C0817096", ""), ("C0040405", "CT"), ("C0032227", "pleural effusion"),
    ]  # fmt: skip


def test_folds_keep_the_places_of_concepts(tmp_path: Path) -> None:
    rows = [MEDCONCEPT | {"image": f"{n}.jpg", "pmc": str(n)} for n in range(4)]
    (tmp_path / "medconcept_23m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folds = ["folds", "medconcept_23m", "--data-root", str(tmp_path), "--test", "all", "--folds", "2"]
    assert main([*folds, "--out", str(tmp_path / "folds")]) == 0
    fold = tmp_path / "folds" / "fold0"
    (record, _) = Manifest.load(fold / "manifest.yaml").records("test", fold)
    assert record.places == ((0, 2), (18, 34), (-1, -1)) and record.cuis[1] == "C0032227"


def test_a_pattern_finds_the_case_in_the_name_of_the_image(tmp_path: Path) -> None:
    rows = [{"image": f"PMC21231{n // 2}_Fig{n}.jpg", "caption": "CT"} for n in range(4)] + [
        {"image": "x.jpg", "caption": ""}
    ]
    (tmp_path / "pmc_oa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = ReadReport()
    records = list(Manifest.load("pmc_oa").records("all", tmp_path, report))
    assert [record.group_id for record in records] == ["PMC212310"] * 2 + ["PMC212311"] * 2 + ["x"]
    assert sum(report.notes.values()) == 1


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_an_image_folder_of_hugging_face_is_read_split_by_split(tmp_path: Path, name: str) -> None:
    for split in ("train", "extra"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.PNG").write_bytes(png(0))
        rows = [{"file_name": "a.png", "text": "CT"}]
        if name.endswith("jsonl"):
            (tmp_path / split / name).write_text(json.dumps(rows[0]))
        elif name.endswith("csv"):
            (tmp_path / split / name).write_text("file_name,text\na.png,CT\n")
        else:
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / split / name)
    folder = Manifest.load("imagefolder")
    assert folder.present_splits(tmp_path) == ["train", "extra"]
    for split in ("train", "extra"):
        (record,) = folder.records(split, tmp_path)
        assert (record.image_path, record.caption) == (f"{split}/a.PNG", "CT")


@pytest.mark.parametrize(
    ("place", "name"), [("train/", "0.png"), ("data/train/", "0.png"), ("", "0.png"), ("", "train/0.png")]
)
def test_an_image_folder_may_lie_in_data_or_have_one_file_for_all(
    place: str, name: str, tmp_path: Path
) -> None:
    for path in (tmp_path / place / name, tmp_path / place / "metadata.csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place / name).write_bytes(png(1))
    (tmp_path / place / "metadata.csv").write_text(f"file_name,text\n{name},CT\n")
    loaded = Manifest.load("imagefolder")
    assert loaded.present_splits(tmp_path) == ["train"]
    (record,) = loaded.records("train", tmp_path)
    assert record.image_path == f"{place}{name}"
