"""Record what the project's commands make, and compare it with what another state of the code made.

    python tools/recorded.py record CHECKOUT --out before.json           # every part, ~15 min on two cores
    python tools/recorded.py compare CHECKOUT before.json --only stores,vqa,report,resume

stores   the demo's three target stores, table by table and column by column (contents, not bytes of files)
tables   every number of ``make tables DATASET=demo``: report, losses and weights of nine runs, score sheets
vqa      a tiny Med-VQA pre-training in two stages, a fine-tuning run, and its answers scored, in three modes
report   a retrieval evaluation of two runs in every direction
resume   the losses of a run that is killed without warning and continued; they must be those of a whole run

``compare`` prints a line for each difference above ``TOLERANCE`` and ends with exit code 1 if there is any. Columns
and weights are kept as a sha256 and some sums: the first tells whether they are equal bit for bit, the others how far
they are apart. Numbers of training runs must agree on one machine with one set of packages only.
tests/data/recorded.json has the stores that the code of a7fe849 made, and no other part: they follow from counting,
logarithms and short sums, which agree within ``TOLERANCE`` on every machine.
"""

import argparse
import csv
import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

COMMANDS = {
    "kg-targets": ["-m", "pipelines.cli"],
    "tables": ["-m", "pipelines.cli", "tables"],
    "train": ["{checkout}/training/run.py"],
    "evaluate": ["-m", "pipelines.cli", "evaluate", "retrieval"],
    "evaluate-vqa": ["-m", "pipelines.cli", "evaluate", "vqa"],
    "compare-vqa": ["-m", "pipelines.cli", "compare-vqa"],
}
"""How each command of the project is started; the one place to edit when one of them moves."""
FILES = Path(__file__).resolve().parents[1] / "tests" / "data" / "written_by_v0"
"""Small data and checkpoints that the parts begin with."""
COMMON = ("--log.every=1", "--log.trackers=none", "--threads=1")
PRETRAIN = (
    "--task=med_vqa_pretrain", "--data.store=stores/train", "--data.data_root=data", "--data.batch_size=8",
    "--data.dev_share=0.2", "--data.cache=cache", "--model.preset=tiny", "--model.text=bert",
    "--soft_labels=[{store: teacher/train}, {store: stores/train}]", "--loss.lambda_weight=0.5", "--optim.epochs=3",
    "--optim.lr=0.005", *COMMON,
)  # fmt: skip
FINETUNE = (
    "--task=med_vqa_finetune", "--data.dataset=vqa_rad", "--data.data_root=vqa", "--data.batch_size=8",
    "--data.validation_share=0.2", "--data.cache=cache", "--model.preset=tiny", "--model.text=bert",
    "--model.start=two", "--optim.epochs=6", "--optim.lr=0.01", *COMMON,
)  # fmt: skip
NB_CLIP = (
    "--model.name=local-dir:clip", "--data.train_store=stores/train", "--data.dev_store=stores/test",
    "--data.data_root=data", "--data.batch_size=8", "--select=cui@2", *COMMON,
)  # fmt: skip
TOLERANCE = 1e-6
"""Largest difference, absolute below 1 and relative above."""
NOT_COMPARED = (
    "seconds",
    "images_per_s",
    "questions_per_s",
    "data_wait",
    "key",
    "command",
    "machine",
    "written",
    "Time",
)
"""Keys whose values are about the machine, the clock or the code's own text."""
Part = Callable[["Workplace"], Any]


class Workplace:
    """A folder with the small files in it, in which the commands of one checkout run."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.checkout, self.folder = checkout.resolve(), folder
        shutil.copytree(FILES, folder, dirs_exist_ok=True)

    def start(self, name: str, *arguments: str, cwd: Path | None = None) -> "subprocess.Popen[bytes]":
        """One command; what it says goes to ``log.txt``."""
        words = [word.format(checkout=self.checkout) for word in COMMANDS[name]]
        environment = {**os.environ, "PYTHONPATH": str(self.checkout), "ACCELERATE_USE_CPU": "true"}
        environment["OMP_NUM_THREADS"] = "1"
        if name == "tables":  # make leaves it alone, and the grid says how many threads each job has
            del environment["OMP_NUM_THREADS"]
        with (self.folder / "log.txt").open("ab") as log:
            log.write(f"$ {name} {' '.join(arguments)}\n".encode())
            log.flush()
            command = [sys.executable, *words, *arguments]
            return subprocess.Popen(command, cwd=cwd or self.folder, env=environment, stdout=log, stderr=log)

    def printed(self, name: str, *arguments: str) -> str:
        """What a command that must end well writes on standard output."""
        log = self.folder / "log.txt"
        before = log.stat().st_size if log.is_file() else 0
        self.run(name, *arguments)
        text = log.read_bytes()[before:].decode("utf-8")
        return text[text.index("\n{") :]

    def run(self, name: str, *arguments: str, cwd: Path | None = None) -> None:
        """The same to its end, which must be a good one."""
        code = self.start(name, *arguments, cwd=cwd).wait()
        if code:
            said = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
            sys.exit("\n".join(["", *said[-15:], f"{name} ended with exit code {code}"]))

    def demo(self) -> Path:
        """``data/`` and ``stores/`` of the whole demo."""
        demo = self.folder / "demo"
        if not (demo / "stores").is_dir():
            self.run("kg-targets", "demo-data", "--out", str(demo / "data"))
            given = ("--data-root", str(demo / "data"), "--out", str(demo / "stores"))
            self.run("kg-targets", "build", "demo", *given)
        return demo


def stores(work: Workplace) -> Any:
    """Every column of every table of the demo's stores."""
    found: dict[str, Any] = {}
    for store in sorted((work.demo() / "stores").iterdir()):
        manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
        found[store.name] = {name: manifest[name] for name in ("rows", "fit", "similarity", "labels")}
        tables: dict[str, list[Path]] = {}
        for path in sorted(store.rglob("*.parquet")):
            name = path.stem if path.parent == store else path.parent.name
            tables.setdefault(name.split("-")[0], []).append(path)
        found[store.name] |= {name: parquet(paths) for name, paths in tables.items()}
    return found


def tables(work: Workplace) -> Any:
    """Report, runs and score sheets of the demo's grid, run as ``make tables`` does."""
    out, data = work.folder / "tables", work.demo() / "data"
    work.run("tables", "demo", "--data-root", str(data), "--out", str(out), cwd=work.checkout)
    found = {"report": json.loads((out / "report.json").read_text(encoding="utf-8"))}
    found["runs"] = {name(path, out): run_of(path) for path in sorted(out.glob("runs/*/*")) if path.is_dir()}
    found["scores"] = {name(path, out): parquet([path]) for path in sorted(out.glob("scores/**/*.parquet"))}
    return found


def vqa(work: Workplace) -> Any:
    """Losses and weights of three training runs, answers and scores."""
    work.run("train", *PRETRAIN, "--output=one")
    work.run("train", *PRETRAIN, "--stage=two", "--model.start=one", "--output=two")
    work.run("train", *FINETUNE, "--output=tuned")
    found: dict[str, Any] = {output: run_of(work.folder / output) for output in ("one", "two", "tuned")}
    modes = ("exact", "shortlist", "generate")
    for model, mode in itertools.product(("tuned", "med_vqa"), modes):
        data = ("--dataset", "vqa_rad", "--data-root", "vqa", "--mode", mode, "--k", "3")
        work.run("evaluate-vqa", "--model", model, *data, "--out", f"answers/{model}-{mode}")
        path = work.folder / "answers" / f"{model}-{mode}" / "predictions.csv"
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        found[f"{model}-{mode}"] = {row.pop("id"): {key: number(row[key]) for key in row} for row in rows}
    given = [f"{mode}=answers/med_vqa-{mode}/predictions.csv" for mode in modes]
    found["scores"] = json.loads(work.printed("compare-vqa", *given, "--json", "--draws", "200"))
    return found


def report(work: Workplace) -> Any:
    """Every measure of two runs on the demo's test split."""
    demo = work.demo()
    for output, loss in (("sm", "semantic_matching"), ("infonce", "info_nce")):
        work.run("train", *NB_CLIP, "--optim.epochs=2", f"--loss.name={loss}", f"--output={output}")
    work.run(
        "evaluate", "--store", str(demo / "stores" / "test"), "--data-root", str(demo / "data"), "--run", "infonce",
        "--run", "sm", "--direction", "image-image,image-text,text-image", "--features", "before,after",
        "--cui-variants", "oracle,hits,share,jaccard", "--zero-shot", "modality", "--draws", "200", "--out", "report",
    )  # fmt: skip
    return json.loads((work.folder / "report" / "retrieval.json").read_text(encoding="utf-8"))


def resume(work: Workplace) -> Any:
    """A whole run, and one that is killed in its middle and goes on."""
    given = (*NB_CLIP, "--optim.epochs=100", "--save.every=1")
    work.run("train", *given, "--output=whole")
    whole, log = run_of(work.folder / "whole"), work.folder / "killed" / "log.jsonl"
    process = work.start("train", *given, "--output=killed")
    while process.poll() is None and (not log.is_file() or log.read_text().count('"loss"') < 100):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        sys.exit("the run to be killed has ended by itself")
    work.run("train", *given, "--output=killed", "--resume=must")
    differing = list(differences(run_of(work.folder / "killed"), whole, exact=True))
    return {"whole": whole, "differences of the continued run": [line for line, _ in differing]}


PARTS: dict[str, Part] = {"stores": stores, "tables": tables, "vqa": vqa, "report": report, "resume": resume}


def run_of(folder: Path) -> dict[str, Any]:
    """Log, measures and weights of a finished run."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    weights = {path.name: load_file(path) for path in sorted((folder / "checkpoint").glob("*.safetensors"))}
    return {
        "log": [json.loads(line) for line in lines],
        "metrics": json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
        "weights": {
            file: {key: numbers(value.ravel()) for key, value in sorted(tensors.items())}
            for file, tensors in weights.items()
        },
    }


def parquet(paths: list[Path]) -> dict[str, Any]:
    """Rows and columns of the shards of one table, in their order."""
    columns: dict[str, list[Any]] = {}
    for path in paths:
        for name, values in pq.read_table(path, partitioning=None).to_pydict().items():
            columns.setdefault(name, []).extend(values)
    rows = len(next(iter(columns.values()), []))
    return {"rows": rows, "columns": {name: numbers(values) for name, values in columns.items()}}


def numbers(values: Any) -> dict[str, Any]:
    """sha256 of an array, or of a list of values or of lists of them, and sums of what of them are fractions."""
    if isinstance(values, np.ndarray):
        content, found = values.tobytes(), values.astype(np.float64)
    else:
        flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
        fractions = [one for one in flat if isinstance(one, float) and math.isfinite(one)]
        content, found = json.dumps(values, default=str).encode(), np.array(fractions)
    told = {"sha256": hashlib.sha256(content).hexdigest(), "values": len(values)}
    weights = np.random.default_rng(0).normal(size=len(found))  # so that values that change places are seen
    sums = {"sum": found.sum(), "squares": (found * found).sum(), "projection": (weights * found).sum()}
    return told | (sums if len(found) else {})


def number(text: str) -> Any:
    """A cell of a table, as a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text


def name(path: Path, folder: Path) -> str:
    """A path from ``folder``, without its ending."""
    return path.relative_to(folder).with_suffix("").as_posix()


def differences(
    found: Any, recorded: Any, where: str = "", exact: bool = False
) -> Iterator[tuple[str, bool]]:
    """A line for each place where two recordings differ, and whether it is by more than rounding."""
    if isinstance(found, dict) and isinstance(recorded, dict):
        digests = found.get("sha256"), recorded.get("sha256")
        for key in [*recorded, *(key for key in found if key not in recorded)]:
            if key in NOT_COMPARED or (all(digests) and digests[0] == digests[1]):
                continue
            if key not in found or key not in recorded:
                yield f"{where}/{key}: {'is new' if key in found else 'is gone'}", True
            elif key == "sha256" and "sum" in recorded and "sum" in found:
                yield f"{where}: not bit for bit", exact  # the sums tell how far
            else:
                yield from differences(found[key], recorded[key], f"{where}/{key}", exact)
    elif isinstance(found, list) and isinstance(recorded, list) and len(found) == len(recorded):
        for place, (one, other) in enumerate(zip(found, recorded, strict=True)):
            yield from differences(one, other, f"{where}/{place}", exact)
    elif found != recorded:
        both = all(isinstance(value, int | float) for value in (found, recorded))
        apart = abs(found - recorded) / max(1.0, abs(recorded)) if both else math.inf
        yield f"{where}: {recorded!r} -> {found!r}", exact or not apart <= TOLERANCE


def record(checkout: Path, parts: list[str], folder: Path) -> dict[str, Any]:
    """Run the parts, one after the other."""
    work, found = Workplace(checkout, folder), {}
    for part in parts:
        began = time.monotonic()
        found[part] = json.loads(json.dumps(PARTS[part](work)))
        sys.stderr.write(f"{part}: {time.monotonic() - began:.0f} s\n")
    return found


def main() -> int:
    """Record, or compare; 1 where there is a difference."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("action", choices=("record", "compare"))
    command.add_argument("checkout", type=Path, help="folder of the code to run")
    command.add_argument("recorded", type=Path, nargs="?", help="compare: what record wrote")
    command.add_argument(
        "--only", default=",".join(PARTS), help=f"parts, comma-separated, of {', '.join(PARTS)}"
    )
    command.add_argument("--out", type=Path, help="file for what was found; needed to record")
    command.add_argument(
        "--work", type=Path, help="empty folder to work in and keep; default: one that is removed"
    )
    options = command.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        command.error(f"--only: there is no {', '.join(sorted(unknown))}")
    if (options.out if options.action == "record" else options.recorded) is None:
        command.error("record needs --out, compare needs a recorded file")
    former = json.loads(options.recorded.read_text(encoding="utf-8")) if options.recorded else {}
    if options.work:
        found = record(options.checkout, parts, options.work)
    else:
        with tempfile.TemporaryDirectory(prefix="recorded-") as folder:
            found = record(options.checkout, parts, Path(folder))
    if options.out:
        options.out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return compared(found, former, parts) if options.action == "compare" else 0


def compared(found: dict[str, Any], recorded: dict[str, Any], parts: list[str]) -> int:
    """Print how two recordings differ, part by part; 1 if they do."""
    failed = 0
    for part in parts:
        lines = list(differences(found[part], recorded.get(part), part))
        large = [line for line, matters in lines if matters]
        failed += len(large)
        verdict = (
            f"{len(large)} differences" if large else f"equal within {TOLERANCE:g}, {len(lines)} by rounding"
        )
        sys.stdout.write("".join(f"{line}\n" for line in large))
        sys.stdout.write(f"{part}: {verdict if lines else 'equal bit for bit'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
