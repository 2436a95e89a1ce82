"""A UMLS release from its RRF files to an open ontology, beside polars' own scan of the same files in the same run.

    python benchmarks/ontology.py --names 1000000,4000000,16000000 --folder build/bench_umls

For each size a made-up release is written (`synthetic_umls.py`; 3.125 relations to a name) and removed again. Every
measurement is a process of its own: CPU seconds without imports, and the most memory it held. Reading is the median of
``--repeats``.
"""

import math
import os
import resource
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars
from machine import PACKAGES, command, head, report
from synthetic_umls import write_release

from kg_targets.ontology import load_ontology
from kg_targets.ontology.rrf import RrfFile, rrf_parts

_NAMES = {"LAT": 1, "TS": 2, "STT": 4, "ISPREF": 6, "SAB": 11, "TTY": 12, "SUPPRESS": 16}
_RELATIONS = {"REL": 3, "RELA": 7, "SAB": 10, "SUPPRESS": 14}
COLUMNS = {
    "MRCONSO.RRF": (18, {"CUI": 0, "STR": 14}, _NAMES),
    "MRREL.RRF": (16, {"CUI1": 0, "CUI2": 4}, _RELATIONS),
}
"""Of each file: its width and the columns that an ontology is made of, texts and those with few values."""


ONE = "C0000001"
READ_UP_TO = 5_000_000
"""Names in a release whose files are also read beside polars, which holds all rows in memory."""


def columns_here(folder: Path, name: str) -> int:
    """Rows of a file, read as the ontology's reader reads it."""
    width, texts, coded = COLUMNS[name]
    file = RrfFile(rrf_parts(folder, name), width, Counter())
    return sum(len(batch) for batch in file.read(texts, coded))


def columns_polars(folder: Path, name: str) -> int:
    """Rows of a file, the same columns scanned by polars."""
    width, texts, coded = COLUMNS[name]
    schema = {str(place): polars.String for place in range(width + 1)}
    scan = polars.scan_csv(
        folder / name,
        separator="|",
        has_header=False,
        quote_char=None,
        schema=schema,
        truncate_ragged_lines=True,
        encoding="utf8-lossy",
    )
    return scan.select([str(place) for place in (*texts.values(), *coded.values())]).collect().height


def opened(folder: Path, cache: Path) -> int:
    """Synonyms of a concept of the ontology, which is compiled or opened."""
    ontology = load_ontology(f"umls:{folder}", cache)
    return len(ontology[ONE].synonyms)


def measured(run: Callable[[], Any]) -> dict[str, float]:
    """CPU and wall seconds of a call, and this process's peak memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return {
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    }


def apart(run: Callable[[], Any], repeats: int = 1) -> dict[str, float]:
    """The same in fresh processes, medians."""
    taken = []
    for _ in range(repeats):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            taken.append(pool.submit(measured, run).result())
    return {name: round(statistics.median(turn[name] for turn in taken), 3) for name in taken[0]}


def size(names: int, folder: Path, repeats: int) -> dict[str, Any]:
    """Everything about a release of one size."""
    release, cache = folder / "META", folder / "cache"
    relations = names * 25 // 8
    written = {} if release.is_dir() else apart(partial(write_release, release, names, relations))
    result: dict[str, Any] = {"names": names, "relations": relations, "written": written}
    files = {"MRCONSO.RRF": names, "MRREL.RRF": relations} if names <= READ_UP_TO else {}
    for file, rows in files.items():
        here, peer = (apart(partial(read, release, file), repeats) for read in (columns_here, columns_polars))
        result[file] = {
            "rows_per_cpu_second": round(rows / here["cpu_seconds"]),
            "polars_rows_per_cpu_second": round(rows / peer["cpu_seconds"]),
            "ratio": round(peer["cpu_seconds"] / here["cpu_seconds"], 2),
            "peak_gb": here["peak_gb"],
            "polars_peak_gb": peer["peak_gb"],
        }
    shutil.rmtree(cache, ignore_errors=True)
    for turn in (
        "compiled",
        "opened_first",
        "opened",
    ):  # the first opening hashes what was compiled a moment ago
        result[turn] = apart(partial(opened, release, cache))
    result["compiled"]["mb_on_disk"] = round(
        sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) / 1e6
    )
    return result


def exponent(sizes: list[dict[str, Any]], key: str) -> float:
    """Slope of log CPU seconds over log names, smallest to largest size."""
    first, last = sizes[0], sizes[-1]
    return round(
        math.log(last["compiled"][key] / first["compiled"][key]) / math.log(last["names"] / first["names"]), 2
    )


def main() -> None:
    """Measure, print, and write ``benchmarks/results/ontology.json``."""
    parser = command(__doc__, "ontology", threads=2, names="1000000,4000000", repeats=3)
    parser.add_argument(
        "--folder", type=Path, default=Path("build/bench_umls"), help="for the releases; 400 B a name"
    )
    options = parser.parse_args()
    os.environ["POLARS_MAX_THREADS"] = str(options.threads)
    sizes = []
    for names in map(int, options.names.split(",")):
        folder = options.folder / str(names)
        sizes.append(size(names, folder, options.repeats))
        shutil.rmtree(folder)
    result = head((*PACKAGES, "polars"), threads=options.threads) | {"sizes": sizes}
    if len(sizes) > 1:
        result["exponent_of_compiling"] = exponent(sizes, "cpu_seconds")
    report(result, options.out)


if __name__ == "__main__":
    main()
