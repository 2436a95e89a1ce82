"""The transe scorer: options, stores of all splits, what continues after a kill, and what is said without torch."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from kg_targets.errors import ConfigError, MissingExtraError
from kg_targets.graph import ConceptGraph
from kg_targets.scoring import SCORERS, ConceptStatistics, ScoringInput
from kg_targets.store import TargetStore, verify_store
from kg_targets.transe.settings import TransESettings
from kg_targets.transe.triples import Triples
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set
from tests.builds import RICH, digests, write_split
from tests.kg_targets.test_public_names import run
from tests.kg_targets.transe.graphs import clusters, graph_of

A, B, C, D = "C0000001", "C0000002", "C0000003", "C0000004"
SMALL = "dim=8,epochs=4,every=2,seeds=2,batch=16,device=cpu"


def built(folder: Path, out: str, options: str = "", workers: int = 1) -> tuple[list[TargetStore], list[str]]:
    """Stores of train and dev, and the lines that were said."""
    write_split(folder / "data", "train", RICH)
    # the last caption is of a concept that train lacks
    write_split(folder / "data", "dev", (*RICH[:4], "Mammography: breast."))
    lines: list[str] = []
    config = BuildConfig(
        "demo", data_root=folder / "data", out=folder / out, scorer="transe",
        scorer_options=",".join(filter(None, (SMALL, options))), workers=workers, rows_per_shard=3,
    )  # fmt: skip
    return build_data_set(config, lines.append), lines


def test_options_are_those_of_the_preset_unless_given() -> None:
    assert TransESettings() == TransESettings(preset="tuned", dim=64, seeds=3, epochs=50)
    paper = TransESettings(preset="paper", epochs=7)
    expected = {"dim": 512, "margin": 5.0, "negatives": 25, "norm": "l1", "corruption": "bernoulli", "typed": False,
                "seeds": 1, "mode": "transductive", "epochs": 7}  # fmt: skip
    assert expected.items() <= asdict(paper).items()
    assert BuildConfig("demo", scorer="transe", scorer_options="preset=paper,epochs=7").settings == paper


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("norm=l3", "norm: Input should be 'l1' or 'l2'"),
        ("preset=papers", "preset: Input should be 'tuned' or 'paper'"),
        ("seeds=0", "seeds: Input should be greater than or equal to 1"),
        ("margin=-1", "margin: Input should be greater than 0"),
        ("epoch=3", "did you mean epochs"),
        ("typed=perhaps", "typed: Input should be a valid boolean"),
    ],
)
def test_a_wrong_option_is_one_line(option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        BuildConfig("demo", scorer="transe", scorer_options=option)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
def test_stores_of_all_splits_share_one_space(tmp_path: Path, mode: str) -> None:
    pytest.importorskip("torch")
    (train, dev), lines = built(tmp_path, "out", f"mode={mode}")
    assert all(verify_store(store.path) for store in (train, dev))
    assert {"has_attribute", "is_a"} < set(train.vectors) and not dev.vectors
    assert train.factors.shape[1] == dev.factors.shape[1] == 16
    assert train.known.tolist() == [bool(cuis) for cuis in train.column("cuis").to_pylist()]
    same = np.flatnonzero(dev.known[:4])
    if mode == "inductive":
        np.testing.assert_array_equal(train.factors[:4], dev.factors[:4])
    else:
        assert (train.factors[same] * dev.factors[same]).sum(axis=1).mean() > 0.3
    assert any("concepts that the fit split lacks" in line for line in lines)
    assert sum("MRR" in line or "epoch 4" in line for line in lines) == 2  # of both seeds
    assert not (tmp_path / "out" / ".train.state").exists()
    notes = [train.explain(train.image_ids[0], train.image_ids[row]).note for row in (1, 6)]
    assert "both captions mention" in notes[0] and "pleural effusion" not in notes[0]  # denied in one of them
    assert "no concept in common" not in notes[0] and "TransE's vectors are learnt" in notes[1]


def test_workers_never_change_a_store_and_an_interrupted_fit_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from kg_targets.transe import seed_fit

    built(tmp_path, "one")
    built(tmp_path, "two", workers=2)
    expected = digests(tmp_path / "one")
    assert digests(tmp_path / "two") == expected

    save, saved = seed_fit.save_state, []

    def interrupted(path: Path, *rest: object) -> None:
        saved.append(path)
        if len(saved) == 3:
            raise KeyboardInterrupt
        save(path, *rest)

    monkeypatch.setattr(seed_fit, "save_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path, "three")
    assert not (tmp_path / "three" / "train").exists()
    monkeypatch.setattr(seed_fit, "save_state", save)
    _, lines = built(tmp_path, "three")
    assert any("continues after epoch" in line for line in lines)
    assert digests(tmp_path / "three") == expected
    _, again = built(tmp_path, "three")
    assert sum("up to date" in line for line in again) == 2


def own_inductive(
    asserted: list[list[str]],
    captions: dict[str, int],
    vectors: dict[str, np.ndarray],
    settings: TransESettings,
) -> np.ndarray:
    """K in float64 of images by their distinct concepts, ``captions`` of which name each: docs/methods.md#transe."""
    result = np.zeros((len(asserted), settings.seeds * settings.dim))
    for seed in range(settings.seeds):
        part = slice(seed * settings.dim, (seed + 1) * settings.dim)
        for row, cuis in enumerate(asserted):
            total = np.zeros(settings.dim)
            for cui in cuis:
                weight = -np.log((captions[cui] + 1) / (len(asserted) + 1))
                total += weight * (
                    vectors[cui][part].astype(float) - vectors["has_attribute"][part].astype(float)
                )
            moved = total / np.linalg.norm(total) / np.sqrt(settings.seeds) - vectors["centre"][part]
            result[row, part] = moved / np.linalg.norm(moved) / np.sqrt(settings.seeds)
    return result


@pytest.mark.parametrize("same", [False, True])
def test_inductive_vectors_weigh_concepts_by_idf_and_those_of_equal_meaning_once(same: bool) -> None:
    pytest.importorskip("torch")
    asserted = [[A, B, C], [A, C], [C], [C, D], [B, D], [D]]
    edges = [(A, "same_as", B), (B, "same_as", A)] if same else []
    graph = graph_of(asserted, edges)
    settings = TransESettings(dim=8, epochs=4, every=2, seeds=2, device="cpu")
    ids = [str(row) for row in range(len(asserted))]
    found = SCORERS["transe"](ScoringInput(graph, ConceptStatistics.fit(graph), ids, options=settings))
    named = [sorted({A if same and cui == B else cui for cui in cuis}) for cuis in asserted]
    captions = {cui: sum(cui in cuis for cuis in named) for cui in graph.concepts}
    expected = own_inductive(named, captions, dict(found.vectors), settings)
    np.testing.assert_allclose(found.matrix, expected, atol=1e-5)


def transductive(graph: ConceptGraph, settings: TransESettings) -> np.ndarray:
    """K of the images of a fit split."""
    ids = [str(row) for row in range(graph.images)]
    found = SCORERS["transe"](ScoringInput(graph, ConceptStatistics.fit(graph), ids, options=settings))
    assert isinstance(found.matrix, np.ndarray)
    return found.matrix


def test_images_whose_edges_were_held_out_are_placed_with_all_their_concepts() -> None:
    pytest.importorskip("torch")
    from kg_targets.transe.fit import fit

    graph = clusters(40)
    settings = TransESettings(
        dim=8, epochs=4, every=2, seeds=2, device="cpu", mode="transductive", holdout=0.1
    )
    triples = Triples.of(graph)
    own = fit(triples, settings, 0).table[: triples.images]
    _, held = triples.hold_out(settings.holdout, 0)
    partly = np.isin(np.arange(graph.images), held[held[:, 1] == 0, 0])
    assert 0 < partly.sum() < graph.images
    moved = np.abs(transductive(graph, settings) - own).max(axis=1) > 1e-3
    assert moved.tolist() == partly.tolist()


def test_placed_images_have_one_edge_to_concepts_of_equal_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from kg_targets.transe import placing

    given = []
    place = placing.place

    def noted(has_attribute: sparse.csr_array, *rest: Any) -> np.ndarray:
        given.append(has_attribute.toarray())
        return place(has_attribute, *rest)

    monkeypatch.setattr(placing, "place", noted)
    graph = graph_of([[A, B, C], [B], [C]], [(A, "same_as", B), (B, "same_as", A)])
    settings = TransESettings(dim=8, epochs=2, seeds=1, device="cpu", mode="transductive", holdout=0.0)
    fitted = {cui: np.eye(8, dtype=np.float32)[0] for cui in (A, B, C, "has_attribute")}
    data = ScoringInput(graph, ConceptStatistics.fit(graph), ["a", "b", "c"], options=settings, fitted=fitted)
    assert SCORERS["transe"](data).known.all()
    assert [each.tolist() for each in given] == [[[1, 0, 1], [1, 0, 0], [0, 0, 1]]]


def test_images_without_any_concept_are_unknown_and_a_split_of_them_is_no_error() -> None:
    pytest.importorskip("torch")
    graph = ConceptGraph.build([[], []], None)
    data = ScoringInput(
        graph, ConceptStatistics.fit(graph), ["a", "b"], options=TransESettings(dim=4, device="cpu")
    )
    for mode in ("inductive", "transductive"):
        factors = SCORERS["transe"](data)
        assert factors.matrix.shape == (2, 12) and not factors.known.any(), mode


def test_without_torch_the_extra_is_named_in_one_line() -> None:
    done = run(
        "from kg_targets.graph import ConceptGraph; from kg_targets.scoring import *;"
        "graph = ConceptGraph.build([['C0000001']], None);"
        "data = ScoringInput(graph, ConceptStatistics.fit(graph), ['a']);"
        "SCORERS['transe'](data)"
    )
    expected = "MissingExtraError: --scorer transe needs torch: pip install 'kg-targets[train]'"
    assert done.stderr.strip().splitlines()[-1].endswith(expected)


def test_without_torch_a_build_ends_before_the_captions_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="needs torch"):
        built(tmp_path, "out")
    assert not (tmp_path / "out").exists()
