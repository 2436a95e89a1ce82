"""Soft-target loss of large batches, from features to gradients, beside open_clip's ClipLoss: time and memory.

    PYTHONPATH=. python benchmarks/large_batches.py
    PYTHONPATH=. python benchmarks/large_batches.py --batches 8192 --repeats 3

No towers: features of 512 dimensions go to their gradients. Ours also computes the similarities of the batch from the
store's factors, the targets by the policy and the mask of one case, all of which ClipLoss has not; the six products are
what neither can leave out. On a CPU time is that of its cores and memory the growth of a fresh process; no
data, no network, no weights.
"""

import math
import os
import re
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# What a process has freed goes back at once, so that its growth is what a step holds.
os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}

import torch
from machine import Times, command, cuda, head, interleaved, peak_memory_mb, report
from open_clip.loss import ClipLoss
from steps import PACKAGES, SyntheticStore
from torch import Tensor

from kg_targets.losses import chunked_loss, semantic_matching_loss
from training.nb_clip.batch_targets import TargetBuilder
from training.nb_clip.config import LossConfig, PolicyConfig

WIDTH, ROWS = 512, 80_000
POLICIES = ("softmax", "evidence", "fixed_mass")
CLIP, PRODUCTS, PIECE = "open_clip", "six products", "evidence in one piece"
LANES = (CLIP, PRODUCTS, *POLICIES, PIECE)
LARGEST_IN_ONE_PIECE = 4096
PROJECTED = 32_768


class Features:
    """Learnable features and scale of a batch of one process."""

    def __init__(self, batch: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.nn.functional.normalize(torch.randn(2, batch, WIDTH, generator=generator), dim=-1)
        self.image, self.text = (part.to(device).requires_grad_() for part in drawn)
        self.scale = torch.tensor(14.3, device=device, requires_grad=True)
        self.rows = torch.randperm(ROWS, generator=generator)[:batch]

    def step(self, loss: Callable[["Features"], Tensor]) -> None:
        """Loss and gradients."""
        for leaf in (self.image, self.text, self.scale):
            leaf.grad = None
        loss(self).backward()  # type: ignore[no-untyped-call]


def six_products(features: Features) -> None:
    """Logits of both directions, and the gradients of both their sides: all that is quadratic in B times D."""
    with torch.no_grad():
        for rows, columns in ((features.image, features.text), (features.text, features.image)):
            logits = rows @ columns.T
            _ = logits @ columns, logits.T @ rows


def soft_loss(builder: TargetBuilder, features: Features, *, chunks: bool = True) -> Tensor:
    """Similarities, targets, mask and the SM loss, in ranges of rows as a run does it, or in one piece."""
    image, text, scale, rows = features.image, features.text, features.scale, features.rows

    def of_rows(logits_i2t: Tensor, logits_t2i: Tensor, start: int, stop: int) -> Tensor:
        targets = builder(rows[start:stop], rows, start)
        return semantic_matching_loss(logits_i2t, logits_t2i, targets.i2t, targets.t2i, mask=targets.mask)

    if chunks:
        return chunked_loss(image, text, of_rows, scale=scale)
    return of_rows(scale * image @ text.T, scale * text @ image.T, 0, len(rows))


def lane(name: str, batch: int, device: torch.device, store: SyntheticStore) -> Callable[[], None]:
    """A step of one of ``LANES``."""
    features = Features(batch, device)
    if name == PRODUCTS:
        return partial(six_products, features)
    if name == CLIP:
        return partial(features.step, lambda given: ClipLoss()(given.image, given.text, given.scale))
    policy = "evidence" if name == PIECE else name
    builder = TargetBuilder(store, LossConfig(device_factors_mb=4096), PolicyConfig(name=policy), device)
    return partial(features.step, lambda given: soft_loss(builder, given, chunks=name != PIECE))


def peak_of_process(name: str, batch: int, threads: int) -> float:
    """Most memory that a step adds to a process in which nothing of its size was there before, MB."""
    torch.set_num_threads(threads)
    store = SyntheticStore(ROWS)
    lane(name, 64, torch.device("cpu"), store)()  # code, and the store's columns
    step = lane(name, batch, torch.device("cpu"), store)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    before = _status("VmRSS")
    step()
    return round((_status("VmHWM") - before) / 1e3, 1)


def _status(field: str) -> float:
    """kB."""
    found = re.search(rf"^{field}:\s+(\d+)", Path("/proc/self/status").read_text(), re.M)
    return float(found[1]) if found else math.nan


def figures(
    batch: int, device: torch.device, store: SyntheticStore, repeats: int, time_only: bool
) -> dict[str, Any]:
    """Seconds, memory unless ``time_only``, and their ratios to ClipLoss's for one batch."""
    names = [name for name in LANES if name != PIECE or batch <= LARGEST_IN_ONE_PIECE]
    steps = {name: lane(name, batch, device, store) for name in names}
    times = interleaved(steps, repeats, warmup=1)
    memory: dict[str, Any] = {}
    if cuda():
        memory = {name: peak_memory_mb(step) for name, step in steps.items()}
    elif not time_only:
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            memory = {
                name: pool.apply(peak_of_process, (name, batch, torch.get_num_threads())) for name in names
            }
    return {name: _told(name, times, memory, batch) for name in names}


def _told(name: str, times: Times, memory: dict[str, Any], batch: int) -> dict[str, float]:
    taken = {
        lane: sorted(each.wall if cuda() else each.cpu for each in turns) for lane, turns in times.items()
    }
    own, clip = taken[name], taken[CLIP]
    found = {
        "seconds_best": own[0],
        "seconds_median": own[len(own) // 2],
        "of_open_clip_best": own[0] / clip[0],
        "of_open_clip_median": own[len(own) // 2] / clip[len(clip) // 2],
    }
    if memory:
        found |= {
            "peak_memory_mb": memory[name],
            "peak_floats_per_pair": memory[name] * 1e6 / (4 * batch * batch),
            "memory_of_open_clip": memory[name] / memory[CLIP],
        }
    return {field: round(value, 3) for field, value in found.items()}


def projected(of_batch: dict[str, Any], batch: int) -> dict[str, Any]:
    """Memory and time of ``PROJECTED`` images by the growth of the largest batch measured, B² for what has B×B."""
    growth = PROJECTED / batch
    return {
        name: {
            "seconds": round(found["seconds_best"] * growth**2, 1),
            "peak_memory_mb": round(found["peak_memory_mb"] * (growth if name in POLICIES else growth**2)),
        }
        for name, found in of_batch.items()
    }


def main() -> None:
    """Measure, print, and write ``benchmarks/results/large_batches.json``, on a GPU ``gpu_large_batches.json``."""
    parser = command(__doc__, "gpu_large_batches" if cuda() else "large_batches", repeats=7)
    parser.add_argument("--batches", nargs="*", type=int, default=[1024, 2048, 4096, 8192])
    parser.add_argument(
        "--time-only", action="store_true", help="on a CPU: no process for each peak of memory"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if cuda() else "cpu")
    store = SyntheticStore(ROWS)
    result = head(PACKAGES, device, repeats=options.repeats, width=WIDTH, batches={})
    for batch in options.batches:
        found = result["batches"][str(batch)] = figures(
            batch, device, store, options.repeats, options.time_only
        )
        if not options.time_only:
            result["projected"] = {"from": batch, "to": PROJECTED, **projected(found, batch)}
        report(result, options.out)  # after each: large ones take minutes


if __name__ == "__main__":
    main()
