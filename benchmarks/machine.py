"""Shared parts of the benchmarks: command line, machine (without host names or paths), timers, and the JSON file."""

import argparse
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.build.executors import available_cores

PACKAGES = ("numpy", "scipy", "pyarrow", "pandas", "sparse-dot-topn")
RESULTS = Path(__file__).parent / "results"


def command(
    doc: str | None, name: str, threads: int | None = None, **defaults: Any
) -> argparse.ArgumentParser:
    """The options that benchmarks share, and those of one of them that need no help text.

    Args:
        doc: the script's docstring; its first line is the help text.
        name: of the file in ``benchmarks/results``, the default of ``--out``.
        threads: default of ``--threads``; None: all available cores.
        defaults: further options, whose types are those of their defaults.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=threads or available_cores(), help="of the CPU")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="JSON file")
    for option, default in defaults.items():
        parser.add_argument(f"--{option.replace('_', '-')}", type=type(default), default=default)
    return parser


def head(packages: tuple[str, ...] = PACKAGES, device: Any = None, **settings: Any) -> dict[str, Any]:
    """Machine and settings of a benchmark.

    Args:
        packages: whose versions matter.
        device: a torch device, whose name is added; None: none.
        settings: of the command, added as they are.
    """
    found: dict[str, Any] = {
        "machine": {
            "cores": available_cores(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "packages": {name: version(name) for name in packages},
        }
    }
    if device is not None:
        import torch

        found["device"] = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
        found["threads"] = torch.get_num_threads()
    return found | settings


def report(result: Any, out: Path | None) -> None:
    """Print what was measured, and write it to ``out`` if there is one."""
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    text = re.sub(r"\[\s+([-+.\de,\s]+?)\s+\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


class Seconds(NamedTuple):
    """Time of one call: by the clock, and of this process's cores."""

    wall: float
    cpu: float


Times = dict[str, list[Seconds]]


def cuda() -> Any:
    """torch.cuda where there is a GPU and torch is in use (the offline half does without), else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def seconds(run: Callable[[], Any]) -> Seconds:
    """Time of one call, the device's work included."""
    device = cuda()
    if device:
        device.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    if device:
        device.synchronize()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def interleaved(lanes: dict[str, Callable[[], Any]], repeats: int, warmup: int = 2) -> Times:
    """Times of each lane, ``repeats`` rounds in which every lane runs once, each round in another order."""
    for _ in range(warmup):
        for run in lanes.values():
            run()
    names = list(lanes)
    times: Times = {name: [] for name in lanes}
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(seconds(lanes[name]))
    return times


def median_ms(turns: Sequence[Seconds]) -> float:
    """Median milliseconds by the clock."""
    return 1e3 * statistics.median(taken.wall for taken in turns)


def milliseconds(run: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds of a call, after one that does not count."""
    return round(median_ms(interleaved({"": run}, repeats, warmup=1)[""]), 3)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    )
    return {"median": round(middle, 4), "quartile_1": round(low, 4), "quartile_3": round(high, 4)}


def ratio(times: Times, first: str, second: str) -> dict[str, float]:
    """Median and quartiles of the rounds' ratios first / second; of cores' time too, which neighbours disturb less."""
    pairs = list(zip(times[first], times[second], strict=True))
    cpu = {} if cuda() else {"cpu_time_median": round(statistics.median(a.cpu / b.cpu for a, b in pairs), 4)}
    return spread([a.wall / b.wall for a, b in pairs]) | cpu


def peak_memory_mb(run: Callable[[], Any]) -> float | None:
    """Most CUDA memory that a call takes, MB; None without CUDA."""
    device = cuda()
    if not device:
        return None
    device.synchronize()
    device.reset_peak_memory_stats()
    seconds(run)
    return round(device.max_memory_allocated() / 1e6, 1)
