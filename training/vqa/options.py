"""Options that the Med-VQA commands share."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from kg_targets.manifest import Manifest
from training.checks import one_of, within
from training.errors import ConfigError
from training.vqa.protocols import PROTOCOLS, PUBLISHED, VALIDATION_SHARES, Split, as_published, prepare


def add_data(command: argparse.ArgumentParser) -> None:
    """``--dataset`` and ``--data-root``."""
    command.add_argument("--dataset", required=True, help="name of a Med-VQA data set, or a manifest's .yaml")
    command.add_argument(
        "--data-root", help="folder of its files; by default the manifest's, such as data/vqa_rad"
    )


def add_cut(command: argparse.ArgumentParser, default: str, known: Sequence[str] = PROTOCOLS) -> None:
    """``--protocol``, ``--split-seed`` and ``--validation-share``."""
    command.add_argument("--protocol", default=default, help=f"of {', '.join(known)}; default {default}")
    command.add_argument(
        "--split-seed", type=int, default=0, help="of the cut by image; default 0. Not the seed of a training"
    )
    command.add_argument(
        "--validation-share", type=float, default=0.1, help="of the training questions; default 0.1"
    )


def read_data(options: argparse.Namespace) -> tuple[Manifest, Path]:
    """The manifest and the data root.

    Raises:
        ConfigError: no such data set, or the data root is no folder.
    """
    manifest = Manifest.load(options.dataset, "questions")
    root = Path(options.data_root) if options.data_root else manifest.default_root
    if not root.is_dir():
        raise ConfigError(
            f"data root {root} is not a folder. {manifest.how_to_get} Give its place with --data-root."
        )
    return manifest, root


def read_split(options: argparse.Namespace, manifest: Manifest, root: Path, protocol: str) -> Split:
    """The data set under a protocol, cut as the options say, or ``published``.

    Raises:
        ConfigError: a name or number is not usable.
        DataError: files are missing or malformed.
    """
    within("--split-seed", options.split_seed, 0, None)
    within("--validation-share", options.validation_share, *VALIDATION_SHARES)
    if protocol == PUBLISHED:
        return as_published(manifest, root)
    one_of("--protocol", protocol, PROTOCOLS)
    return prepare(
        manifest, root, protocol, seed=options.split_seed, validation_share=options.validation_share
    )
