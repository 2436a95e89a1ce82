"""Everything that is measured on a card, within eight minutes: the tests of ``tests/gpu``, then the benchmarks.

    PYTHONPATH=. python benchmarks/gpu.py                  # make bench-gpu

Each part is a command of its own, gets at most the time that is left, and writes its file into ``benchmarks/results``.
Random weights and drawn data: no network. Without a card: one line, exit code 2.
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


def parts(memory: int) -> dict[str, list[str]]:
    """The commands by name, for a card of ``memory`` bytes."""
    batches = [str(batch) for batch in BATCHES if CLIP_FLOATS * 4 * batch**2 < 0.8 * memory]
    return {
        "tests": ["-m", "pytest", "-q", "-m", "gpu", str(HERE.parent / "tests" / "gpu")],
        "losses at large batches": [str(HERE / "large_batches.py"), "--batches", *batches],
        "NB-CLIP's step": [str(HERE / "nb_clip.py"), "--batches", "256", "1024", "--repeats", "8"],
        "Med-VQA": [str(HERE / "gpu_med_vqa.py")],
    }


def main() -> int:
    """Run the parts; 0 if all of them ended well, 1 if not, 2 without a card."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all parts together")
    ends = time.monotonic() + 60 * parser.parse_args().minutes
    if not torch.cuda.is_available():
        sys.stderr.write("error: torch finds no CUDA device here: run make bench-gpu on a machine with one\n")
        return 2
    failed = []
    for name, command in parts(torch.cuda.get_device_properties(0).total_memory).items():
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
