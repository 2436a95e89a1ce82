"""A teacher's store: the same reader, two factors a row, logits that are neither symmetric nor bounded by 1."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kg_targets.errors import ConfigError, StoreError
from kg_targets.store import StoreWriter, TargetStore, TeacherStore, schema, verify_store
from kg_targets.store.teacher import MATCHED_LOGIT
from pipelines.build.config import BuildConfig
from pipelines.cli import main
from tests.builds import CAPTIONS, build
from tests.training.teachers.stores import unit, write_teacher_store


@pytest.fixture
def store(tmp_path: Path) -> TeacherStore:
    return write_teacher_store(tmp_path, CAPTIONS)


def test_open_tells_the_kinds_apart_and_a_store_without_a_kind_is_knowledge(
    store: TeacherStore, tmp_path: Path
) -> None:
    assert TargetStore.open(store.path).kind == "teacher" and store.scale == 20.0
    knowledge = build(tmp_path / "knowledge")
    assert "kind" not in knowledge.manifest
    assert knowledge.kind == "knowledge" and knowledge.scale == 1.0
    assert store.captions == list(CAPTIONS) and store.label("region")[0] == "chest"


def test_blocks_are_the_scaled_products_of_what_their_kind_says(store: TeacherStore) -> None:
    images, texts = (unit(len(CAPTIONS), 6, seed).astype(np.float64) for seed in (0, 1))
    rows, cols = [5, 0, 5], [1, 5, 7, 0]
    for kind, left, right in (
        ("image_text", images, texts),
        ("image_image", images, images),
        ("text_text", texts, texts),
    ):
        block = store.block(rows, cols, kind=kind)
        assert block.dtype == np.float32
        np.testing.assert_allclose(block, 20.0 * left[rows] @ right[cols].T, atol=1e-5)
    square = store.block(range(8))
    assert (
        np.abs(square - square.T).max() > 1.0
    )  # an image's caption says something else than the other way round
    assert not np.allclose(np.diag(square), 20.0)  # and nothing is forced
    np.testing.assert_array_equal(store.block(rows), store.block(rows, rows))


def test_a_knowledge_store_takes_all_kinds_and_gives_one_block(tmp_path: Path) -> None:
    knowledge = build(tmp_path)
    expected = knowledge.block([0, 3, 4], [4, 0])
    for kind in ("image_text", "image_image", "text_text"):
        np.testing.assert_array_equal(knowledge.block([0, 3, 4], [4, 0], kind=kind), expected)
    with pytest.raises(StoreError, match="one of image_text, image_image, text_text; got 'cosine'"):
        knowledge.block([0], kind="cosine")


def test_no_teacher_says_hard_labels(tmp_path: Path) -> None:
    none = write_teacher_store(tmp_path, CAPTIONS, name="none", kind="none", dim=0, scale=MATCHED_LOGIT)
    for kind in ("image_text", "image_image", "text_text"):
        logits = none.block([3, 1, 4], [1, 3], kind=kind)
        targets = np.exp(logits - logits.max(axis=1, keepdims=True))
        targets /= targets.sum(axis=1, keepdims=True)
        np.testing.assert_array_equal(targets[:2], np.float32([[0, 1], [1, 0]]))
    verify_store(none.path)


def test_matching_data_passes_and_the_first_difference_is_named(store: TeacherStore) -> None:
    store.check_matches(store.image_ids, store.captions)
    swapped = [*store.image_ids[:2], "other", *store.image_ids[3:]]
    with pytest.raises(
        StoreError, match=r"the image in row 2 is 'img002', in the training data 'other'.*same split"
    ):
        store.check_matches(swapped, store.captions)
    edited = [*store.captions[:4], "x" * 500, *store.captions[5:]]
    with pytest.raises(StoreError, match="the caption of image img004 in row 4 is") as caught:
        store.check_matches(store.image_ids, edited)
    assert len(str(caught.value)) < 400 + len(str(store.path))
    with pytest.raises(StoreError, match="holds 8 rows, the training data 7"):
        store.check_matches(store.image_ids[:-1], store.captions[:-1])


def test_neighbours_and_explanations_say_what_the_teacher_says(store: TeacherStore) -> None:
    cosines = store.block([2], range(8), kind="image_image")[0] / 20.0
    found = store.neighbors("img002", k=7)
    assert found["image_id"].tolist() == [f"img{row:03d}" for row in np.argsort(-cosines) if row != 2]
    assert "img003" not in store.neighbors("img002", k=6, exclude_case=True)["image_id"].tolist()
    text = str(store.explain("img000", "img001"))
    assert "gives no reasons" in text and f"{store.block([0], [1])[0, 0] / 20:.3f}" in text


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.concepts,
        lambda store: store.factors,
        lambda store: store.cuis,
        lambda store: store.cui_matrix(),
        lambda store: store.threshold,
        lambda store: store.mentions,
        lambda store: store.column("neighbor_rows"),
        lambda store: store.to_networkx("img000"),
    ],
)
def test_what_only_knowledge_has_is_refused_in_one_line(
    store: TeacherStore, ask: Callable[[TeacherStore], object]
) -> None:
    with pytest.raises(StoreError, match=r"is a teacher's store.*knows no concepts"):
        ask(store)


def test_commands_work_or_say_why_not(
    store: TeacherStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(store.path)]) == 0
    assert "factors are 6 wide and of length 1, 0 images unknown" in capsys.readouterr().out
    assert main(["explain", str(store.path), "img000"]) == 0
    card = ["card", str(store.path), "--out", str(tmp_path / "card.html")]
    for command in (card, ["evaluate-targets", str(store.path)]):
        assert main(command) == 2
        assert "is a teacher's store" in capsys.readouterr().err
    assert not (tmp_path / "card.html").exists()


def test_verify_notices_factors_that_are_not_unit_vectors_and_allows_unread_images(tmp_path: Path) -> None:
    images = unit(8, 6, 0)
    images[3] = 0.0
    unread = write_teacher_store(tmp_path / "unread", CAPTIONS, images=images)
    assert "1 images unknown" in "".join(verify_store(unread.path))
    assert not unread.block([3]).any()
    for bad, told in (
        (2.0, "the image factor of img005 has length"),
        (np.nan, "column image_factor has values that"),
    ):
        images = unit(8, 6, 0)
        images[5] *= bad
        wrong = write_teacher_store(tmp_path / f"wrong{bad}", CAPTIONS, images=images)
        with pytest.raises(StoreError, match=told):
            verify_store(wrong.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "oracle"}, "has kind 'oracle', this version reads knowledge and teacher stores"),
        ({"teacher": {}}, "lacks a usable 'teacher.name'"),
        ({"teacher": {"scale": 0.0}}, "lacks a usable 'teacher.scale'"),
        ({"teacher": {"dim": -1}}, "lacks a usable 'teacher.dim'"),
        ({"teacher": {"dim": "6"}}, "lacks a usable 'teacher.dim'"),
    ],
)
def test_a_wrong_manifest_is_one_line(store: TeacherStore, change: dict[str, Any], message: str) -> None:
    path = store.path / "manifest.json"
    manifest = json.loads(path.read_text())
    if change.get("teacher"):
        change = {"teacher": {**manifest["teacher"], **change["teacher"]}}
    path.write_text(json.dumps({**manifest, **change}))
    with pytest.raises(StoreError, match=message):
        TargetStore.open(store.path)


def test_a_width_that_is_not_the_manifests_is_noticed(store: TeacherStore) -> None:
    path = store.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["teacher"]["dim"] = 5
    path.write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="column image_factor is 6 wide, the manifest says 5"):
        TargetStore.open(store.path).block([0])


def test_no_build_replaces_a_store_of_the_other_kind(store: TeacherStore, tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match="holds a teacher store: it will not be replaced, choose another OUT"
    ):
        StoreWriter(store.path).__enter__()
    knowledge = build(tmp_path / "knowledge")
    with pytest.raises(StoreError, match="holds a knowledge store"):
        StoreWriter(knowledge.path, schema.TEACHER).__enter__()
    assert TargetStore.open(knowledge.path).fingerprint == knowledge.fingerprint


def test_a_resumed_writer_finds_whole_files_of_the_same_inputs_only(tmp_path: Path) -> None:
    table = pa.table({"row": [0, 1, 2]})

    def interrupted(resume: str) -> StoreWriter:
        writer = StoreWriter(tmp_path / "out" / "train", schema.TEACHER, resume)
        with pytest.raises(KeyboardInterrupt), writer:
            if not writer.has("targets/part-00000.parquet", 3):
                writer.write("targets/part-00000.parquet", table)
                (writer.folder / "targets/part-00001.parquet").write_bytes(b"PAR1 half")
            raise KeyboardInterrupt
        return writer

    first = interrupted("a")
    with StoreWriter(tmp_path / "out" / "train", schema.TEACHER, "a") as again:
        assert again.has("targets/part-00000.parquet", 3) and not again.has("targets/part-00000.parquet", 2)
        assert not again.has("targets/part-00001.parquet", 3)
        again.adopt("targets/part-00000.parquet", 3)
        again.finish({"kind": "teacher"}, {})
    files = [path.relative_to(again.target) for path in again.target.rglob("*") if path.is_file()]
    assert sorted(map(str, files)) == [
        "README.md", "build_report.json", "manifest.json", "targets/part-00000.parquet",
    ]  # fmt: skip
    assert not first.folder.exists()
    interrupted("a")
    with (
        pytest.raises(KeyboardInterrupt),
        StoreWriter(tmp_path / "out" / "train", schema.TEACHER, "b") as other,
    ):
        assert not other.has("targets/part-00000.parquet", 3)
        raise KeyboardInterrupt
    assert not other.folder.exists()  # nothing in it was worth keeping


def test_what_a_knowledge_store_is_made_of_has_not_changed() -> None:
    """Fingerprints of existing stores hold these keys: runs depend on them."""
    assert sorted(BuildConfig().stored()) == [
        "extractor", "extractor_options", "fit_split", "flat_ancestors", "keep_unknown_cuis", "licences", "max_hops",
        "ontology", "part_of", "rows_per_shard", "scorer", "seed", "shrinkage", "top_k", "uncertain",
        "use_ontology",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"teacher": "clip"}, "--teacher needs --scorer teacher"),
        ({"max_broken": 3}, "--max-broken needs --scorer teacher"),
        ({"scorer": "teacher"}, "--scorer teacher needs a teacher"),
        ({"scorer": "teacher", "teacher": "clip", "max_hops": 2}, "--max-hops is about concepts"),
        ({"scorer": "teacher", "teacher": "clip", "use_ontology": False}, "--no-ontology is about concepts"),
    ],
)
def test_contradicting_options_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BuildConfig(**given)
