"""Hugging Face's copies in Parquet, images inside: VQA-RAD, PathVQA, ROCO."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kg_targets.errors import ManifestError
from kg_targets.manifest import Manifest, ReadReport
from pipelines.cli import main
from tests.images import png
from training.data.sources import ImageListing, open_source

KIND = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, images: Sequence[int | None], **columns: Any) -> None:
    """A file of rows whose images are grey of these values."""
    path.parent.mkdir(exist_ok=True)
    cells = [None if value is None else {"bytes": png(value), "path": None} for value in images]
    pq.write_table(pa.table({"image": pa.array(cells, KIND), **columns}), path)


def asked(path: Path, *rows: tuple[int | None, str, str]) -> None:
    values, questions, answers = zip(*rows, strict=True)
    write(path, values, question=list(questions), answer=list(answers))


@pytest.mark.parametrize(("name", "part"), [("vqa_rad", "test"), ("path_vqa", "test")])
def test_questions_of_equal_images_are_about_one_image_in_all_splits(
    name: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(
        tmp_path / "data" / "train-00000-of-00002.parquet", (1, "Is it so?", "yes"), (2, "What is it?", "CT")
    )
    asked(tmp_path / "data" / "train-00001-of-00002.parquet", (1, "Where?", "left"), (None, "Who?", "x"))
    asked(tmp_path / "data" / "test-00000-of-00001.parquet", (2, "Is it not?", "No"), (3, "How?", "MRI"))
    manifest, report = Manifest.load(name, None), ReadReport()
    train = manifest.questions("train", tmp_path, report)
    assert [(one.question, one.answer, one.closed) for one in train] == [
        ("Is it so?", "yes", True), ("What is it?", "CT", False), ("Where?", "left", False),
    ]  # fmt: skip
    assert [one.id for one in train] == ["train-0", "train-1", "train-2"] and report.skipped == {
        "has no image": 1
    }
    assert train[0].image_id == train[2].image_id != train[1].image_id
    test = manifest.questions(part, tmp_path)
    assert test[0].image_id == train[1].image_id
    images = {one.image_id: one.image_path for one in (*train, *test)}
    source = open_source(tmp_path, ImageListing(list(images), list(images.values())))
    assert [source.read(row).getpixel((0, 0)) for row in range(3)] == [1, 2, 3]
    assert main(["check", name, "--data-root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "train: 3 questions, 2 of 2 images present (Parquet files)" in out.replace(
        "2 captions, ", ""
    ).replace("2 cases, ", "")
    assert "ask about 1 of the same images" in out


def test_captions_of_vqa_rads_copy_hold_what_is_said_of_an_image(tmp_path: Path) -> None:
    asked(
        tmp_path / "train-0.parquet", (1, "Is it so?", "yes"), (2, "What is it?", "CT"), (1, "Where?", "left")
    )
    records = list(Manifest.load("vqa_rad").records("train", tmp_path))
    assert [record.caption for record in records] == ["Is it so? Where? left.", "What is it? CT."]
    assert records[0].image_path == "train-0.parquet/0"


def test_copies_without_a_column_or_images_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-0.parquet", [1], question=["Is it?"])
    with pytest.raises(ManifestError, match="column 'answer' is missing"):
        Manifest.load("path_vqa", None).questions("train", tmp_path)
    pq.write_table(pa.table({"question": ["x"], "answer": ["y"]}), tmp_path / "data" / "train-0.parquet")
    with pytest.raises(ManifestError, match="no column holds the bytes of images"):
        Manifest.load("path_vqa", None).questions("train", tmp_path)


def test_rocos_copy_is_read_with_its_articles_beside_it(tmp_path: Path) -> None:
    ids, captions = ["ROCO_1", "ROCO_2", "ROCO_3"], ["CT of the chest", "MRI", "X-ray"]
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [1, 2, 3], image_id=ids, caption=captions)
    manifest = Manifest.load("roco")
    assert manifest.present_splits(tmp_path) == ["test"]
    records = list(manifest.records("test", tmp_path))
    assert [(one.image_id, one.caption, one.group_id) for one in records] == [
        (name, caption, name) for name, caption in zip(ids, captions, strict=True)
    ]
    (tmp_path / "test" / "radiology").mkdir(parents=True)
    licences = "ROCO_ID,PMC_ID,CC\nROCO_1,PMC7_a.jpg,CC BY\nROCO_2,PMC7_b.jpg,CC BY\n"
    (tmp_path / "test" / "radiology" / "licences.txt").write_text(licences)
    records = list(manifest.records("test", tmp_path))
    assert [one.group_id for one in records] == ["PMC7", "PMC7", "ROCO_3"]
    source = open_source(tmp_path, ImageListing(ids, [one.image_path for one in records]))
    assert [source.read(row).getpixel((0, 0)) for row in range(3)] == [1, 2, 3]
