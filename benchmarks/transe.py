"""TransE beside pykeen's at equal settings: triples per second and filtered MRR; and a graph of ROCO's size.

    PYTHONPATH=. python benchmarks/transe.py --store build/medpix/train

The graph is that of a store's images, concepts and edges. Both fit the same edges on one thread, with the same
distance, margin, negatives (Bernoulli, untyped: pykeen's default), batch size, Adagrad and epochs; the filtered ranks
of the same held-out edges come from one function. Fits take turns, one of ours and one of pykeen's for each seed.
``cpu`` figures are of processor time, which neighbours on the machine disturb less than the clock. Without pykeen
(``pip install pykeen``), only ours is measured.
"""

import statistics
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import PACKAGES, command, head, report, seconds
from scipy import sparse

from kg_targets.graph import ConceptGraph
from kg_targets.store import TargetStore
from kg_targets.transe.corruption import Corruption
from kg_targets.transe.fit import fit
from kg_targets.transe.ranks import LinkPrediction, Ranker
from kg_targets.transe.settings import TransESettings
from kg_targets.transe.triples import Triples
from pipelines.build.executors import available_cores

WIDTHS = (64, 128, 512)
Fit = Callable[[Triples, TransESettings, int], torch.Tensor]


def ours(triples: Triples, settings: TransESettings, seed: int) -> torch.Tensor:
    """The table [E + R, dim] of our fit; what is held out is held out already."""
    return torch.from_numpy(fit(triples, settings, seed).table)


def pykeen(triples: Triples, settings: TransESettings, seed: int) -> torch.Tensor:
    """The table [E + R, dim] of pykeen's fit."""
    from pykeen.losses import MarginRankingLoss
    from pykeen.models import TransE
    from pykeen.training import SLCWATrainingLoop
    from pykeen.triples import CoreTriplesFactory

    torch.manual_seed(seed)
    factory = CoreTriplesFactory(torch.from_numpy(triples.edges), triples.nodes, len(triples.relations))
    model = TransE(
        triples_factory=factory,
        embedding_dim=settings.dim,
        scoring_fct_norm=1,
        loss=MarginRankingLoss(margin=settings.margin),
        random_seed=seed,
    )
    loop = SLCWATrainingLoop(
        model=model,
        triples_factory=factory,
        optimizer=torch.optim.Adagrad(model.parameters(), lr=settings.lr),
        negative_sampler="bernoulli",
        negative_sampler_kwargs={"num_negs_per_pos": settings.negatives},
    )
    loop.train(factory, settings.epochs, settings.batch, use_tqdm=False)
    parts = (model.entity_representations[0], model.relation_representations[0])
    return torch.cat([part().detach() for part in parts])


def graph_of(store: TargetStore) -> ConceptGraph:
    """Images, concepts and edges of a store."""
    concepts, edges = store.concepts["cui"].tolist(), store.edges
    closure = sparse.csr_array(sparse.eye_array(len(concepts)))
    listed = list(zip(edges["child"], edges["relation"], edges["parent"], strict=True))
    return ConceptGraph(concepts, sparse.csr_array(store.cui_matrix()), closure, listed)


def drawn(images: int, concepts: int, edges: int) -> Triples:
    """A drawn graph: concepts as rare as 1/rank, eight for each image, and a tree of them."""
    generator = np.random.default_rng(0)
    chance = 1.0 / np.arange(1, concepts + 1)
    heads = np.repeat(np.arange(images), edges // images)
    tails = images + generator.choice(concepts, len(heads), p=chance / chance.sum())
    child = np.arange(1, concepts)
    parent = images + generator.integers(0, child)
    parts = [(heads, 0, tails), (images + child, 1, parent)]
    listed = [np.stack(np.broadcast_arrays(*part), axis=1) for part in parts]
    everything = np.unique(np.concatenate(listed).astype(np.int64), axis=0)
    return Triples(everything, np.arange(images), images + np.arange(concepts), ("has_attribute", "is_a"))


def side_by_side(
    triples: Triples, lanes: dict[str, Fit], settings: TransESettings, seeds: int
) -> dict[str, Any]:
    """Speed and quality of all lanes at one width."""
    edges, held = triples.hold_out(0.05, 0)
    fitted_on = Triples(edges, triples.rows, triples.concept_nodes, triples.relations)
    everywhere = Corruption.fit(edges, len(triples.relations), triples.images, triples.nodes, settings, "cpu")
    ranker = Ranker(held, triples.edges, everywhere.first.numpy(), everywhere.count.numpy())
    found: dict[str, dict[str, list[float]]] = {
        name: {"wall": [], "cpu": [], "mrr": [], "hits": []} for name in lanes
    }
    tables: list[torch.Tensor] = []
    for seed in range(seeds):
        for name, run in lanes.items():
            taken = seconds(lambda run=run, seed=seed: tables.append(run(fitted_on, settings, seed)))
            ranks = ranker.ranks(tables.pop(), triples.nodes, "l1")
            quality = LinkPrediction.of(ranks)
            values = (taken.wall, taken.cpu, quality.mrr, quality.hits_at_10)
            for key, value in zip(found[name], values, strict=True):
                found[name][key].append(value)
    work = len(edges) * settings.epochs
    result: dict[str, Any] = {}
    for name, values in found.items():
        result[name] = {
            "triples_per_second": round(work / statistics.median(values["wall"])),
            "triples_per_cpu_second": round(work / statistics.median(values["cpu"])),
            "mrr_of_each_seed": [round(value, 4) for value in values["mrr"]],
            "hits_at_10_of_each_seed": [round(value, 4) for value in values["hits"]],
        }
    if "pykeen" in lanes:
        times = {
            key: [p / o for p, o in zip(found["pykeen"][key], found["ours"][key], strict=True)]
            for key in ("wall", "cpu")
        }
        result["ours_over_pykeen"] = {key: round(statistics.median(value), 2) for key, value in times.items()}
    return result


def main() -> None:
    """Measure and report."""
    parser = command(
        __doc__,
        "transe",
        threads=1,
        seeds=3,
        epochs=10,
        roco_images=65_000,
        roco_concepts=20_000,
        roco_triples=600_000,
        roco_epochs=3,
    )
    parser.add_argument("--store", type=Path, default=Path("build/demo/train"), help="a store of concepts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lanes: dict[str, Fit] = {"ours": ours}
    packages = (*PACKAGES, "torch")
    if find_spec("pykeen"):
        lanes["pykeen"] = pykeen
        packages += ("pykeen",)
    store = TargetStore.open(options.store)
    triples = Triples.of(graph_of(store))
    equal = TransESettings(
        typed=False, seeds=1, holdout=0.0, epochs=options.epochs, every=options.epochs, device="cpu"
    )
    result = head(packages, device=torch.device("cpu"), seeds=options.seeds, settings=asdict(equal))
    result["graph"] = {
        "of": f"{store.manifest['dataset']}/{store.split}", "edges": len(triples.edges), "nodes": triples.nodes,
    }  # fmt: skip
    if "pykeen" not in lanes:
        result["peer"] = "pykeen is not installed (pip install pykeen): ours alone"
    for dim in WIDTHS:
        settings = TransESettings(**(asdict(equal) | {"dim": dim}))
        result[f"dim_{dim}"] = side_by_side(triples, lanes, settings, options.seeds)
    sizes = (options.roco_images, options.roco_concepts, options.roco_triples, options.roco_epochs)
    result["roco_size"] = roco_size(*sizes)
    report(result, options.out)


def roco_size(images: int, concepts: int, edges: int, epochs: int) -> dict[str, Any]:
    """Seconds of some epochs of the default preset on a drawn graph of ROCO's size, one fit for each core."""
    cores = available_cores()
    triples = drawn(images, concepts, edges - concepts)
    settings = TransESettings(device="cpu", seeds=cores, epochs=epochs, every=epochs)
    preset = TransESettings()
    taken = seconds(lambda: fit(triples, settings, workers=cores))
    whole = (preset.epochs * preset.seeds) / (epochs * settings.seeds)
    return {
        "graph": "drawn: concepts as rare as 1/rank, eight for each image, a tree of is_a",
        "edges": len(triples.edges),
        "nodes": triples.nodes,
        "epochs": epochs,
        "fits_at_a_time": cores,
        "seconds": round(taken.wall, 1),
        "cpu_seconds": round(taken.cpu, 1),
        "triples_per_second": round(len(triples.edges) * epochs * settings.seeds / taken.wall),
        "default_preset": {
            "fits": preset.seeds,
            "epochs": preset.epochs,
            "seconds_from_these": round(taken.wall * whole),
            "seconds_from_cpu_time": round(taken.cpu * whole / cores),
        },
    }


if __name__ == "__main__":
    main()
