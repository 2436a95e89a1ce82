"""Growth of a build: synthetic captions in growing numbers, seconds and memory of each stage, and what 15 M would take.

    python benchmarks/scale.py --sizes 8192,65536,262144,1048576

Each size is built twice in processes of their own: without neighbours, while the private memory of all its processes is
summed ten times a second, and with approximate ones. CPU seconds are the user and system time of the parent and of the
workers. Exact neighbours are measured up to ``--exact-up-to`` rows. Exponents are slopes of log seconds over log rows
with their 95 % intervals; projections take the largest size times (rows / its rows) to the exponent, or to 1 (exact
neighbours: 2) where that is less, because costs that do not grow hide growth.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from captions import write_captions
from machine import command, head, report
from scipy import stats

from kg_targets.ontology import Ontology
from kg_targets.store import TargetStore

MANIFEST = """name: synthetic
title: Synthetic captions
format: csv
licence: CC0
how_to_get: benchmarks/scale.py writes them.
fit_split: train
splits: {train: {files: {captions: train.csv}}}
"""
PROJECTED = (15_000_000, 1_000_000_000)
CORES = 16
LEAST = {"exact neighbours": 2.0}
"""Exponents that are known: each distinct row is compared with all others."""
WAYS = {
    "none": ["--top-k", "0"],
    "approximate": ["--neighbors", "approximate"],
    "exact": ["--neighbors", "exact"],
}


def build(data: Path, out: Path, way: str, workers: int) -> tuple[dict[str, Any], float]:
    """Stages of a build, and its peak private memory over all processes, MB."""
    arguments = [
        "build",
        str(data / "synthetic.yaml"),
        "--data-root",
        str(data),
        "--out",
        str(out),
        "--force",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments, "--workers", str(workers), *WAYS[way]],
        stdout=subprocess.DEVNULL,
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(map(private_mb, family(process.pid))))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"the build of {data} failed")
    stages: dict[str, Any] = json.loads((out / "train" / "build_report.json").read_text())["stages"]
    return stages, peak


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it has ended
            continue
        for child in children:
            found += family(int(child))
    return found


def private_mb(pid: int) -> float:
    """Memory that no other process shares, or its part of what forked processes share, MB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon")) / 1024


def reading(store: Path) -> dict[str, float]:
    """Milliseconds of CPU time of a block of 256 random rows, by number and by id, the median of 20, once open."""
    opened = TargetStore.open(store)
    generator = np.random.default_rng(0)
    times: dict[str, list[float]] = {"block": [], "block_by_id": []}
    for _ in range(21):
        rows = generator.integers(0, len(opened), 256)
        ids = [opened.image_ids[int(row)] for row in rows]
        for name, images in (("block", rows), ("block_by_id", ids)):
            start = time.process_time()
            opened.block(images)
            times[name].append(1e3 * (time.process_time() - start))
    medians = {f"{name}_ms": round(float(np.median(taken[1:])), 2) for name, taken in times.items()}
    return {**{f"first_{name}_ms": round(taken[0], 1) for name, taken in times.items()}, **medians}


def measure(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one size."""
    folder = options.folder / str(size)
    folder.mkdir(parents=True, exist_ok=True)
    write_captions(folder / "train.csv", size, Ontology.seed())
    (folder / "synthetic.yaml").write_text(MANIFEST)
    plain, memory = build(folder, folder / "none", "none", options.workers)
    near, _ = build(folder, folder / "near", "approximate", options.workers)
    stages = {name: seconds(taken) for name, taken in plain.items() if name != "neighbours"}
    stages["approximate neighbours"] = seconds(near["neighbours"])
    if size <= options.exact_up_to:
        exact, _ = build(folder, folder / "exact", "exact", options.workers)
        stages["exact neighbours"] = seconds(exact["neighbours"])
    told = TargetStore.open(folder / "near" / "train").manifest["neighbors"]
    return {
        "rows": size,
        "stages": stages,
        "private_mb": round(memory),
        "distinct_rows": told["distinct_rows"],
        "recall": told["recall"],
        "reader": reading(folder / "none" / "train"),
    }


def seconds(stage: dict[str, float]) -> dict[str, float]:
    """CPU seconds of the parent and of the workers."""
    return {"parent": stage["cpu_seconds"], "workers": stage["workers_cpu_seconds"]}


def growth(sizes: list[dict[str, Any]], stage: str) -> dict[str, Any]:
    """Exponent of a stage with its interval, and its CPU seconds at the sizes that are projected."""
    points = [(each["rows"], each["stages"][stage]) for each in sizes if stage in each["stages"]]
    rows = np.array([size for size, _ in points], dtype=float)
    totals = np.array([max(sum(taken.values()), 0.01) for _, taken in points])
    found: dict[str, Any] = {}
    exponent = 1.0
    if len(points) > 2:
        line = stats.linregress(np.log(rows), np.log(totals))
        half = float(stats.t.ppf(0.975, len(points) - 2)) * line.stderr
        exponent = float(line.slope)
        found["exponent"] = [round(exponent, 3), round(exponent - half, 3), round(exponent + half, 3)]
    elif len(points) == 2:
        exponent = math.log(totals[1] / totals[0]) / math.log(rows[1] / rows[0])
        found["exponent"] = [round(exponent, 3)]
    last, taken = points[-1]
    found["us_per_row"] = {who: round(1e6 * value / last, 2) for who, value in taken.items()}
    for size in PROJECTED:
        factor = (size / last) ** max(exponent, LEAST.get(stage, 1.0))
        found[f"at {size:,}"] = {who: round(value * factor) for who, value in taken.items()}
    return found


def projection(sizes: list[dict[str, Any]]) -> dict[str, Any]:
    """Growth of each stage and of memory, and what the projected sizes would take without exact neighbours."""
    stages = {stage: growth(sizes, stage) for each in sizes[:1] for stage in each["stages"]}
    linear = [name for name in stages if name != "exact neighbours"]
    projected = {}
    for size in PROJECTED:
        spent = [stages[name][f"at {size:,}"] for name in linear]
        whole = sum(each["parent"] for each in spent) + sum(each["workers"] for each in spent) / CORES
        projected[f"{size:,}"] = {"hours_on_16_cores": round(whole / 3600, 2)}
    if len(sizes) > 1:
        slope, start = np.polyfit([each["rows"] for each in sizes], [each["private_mb"] for each in sizes], 1)
        memory = {"mb": round(float(start)), "bytes_per_row": round(float(slope) * 2**20)}
        for size in PROJECTED:
            projected[f"{size:,}"]["private_gb"] = round((start + slope * size) / 1024, 1)
    else:
        memory = {}
    return {"stages": stages, "private_memory": memory, "projected": projected}


def main() -> None:
    """Measure, show, and write ``benchmarks/results/scale.json``."""
    parser = command(__doc__, "scale", workers=os.cpu_count() or 1, exact_up_to=65_536)
    parser.add_argument("--sizes", default="8192,65536,262144,1048576", help="rows, ascending, by commas")
    parser.add_argument("--folder", type=Path, help="for the builds; 3 KB a row (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or Path(temporary)
        sizes = []
        for size in map(int, options.sizes.split(",")):
            sizes.append(measure(size, options))
            sys.stderr.write(f"{json.dumps(sizes[-1])}\n")
    report(head(sizes=sizes, workers=options.workers, **projection(sizes)), options.out)


if __name__ == "__main__":
    main()
