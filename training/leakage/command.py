"""Overlap of a test part with training, or with a pre-training data set: ``kg-targets leakage``

images      image ids that are in two parts
questions   (image, question) pairs of one part that another part has, too
near        pictures of two parts that are alike under different ids (training/leakage/overlap.py, hashing.py)
against     cases of a pre-training data set that show a test image (training/leakage/overlap.py); with --against only

--enforce KINDS exits with code 2 where one of these kinds is found, where nothing could be compared, and where more
images than --max-broken allows are missing or unreadable. --enforce alone means images, questions and near, and with
--against that, too: without --against, pre-training is not looked at.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kg_targets.manifest import PARTS, TEST
from training.checks import all_within, one_of
from training.command import Work, add_json, print_json
from training.errors import ConfigError, DataError
from training.folders import json_text, write_text
from training.leakage.hashing import BITS, RADIUS, Hashes
from training.leakage.overlap import (
    ALL,
    BY_HASH,
    BY_ID,
    BY_NEIGHBOUR,
    Near,
    Pretraining,
    Shared,
    Touch,
    alike,
    hash_questions,
    ids_can_match,
    read_pretraining,
    shared,
    touching,
)
from training.rendering import render
from training.vqa.protocols import PROTOCOLS, PUBLISHED, Split, add_data, add_split, read_data, read_split

IMAGES, QUESTIONS, NEAR, AGAINST = KINDS = ("images", "questions", "near", "against")
ALL_KINDS = "all"
ANY = "any"


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets leakage`."""
    parser.description = __doc__
    add_data(parser)
    add_split(parser, PUBLISHED, (PUBLISHED, *PROTOCOLS))
    for name, default, told in (
        ("--radius", RADIUS, f"pictures count as alike up to this many differing bits of {BITS}"),
        ("--against", None, "data set used for pre-training, such as medpix, or its manifest"),
        ("--against-root", None, "its data root (default: the manifest's)"),
        ("--against-split", ALL, "its splits, comma-separated; all: those that are there"),
        ("--touching", TEST, "count pre-training cases that show an image of this part: test, or any"),
        ("--id-distance", 0, "count also those whose image number is at most this far from one of the data set"),
        ("--max-broken", 0, "missing or unreadable images allowed where near or against is enforced"),
        ("--out", None, "JSON file for everything that was found"),
        ("--exclude-out", None, "text file for the ids of these cases, one a line, for data.exclude of a training"),
    ):  # fmt: skip
        parser.add_argument(name, type=int if isinstance(default, int) else str, default=default, help=told)
    enforced = (
        f"exit with code 2 if there is a leak; of {','.join(KINDS)}; alone: all, against only with --against"
    )
    parser.add_argument("--enforce", nargs="?", const=ALL_KINDS, default="", metavar="KINDS", help=enforced)
    add_json(parser)
    return work


def work(options: argparse.Namespace) -> None:
    """Everything that the command does.

    Raises:
        KGTargetsError: an option, a file or an output is not usable.
        DataError: ``--enforce`` names a kind of leak that was found.
    """
    enforced = _enforced(options)
    one_of("--touching", options.touching, (TEST, ANY))
    all_within("--", options, max_broken=(0, None), radius=(0, BITS), id_distance=(0, 1000))
    if options.exclude_out and not options.against:
        raise ConfigError("--exclude-out lists cases of a pre-training data set: name it with --against")
    manifest, root = read_data(options)
    split = read_split(options, manifest, root, options.protocol)
    pretraining = None
    if options.against:
        pretraining = read_pretraining(options.against, options.against_root, options.against_split)

    everything = (*split.train, *split.validation, *split.test)
    hashes = hash_questions(everything, root)
    unseen = {NEAR: _unseen({question.image_id for question in everything}, hashes)}
    compared = {NEAR: bool(hashes.names)}
    between, pairs = shared(split), alike(split, hashes, options.radius)
    report = _report(split, between, pairs, hashes, options.radius)
    touches: list[Touch] = []
    theirs: Hashes | None = None
    if pretraining is not None:
        ours = everything if options.touching == ANY else split.test
        images = sorted({question.image_id for question in ours})
        chosen = _only(hashes, set(images)) if hashes.names else None
        distances = options.id_distance, options.radius
        touches, theirs = touching(images, chosen, pretraining, manifest.id_pattern, *distances)
        by_hash = chosen is not None and theirs is not None and bool(chosen.names and theirs.names)
        report["against"] = _against(pretraining, touches, options.touching) | {"by_hash": by_hash}
        compared[AGAINST] = by_hash or ids_can_match(images, pretraining, manifest.id_pattern)
        shown = {record.image_id for record in pretraining.records}
        unseen[AGAINST] = _unseen(set(images), hashes) + _unseen(shown, theirs or Hashes())
    text = render(
        "training.leakage", "report.txt.j2", report=report, hashes=hashes, theirs=theirs or Hashes()
    )
    lines = text.splitlines()
    if pretraining is None and options.enforce == ALL_KINDS:
        lines.append("pre-training: not looked at, since --against names none")
    if options.out:
        write_text(Path(options.out), json_text(report))
        lines.append(f"wrote {options.out}")
    if options.exclude_out:
        cases = sorted({touch.case for touch in touches})
        write_text(Path(options.exclude_out), "".join(f"{case}\n" for case in cases), "--exclude-out")
        lines.append(f"wrote {options.exclude_out}")
    if options.json:
        print_json(report)
    else:
        sys.stdout.write("\n".join(lines) + "\n")
    counts = {
        IMAGES: sum(len(one.images) for one in between),
        QUESTIONS: sum(len(one.questions) for one in between),
        NEAR: len(pairs),
        AGAINST: len({touch.case for touch in touches}),
    }
    _refuse_leaks({kind: counts[kind] for kind in enforced})
    for kind in enforced:
        _refuse_unseen(kind, compared.get(kind, True), unseen.get(kind, 0), options.max_broken)


def _enforced(options: argparse.Namespace) -> list[str]:
    if options.enforce == ALL_KINDS:
        return [kind for kind in KINDS if kind != AGAINST or options.against]
    enforced = [kind for kind in options.enforce.split(",") if kind]
    for kind in enforced:
        one_of("--enforce", kind, KINDS)
    if AGAINST in enforced and not options.against:
        raise ConfigError("--enforce against: against what? Name a pre-training data set with --against")
    return enforced


def _unseen(images: set[str], hashes: Hashes) -> int:
    """Images that are missing or cannot be read; one grey can be seen, though not compared."""
    return len(images.difference(hashes.names, hashes.flat))


_ROOTS = {NEAR: "--data-root", AGAINST: "--data-root and --against-root"}
_LEAKS = {
    IMAGES: "images in two parts",
    QUESTIONS: "repeated questions",
    NEAR: "pairs of pictures that are alike",
    AGAINST: "pre-training cases that touch test images",
}


def _refuse_leaks(found: Mapping[str, int]) -> None:
    leaks = [f"{count:,} {_LEAKS[kind]}" for kind, count in found.items() if count]
    if leaks:
        raise DataError(
            f"leaks between parts or with pre-training: {', '.join(leaks)}; use --protocol image_disjoint, or leave "
            "the cases of --exclude-out out of pre-training"
        )


def _refuse_unseen(kind: str, compared: bool, unseen: int, allowed: int) -> None:
    """Refuse what could not be looked at: it must not pass for clean."""
    if not compared:
        raise DataError(
            f"--enforce {kind}: nothing was compared, since no image can be read and no ids match: put the images "
            f"under {_ROOTS[kind]}, or name other kinds"
        )
    if unseen > allowed:
        raise DataError(
            f"--enforce {kind}: {unseen:,} images are missing or unreadable and were not compared, {allowed:,} allowed "
            f"(--max-broken): put them under {_ROOTS[kind]}"
        )


def _report(
    split: Split, between: Sequence[Shared], pairs: Sequence[Near], hashes: Hashes, radius: int
) -> dict[str, Any]:
    """The JSON file's content, what pre-training adds to it aside."""
    parts = {name: split.part(name) for name in PARTS}
    unseen = {"missing": hashes.missing, "unreadable": hashes.unreadable, "of_one_grey": hashes.flat}
    near = {"bits": BITS, "radius": radius, "images_hashed": len(hashes.names), **unseen}
    return {
        **{"dataset": split.dataset, "protocol": split.protocol, "split_seed": split.seed},
        "parts": {
            name: {"questions": len(part), "images": len({question.image_id for question in part})}
            for name, part in parts.items()
        },
        "shared": [asdict(one) for one in between],
        "near": {**near, "pairs": [asdict(pair) for pair in pairs]},
    }


def _only(hashes: Hashes, names: set[str]) -> Hashes:
    kept = [place for place, name in enumerate(hashes.names) if name in names]
    return Hashes([hashes.names[place] for place in kept], [hashes.bits[place] for place in kept])


def _against(pretraining: Pretraining, touches: Sequence[Touch], whom: str) -> dict[str, Any]:
    return {
        "dataset": pretraining.dataset,
        "splits": list(pretraining.splits),
        "images": len(pretraining.records),
        "cases": pretraining.cases,
        "touching": whom,
        "found_by": {
            by: len({touch.ours for touch in touches if touch.by == by})
            for by in (BY_ID, BY_NEIGHBOUR, BY_HASH)
        },
        "cases_touching": sorted({touch.case for touch in touches}),
        "pairs": [asdict(touch) for touch in touches],
    }
