"""``kg-targets``: the one command line for everything but training.

Each command is a function that adds its options to a parser and returns what does the work; its module is imported
when the command is used. Errors are one line on standard error and exit code 2; Ctrl-C exits with 130.
"""

import argparse
import difflib
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

import kg_targets
from training.command import ArgumentParser, Work, exit_code
from training.errors import ConfigError

COMMANDS = {
    "Data": {
        "datasets": ("pipelines.commands:datasets", "the data sets that have a manifest"),
        "check": ("pipelines.commands:check", "what of a data set is here, what is missing, where to get it"),
        "prepare": ("pipelines.commands:prepare", "files in use from the files that are published (VQA-RAD)"),
        "demo-data": ("pipelines.commands:demo_data", "draw the embedded demo data"),
        "folds": ("pipelines.commands:folds", "cross-validation folds by whole cases"),
        "leakage": ("training.leakage.command:command", "what a test part shares with training or pre-training"),
    },
    "Targets": {
        "build": ("pipelines.commands:build", "captions → target stores, one per split"),
        "verify": ("pipelines.commands:verify", "checksums and invariants of a store"),
        "export-store": ("pipelines.export_store:command", "similarities, factors or the graph for other programs"),
        "suggest": ("training.nb_clip.suggest:command", "scorer and target policy for a store, and why"),
    },
    "Looking": {
        "label": ("pipelines.label:command", "a table of reports and findings: present, uncertain, absent"),
        "concepts": ("pipelines.concepts:command", "the concepts that a text mentions, and what it says of each"),
        "explain": ("pipelines.commands:explain", "why two images are similar, or an image's neighbours"),
        "diff": ("pipelines.diff:command", "what another ontology, extractor or scorer changed in a store"),
        "browse": ("pipelines.browse.command:command", "a local site to search a store and look at its pairs"),
        "card": ("pipelines.commands:card", "one HTML page that shows what a store holds"),
    },
    "Evaluation": {
        "evaluate concepts": ("pipelines.audit.command:command", "how well captions are read"),
        "evaluate targets": ("pipelines.commands:evaluate_targets", "stores side by side, without training"),
        "evaluate retrieval": ("training.retrieval.command:command", "training runs: CUI@K, P@K, paired recall"),
        "evaluate vqa": ("training.med_vqa.answer.evaluation:command", "a Med-VQA model on a data set's questions"),
        "evaluate baselines": ("training.vqa.baselines:command", "majority answers to a data set's questions"),
        "score-sheet": ("training.retrieval.scores:command", "each query's retrieval scores of a run, as Parquet"),
        "vqa score": ("pipelines.vqa_score:command", "anybody's Med-VQA answers under our protocols"),
        "compare-vqa": ("training.vqa.compare:command", "Med-VQA answers side by side, with tests"),
        "tables": ("pipelines.experiments.command:command", "a grid of training runs: train, score, report"),
    },
    "Models": {
        "plan": ("training.plan:command", "what a training run would need: memory, steps, size of its data"),
        "predict": ("training.predict:command", "ask a Med-VQA model about your own images"),
        "export": ("training.export.command:command", "a finished NB-CLIP run as a model folder with its card"),
    },
    "Shell": {
        "completion": ("pipelines.cli:completion", "a completion script for bash, zsh, fish, …"),
    },
}  # fmt: skip
"""Group to name to the function, as module:function, and what it is for."""
EXTRAS = {
    "train": ("torch", "torchvision", "open_clip", "transformers", "accelerate", "safetensors", "timm"),
    "scispacy": ("scispacy", "spacy"),
    "dicom": ("pydicom", "gdcm"),
    "hpo": ("pyhpo",),
    "browse": ("starlette", "uvicorn"),
}
"""Extra to the packages that come with it."""
INTERRUPTED = "interrupted: nothing half-written was left, the same command goes on or starts again"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with _interrupts_noted() as interrupts:

        def work() -> int | None:
            try:
                return _run(given)
            except Exception:
                if interrupts:
                    raise KeyboardInterrupt from None
                raise

        code = exit_code(work, INTERRUPTED)
        return 128 + signal.SIGTERM if signal.SIGTERM in interrupts else code


def _run(given: Sequence[str]) -> int | None:
    if not given or given[0] in ("-h", "--help", "help", "--version"):
        version = given[:1] == ["--version"]
        sys.stdout.write(f"kg-targets {kg_targets.__version__}\n" if version else overview())
        return 0 if given else 2
    if given[0] == "evaluate" and (not given[1:] or given[1] in ("-h", "--help")):
        sys.stdout.write(overview("evaluate "))
        return 0 if given[1:] else 2
    name, rest = find_command(given)
    try:
        parser, work = load_command(name)
        return work(parser.parse_args(rest))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if missing in packages), None)
        if extra is None:
            raise
        raise ConfigError(
            f"kg-targets {name} needs {missing}, which is not installed: pip install 'kg-targets[{extra}]'"
        ) from error


def overview(prefix: str = "") -> str:
    """Every command whose name begins so, by group, on one screen."""
    lines = [
        f"usage: kg-targets {prefix}COMMAND ...        (kg-targets {prefix}COMMAND --help shows its options)",
    ]
    if not prefix:
        lines += [
            "Soft image–text similarity targets from medical knowledge, and the models trained on them.",
            "",
        ]
    for group, commands in COMMANDS.items():
        told = {name: summary for name, (_, summary) in commands.items() if name.startswith(prefix)}
        lines += [f"{group}:"] * bool(told) + [f"  {name:<20}{summary}" for name, summary in told.items()]
    lines += ["", "Training: accelerate launch training/run.py --help", ""]
    return "\n".join(lines)


def find_command(given: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The name of a command, of one word or two, and the arguments after it; ``evaluate-targets`` is two words, too.

    Raises:
        ConfigError: there is no such command.
    """
    names = [name for commands in COMMANDS.values() for name in commands]
    for words in (2, 1):
        name = " ".join(given[:words])
        if name in names:
            return name, given[words:]
    if given[0].replace("-", " ", 1) in names:
        return given[0].replace("-", " ", 1), given[1:]
    group = "evaluate " if given[0] == "evaluate" else ""
    name = " ".join(given[: 2 if group else 1])
    near = [one.removeprefix(group) for one in names if one.startswith(group)]
    close = difflib.get_close_matches(name.removeprefix(group), near, n=1)
    close = close or [one for one in near if one.startswith(f"{name} ")]
    hint = f' (did you mean "{group}{close[0]}"?)' if close else ""
    raise ConfigError(f'"{name}" is not a command{hint}: see kg-targets --help')


def load_command(name: str) -> tuple[argparse.ArgumentParser, Work]:
    """A command's parser, and what does its work.

    Raises:
        ModuleNotFoundError: its packages are not installed.
    """
    parser = ArgumentParser(prog=f"kg-targets {name}")
    return parser, _declare(name, parser)


def _declare(name: str, parser: argparse.ArgumentParser) -> Work:
    place = next(commands[name][0] for commands in COMMANDS.values() if name in commands)
    module, _, function = place.partition(":")
    work: Work = getattr(import_module(module), function)(parser)
    parser.description = (parser.description or "").replace("``", "`")
    return work


def completion(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets completion`: for instance ``eval "$(kg-targets completion bash)"``."""
    from shtab import SUPPORTED_SHELLS, complete

    def work(options: argparse.Namespace) -> None:
        sys.stdout.write(complete(_whole_parser(), options.shell) + "\n")

    parser.description = 'Print a completion script, for instance for: eval "$(kg-targets completion bash)"'
    parser.add_argument("shell", choices=SUPPORTED_SHELLS, help="the shell that reads it")
    return work


def _whole_parser() -> argparse.ArgumentParser:
    """Every command in one parser; those whose packages are not installed without options."""
    parser = argparse.ArgumentParser(prog="kg-targets")
    parser.add_argument("--version", action="store_true", help="the version")
    groups = {"": parser.add_subparsers()}
    for commands in COMMANDS.values():
        for name, (_, summary) in commands.items():
            group, _, last = name.rpartition(" ")
            if group not in groups:
                groups[group] = groups[""].add_parser(group, help="see kg-targets --help").add_subparsers()
            one = groups[group].add_parser(last, help=summary)
            with suppress(ModuleNotFoundError):
                _declare(name, one)
    return parser


@contextmanager
def _interrupts_noted() -> Iterator[list[int]]:
    """Note each Ctrl-C, and SIGTERM of batch systems, in the list; both raise KeyboardInterrupt.

    While C extensions are imported, it may surface as some other exception.
    """
    seen: list[int] = []

    def note(number: int, frame: types.FrameType | None) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    pressed: list[threading.Timer] = []

    def again(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            unraisable(lost)
            return
        # It came while Python ran a finalizer or a weak reference's callback, which loses it: press again, soon after.
        pressed.append(threading.Timer(0.01, signal.raise_signal, seen[-1:] or [signal.SIGINT]))
        pressed[-1].daemon = True
        pressed[-1].start()

    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    # Others are someone else's, or ignored, as SIGINT is under nohup.
    mine = {number: handler for number, handler in usual.items() if signal.getsignal(number) is handler}
    if not mine or threading.current_thread() is not threading.main_thread():
        yield seen
        return
    unraisable = sys.unraisablehook
    sys.unraisablehook = again
    for number in mine:
        signal.signal(number, note)
    try:
        yield seen
    finally:
        for timer in pressed:
            timer.cancel()
        for number, handler in mine.items():
            signal.signal(number, handler)
        sys.unraisablehook = unraisable


if __name__ == "__main__":
    sys.exit(main())
