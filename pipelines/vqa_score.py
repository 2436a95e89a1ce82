"""Score anybody's Med-VQA answers under one of the protocols: `kg-targets vqa score answers.csv --dataset vqa_rad`

The file has an id and an answer for each question: CSV, JSON, JSON lines or Excel of one's own, or what LLaVA-Med,
lm-evaluation-harness, lmms-eval or VLMEvalKit write; see docs/vqa_score.md. Exact match after normalisation, overall,
open, closed and by category, intervals by image, beside baselines that see no image. Questions without an answer are
wrong unless --partial. --trained-on NAME[=ROOT],… looks for the test images in what the model was trained on.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kg_targets.errors import KGTargetsError
from kg_targets.manifest import Manifest, ReadReport, Record, known_data_sets
from training.checks import one_of, within
from training.command import Work, add_json, print_json
from training.errors import ConfigError
from training.folders import check_writable
from training.leakage.hashing import Hashes
from training.leakage.overlap import Pretraining, hash_questions, ids_can_match, shared, touching
from training.rendering import render
from training.statistics.intervals import nan_to_null
from training.vqa.answer_files import read_answers
from training.vqa.predictions import write_predictions
from training.vqa.protocols import PROTOCOLS, Split, add_data, add_split, read_data, read_split
from training.vqa.referee import MATCHES, judge, unseen_images
from training.vqa.scores import as_text

STRICT = "strict"
NAMED = 5
"""Ids that a line names."""


@dataclass(frozen=True)
class Leak:
    """What one data set of the model's training shares with the test images."""

    trained_on: str
    images: tuple[str, ...]
    """Test images that are in it."""
    looked_at: bool
    told: str
    """For people: what was found, and how, or why nothing could be compared."""


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets vqa score`."""
    parser.description = __doc__
    add = parser.add_argument
    add("answers", help="file of answers")
    add_data(parser)
    add_split(parser, STRICT)
    add("--by", default="id", help=f"how rows find their questions: {' or '.join(MATCHES)}")
    add("--id-field", default="", help="column of the ids (default: the first usual name)")
    add("--answer-field", default="", help="column of the model's answers (default: the first usual name)")
    add(
        "--partial",
        action="store_true",
        help="leave out questions without an answer, which are wrong otherwise",
    )
    add("--trained-on", default="", metavar="NAME[=ROOT],…", help="data sets that the model was trained on")
    add("--name", default="", help="of the model, for tables (default: the file's name)")
    add("--out", help="CSV file of scored answers, for kg-targets compare-vqa; with a .json beside it")
    add("--draws", type=int, default=2000, help="bootstrap samples")
    add("--seed", type=int, default=0, help="of bootstrap and sign flips")
    add_json(parser)
    return work


def work(options: argparse.Namespace) -> None:
    """Everything that the command does.

    Raises:
        KGTargetsError: an option, a file or an output is not usable.
    """
    one_of("--by", options.by, tuple(MATCHES))
    within("--draws", options.draws, 100, 1_000_000)
    within("--seed", options.seed, 0, None)
    if options.out:
        check_writable(Path(options.out).parent, "--out")
        if not options.out.endswith(".csv"):
            raise ConfigError(f"--out: {options.out} must end in .csv")
    one_of("--protocol", options.protocol, PROTOCOLS)
    manifest, root = read_data(options)
    split = read_split(options, manifest, root, options.protocol)
    path = Path(options.answers)
    given = read_answers(path, options.id_field, options.answer_field)
    matched = MATCHES[options.by](given, split)
    verdict = judge(split, matched, options.name or path.stem, options.partial, options.draws, options.seed)
    leaks = list(leaks_of(split, manifest, root, options.trained_on))
    seen = sorted({image for leak in leaks for image in leak.images})
    clean = unseen_images(verdict, seen, options.draws, options.seed) if seen else {}
    if options.out:
        write_predictions(Path(options.out), verdict.predictions)
    if options.json:
        told = {
            **{"file": path.name, "by": options.by, "partial": options.partial},
            **{key: getattr(given, key) for key in ("id_field", "answer_field", "notes")},
            "leaks": [asdict(leak) for leak in leaks],
            "unseen_images": {name: asdict(one) for name, one in clean.items()},
        }
        print_json({**verdict.as_json(), **nan_to_null(told)})
        return
    counts = {"named": NAMED, "partial": options.partial, "path": path.name, "out": options.out}
    page = render(
        "training.vqa",
        "referee.txt.j2",
        verdict=verdict,
        given=given,
        leaks=leaks,
        clean=clean,
        as_text=as_text,
        **counts,
    )
    sys.stdout.write(page)


def leaks_of(split: Split, manifest: Manifest, root: Path, trained_on: str) -> Iterator[Leak]:
    """Look for the test images in each data set that a model says it was trained on.

    Args:
        split: the data set that was answered, under a protocol.
        manifest: of this data set.
        root: where its files are.
        trained_on: names of data sets, by commas; ``NAME=ROOT`` where the files are not in the manifest's own place.
    """
    specs = [spec.strip().partition("=") for spec in trained_on.split(",") if spec.strip()]
    hashes = hash_questions(split.test, root) if specs else Hashes()
    for name, place in ((name, place) for family, _, place in specs for name in _members(family)):
        if name == split.dataset:
            yield _own(split)
            continue
        try:
            other = _training_images(name, place)
        except KGTargetsError as error:
            yield Leak(name, (), False, f"not looked at: {error}")
            continue
        same_files = other.root.resolve() == root.resolve()  # SLAKE's languages: one set of images
        pattern = ".+" if same_files else manifest.id_pattern
        yield _against(split, pattern, hashes, name, other)


def _members(family: str) -> list[str]:
    """The data sets that a name stands for: ``slake`` is in two languages here."""
    names = [manifest.name for manifest in known_data_sets(None)]
    return (
        [family] if family in names else [name for name in names if name.startswith(f"{family}_")] or [family]
    )


def _own(split: Split) -> Leak:
    """The data set's own training part: allowed, but its images are known to the model."""
    pairs = [one for one in shared(split) if one.parts[1] == "test"]
    images = sorted({image for one in pairs for image in one.images})
    repeated = len({question for one in pairs for question in one.questions})
    told = (
        f"its own {split.protocol} training part shows {len(images):,} of the test images and repeats {repeated:,} of "
        "the test questions; nothing is known of what lies outside this part"
    )
    return Leak(split.dataset, tuple(images), True, told)


def _against(split: Split, id_pattern: str, hashes: Hashes, name: str, other: Pretraining) -> Leak:
    ours = sorted({question.image_id for question in split.test})
    touches, theirs = touching(ours, hashes if hashes.names else None, other, id_pattern)
    ways = ["ids"] if ids_can_match(ours, other, id_pattern) else []
    if theirs is not None and theirs.names:
        ways.append("pictures")
    if not ways:
        return Leak(name, (), False, "nothing could be compared: no image can be read here, and no ids match")
    images = sorted({touch.ours for touch in touches})
    told = f"shows {len(images):,} of the {len(ours):,} test images (by {' and '.join(ways)}; at least)"
    return Leak(name, tuple(images), True, told)


def _training_images(name: str, place: str) -> Pretraining:
    """Images of a data set of captions or of questions, of all splits that are there.

    Raises:
        KGTargetsError: there is no such data set, or nothing of it is here.
    """
    manifest = Manifest.load(name, None)
    root = Path(place) if place else manifest.default_root
    present = manifest.present_splits(root)
    if not present:
        raise ConfigError(f"nothing of it is under {root} (--trained-on {name}=ROOT)")
    records: list[Record] = []
    for split in present:
        records += _records(manifest, split, root)
    return Pretraining(manifest.name, tuple(present), root, tuple(records))


def _records(manifest: Manifest, split: str, root: Path) -> Sequence[Record]:
    if "captions" in manifest.holds:
        return list(manifest.records(split, root))
    questions = manifest.questions(split, root, ReadReport())
    images = {question.image_id: question.image_path for question in questions}
    return [Record(image, path, "", image) for image, path in images.items()]
