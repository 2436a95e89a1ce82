"""Exported targets, read again by the programs they are for, are the store's."""

from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from kg_targets.store import TargetStore
from pipelines import export_store
from tests.builds import RICH, build
from tests.processes import kg_targets

export = kg_targets("export-store")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return build(tmp_path_factory.mktemp("export"), RICH)


def similarities(factors: np.ndarray) -> np.ndarray:
    found = factors @ factors.T
    np.fill_diagonal(found, 1)
    return found


def test_similarities_are_the_stores_block(
    store: TargetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_store, "_AT_ONCE", 5)
    assert export([store.path, "--out", tmp_path / "S.npy"]) == 0
    found = np.load(tmp_path / "S.npy")
    assert found.dtype == np.float32 and np.allclose(found, store.block(range(len(store))), atol=1e-6)
    rows = pd.read_csv(tmp_path / "S.npy.rows.csv")
    assert rows["image_id"].tolist() == list(store.image_ids) and rows["row"].tolist() == [*range(len(store))]


def test_factors_give_the_similarities(store: TargetStore, tmp_path: Path) -> None:
    assert export([store.path, "--out", tmp_path / "K.npz"]) == 0
    found = sparse.load_npz(tmp_path / "K.npz").toarray()
    assert np.allclose(similarities(found), store.block(range(len(store))), atol=1e-6)


def test_safetensors_hold_the_same(store: TargetStore, tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    assert export([store.path, "--out", tmp_path / "K.safetensors"]) == 0
    parts = numpy.load_file(tmp_path / "K.safetensors")
    matrix = sparse.csr_array((parts["values"], parts["indices"], parts["indptr"]), shape=parts["shape"])
    assert (matrix != store.factors).nnz == 0


def test_the_graph_is_the_stores(store: TargetStore, tmp_path: Path) -> None:
    assert export([store.path, "--out", tmp_path / "graph.tsv"]) == 0
    triples = pd.read_csv(tmp_path / "graph.tsv", sep="\t", header=None).values.tolist()
    images = zip(store.image_ids, store.cuis, strict=True)
    asserted = [[name, "has_attribute", cui] for name, cuis in images for cui in cuis]
    assert triples == asserted + store.edges[["child", "relation", "parent"]].values.tolist()
    assert export([store.path, "--out", tmp_path / "graph.graphml"]) == 0
    graph = nx.read_graphml(tmp_path / "graph.graphml")
    assert graph.number_of_edges() == len(triples)
    assert graph.nodes[f"image:{store.image_ids[0]}"]["kind"] == "image"


def test_what_cannot_be_exported_is_told(
    store: TargetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_store, "LARGEST", 3)
    for out, told in (("x.xlsx", "must end in .npy"), ("S.npy", "export factors to .npz")):
        assert export([store.path, "--out", tmp_path / out]) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())
