"""Count the files that a reader passes on three ways through the code: those in which some function is called.

    PYTHONPATH=CHECKOUT python tools/files_on_the_way.py

What is called while a module is imported does not count. Each way is walked in a process and a folder of its own, with
the files of tests/data/written_by_v0. Of a training run of one step three numbers are told: what the step calls, what
getting its batch and taking it calls (from the loop's beginning to the end of the step), and what the whole run calls.
"""

import importlib
import inspect
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

FILES = Path(__file__).resolve().parents[1] / "tests" / "data" / "written_by_v0"
PACKAGES = ("kg_targets", "pipelines", "training")
TRAIN = """--model.name=local-dir:clip --data.train_store=stores/train --data.dev_store=stores/test
    --data.data_root=data --data.batch_size=8 --select=cui@2 --optim.max_steps=1 --log.every=1 --log.trackers=none
    --threads=1 --output=run"""
SCORE = "--model med_vqa --dataset vqa_rad --data-root vqa --out answers"
WAYS = {
    "caption to store": ("pipelines.cli", "build demo --data-root data --out built --workers 1"),
    "one step of NB-CLIP": ("training.run", TRAIN),
    "question to score": ("pipelines.cli", f"evaluate vqa {SCORE}"),
}
"""What is walked: the module whose ``main`` runs a command, and the command's arguments."""
LOOP = ("training.engine.loop", "Loop", "run", "_step")
"""The training loop: its module, its class, its method for all steps and that for one."""
WHOLE, BATCH, STEP = "whole command", "batch and step", "step alone"


class Counter:
    """Profile function that collects files, in as many lists as are open at the moment of a call."""

    def __init__(self) -> None:
        self.top = Path(str(importlib.import_module(PACKAGES[0]).__file__)).parents[1]
        self.roots = tuple(f"{self.top / name}{os.sep}" for name in PACKAGES)
        self.files: dict[str, set[str]] = {}
        self.open: set[str] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note the file of a function that is called."""
        file, flags = frame.f_code.co_filename, frame.f_code.co_flags
        if event != "call" or not file.startswith(self.roots) or not flags & inspect.CO_OPTIMIZED:
            return  # bodies of modules and classes are not optimized
        main = threading.current_thread() is threading.main_thread()
        # Other threads prepare the next batch while a step is taken: that is no part of it.
        new = [name for name in self.open if file not in self.files[name] and (main or name != STEP)]
        for name in new if new and not importing(frame) else ():
            self.files[name].add(file)

    def begin(self, name: str) -> None:
        """Fill a list."""
        self.files.setdefault(name, set())
        self.open = self.open | {name}  # a new set: other threads may be going through the former one


def importing(frame: FrameType | None) -> bool:
    """Whether a call is part of the import of some module."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def watched(method: Callable[..., Any], counter: Counter, begins: str, ends: set[str]) -> Callable[..., Any]:
    """A method that opens one list and, at its end, closes some."""

    def call(*arguments: Any, **options: Any) -> Any:
        counter.begin(begins)
        try:
            return method(*arguments, **options)
        finally:
            counter.open = counter.open - ends

    return call


def walk(way: str) -> None:
    """One way; prints its files."""
    module, arguments = WAYS[way]
    counter, main = Counter(), importlib.import_module(module).main
    if arguments is TRAIN:
        loop = getattr(importlib.import_module(LOOP[0]), LOOP[1])
        for name, begins, ends in ((LOOP[2], BATCH, {BATCH}), (LOOP[3], STEP, {BATCH, STEP})):
            setattr(loop, name, watched(getattr(loop, name), counter, begins, ends))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FILES, folder, dirs_exist_ok=True)
        os.chdir(folder)
        counter.begin(WHOLE)
        printed, sys.stdout = sys.stdout, sys.stderr
        threading.setprofile(counter)
        sys.setprofile(counter)
        code = main(arguments.split())
        sys.setprofile(None)
        sys.stdout = printed
        os.chdir("/")
    if code:
        sys.exit(f"{way}: exit code {code}")
    for name, files in counter.files.items():
        lines = sum(Path(file).read_text(encoding="utf-8").count("\n") for file in files)
        sys.stdout.write(f"\n## {way}, {name}: {len(files)} files, {lines:,} lines\n")
        sys.stdout.writelines(f"{Path(file).relative_to(counter.top)}\n" for file in sorted(files))
    sys.stdout.flush()


if __name__ == "__main__":
    for title in WAYS:
        if not (child := os.fork()):
            walk(title)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)
