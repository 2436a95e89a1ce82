"""Which cases of a pre-training data set show an image that a Med-VQA model is tested on: by id, then by hash.

A whole case is told, never a single image: other images of a case show the same patient and finding.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kg_targets.manifest import Manifest, Record
from kg_targets.manifest.model import unknown_name
from training.data.files import resolve
from training.errors import ConfigError
from training.leakage.hashing import RADIUS, Hashes, hash_images, near

ALL = "all"
BY_ID, BY_NEIGHBOUR, BY_HASH = "id", "neighbour", "hash"


@dataclass(frozen=True, order=True)
class Touch:
    """An image of a pre-training case that is, or may be, one of ours."""

    case: str
    image: str
    """In the pre-training data set."""
    ours: str
    by: str
    """``id``; ``neighbour``: their numbers are near; ``hash``: the pictures are alike."""
    distance: int
    """Between the numbers, or differing bits of the hashes."""


@dataclass(frozen=True)
class Foreign:
    """Images of a pre-training data set."""

    dataset: str
    splits: tuple[str, ...]
    root: Path
    records: tuple[Record, ...]

    @property
    def cases(self) -> int:
        """Number of cases."""
        return len({record.group_id for record in self.records})


def read_foreign(name: str, root: str | None, splits: str) -> Foreign:
    """Images and cases of a manifest of kg-targets.

    Args:
        name: of the data set, or its manifest's path.
        root: its data root; ``None`` for the manifest's own.
        splits: names parted by commas, or ``all``: those that are there.

    Raises:
        ConfigError: no split is there, or one of those named is not.
        KGTargetsError: the manifest or a file of it is missing or malformed.
    """
    manifest = Manifest.load(name)
    folder = Path(root) if root else manifest.default_root
    present = manifest.present_splits(folder)
    names = present if splits == ALL else splits.split(",")
    if not names:
        raise ConfigError(f"{manifest.name} is not under {folder}. {manifest.how_to_get} Set --against-root.")
    for split in names:
        if split not in present:
            raise ConfigError(f"--against-split: {unknown_name('split', split, present)}")
    records = tuple(record for split in names for record in manifest.records(split, folder))
    return Foreign(manifest.name, tuple(names), folder, records)


def touching(
    ours: Sequence[str],
    our_hashes: Hashes | None,
    foreign: Foreign,
    id_pattern: str,
    id_distance: int = 0,
    radius: int = RADIUS,
) -> tuple[list[Touch], Hashes | None]:
    """Images of ``foreign`` that are ours, each pair once: by id if that finds it, else by number, else by hash.

    Args:
        ours: image ids.
        our_hashes: of the same images; ``None`` to go by ids only.
        id_pattern: regular expression of what names an image in both data sets (``synpic[0-9]+``); empty: no ids match.
        id_distance: largest difference of the numbers at the end of what the pattern finds, ≥ 0.
        radius: most differing bits of the hashes.

    Returns:
        The pairs in order, and the hashes of the foreign images.
    """
    found = {
        (touch.image, touch.ours): touch for touch in _by_id(ours, foreign.records, id_pattern, id_distance)
    }
    if our_hashes is None:
        return sorted(found.values()), None
    cases = {record.image_id: record.group_id for record in foreign.records}
    theirs = hash_images(
        (record.image_id, resolve(foreign.root, record.image_path))
        for record in foreign.records
        if record.image_path
    )
    for image, other, bits in near(our_hashes, theirs, radius):
        kept = found.get((other, image))
        if kept is None or kept.by == BY_NEIGHBOUR:
            found[other, image] = Touch(cases[other], other, image, BY_HASH, bits)
    return sorted(found.values()), theirs


def ids_can_match(ours: Iterable[str], foreign: Foreign, id_pattern: str) -> bool:
    """Whether image ids of both data sets hold what names an image in both."""
    if not id_pattern:
        return False
    pattern = re.compile(id_pattern)
    theirs = (record.image_id for record in foreign.records)
    return all(any(map(pattern.search, images)) for images in (ours, theirs))


def _by_id(
    ours: Iterable[str], records: Iterable[Record], id_pattern: str, id_distance: int
) -> Iterable[Touch]:
    if not id_pattern:
        return
    pattern = re.compile(id_pattern)
    known = {key.group(): image for image in ours for key in pattern.finditer(image)}
    for record in records:
        for key in (found.group() for found in pattern.finditer(record.image_id)):
            for step in range(-id_distance, id_distance + 1):
                image = known.get(_moved(key, step))
                if image is not None:
                    by = BY_NEIGHBOUR if step else BY_ID
                    yield Touch(record.group_id, record.image_id, image, by, abs(step))


def _moved(key: str, step: int) -> str:
    """``synpic100`` and 1 give ``synpic101``; what does not end in a number has no neighbours."""
    if not step:
        return key
    name, number = re.fullmatch(r"(.*?)(\d*)", key, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{name}{int(number) + step}" if number else ""
