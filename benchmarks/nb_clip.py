"""Cost of soft targets in a training step, on the CPU or on a GPU.

    PYTHONPATH=. python benchmarks/nb_clip.py                        # what suits the device at hand, see DEFAULTS
    PYTHONPATH=. python benchmarks/nb_clip.py --models ViT-B-32 --batches 256 512

Every step is timed beside InfoNCE's and beside the same model with open_clip's own ClipLoss, in turns; ratios are
medians over the turns with their quartiles. Nothing runs ahead in the step benchmark: similarities and targets are
inside it, though the engine computes them in a thread while the step before runs. Needs torch, open_clip, accelerate,
numpy, scipy, pandas and pyarrow; no data, no network, no weights.
"""

import os
import sys
from itertools import product
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as training/run.py does, before numpy is loaded

import torch
from accelerate import Accelerator
from machine import command, cuda, head, interleaved, median_ms, milliseconds, peak_memory_mb, ratio, report
from steps import PACKAGES, Lanes, SyntheticStore

from training.nb_clip.batch_targets import factor_bytes

DEFAULTS: dict[str, dict[str, Any]] = {
    "nb_clip": {
        "models": ["demo-resnet"], "precision": "no", "batches": [64, 128, 256], "micro_batch": None,
        "rows": 20_000,
    },
    "gpu_nb_clip": {
        "models": ["ViT-B-16"], "precision": "bf16", "batches": [64, 256, 1024], "micro_batch": 256,
        "rows": 80_000,
    },
}  # fmt: skip
"""Settings by the name of the result, on the CPU and on a GPU (minutes on one H100)."""


def step_figures(lanes: Lanes, repeats: int, micro_batch: int | None) -> dict[str, Any]:
    """Whole steps in turns, soft targets in micro-batches among them, and the parts that soft targets add."""
    kinds = {
        "soft": lanes.ours("semantic_matching"),
        "info_nce": lanes.ours("info_nce"),
        "info_nce_again": lanes.ours("info_nce"),
        "open_clip": lanes.open_clip(),
    }
    if micro_batch and micro_batch < lanes.batch:
        kinds["soft_in_micro_batches"] = lanes.ours("semantic_matching", micro_batch=micro_batch)
    times = interleaved(kinds, repeats)
    parts = {
        "targets_ms": milliseconds(lanes.targets("semantic_matching"), 30),
        "targets_info_nce_ms": milliseconds(lanes.targets("info_nce"), 30),
        **loss_figures(lanes, 30),
    }
    baseline = median_ms(times["info_nce"])
    added = parts["targets_ms"] + parts["loss_ms"] - parts["targets_info_nce_ms"] - parts["loss_info_nce_ms"]
    return {
        "step_info_nce_ms": round(baseline, 1),
        "images_per_s": {
            kind: round(1e3 * lanes.batch / median_ms(taken), 1) for kind, taken in times.items()
        },
        "step_soft_to_info_nce": ratio(times, "soft", "info_nce"),
        "step_info_nce_to_itself": ratio(times, "info_nce_again", "info_nce"),
        "step_soft_to_open_clip": ratio(times, "soft", "open_clip"),
        "peak_memory_mb": {kind: peak_memory_mb(run) for kind, run in kinds.items()},
        "parts": parts,
        "ratio_by_parts": round(1 + added / baseline, 4),
    }


def loss_figures(lanes: Lanes, repeats: int) -> dict[str, float]:
    """Losses with their gradients, without towers."""
    return {
        "loss_ms": milliseconds(lanes.loss("semantic_matching"), repeats),
        "loss_info_nce_ms": milliseconds(lanes.loss("info_nce"), repeats),
        "loss_measured_ms": milliseconds(lanes.loss("semantic_matching", measured=True), repeats),
    }


def main() -> None:
    """Measure, print, and write ``benchmarks/results/nb_clip.json``, on a GPU ``gpu_nb_clip.json``."""
    name = "gpu_nb_clip" if cuda() else "nb_clip"
    parser = command(__doc__, name)
    parser.add_argument("--models", nargs="*", help="open_clip architectures")
    parser.add_argument("--batches", nargs="*", type=int, help="of whole steps")
    parser.add_argument("--micro-batch", type=int, help="not for towers with BatchNorm")
    parser.add_argument("--rows", type=int, help="images of the drawn store")
    parser.add_argument("--repeats", type=int, default=15, help="turns of the step benchmark")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"))
    parser.set_defaults(**DEFAULTS[name])
    options = parser.parse_args()
    accelerator = Accelerator(mixed_precision=options.precision)
    torch.set_num_threads(options.threads)
    store = SyntheticStore(options.rows)
    settings = {field: getattr(options, field) for field in ("precision", "repeats", "micro_batch")}
    factors = round(factor_bytes(store.factors) / 1e6, 1)
    result = head(PACKAGES, accelerator.device, **settings, factors_mb=factors, steps={})

    def lanes(model: str, batch: int) -> Lanes:
        if cuda():
            cuda().empty_cache()
        return Lanes(model, batch, accelerator, store)

    for model, batch in product(options.models, options.batches):
        figures = step_figures(lanes(model, batch), options.repeats, options.micro_batch)
        result["steps"].setdefault(model, {})[str(batch)] = figures
        sys.stderr.write(f"{model} {batch}: {figures['step_soft_to_info_nce']}\n")
    report(result, options.out)


if __name__ == "__main__":
    main()
