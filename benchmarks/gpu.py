"""Everything that is measured on a card, within eight minutes: the tests of ``tests/gpu``, then the benchmarks.

    PYTHONPATH=. python benchmarks/gpu.py                  # make bench-gpu
    PYTHONPATH=. python benchmarks/gpu.py --trial          # the same way on a CPU, in sizes that say nothing

Each part is a command of its own, gets at most the time that is left, and writes its file, with the device's name, into
``benchmarks/results`` or ``--out``. Random weights and drawn data: no network. Without a card: one line, exit code 2.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
MINUTES = 8.0
BATCHES = (4096, 8192, 16_384, 32_768)
CLIP_FLOATS = 5
"""Floats per pair of a batch that open_clip's ClipLoss holds at once, rounded up."""


def parts(memory: int, out: Path) -> dict[str, list[str]]:
    """The commands by name, for a card of ``memory`` bytes, with files in ``out``."""
    batches = [str(batch) for batch in BATCHES if CLIP_FLOATS * 4 * batch**2 < 0.8 * memory]
    return {
        "tests": ["-m", "pytest", "-q", "-m", "gpu", str(HERE.parent / "tests" / "gpu")],
        "losses at large batches": script("large_batches", out, "--batches", *batches),
        "NB-CLIP's step": script("nb_clip", out, "--batches", "256", "1024", "--repeats", "8"),
        "Med-VQA": script("gpu_med_vqa", out),
        "teachers and TransE": script("gpu_teachers", out),
    }


def trial_parts(out: Path) -> dict[str, list[str]]:
    """The same benchmarks on a CPU, as small as they can be; the tests need a card and are only collected."""
    cpu = ("--device", "cpu", "--repeats", "1")
    return {
        "tests": ["-m", "pytest", "-q", "-m", "gpu", "--collect-only", str(HERE.parent / "tests" / "gpu")],
        "losses at large batches": script(
            "large_batches", out, "--batches", "64", "--repeats", "1", "--time-only"
        ),
        "NB-CLIP's step": script("nb_clip", out, "--batches", "4", "--rows", "200", "--repeats", "1"),
        "Med-VQA": script(
            "gpu_med_vqa",
            out,
            *cpu,
            "--preset",
            "tiny",
            "--precision",
            "no",
            "--batch",
            "4",
            "--candidates",
            "20",
        ),
        "teachers and TransE": script(
            "gpu_teachers", out, *cpu, "--model", "demo-resnet", "--batch", "4", "--images", "100"
        ),
    }


def script(name: str, out: Path, *options: str) -> list[str]:
    """A benchmark's command; its file is ``gpu_NAME.json``."""
    return [str(HERE / f"{name}.py"), *options, "--out", str(out / f"gpu_{name.removeprefix('gpu_')}.json")]


def main() -> int:
    """Run the parts; 0 if all of them ended well, 1 if not, 2 without a card."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all parts together")
    parser.add_argument(
        "--out", type=Path, help="folder of the JSON files: benchmarks/results, of a trial build/gpu_trial"
    )
    parser.add_argument("--trial", action="store_true", help="on a CPU, in sizes that say nothing")
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    if options.trial:
        commands = trial_parts(options.out or Path("build/gpu_trial"))
    elif torch.cuda.is_available():
        commands = parts(torch.cuda.get_device_properties(0).total_memory, options.out or HERE / "results")
    else:
        sys.stderr.write("error: torch finds no CUDA device here: run make bench-gpu on a machine with one\n")
        return 2
    failed = []
    for name, command in commands.items():
        sys.stderr.write(f"{name}: {max(0.0, ends - time.monotonic()):.0f} s left\n")
        try:
            done = subprocess.run(
                [sys.executable, *command], timeout=max(1.0, ends - time.monotonic()), check=False
            )
        except subprocess.TimeoutExpired:
            failed.append(f"{name} (out of time)")
            continue
        if done.returncode:
            failed.append(f"{name} (exit code {done.returncode})")
    if failed:
        sys.stderr.write(f"not measured: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
