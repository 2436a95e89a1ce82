"""``kg-targets``: the command line of the offline half.

Errors are one line on standard error and exit code 2; Ctrl-C leaves nothing half-written and exits with 130.
Only light modules are imported at the top: what takes time to import is imported where Ctrl-C is already caught.
"""

import argparse
import dataclasses
import os
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import kg_targets
from kg_targets.errors import ConfigError, KGTargetsError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    with _interrupts_noted() as interrupts:
        try:
            options = _parser().parse_args(arguments)
            options.run(options)
            sys.stdout.flush()
        except KGTargetsError as error:
            sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
            return 2
        except KeyboardInterrupt:
            return _interrupted()
        except BrokenPipeError:
            # The reader (`| head`) has seen enough; keep Python from complaining again when it closes the stream.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except Exception:
            if not interrupts:
                raise
            return _interrupted()
        return 0


@contextmanager
def _interrupts_noted() -> Iterator[list[int]]:
    """Note each Ctrl-C in the list: while C extensions are imported, it may surface as some other exception."""
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
        pressed.append(threading.Timer(0.01, signal.raise_signal, [signal.SIGINT]))
        pressed[-1].daemon = True
        pressed[-1].start()

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield seen  # someone else handles it, or it is ignored, as under nohup
        return
    unraisable = sys.unraisablehook
    sys.unraisablehook = again
    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        for timer in pressed:
            timer.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = unraisable


def _interrupted() -> int:
    sys.stderr.write("interrupted: nothing half-written was left\n")
    return 130


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are errors like all others: one line, which names the command whose help tells more."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}: see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # A subcommand's parser would hand what it does not know to the main one, whose help does not list it.
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kg-targets", description="Soft image–text similarity targets from medical knowledge."
    )
    parser.add_argument("--version", action="version", version=f"kg-targets {kg_targets.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace], None], text: str
    ) -> Callable[..., argparse.Action]:
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run)
        return command.add_argument

    _add_build_options(add("build", _build, "captions → target stores, one per split"))
    add("datasets", _datasets, "list the data sets that have a manifest")

    option = add("check", _check, "what of a data set is present, what is missing, where to get it")
    option("dataset", help="a name from `kg-targets datasets` or the path of a manifest")
    option("--data-root", type=Path, default=None, help="its folder (default: data/<data set>)")

    option = add("demo-data", _demo_data, "generate the embedded demo data")
    option("--out", type=Path, default=Path("build/demo/data"), help="default: build/demo/data")
    option("--images", type=int, default=2000, help="number of images, ≥ 20 (default: 2000)")
    option("--seed", type=int, default=0, help="same seed, same bytes (default: 0)")

    option = add("folds", _folds, "cut a data set into cross-validation folds by whole cases")
    option("dataset", help="a name from `kg-targets datasets` or the path of a manifest")
    option("--data-root", type=Path, default=None, help="its folder (default: data/<data set>)")
    option("--out", type=Path, required=True, help="folder for fold0/, fold1/, …")
    option("--test", required=True, help="splits whose cases are each tested once, such as train,test")
    option("--train-only", default="", help="splits that are in every train part, such as dev")
    option("--folds", type=int, default=5, help="number of folds, ≥ 2 (default: 5)")
    option("--seed", type=int, default=0, help="another seed, other folds (default: 0)")

    option = add("verify", _verify, "checksums and invariants of a store")
    option("store", type=Path, help="folder of a store, such as build/demo/train")

    option = add("explain", _explain, "why two images are similar, or one image's neighbours")
    option("store", type=Path, help="folder of a store")
    option("image", help="image id")
    option("other", nargs="?", help="second image id; without it the nearest neighbours are explained")
    option("-k", type=int, default=3, help="neighbours to explain (default: 3)")

    option = add("card", _card, "one HTML page that shows what a store holds")
    option("store", type=Path, help="folder of a store")
    option("--out", type=Path, required=True, help="HTML file to write")
    option("--data-root", type=Path, default=None, help="folder of the images, to show them on the page")

    option = add("evaluate-concepts", _evaluate_concepts, "count how well captions are read")
    option("dataset", nargs="?", help="data set whose labels are compared with what its captions name")
    option("--gold", type=Path, help="JSON lines of hand-marked captions, instead of a data set")
    option("--split", default=None, help="split of the data set (default: all) or of the gold file")
    option("--data-root", type=Path, default=None, help="default: data/<data set>")
    option("--ontology", default="seed", help="as for build (default: seed)")
    option("--extractor", default="dictionary", help="as for build (default: dictionary)")
    option("--extractor-options", default="", help="as for build")
    option("--errors", type=int, default=10, help="disagreements to list, ≥ 0 (default: 10)")
    option("--seed", type=int, default=0, help="of the bootstrap (default: 0)")

    option = add("evaluate-targets", _evaluate_targets, "score stores without training, side by side")
    option("stores", nargs="+", type=Path, metavar="STORE", help="the first is the reference")
    option("--json", type=Path, default=None, help="file for everything, captions included")
    option("--markdown", type=Path, default=None, help="file for the tables, without captions")
    option("--seed", type=int, default=0, help="of every random choice (default: 0)")
    option("--bootstrap", type=int, default=2000, help="samples per interval (default: 2000)")
    sizes = "128,256,512,1024"
    option("--batch-sizes", default=sizes, help=f"images per batch (default: {sizes})")
    option("--neighbors", type=int, default=30, help="images that vote for a hidden concept (default: 30)")
    return parser


def _add_build_options(option: Callable[..., argparse.Action]) -> None:
    """One option per field of `BuildConfig`, with its doc line, unit and default."""
    from docstring_parser import parse_from_object

    from pipelines.build.config import BuildConfig

    hints = typing.get_type_hints(BuildConfig)
    docs = {field.arg_name: field.description or "" for field in parse_from_object(BuildConfig).params}
    for field in dataclasses.fields(BuildConfig):
        kind, name = hints[field.name], f"--{field.name.replace('_', '-')}"
        if isinstance(kind, types.UnionType):
            kind = next(part for part in typing.get_args(kind) if part is not type(None))
        if field.name == "dataset":
            option("dataset", help=docs[field.name])
        elif field.name == "use_ontology":
            option("--no-ontology", dest="use_ontology", action="store_false", help="no is_a edges")
        elif kind is bool:
            option(name, action="store_true", help=docs[field.name])
        else:
            default = "" if field.default is None else f" (default: {field.default})"
            option(name, type=kind, default=field.default, help=docs[field.name] + default)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _build(options: argparse.Namespace) -> None:
    from pipelines.build.config import BuildConfig
    from pipelines.build.recipe import build_data_set

    names = [field.name for field in dataclasses.fields(BuildConfig)]
    build_data_set(BuildConfig(**{name: getattr(options, name) for name in names}), _say)


def _datasets(options: argparse.Namespace) -> None:
    from kg_targets.manifest import known_data_sets

    for manifest in known_data_sets():
        _say(f"{manifest.name:<12} {', '.join(manifest.splits):<28} {manifest.licence:<12} {manifest.title}")


def _check(options: argparse.Namespace) -> None:
    from pipelines.check import check_lines

    for line in check_lines(options.dataset, options.data_root):
        _say(line)


def _demo_data(options: argparse.Namespace) -> None:
    from pipelines.build.executors import available_cores, bar
    from pipelines.demo import write_demo

    with bar(options.images, "drawing", "image") as shown:
        summary = write_demo(
            options.out,
            images=options.images,
            seed=options.seed,
            workers=available_cores(),
            progress=lambda done, total: shown.update(done - shown.n),
        )
    splits = ", ".join(f"{split} {count:,}" for split, count in summary.splits.items())
    state = "written" if summary.created else "up to date"
    counts = f"{summary.images:,} images of {summary.cases:,} cases ({splits})"
    _say(f"{options.out}: {state}, {counts}, seed {summary.seed}")


def _folds(options: argparse.Namespace) -> None:
    from kg_targets.manifest import Manifest
    from kg_targets.manifest.folds import FoldConfig, write_folds

    manifest = Manifest.load(options.dataset)
    test, train_only = (
        tuple(name.strip() for name in text.split(",") if name.strip())
        for text in (options.test, options.train_only)
    )
    config = FoldConfig(test, train_only, options.folds, options.seed)
    folds = write_folds(manifest, options.data_root or manifest.default_root, options.out, config)
    for line in folds.lines:
        _say(line)
    _say(f"{folds.folder}: {'written' if folds.created else 'up to date, nothing to do'}")


def _verify(options: argparse.Namespace) -> None:
    from kg_targets.store import verify_store

    for line in verify_store(options.store):
        _say(f"ok: {line}")


def _explain(options: argparse.Namespace) -> None:
    from kg_targets.store import TargetStore

    store = TargetStore.open(options.store)
    others = (
        [options.other] if options.other else store.neighbors(options.image, options.k)["image_id"].tolist()
    )
    if not others:
        _say(f"{options.image} has no neighbours: nothing is known about it, or nothing is like it")
    for other in others:
        _say(f"{store.explain(options.image, other)}\n")


def _card(options: argparse.Namespace) -> None:
    from kg_targets.inspect.card import write_card

    _say(f"wrote {write_card(options.store, options.out, options.data_root)}")


def _evaluate_concepts(options: argparse.Namespace) -> None:
    from kg_targets.manifest import Manifest
    from kg_targets.ontology import load_ontology
    from pipelines.audit.concepts import gold_lines, label_lines
    from pipelines.build.config import BuildConfig
    from pipelines.build.extract import make_extractor

    if (options.dataset is None) == (options.gold is None):
        raise ConfigError("say either a data set or --gold FILE: kg-targets evaluate-concepts medpix")
    ontology = load_ontology(options.ontology, BuildConfig.cache)
    extractor = make_extractor(options.extractor, ontology, options.extractor_options)
    if options.gold is not None:
        for line in gold_lines(
            options.gold, options.split, extractor, ontology, options.errors, options.seed
        ):
            _say(line)
        return
    manifest = Manifest.load(options.dataset)
    root = options.data_root or manifest.default_root
    splits = [options.split] if options.split else manifest.present_splits(root) or [manifest.fit_split]
    for split in splits:
        records = list(manifest.records(split, root))
        for line in label_lines(manifest, split, records, extractor, ontology, options.errors, options.seed):
            _say(line)


def _evaluate_targets(options: argparse.Namespace) -> None:
    from pipelines.audit.subjects import EvaluationSettings, parse_batch_sizes
    from pipelines.audit.targets import evaluate_targets

    settings = EvaluationSettings(
        seed=options.seed,
        bootstrap=options.bootstrap,
        batch_sizes=parse_batch_sizes(options.batch_sizes),
        neighbors=options.neighbors,
    )
    evaluate_targets(options.stores, settings, _say, options.json, options.markdown)


if __name__ == "__main__":
    sys.exit(main())
