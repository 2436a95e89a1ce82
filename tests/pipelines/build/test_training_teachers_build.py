"""`kg-targets build --scorer teacher`: what is stored, resumed, refused; and the same targets from a teacher online."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from kg_targets.errors import DataError, KGTargetsError, StoreError
from kg_targets.store import TargetStore, TeacherStore, verify_store
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set
from pipelines.build.teacher import agreement_lines
from pipelines.cli import main
from tests.builds import CAPTIONS, build, digests, write_split
from tests.training.teachers.checkpoints import write_hf_clip
from training.data.sources import open_source
from training.med_vqa.pretrain.config import SoftLabelConfig
from training.med_vqa.pretrain.soft_labels import LabelSource, similarities
from training.teachers.encoder import Encoder
from training.teachers.online import OnlineTeacher
from training.teachers.registry import TEACHERS, open_teacher

TEXTS = [*CAPTIONS, *CAPTIONS[:3]]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> str:
    """A teacher's spec."""
    monkeypatch.setitem(TEACHERS, "fake", "tests.training.teachers.fakes:FakeEncoder")
    return "fake:1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The demo layout with captions, some of them repeated, and images."""
    data = tmp_path / "data"
    write_split(data, "train", TEXTS)
    (data / "images").mkdir()
    for row in range(len(TEXTS)):
        noise = np.random.default_rng(row).integers(0, 256, (40, 48), dtype=np.uint8)
        Image.fromarray(noise).save(data / "images" / f"train{row:03d}.png")
    return data


def teach(root: Path, teacher: str, out: str = "out", **options: Any) -> tuple[TeacherStore, list[str]]:
    """The train store, and what was said."""
    said: list[str] = []
    config = {"split": "train", "rows_per_shard": 4, "scorer": "teacher", "teacher": teacher, **options}
    (store,) = build_data_set(
        BuildConfig(dataset="demo", data_root=root, out=root.parent / out, **config), said.append
    )
    assert isinstance(store, TeacherStore)
    return store, said


def test_a_store_holds_the_teachers_vectors_of_every_image_and_caption(root: Path, fake: str) -> None:
    store, said = teach(root, fake)
    verify_store(store.path)
    teacher = open_teacher(fake, "cpu")
    assert isinstance(teacher, Encoder)
    assert store.captions == TEXTS and store.labels == ("region",) and store.known.all()
    assert [entry["rows"] for entry in store.manifest["files"]] == [4, 4, 3]
    for row in (0, 5, 10):
        image = teacher.image(teacher.prepare(Image.open(root / store.image_paths[row]).convert("L"))[None])
        np.testing.assert_allclose(store.image_factors[row], image[0], atol=1e-5)
        np.testing.assert_allclose(store.text_factors[row], teacher.text([TEXTS[row]])[0], atol=1e-5)
    np.testing.assert_array_equal(store.text_factors[:3], store.text_factors[8:])
    assert store.teacher["digest"] == teacher.digest and store.scale == pytest.approx(teacher.scale)
    assert store.teacher["preprocessing"] == {"size": 8}
    assert str(root.parent) not in (store.path / "manifest.json").read_text()
    assert any(agreement_lines(store)[0] in line for line in said)
    assert agreement_lines(store)[0].startswith("cosine of image and caption, ")


def test_a_second_build_is_up_to_date_until_weights_captions_or_images_change(root: Path, fake: str) -> None:
    first = teach(root, fake)[0].fingerprint
    assert teach(root, fake)[1][-1].endswith("up to date")
    Image.new("L", (40, 40), 9).save(root / "images" / "train002.png")
    changed, said = teach(root, fake)
    assert "up to date" not in said[-1] and changed.fingerprint != first
    assert teach(root, "none")[0].dim == 0  # another teacher into the same place


def test_an_edited_architecture_makes_a_store_anew(root: Path, tmp_path: Path) -> None:
    write_hf_clip(tmp_path / "clip")
    first = teach(root, f"hf:{tmp_path / 'clip'}")[0]
    assert teach(root, f"hf:{tmp_path / 'clip'}")[1][-1].endswith("up to date")
    file = tmp_path / "clip" / "config.json"
    config = json.loads(file.read_text())
    config["vision_config"]["num_attention_heads"] = 4
    file.write_text(json.dumps(config))
    changed, said = teach(root, f"hf:{tmp_path / 'clip'}")
    assert "up to date" not in said[-1] and changed.fingerprint != first.fingerprint
    assert np.abs(changed.image_factors - first.image_factors).max() > 1e-4


def test_an_interrupted_build_goes_on_and_ends_with_the_same_bytes(
    root: Path, fake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digests(teach(root, fake, "whole")[0].path)
    encoded: list[int] = []
    plain_images, plain_texts = Encoder.images, Encoder.texts

    def images(self: Encoder, pairs: Any, rows: Any, advance: Any = None) -> Any:
        if len(encoded) == 1:
            raise KeyboardInterrupt
        encoded.extend([int(rows[0])])
        return plain_images(self, pairs, rows, advance)

    monkeypatch.setattr(Encoder, "images", images)
    with pytest.raises(KeyboardInterrupt):
        teach(root, fake)
    partial = root.parent / "out" / ".train.partial"
    assert not (root.parent / "out" / "train").exists() and (partial / "targets/part-00000.parquet").is_file()
    (partial / "targets" / ".part-00001.parquet.partial").write_bytes(b"half")  # as kill -9 leaves it

    texts: list[int] = []
    monkeypatch.setattr(Encoder, "images", plain_images)
    monkeypatch.setattr(Encoder, "texts", lambda *given: texts.append(1) or plain_texts(*given))
    store, _ = teach(root, fake)
    assert not texts  # captions were done, too
    assert digests(store.path) == expected
    assert [path.name for path in store.path.parent.iterdir()] == ["train"]


def test_a_shard_damaged_while_a_build_was_interrupted_is_written_again_and_never_signed(
    root: Path, fake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digests(teach(root, fake, "whole")[0].path)
    plain = Encoder.images

    def images(self: Encoder, pairs: Any, rows: Any, advance: Any = None) -> Any:
        if rows[0] > 0:
            raise KeyboardInterrupt
        return plain(self, pairs, rows, advance)

    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "images", images)
        with pytest.raises(KeyboardInterrupt):
            teach(root, fake)
    shard = root.parent / "out" / ".train.partial" / "targets/part-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    assert digests(teach(root, fake)[0].path) == expected


def test_what_is_left_of_another_teacher_is_not_taken(
    root: Path, fake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "images", stop)
        with pytest.raises(KeyboardInterrupt):
            teach(root, fake)
    assert (root.parent / "out" / ".train.partial" / "texts-00000.parquet").is_file()
    assert teach(root, "none")[0].dim == 0


def test_a_missing_or_broken_image_is_an_error_that_names_it_unless_allowed(root: Path, fake: str) -> None:
    (root / "images" / "train003.png").unlink()
    with pytest.raises(DataError, match=r"1 of 11 images are not below .*train003\.png"):
        teach(root, fake)
    (root / "images" / "train006.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2 images are missing or broken, --max-broken allows 1: .*train006"):
        teach(root, fake, max_broken=1)
    store, said = teach(root, fake, max_broken=2)
    assert np.flatnonzero(~store.known).tolist() == [3, 6] and not store.image_factors[[3, 6]].any()
    assert any("train006" in line for line in said)
    verify_store(store.path)


@pytest.mark.parametrize("part", ["image", "text"])
def test_a_teacher_that_gives_nan_is_an_error_that_names_the_image(
    root: Path, fake: str, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    plain: Callable[..., torch.Tensor] = getattr(Encoder, part)

    def spoilt(self: Encoder, given: Any) -> torch.Tensor:
        vectors = plain(self, given)
        if len(vectors) > 2:
            vectors[2] = float("nan")
        return vectors

    monkeypatch.setattr(Encoder, part, spoilt)
    with pytest.raises(DataError, match=r"of image train002 is not finite|of image train002") as caught:
        teach(root, fake)
    assert "not finite" in str(caught.value)
    assert not (root.parent / "out" / "train").exists()


def test_bad_input_on_the_command_line_is_one_line_and_code_2(
    root: Path, fake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "build",
        "demo",
        "--split",
        "train",
        "--data-root",
        str(root),
        "--out",
        str(root.parent / "out"),
    ]
    for given in (
        ["--scorer", "teacher"],
        ["--scorer", "teacher", "--teacher", "biomedclp"],
        ["--scorer", "teacher", "--teacher", f"parquet:{root}/none.parquet"],
        ["--scorer", "teacher", "--teacher", f"medclip:{root}"],
    ):
        assert main([*command, *given]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
    assert not (root.parent / "out").exists()


def test_embeddings_from_a_file_need_no_images_and_every_row(root: Path) -> None:
    for image in (root / "images").iterdir():
        image.unlink()
    vectors = list(np.random.default_rng(0).normal(size=(len(TEXTS), 5)))
    ids = [f"train{row:03d}" for row in range(len(TEXTS))]
    table = pa.table({"image_id": ids, "image_embedding": vectors, "text_embedding": vectors})
    pq.write_table(table, root / "ready.parquet")
    store, _ = teach(root, f"parquet:{root / 'ready.parquet'}")
    assert (store.dim, store.scale, store.teacher["name"]) == (5, 100.0, "parquet:ready.parquet")
    assert float(agreement_lines(store)[0].split("own ")[1].split()[0]) > 0.5
    pq.write_table(table.slice(1), root / "ready.parquet")
    with pytest.raises(DataError, match="no embedding of image train000"):
        teach(root, f"parquet:{root / 'ready.parquet'}")


def test_a_knowledge_store_is_never_replaced_and_the_default_place_is_another(
    root: Path, fake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knowledge = build(tmp_path / "knowledge")
    with pytest.raises(StoreError, match="holds a knowledge store"):
        teach(root, "none", str(knowledge.path.parent))
    assert TargetStore.open(knowledge.path).fingerprint == knowledge.fingerprint
    monkeypatch.chdir(tmp_path)
    for spec, place in (("none", "build/demo-none"), (fake, "build/demo-fake-1-")):
        config = BuildConfig(dataset="demo", split="train", data_root=root, scorer="teacher", teacher=spec)
        (store,) = build_data_set(config, lambda _: None)
        assert str(store.path.parent).startswith(place)


@pytest.mark.parametrize("kind", ["image_text", "image_image", "text_text"])
def test_an_online_teacher_gives_the_same_targets_as_its_store(root: Path, fake: str, kind: str) -> None:
    store, _ = teach(root, fake)
    teacher = open_teacher(fake, "cpu")
    online = OnlineTeacher(teacher, store, open_source(root, store))
    assert (online.kind, online.scale, online.dim) == (store.kind, pytest.approx(store.scale), store.dim)
    for rows, cols in (([7, 2, 9, 2], None), ([1, 0], [10, 3, 1, 0, 5])):
        blocks = [
            torch.softmax(torch.from_numpy(given.block(rows, cols, kind=kind)), dim=1)
            for given in (store, online)
        ]
        torch.testing.assert_close(blocks[0], blocks[1], atol=1e-5, rtol=0)


def test_an_online_teacher_encodes_a_batch_once_for_all_its_blocks(
    root: Path, fake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = teach(root, fake)
    online = OnlineTeacher(open_teacher(fake, "cpu"), store, open_source(root, store))
    calls: list[int] = []
    plain = Encoder.images
    monkeypatch.setattr(Encoder, "images", lambda *given: calls.append(1) or plain(*given))
    for kind in ("image_text", "image_image", "text_text"):
        online.block([4, 1, 8], kind=kind)
    assert len(calls) == 1
    source = LabelSource(SoftLabelConfig(teacher=fake), online, np.ones(len(store), dtype=bool), "", "fake")
    items, second = torch.tensor([0, 2, 6, 9]), torch.tensor([3, 2, 7, 10])
    similarities(source, torch.device("cpu"), 0)((items[2:], items), (second[2:], second))
    assert len(calls) == 2  # the images of both views at once
    (root / "images" / "train005.png").write_bytes(io.BytesIO(b"x").getvalue())
    with pytest.raises(DataError, match=r"cannot see .*train005\.png"):
        online.block([5, 1])


def test_online_hard_labels_are_the_stores(root: Path) -> None:
    store, _ = teach(root, "none")
    online = OnlineTeacher(open_teacher("none"), store, None)
    np.testing.assert_array_equal(online.block([3, 1], [1, 2, 3]), store.block([3, 1], [1, 2, 3]))


def test_an_unreadable_model_leaves_nothing(root: Path, tmp_path: Path) -> None:
    with pytest.raises(KGTargetsError):
        teach(root, f"open_clip:{tmp_path}")
    assert not (root.parent / "out").exists()
