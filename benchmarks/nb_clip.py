"""Figures of the training half: what soft targets add to a step, and what the engine adds to a bare loop.

    python benchmarks/nb_clip.py                                     # steps, on the CPU or the GPU at hand
    python benchmarks/nb_clip.py --store build/demo/train --data-root build/demo/data    # and the engine

Every step is timed beside InfoNCE's and beside the same model with open_clip's own ClipLoss, in turns; ratios are
medians over the turns with their quartiles. Nothing runs ahead in the step benchmark: similarities and targets are
inside it, though the engine computes them in a thread while the step before runs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from machine import describe
from steps import PACKAGES, Lanes, SyntheticStore, interleaved, milliseconds, ratio, seconds

RUN = Path(__file__).resolve().parents[1] / "training" / "run.py"
UNAUGMENTED = tuple(f"--data.{name}=0" for name in ("rotation", "shift", "zoom", "brightness"))


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


def engine_figures(options: argparse.Namespace, accelerator: Accelerator) -> Any:
    """Throughput and data wait that the engine logs, each run between two stretches of a bare loop."""
    store = SyntheticStore(10_000)
    bare_step = Lanes(options.engine_model, options.engine_batch, accelerator, store).open_clip()

    def bare() -> float:
        bare_step()
        taken = [seconds(bare_step).wall for _ in range(options.engine_steps // 4)]
        return float(options.engine_batch / statistics.median(taken))

    runs: dict[str, list[tuple[float, float]]] = {"augmented": [], "unaugmented": []}
    before = bare()
    for _ in range(options.engine_repeats):
        for kind, extra in (("augmented", ()), ("unaugmented", UNAUGMENTED)):
            throughput, wait = engine(options, extra)
            after = bare()
            runs[kind].append((throughput / statistics.mean([before, after]), wait))
            before = after
    return {
        kind: {
            "throughput_to_bare_loop": [round(share, 3) for share, _ in pairs],
            "median": round(statistics.median(share for share, _ in pairs), 3),
            "data_wait": round(statistics.median(wait for _, wait in pairs), 4),
        }
        for kind, pairs in runs.items()
    } | {"model": options.engine_model, "batch": options.engine_batch, "bare_images_per_s": round(before, 1)}


def engine(options: argparse.Namespace, extra: tuple[str, ...]) -> tuple[float, float]:
    """Images per second and share of the time without data, medians over the log lines of one training run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(RUN), f"--output={folder}/run", f"--data.train_store={options.store}",
            f"--data.data_root={options.data_root}", f"--data.batch_size={options.engine_batch}",
            f"--model.name={options.engine_model}", f"--optim.max_steps={options.engine_steps}",
            "--optim.epochs=1000", f"--threads={options.threads}", "--log.every=5", "--log.trackers=none", *extra,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"error: the training run failed: {done.stderr.strip().splitlines()[-1]}")
        lines = [json.loads(line) for line in Path(folder, "run", "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "images_per_s" in line and line["step"] > 5]
    return (
        statistics.median(line["images_per_s"] for line in steps),
        statistics.median(line["data_wait"] for line in steps),
    )


def main() -> None:
    """Measure, print, and write ``benchmarks/results/nb_clip.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["demo-resnet"], help="open_clip architectures")
    parser.add_argument("--batches", nargs="*", type=int, default=[64, 128, 256])
    parser.add_argument("--repeats", type=int, default=15, help="turns of the step benchmark")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--store", default=None, help="target store of the engine's run; without it, steps only"
    )
    parser.add_argument("--data-root", default="build/demo/data")
    parser.add_argument("--engine-model", default="demo-resnet")
    parser.add_argument("--engine-batch", type=int, default=128)
    parser.add_argument("--engine-steps", type=int, default=60)
    parser.add_argument("--engine-repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "nb_clip.json")
    options = parser.parse_args()
    accelerator = Accelerator(mixed_precision=options.precision)
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {
        "machine": describe(PACKAGES),
        "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": options.precision,
        "repeats": options.repeats,
        "steps": {},
    }
    store = SyntheticStore(20_000)
    for name in options.models:
        for batch in options.batches:
            figures = step_figures(name, batch, accelerator, store, options.repeats)
            result["steps"].setdefault(name, {})[str(batch)] = figures
            sys.stderr.write(f"{name} {batch}: {figures['step_soft_to_info_nce']}\n")
    if options.store:
        result["engine"] = engine_figures(options, accelerator)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
