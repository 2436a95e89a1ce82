"""The store's invariants, on stores built by the real pipeline from generated captions."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from kg_targets.errors import StoreError
from kg_targets.store import StoreWriter, TargetStore, files, schema, verify_store
from kg_targets.store.block import gram
from kg_targets.store.verify import _knowledge
from tests.builds import CAPTIONS, build, digests

ANY_SCORER = pytest.mark.parametrize("scorer", ["ontology", "noise", "permuted", "identity"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return build(tmp_path_factory.mktemp("store"), CAPTIONS * 3, rows_per_shard=5)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    captions=st.lists(st.sampled_from(CAPTIONS), min_size=1, max_size=10),
    scorer=st.sampled_from(["ontology", "noise", "permuted", "identity"]),
)
def test_any_store_keeps_row_order_symmetry_diagonal_range_and_isolated_unknowns(
    tmp_path: Path, captions: list[str], scorer: str
) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    store = build(tmp_path, captions, scorer=scorer, rows_per_shard=3)
    assert store.captions == captions
    assert store.column("row").to_pylist() == list(range(len(captions)))
    block = store.block(range(len(store)))
    assert block.dtype == np.float32 and np.allclose(block, block.T, rtol=0, atol=1e-6)
    assert np.array_equal(np.diag(block), np.ones(len(store)))
    assert np.abs(block).max() <= 1.0
    off_diagonal = block - np.eye(len(store))
    assert not off_diagonal[~store.known].any() and not off_diagonal[:, ~store.known].any()
    verify_store(store.path)


@ANY_SCORER
def test_same_inputs_give_the_same_bytes_with_one_and_two_workers(tmp_path: Path, scorer: str) -> None:
    one = build(tmp_path / "one", CAPTIONS * 4, scorer=scorer, rows_per_shard=5, workers=1)
    two = build(tmp_path / "two", CAPTIONS * 4, scorer=scorer, rows_per_shard=5, workers=2)

    assert digests(one.path) == digests(two.path)
    assert one.fingerprint == two.fingerprint


def test_shards_do_not_change_what_a_store_says(tmp_path: Path) -> None:
    small = build(tmp_path / "small", CAPTIONS * 4, rows_per_shard=3)
    large = build(tmp_path / "large", CAPTIONS * 4, rows_per_shard=100)
    np.testing.assert_array_equal(small.block(range(len(small))), large.block(range(len(large))))
    assert small.column("neighbor_rows").to_pylist() == large.column("neighbor_rows").to_pylist()


def test_a_rectangular_block_is_the_matching_part_of_the_square_one(store: TargetStore) -> None:
    full = store.block(range(len(store)))
    rows, cols = [5, 3, 3, 0], [0, 3, 7]
    np.testing.assert_allclose(store.block(rows, cols), full[np.ix_(rows, cols)], atol=1e-6)
    repeated = store.block([3, 5, 3])
    assert repeated[0, 2] == repeated[2, 0] == 1.0


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 40), others=st.integers(0, 40), fill=st.floats(0, 1), seed=st.integers(0, 2**16))
def test_products_of_full_and_empty_columns_match_float64(
    size: int, others: int, fill: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    share = generator.random(30) ** 3 * fill  # a few full columns, many nearly empty ones
    left, right = (
        sparse.csr_array(generator.random((n, 30)) * (generator.random((n, 30)) < share), dtype=np.float32)
        for n in (size, others)
    )
    expected = left.toarray().astype(np.float64) @ right.toarray().astype(np.float64).T
    np.testing.assert_allclose(gram(left, right), expected, atol=1e-5)
    own = left.toarray().astype(np.float64)
    np.testing.assert_allclose(gram(left), own @ own.T, atol=1e-5)


def test_block_refuses_rows_that_do_not_exist(store: TargetStore) -> None:
    with pytest.raises(StoreError, match="between 0 and"):
        store.block([0, len(store)])


@pytest.mark.parametrize(("scorer", "name"), [("ontology", "factor_value"), ("noise", "factor")])
def test_factors_that_are_not_finite_are_refused_before_they_become_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scorer: str, name: str
) -> None:
    store = build(tmp_path, scorer=scorer)
    column = store._stored

    def spoilt(asked: str) -> pa.ChunkedArray:
        found = column(asked).combine_chunks()
        if asked != name:
            return pa.chunked_array([found])
        values = found.flatten().to_numpy().copy()
        values[-1] = np.nan
        if isinstance(found, pa.FixedSizeListArray):
            return pa.chunked_array([pa.FixedSizeListArray.from_arrays(values, found.type.list_size)])
        return pa.chunked_array([type(found).from_arrays(found.offsets, values)])

    monkeypatch.setattr(store, "_stored", spoilt)
    with pytest.raises(
        StoreError, match=f"column {name} has values that are not finite: build the store again"
    ):
        store.block([0, 1])


def test_neighbours_are_the_best_of_the_block(store: TargetStore) -> None:
    row = 0
    block = store.block([row], range(len(store)))[0]
    found = store.neighbors(store.image_ids[row], k=5)
    others = np.delete(block, row)
    np.testing.assert_allclose(found["score"], np.sort(others)[::-1][:5], atol=1e-6)
    assert store.image_ids[row] not in found["image_id"].tolist()


def test_explanation_shares_add_up_and_name_the_path(store: TargetStore) -> None:
    explanation = store.explain("train000", "train001")
    assert sum(concept.share for concept in explanation.shared) == pytest.approx(1.0)
    assert explanation.similarity == pytest.approx(store.block([0], [1])[0, 0])
    pleural = [concept for concept in explanation.shared if "leural" in concept.name]
    assert pleural and len(pleural[0].first_path) > 1
    assert "pleural" in str(explanation).lower() and "<table>" in explanation._repr_html_()


def test_explanation_shares_add_up_with_blocks_and_shrinkage(tmp_path: Path) -> None:
    options = {"blocks": "1:2:1", "shrinkage": 1.0, "part_of": True}
    shrunk = build(tmp_path, CAPTIONS, **options)
    explanation = shrunk.explain("train000", "train004")
    factors = shrunk.factors.toarray().astype(np.float64)
    assert explanation.similarity == pytest.approx(float(factors[0] @ factors[4]), abs=1e-6)
    assert 0 < explanation.similarity < 1
    assert sum(concept.share for concept in explanation.shared) == pytest.approx(1.0)
    assert len(verify_store(shrunk.path)) > 3


def test_explanation_says_why_there_is_nothing_to_explain(store: TargetStore, tmp_path: Path) -> None:
    assert "Nothing is known about train003" in store.explain("train000", "train003").note
    assert "same image" in store.explain("train000", "train000").note
    noise = build(tmp_path, scorer="noise")
    assert "noise scorer" in noise.explain("train000", "train001").note


def test_negated_mentions_are_kept_but_stay_out_of_the_graph(store: TargetStore) -> None:
    mentions = store.mentions.set_index("image_id").loc["train001"]
    effusion = mentions[mentions["text"] == "pleural effusion"].iloc[0]
    assert effusion["negated"] and effusion["cui"] not in store.cuis[1]


def test_mention_offsets_slice_the_caption_back(store: TargetStore) -> None:
    caption = dict(zip(store.image_ids, store.captions, strict=True))
    mentions = store.mentions
    assert len(mentions) > 10
    for mention in mentions.itertuples():
        assert caption[mention.image_id][mention.start : mention.end] == mention.text


def test_networkx_view_has_images_concepts_and_ancestors(store: TargetStore) -> None:
    graph = store.to_networkx("train000", hops=2)
    relations = {data["relation"] for *_, data in graph.edges(data=True)}
    assert relations == {"has_attribute", "is_a"}
    assert graph.nodes["train000"]["kind"] == "image"
    assert all(data["name"] for _, data in graph.nodes(data=True))


def test_shards_are_plain_parquet(store: TargetStore) -> None:
    frame = pd.concat(pd.read_parquet(file) for file in sorted(store.path.glob("targets/part-*.parquet")))
    assert frame["image_id"].tolist() == store.image_ids
    assert {"row", "caption", "group_id", "licence", "label_region", "cuis", "known", "neighbor_rows"} <= set(
        frame
    )


def test_cui_matrix_matches_the_lists(store: TargetStore) -> None:
    matrix = store.cui_matrix()
    cuis = store.concepts["cui"].to_numpy()
    assert [sorted(cuis[matrix[[row]].indices]) for row in range(len(store))] == store.cuis


def test_verify_notices_a_flipped_byte_and_a_missing_file(tmp_path: Path) -> None:
    store = build(tmp_path)
    shard = store.path / "mentions/part-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreError, match="does not match its checksum"):
        verify_store(store.path)
    shard.unlink()
    with pytest.raises(StoreError, match="is missing"):
        TargetStore.open(store.path)


def test_verify_notices_an_edited_manifest(tmp_path: Path) -> None:
    store = build(tmp_path)
    manifest = json.loads((store.path / "manifest.json").read_text())
    manifest["similarity"]["fit_p95"] = 0.9
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="was changed"):
        verify_store(store.path)


def test_a_folder_that_is_not_a_store_is_never_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "out" / "train" / "precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    with pytest.raises(StoreError, match="will not be replaced"):
        build(tmp_path)
    assert precious.read_text() == "mine"


def test_opening_a_folder_without_a_store_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="kg-targets build"):
        TargetStore.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: [], "is not a store's manifest"),
        (lambda m: {"schema_version": 1}, "lacks a usable 'dataset'"),
        (lambda m: {**m, "similarity": {}}, "fit_p95"),
        (lambda m: {**m, "schema_version": 99}, "has store schema 99"),
        (
            lambda m: {**m, "files": [{**m["files"][0], "file": "../../secret.parquet"}]},
            "none of the store's",
        ),
        (
            lambda m: {**m, "files": [{**m["files"][0], "file": "targets-/../../x.parquet"}]},
            "none of the store's",
        ),
        (
            lambda m: {**m, "files": [{**m["files"][0], "file": "targets/../../x/part-00000.parquet"}]},
            "none of the store's",
        ),
    ],
)
def test_a_manifest_that_is_wrong_is_one_line_and_opens_nothing_outside(
    tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    path = build(tmp_path).path
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(change(manifest)))
    with pytest.raises(StoreError, match=message):
        TargetStore.open(path)


@pytest.mark.parametrize("file", [schema.part(table, 0) for table in ("targets", "mentions", "concepts")])
def test_a_truncated_file_is_named_and_the_next_build_mends_it(tmp_path: Path, file: str) -> None:
    path = build(tmp_path).path
    content = (path / file).read_bytes()
    (path / file).write_bytes(content[: len(content) // 2])
    store = TargetStore.open(path)
    with pytest.raises(StoreError, match=file):
        _ = (store.captions, store.mentions, store.concepts)
    assert (build(tmp_path).path / file).read_bytes() == content


def test_row_counts_that_disagree_are_noticed(tmp_path: Path) -> None:
    path = build(tmp_path).path
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "rows": 99}))
    with pytest.raises(StoreError, match="hold 8 rows, not 99"):
        _ = TargetStore.open(path).known


def test_two_builds_into_one_place_cannot_mix(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "train"), pytest.raises(StoreError, match="another build is writing"):
        StoreWriter(tmp_path / "train").__enter__()


def test_what_a_killed_build_left_behind_is_replaced(tmp_path: Path) -> None:
    left_over = tmp_path / "out" / ".train.partial" / "mentions/part-00009.parquet"
    left_over.parent.mkdir(parents=True)
    left_over.write_text("half")
    (left_over.parent.parent / "targets-00000.parquet").write_text("as version 0.2 named them")
    path = build(tmp_path).path
    assert sorted(file.name for file in path.iterdir()) == sorted(
        [*schema.TABLES, "README.md", "build_report.json", "manifest.json"]
    )
    assert not (path / "mentions" / left_over.name).exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train"]


@pytest.mark.parametrize("system", ["can swap", "cannot"])
def test_at_no_moment_of_the_change_to_a_new_store_is_there_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    target = build(tmp_path).path
    seen, (exchange, remove) = [], (files.exchanged, shutil.rmtree)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    if system == "can swap" and not exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system cannot swap folders")

    def looked(folder: Path, ignore_errors: bool = False) -> None:
        seen.append(len(TargetStore.open(target)))
        remove(folder, ignore_errors=ignore_errors)

    monkeypatch.setattr(
        "kg_targets.store.writer.exchanged", exchange if system == "can swap" else lambda one, other: False
    )
    monkeypatch.setattr("kg_targets.store.writer.shutil.rmtree", looked)
    build(tmp_path, CAPTIONS[:3])
    monkeypatch.undo()
    assert len(TargetStore.open(target)) == 3 and [path.name for path in target.parent.iterdir()] == ["train"]
    assert system == "cannot" or seen[0] == 3  # the first that goes is what was hidden by the swap
    with monkeypatch.context() as patched:
        patched.setattr("kg_targets.store.writer.shutil.rmtree", lambda *given, **options: None)
        build(tmp_path, CAPTIONS[:5])  # killed before the old store was removed
    assert verify_store(target) and len(TargetStore.open(target)) == 5
    build(tmp_path, CAPTIONS[:6])
    assert [path.name for path in target.parent.iterdir()] == ["train"]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter", full)
    with pytest.raises(StoreError, match="No space left on device"):
        build(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [lambda rows: rows[:-1], lambda rows: []])
def test_verify_notices_neighbours_that_are_missing(
    tmp_path: Path, change: Callable[[list[int]], list[int]]
) -> None:
    path = build(tmp_path).path
    shard = path / "targets/part-00000.parquet"
    table = pq.read_table(shard)
    for name in ("neighbor_rows", "neighbor_scores"):
        field = table.schema.field(name)
        values = [change(row) for row in table[name].to_pylist()]
        table = table.set_column(table.column_names.index(name), field, pa.array(values, field.type))
    pq.write_table(table, shard)
    with pytest.raises(StoreError, match="neighbours of row"):
        list(_knowledge(TargetStore.open(path)))


def test_the_threshold_of_equal_captions_is_below_one(tmp_path: Path) -> None:
    store = build(tmp_path, [*[CAPTIONS[0]] * 12, CAPTIONS[7]], shrinkage=0.0)
    similarity = store.manifest["similarity"]
    assert similarity["fit_p95"] == pytest.approx(1.0, abs=1e-6) and store.threshold <= 1 - 1e-6
    for suggested, used in ((1.0000000274, 1 - 1e-6), (0.25, 0.25)):  # rounding differs between machines
        similarity["fit_p95"] = suggested
        assert store.threshold == used
