"""NB-CLIP on a GPU: images per second beside open_clip's own loss in the same loop, blocks and losses, memory.

    PYTHONPATH=. python benchmarks/gpu_nb_clip.py                       # ViT-B-16, bf16; minutes on one H100
    PYTHONPATH=. python benchmarks/gpu_nb_clip.py --model ViT-B-32 --batches 256 512

Needs torch with CUDA, open_clip, accelerate, numpy, scipy, pandas and pyarrow; no data, no network, no weights.
"""

import statistics
import sys
from typing import Any

import torch
from accelerate import Accelerator
from machine import command, head, report
from steps import PACKAGES, Lanes, SyntheticStore, interleaved, milliseconds, peak_memory_mb, ratio

from training.nb_clip.batch_targets import DeviceBlocks, HostBlocks, factor_bytes


def steps(lanes: Lanes, repeats: int, micro_batch: int) -> dict[str, Any]:
    """Whole steps in turns: soft targets, InfoNCE, open_clip's ClipLoss, and soft targets in micro-batches."""
    kinds = {
        "soft": lanes.ours("semantic_matching"),
        "info_nce": lanes.ours("info_nce"),
        "open_clip": lanes.open_clip(),
    }
    if micro_batch < lanes.batch:
        kinds["soft_in_micro_batches"] = lanes.ours("semantic_matching", micro_batch=micro_batch)
    times = interleaved(kinds, repeats)
    return {
        "images_per_s": {
            kind: round(lanes.batch / statistics.median(one.wall for one in taken), 1)
            for kind, taken in times.items()
        },
        "step_soft_to_info_nce": ratio(times, "soft", "info_nce"),
        "step_soft_to_open_clip": ratio(times, "soft", "open_clip"),
        "peak_memory_mb": {kind: peak_memory_mb(run) for kind, run in kinds.items()},
    }


def large_batches(
    name: str, batch: int, accelerator: Accelerator, store: SyntheticStore, repeats: int
) -> dict[str, Any]:
    """Blocks, targets and losses of one process's batch, without towers."""
    lanes = Lanes(name, batch, accelerator, store)
    device = accelerator.device
    kept, host = DeviceBlocks(store.factors, device), HostBlocks(store, device)
    rows = torch.randperm(len(store))[:batch]
    difference = (kept(rows, rows)[0] - host(rows, rows)[0]).abs().max().item()
    return {
        "block_from_device_factors_ms": milliseconds(lambda: kept(rows, rows), repeats),
        "block_from_host_ms": milliseconds(lambda: host(rows, rows), max(2, repeats // 4)),
        "largest_difference": difference,
        "targets_ms": milliseconds(lanes.targets("semantic_matching"), repeats),
        "loss_ms": milliseconds(lanes.loss("semantic_matching"), repeats),
        "loss_measured_ms": milliseconds(lanes.loss("semantic_matching", measured=True), repeats),
        "loss_info_nce_ms": milliseconds(lanes.loss("info_nce"), repeats),
        "peak_memory_targets_mb": peak_memory_mb(lanes.targets("semantic_matching")),
        "peak_memory_loss_mb": peak_memory_mb(lanes.loss("semantic_matching")),
    }


def main() -> int:
    """Measure, print, and write the JSON file."""
    parser = command(__doc__, "gpu_nb_clip")
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="bf16")
    parser.add_argument("--batches", nargs="*", type=int, default=[64, 256, 1024], help="whole steps")
    parser.add_argument("--micro-batch", type=int, default=256)
    parser.add_argument(
        "--large", nargs="*", type=int, default=[1024, 2048, 4096, 8192], help="blocks and losses"
    )
    parser.add_argument("--repeats", type=int, default=12)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.stderr.write("error: no CUDA device here; benchmarks/nb_clip.py measures steps on the CPU\n")
        return 2
    accelerator = Accelerator(mixed_precision=options.precision)
    store = SyntheticStore(80_000)
    settings = {name: getattr(options, name) for name in ("model", "precision", "micro_batch")}
    factors = round(factor_bytes(store.factors) / 1e6, 1)
    result = head(PACKAGES, accelerator.device, **settings, factors_mb=factors, steps={}, large={})
    for batch in options.batches:
        lanes = Lanes(options.model, batch, accelerator, store)
        result["steps"][str(batch)] = steps(lanes, options.repeats, options.micro_batch)
        del lanes
        torch.cuda.empty_cache()
    for batch in options.large:
        figures = large_batches("demo-resnet", batch, accelerator, store, options.repeats)
        result["large"][str(batch)] = figures
        torch.cuda.empty_cache()
    report(result, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
