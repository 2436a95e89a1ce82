"""What soft targets add to a training step.

    python benchmarks/nb_clip.py                                     # on the CPU or the GPU at hand

Every step is timed beside InfoNCE's and beside the same model with open_clip's own ClipLoss, in turns; ratios are
medians over the turns with their quartiles. Nothing runs ahead in the step benchmark: similarities and targets are
inside it, though the engine computes them in a thread while the step before runs.
"""

import os
import statistics
import sys
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as training/run.py does, before numpy is loaded

import torch
from accelerate import Accelerator
from machine import command, head, report
from steps import PACKAGES, Lanes, SyntheticStore, interleaved, milliseconds, ratio


def step_figures(name: str, batch: int, accelerator: Accelerator, store: SyntheticStore, repeats: int) -> Any:
    """Whole steps in turns, and the parts that soft targets add."""
    lanes = Lanes(name, batch, accelerator, store)
    times = interleaved(
        {
            "soft": lanes.ours("semantic_matching"),
            "info_nce": lanes.ours("info_nce"),
            "info_nce_again": lanes.ours("info_nce"),
            "open_clip": lanes.open_clip(),
        },
        repeats,
    )
    parts = {
        "targets_ms": milliseconds(lanes.targets("semantic_matching"), 30),
        "targets_info_nce_ms": milliseconds(lanes.targets("info_nce"), 30),
        "loss_ms": milliseconds(lanes.loss("semantic_matching"), 30),
        "loss_info_nce_ms": milliseconds(lanes.loss("info_nce"), 30),
        "loss_measured_ms": milliseconds(lanes.loss("semantic_matching", measured=True), 30),
    }
    baseline = 1e3 * statistics.median(taken.wall for taken in times["info_nce"])
    added = parts["targets_ms"] + parts["loss_ms"] - parts["targets_info_nce_ms"] - parts["loss_info_nce_ms"]
    return {
        "step_info_nce_ms": round(baseline, 1),
        "step_soft_to_info_nce": ratio(times, "soft", "info_nce"),
        "step_info_nce_to_itself": ratio(times, "info_nce_again", "info_nce"),
        "step_soft_to_open_clip": ratio(times, "soft", "open_clip"),
        "parts": parts,
        "ratio_by_parts": round(1 + added / baseline, 4),
    }


def main() -> None:
    """Measure, print, and write ``benchmarks/results/nb_clip.json``."""
    parser = command(__doc__, "nb_clip")
    parser.add_argument("--models", nargs="*", default=["demo-resnet"], help="open_clip architectures")
    parser.add_argument("--batches", nargs="*", type=int, default=[64, 128, 256])
    parser.add_argument("--repeats", type=int, default=15, help="turns of the step benchmark")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    options = parser.parse_args()
    accelerator = Accelerator(mixed_precision=options.precision)
    torch.set_num_threads(options.threads)
    settings = {"precision": options.precision, "repeats": options.repeats}
    result = head(PACKAGES, accelerator.device, **settings, steps={})
    store = SyntheticStore(20_000)
    for name in options.models:
        for batch in options.batches:
            figures = step_figures(name, batch, accelerator, store, options.repeats)
            result["steps"].setdefault(name, {})[str(batch)] = figures
            sys.stderr.write(f"{name} {batch}: {figures['step_soft_to_info_nce']}\n")
    report(result, options.out)


if __name__ == "__main__":
    main()
