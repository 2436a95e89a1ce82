"""`kg-targets build --extend STORE` as a person uses it: old rows stay, new ones are as in a build of all of them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from kg_targets.inspect.card import write_card
from kg_targets.store import StoreWriter, TargetStore, verify_store
from kg_targets.store.digest import file_sha256
from pipelines import cli
from pipelines.audit.rescoring import recomputation_error
from tests.builds import RICH, digests, write_split

pytestmark = pytest.mark.e2e
NEW = (
    "Mammography with a mass in the left breast.",
    *RICH[8:],
    "CT of the spleen: splenomegaly.",
    "Figure 1.",
)


def run(world: Path, out: Path, split: str, *arguments: object) -> int:
    """Build a split into a folder, or let it join the store that ``--extend`` names."""
    where = () if "--extend" in arguments else ("--out", out)
    common = ["build", "demo", "--split", split, "--data-root", world, "--workers", 1, *where]
    return cli.main([str(each) for each in (*common, "--rows-per-shard", 5, *arguments)])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data: train, dev whose rows join it, test which has the rows of both."""
    folder = tmp_path_factory.mktemp("extend")
    write_split(folder, "train", RICH[:8])
    write_split(folder, "dev", NEW)
    frames = [pd.read_csv(folder / f"{split}.csv", keep_default_na=False) for split in ("train", "dev")]
    pd.concat(frames).to_csv(folder / "test.csv", index=False)
    return folder


def factors_by_cui(store: TargetStore) -> dict[tuple[str, str], bytes]:
    """The bytes of each number of the factors, by image and CUI (sparse) or column (dense)."""
    found = sparse.coo_array(store.factors)
    names = store.concepts["cui"].tolist() if sparse.issparse(store.factors) else range(found.shape[1])
    return {
        (store.image_ids[row], names[column]): value.tobytes()
        for row, column, value in zip(*found.coords, found.data, strict=True)
    }


SCORERS = {
    "ontology": (),
    "blocks": ("--blocks", "1:2:1"),
    "no ontology": ("--no-ontology",),
    "identity": ("--scorer", "identity"),
    "noise": ("--scorer", "noise"),
    "transe": ("--scorer", "transe", "--scorer-options", "seeds=1,dim=8,epochs=2"),
}


@pytest.mark.parametrize("options", SCORERS.values(), ids=SCORERS)
def test_new_rows_are_as_in_a_build_of_all_rows_with_the_same_statistics(
    world: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    assert run(world, tmp_path, "test", "--fit-split", "train", *options) == 0
    fit, whole = (TargetStore.open(tmp_path / split) for split in ("train", "test"))
    shutil.copytree(fit.path, tmp_path / "own" / "train")
    assert run(world, tmp_path, "dev", "--extend", tmp_path / "own" / "train", *options) == 0
    store = TargetStore.open(tmp_path / "own" / "train")
    assert verify_store(store.path) and len(store) == len(whole) == len(fit) + len(NEW)
    assert store.fingerprint != fit.fingerprint and store.threshold == fit.threshold
    assert factors_by_cui(store) == factors_by_cui(whole)
    for column in ("image_id", "caption", "group_id", "label_region", "cuis", "known", "neighbor_scores"):
        assert store.column(column).to_pylist() == whole.column(column).to_pylist(), column
    pd.testing.assert_frame_equal(store.mentions, whole.mentions)
    pd.testing.assert_frame_equal(store.edges, whole.edges)
    known = len(fit.concepts)
    assert store.concepts["cui"][:known].tolist() == fit.concepts["cui"].tolist()
    assert store.concepts["cui"][known:].is_monotonic_increasing
    own, theirs = (each.concepts.set_index("cui").sort_index() for each in (store, whole))
    pd.testing.assert_frame_equal(own.drop(columns="concept"), theirs.drop(columns="concept"))
    (entry,) = store.manifest["extensions"]
    assert (entry["split"], entry["rows"], entry["extended"]) == ("dev", len(NEW), fit.fingerprint)
    assert entry["concepts"] == len(store.concepts) - known
    for name in ("unknown_cuis", "unknown_cuis_count", "confirmation"):
        assert store.manifest[name] == whole.manifest[name], name
