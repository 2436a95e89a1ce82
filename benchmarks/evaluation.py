"""Evaluation: ranking and its measures beside the bare matrix product and top-k, and the memory they take.

    python benchmarks/evaluation.py [--out FILE] [--store STORE]

Everything runs in the same process, with the same threads and the same chunks, in turns;
ratios are medians over the repeats. ``--store`` takes the concepts of a real target store instead of drawn ones.
"""

import statistics
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import command, head, interleaved, median_ms, report
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.store import TargetStore
from training.retrieval.concepts import VARIANTS, cui_at, cui_by_chance
from training.retrieval.metrics import precision_at
from training.retrieval.ranking import CHUNK, pair_ranks, rank

PACKAGES = ("torch", "numpy", "scipy")
DEPTHS, LABEL_DEPTHS = (5, 10, 50), (5, 10, 30)
WIDTH = 512


class Images:
    """Features, cases, labels and concepts of N images; concepts as frequent as ROCO's with the seed ontology."""

    def __init__(self, count: int, store: TargetStore | None = None) -> None:
        rng = np.random.default_rng(0)
        self.features = rng.standard_normal((count, WIDTH), dtype=np.float32)
        for start in range(0, count, CHUNK):  # in place, so that making the inputs is not the peak
            part = self.features[start : start + CHUNK]
            part /= np.linalg.norm(part, axis=1, keepdims=True)
        self.cases = rng.integers(0, count // 3, count)
        self.labels = [rng.integers(0, classes, count) for classes in (5, 8, 27)]
        if store is not None:
            self.cuis = store.cui_matrix()[:count]
            return
        often = 0.6 / (np.arange(500) + 2)  # 3.4 concepts an image, the commonest in 30 % of the images
        parts = [rng.random((min(CHUNK, count - start), 500)) < often for start in range(0, count, CHUNK)]
        self.cuis = sparse.csr_array(
            sparse.vstack([sparse.csr_array(part.astype(np.float32)) for part in parts])
        )

    def __len__(self) -> int:
        return len(self.features)


def product_and_topk(images: Images) -> None:
    """The peer: scores of a chunk of queries, and the columns of the 50 best; nothing excluded, ties left open."""
    features = torch.as_tensor(images.features)
    for start in range(0, len(images), CHUNK):
        torch.topk(features[start : start + CHUNK] @ features.T, max(DEPTHS), dim=1)


def product_and_argpartition(images: Images) -> None:
    """Bare product and top-k with numpy, whose columns are not sorted."""
    features = torch.as_tensor(images.features)
    for start in range(0, len(images), CHUNK):
        scores = (features[start : start + CHUNK] @ features.T).numpy()
        np.argpartition(np.negative(scores, out=scores), max(DEPTHS), axis=1)[:, : max(DEPTHS)]


def rank_only(images: Images) -> NDArray[np.int64]:
    """Ours: own case excluded, ties by row."""
    return rank(images.features, images.features, images.cases, max(DEPTHS))


def evaluate(images: Images) -> None:
    """Ours with CUI@5/10/50 and P@5/10/30 of three labels."""
    order = rank_only(images)
    cui_at(order, images.cuis, images.cases, DEPTHS)["oracle"]
    for labels in images.labels:
        precision_at(order, labels, LABEL_DEPTHS)


def evaluate_all_variants(images: Images) -> None:
    """Ours with all variants of CUI@K."""
    cui_at(rank_only(images), images.cuis, images.cases, DEPTHS, tuple(VARIANTS))


def chance(images: Images) -> None:
    """Exact expectations of all variants: once per report, whatever the number of runs."""
    cui_by_chance(images.cuis, images.cases, DEPTHS, tuple(VARIANTS))


def pairs(images: Images) -> None:
    """Ranks of the own counterpart, for Recall@K in one direction."""
    pair_ranks(images.features, images.features, images.cases, np.arange(len(images)))


MEASURED: tuple[Callable[[Images], Any], ...] = (
    product_and_topk, product_and_argpartition, rank_only, evaluate, evaluate_all_variants, chance, pairs,
)  # fmt: skip


def timings(images: Images, repeats: int) -> dict[str, Any]:
    """Seconds and ratios to the faster peer of the same repeat, as medians; the first, warming repeat is left out."""
    times = interleaved({work.__name__: partial(work, images) for work in MEASURED}, repeats, warmup=1)
    peers = (times[work.__name__] for work in MEASURED[:2])
    fastest = [min(one.wall, other.wall) for one, other in zip(*peers, strict=True)]
    return {
        name: {
            "seconds": round(median_ms(turns) / 1e3, 4),
            "ratio_to_product_and_topk": round(
                statistics.median(turn.wall / peer for turn, peer in zip(turns, fastest, strict=True)), 3
            ),
        }
        for name, turns in times.items()
    }


def memory(count: int, threads: int) -> dict[str, Any] | None:
    """Memory of ranking, all measures and chance beyond their inputs, in a process of its own.

    None where the system has no /proc to say.
    """
    if not Path("/proc/self/status").exists():
        return None
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_memory, (count, threads))


def _memory(count: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    rank_only(Images(600))  # libraries loaded, buffers of threads made
    images = Images(count)
    before = _memory_mb("VmRSS")
    evaluate_all_variants(images)
    evaluate(images)
    chance(images)
    pairs(images)
    return {
        "images": count,
        "peak_over_the_inputs_MB": round(_memory_mb("VmHWM") - before),
        "a_matrix_of_all_pairs_MB": round(count**2 * 4 / 1e6),
    }


def _memory_mb(field: str) -> float:
    """Size of this process, MB: resident now (VmRSS), or its peak (VmHWM); getrusage's would hold the parent's."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    parser = command(__doc__, "evaluation", images=8192, memory_images=20_000, repeats=7)
    parser.add_argument(
        "--store", help="target store whose concepts to use; as many images as it has, at most"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    store = TargetStore.open(chosen.store) if chosen.store else None
    images = Images(min(chosen.images, len(store)) if store else chosen.images, store)
    result = head(PACKAGES, torch.device("cpu")) | {
        "images": len(images),
        "width": WIDTH,
        "concepts": f"{store.dataset}/{store.split}" if store else "drawn",
        "concepts_per_image": round(images.cuis.nnz / len(images), 2),
        "timings": timings(images, chosen.repeats),
        "memory": memory(chosen.memory_images, chosen.threads),
    }
    report(result, chosen.out)


if __name__ == "__main__":
    main()
