"""Commands of ``kg-targets`` that run the offline half: data sets, stores, and what looks at them.

Each function adds its options to a parser and returns what does the work. Only light modules are imported at the top:
what takes time to import is imported by the work, where Ctrl-C is already caught.
"""

import argparse
import dataclasses
import sys
import types
import typing
from pathlib import Path

from kg_targets.errors import DataError, printable
from training.command import Work, add_json, print_json

DATASET = "a name from `kg-targets datasets`, or the path of a manifest"
STORE = "folder of a store, such as build/demo/train"
ROOT = "folder of its files (default: data/<data set>)"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def datasets(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets datasets`."""
    parser.description = "The data sets that have a manifest: name, what it holds, splits, title, licence."
    add_json(parser)
    return _datasets


def _datasets(options: argparse.Namespace) -> None:
    from kg_targets.manifest import known_data_sets

    found = known_data_sets(None)
    if options.json:
        kept = {"name", "title", "licence", "holds"}
        print_json([one.model_dump(include=kept, mode="json") | {"splits": [*one.splits]} for one in found])
        return
    for one in found:
        holds, splits = "+".join(one.holds), ", ".join(one.splits)
        _say(f"{one.name:<15} {holds:<19} {splits:<24} {one.title}; {one.licence}")


def check(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets check`."""
    parser.description = (
        "What a data set holds and lacks, where to get it, and what to know before an hour is spent: cases, images, "
        "labels, columns that are not used, repeated and truncated captions, splits that share cases."
    )
    parser.add_argument("dataset", help=DATASET)
    parser.add_argument("--data-root", type=Path, default=None, help=ROOT)
    add_json(parser)
    return _check


def _check(options: argparse.Namespace) -> None:
    from pipelines.check.data_set import check_data_set, check_lines, refuse_unusable

    found = check_data_set(options.dataset, options.data_root)
    if options.json:
        print_json(found)
    for line in () if options.json else check_lines(found):
        _say(line)
    refuse_unusable(found)


def prepare(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets prepare`."""
    parser.description = (
        "Write the files in use from those that are published (VQA-RAD), and check the counts."
    )
    parser.add_argument("dataset", help=DATASET)
    parser.add_argument("--data-root", type=Path, default=None, help=ROOT)
    parser.add_argument("--out", type=Path, default=None, help="folder to write to (default: the data root)")
    return _prepare


def _prepare(options: argparse.Namespace) -> None:
    from pipelines.prepare import prepare_data_set

    for line in prepare_data_set(options.dataset, options.data_root, options.out):
        _say(line)


def demo_data(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets demo-data`."""
    parser.description = "Draw the embedded demo data: images of simple shapes, captions, labels and cases."
    option = parser.add_argument
    option("--out", type=Path, default=Path("build/demo/data"), help="folder to write")
    option("--images", type=int, default=2000, help="number of images, ≥ 20")
    option("--seed", type=int, default=0, help="same seed, same bytes")
    return _demo_data


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


def folds(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets folds`."""
    parser.description = "Split a data set into cross-validation folds by whole cases."
    option = parser.add_argument
    option("dataset", help=DATASET)
    option("--data-root", type=Path, default=None, help=ROOT)
    option("--out", type=Path, required=True, help="folder for fold0/, fold1/, …")
    option("--test", required=True, help="splits whose cases are each tested once, such as train,test")
    option("--train-only", default="", help="splits that are in every train part, such as dev")
    option("--folds", type=int, default=5, help="number of folds, ≥ 2")
    option("--seed", type=int, default=0, help="another seed, other folds")
    return _folds


def _folds(options: argparse.Namespace) -> None:
    from kg_targets.manifest import Manifest
    from kg_targets.manifest.folds import FoldConfig, write_folds

    manifest = Manifest.load(options.dataset)
    test, train_only = (
        tuple(name.strip() for name in text.split(",") if name.strip())
        for text in (options.test, options.train_only)
    )
    config = FoldConfig(test, train_only, options.folds, options.seed)
    made = write_folds(manifest, options.data_root or manifest.default_root, options.out, config)
    for line in made.lines:
        _say(line)
    _say(f"{made.folder}: {'written' if made.created else 'up to date, nothing to do'}")


def build(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets build`: one option per field of ``BuildConfig``, with its doc line, unit and default."""
    from docstring_parser import parse_from_object

    from pipelines.build.config import BuildConfig

    parser.description = "Captions → concepts → graph → target stores, one per split, in OUT/<split>."
    hints = typing.get_type_hints(BuildConfig)
    docs = {field.arg_name: field.description or "" for field in parse_from_object(BuildConfig).params}
    for field in dataclasses.fields(BuildConfig):
        kind, name = hints[field.name], f"--{field.name.replace('_', '-')}"
        if isinstance(kind, types.UnionType):
            kind = next(part for part in typing.get_args(kind) if part is not type(None))
        if field.name == "dataset":
            parser.add_argument("dataset", help=docs[field.name])
        elif field.name == "use_ontology":
            parser.add_argument(
                "--no-ontology",
                dest="use_ontology",
                action="store_false",
                default=argparse.SUPPRESS,
                help="no is_a edges",
            )
        elif kind is bool and (field.default or field.name == "part_of"):
            parser.add_argument(
                name,
                action=argparse.BooleanOptionalAction,
                default=argparse.SUPPRESS,
                help=f"{docs[field.name]} (default: {field.default})",
            )
        elif kind is bool:
            parser.add_argument(name, action="store_true", default=argparse.SUPPRESS, help=docs[field.name])
        else:
            told = docs[field.name].rstrip(".")
            if field.default not in ("", None) and "default:" not in told:
                told += f" (default: {field.default})"
            parser.add_argument(name, type=kind, default=argparse.SUPPRESS, help=told)
    return _build


def _build(options: argparse.Namespace) -> None:
    from pipelines.build.config import BuildConfig
    from pipelines.build.recipe import build_data_set

    names = [field.name for field in dataclasses.fields(BuildConfig)]
    given = {name: getattr(options, name) for name in names if name in options}
    build_data_set(BuildConfig(**given), _say, frozenset(given))


def verify(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets verify`."""
    parser.description = (
        "Check a store: checksums, order, ranges, and that its blocks follow from its tables."
    )
    parser.add_argument("store", type=Path, help=STORE)
    add_json(parser)
    return _verify


def _verify(options: argparse.Namespace) -> None:
    from kg_targets.store import verify_store

    checks = verify_store(options.store)
    if options.json:
        print_json({"store": str(options.store), "checks": checks})
        return
    for line in checks:
        _say(f"ok: {line}")


def explain(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets explain`."""
    parser.description = (
        "Why two images are similar: shared concepts, their shares of the similarity, is_a paths."
    )
    option = parser.add_argument
    option("store", type=Path, help=STORE)
    option("image", help="image id")
    option("other", nargs="?", help="second image id; without it the nearest neighbours are explained")
    option("-k", type=int, default=3, help="neighbours to explain")
    add_json(parser)
    return _explain


def _explain(options: argparse.Namespace) -> None:
    from kg_targets.store import TargetStore

    store = TargetStore.open(options.store)
    if not options.other and store.kind != "teacher" and not store.kept_neighbors:
        raise DataError(
            f"{options.store} keeps no neighbours (it was built with --top-k 0): name a second image, or build it with "
            "--top-k 64"
        )
    others = (
        [options.other] if options.other else store.neighbors(options.image, options.k)["image_id"].tolist()
    )
    found = [store.explain(options.image, other) for other in others]
    if options.json:
        print_json([dataclasses.asdict(one) for one in found])
        return
    if not found:
        _say(f"{options.image} has no neighbours: nothing is known about it, or nothing is like it")
    for one in found:
        _say(f"{one}\n")


def card(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets card`."""
    parser.description = "One HTML page that shows what a store holds."
    parser.add_argument("store", type=Path, help=STORE)
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    parser.add_argument(
        "--data-root", type=Path, default=None, help="images, to show them on the page: as for training"
    )
    return _card


def _card(options: argparse.Namespace) -> None:
    from kg_targets.inspect.card import write_card
    from kg_targets.store import TargetStore
    from training.data.decode import BrokenImage
    from training.data.sources import open_source

    store = TargetStore.open(options.store)
    broken: dict[str, None] = {}
    source = None if options.data_root is None else open_source(options.data_root, store)

    def read(row: int) -> typing.Any:
        try:
            return None if source is None else source.read_present(row)
        except BrokenImage as error:
            broken[str(error)] = None
            return None

    written = write_card(store, options.out, read)
    lacking = f"; images that are broken and not on it: {len(broken)}, such as " if broken else ""
    _say(f"wrote {written}{lacking}" + printable(next(iter(broken), "")))


def evaluate_targets(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets evaluate targets`."""
    parser.description = "Score target stores without training, side by side; see docs/evaluate-targets.md."
    option, sizes = parser.add_argument, "128,256,512,1024"
    option("stores", nargs="+", type=Path, metavar="STORE", help="the first is the reference")
    add_json(parser)
    option("--markdown", type=Path, default=None, help="file for the tables, without captions")
    option(
        "--label-table", type=Path, default=None, help="further labels by image_id or group_id, as from label"
    )
    option("--text-table", type=Path, default=None, help="longer texts of the cases, by image_id or group_id")
    option("--seed", type=int, default=0, help="of every random choice")
    option("--bootstrap", type=int, default=2000, help="samples per interval")
    option("--batch-sizes", default=sizes, help="images per batch")
    option("--neighbors", type=int, default=30, help="images that vote for a hidden concept")
    option(
        "--half",
        default="all",
        help="queries: all cases, or the first or second half of them, to choose settings on",
    )
    return _evaluate_targets


def _evaluate_targets(options: argparse.Namespace) -> None:
    from pipelines.audit.subjects import EvaluationSettings, parse_batch_sizes
    from pipelines.audit.targets import evaluate_targets

    settings = EvaluationSettings(
        seed=options.seed,
        bootstrap=options.bootstrap,
        batch_sizes=parse_batch_sizes(options.batch_sizes),
        neighbors=options.neighbors,
        half=options.half,
    )
    say = (lambda line: None) if options.json else _say
    tables = {"label_table": options.label_table, "text_table": options.text_table}
    found = evaluate_targets(options.stores, settings, say, options.markdown, **tables)
    if options.json:
        print_json(found)
