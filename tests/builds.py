"""Builds small stores through the real pipeline; shared by unit and e2e tests."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

from kg_targets.store import TargetStore
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set

COLUMNS = ("image_id", "filepath", "caption", "group_id", "label_region")
CAPTIONS = (
    "Chest radiograph showing a right pleural effusion.",
    "CT of the chest with a left pneumothorax and no pleural effusion.",
    "Axial MRI of the brain with an acute infarct.",
    "Figure 2B. Follow-up.",
    "X-ray of the chest: large pleural effusions.",
    "Ultrasound of the liver with a hepatic cyst.",
    "Radiograph of the knee, no fracture.",
    "MRI of the brain: hydrocephalus.",
)
RICH = (
    *CAPTIONS,
    "CT of the chest with a right pleural effusion and a pneumothorax.",
    "Chest radiograph: left pneumothorax, pleural effusion.",
    "Ultrasound of the liver and the kidney with a cyst.",
    "CT of the liver: abscess, right pleural effusion.",
    "Axial MRI of the brain with a haemorrhage and an infarct.",
    "CT of the brain: haemorrhage.",
)


def write_split(folder: Path, split: str, captions: Sequence[str], columns: Sequence[str] = COLUMNS) -> Path:
    """One CSV of the ``csv`` layout; two images to a case."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split}.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for row, caption in enumerate(captions):
            name = f"{split}{row:03d}"
            values = {
                "image_id": name,
                "filepath": f"images/{name}.png",
                "caption": caption,
                "group_id": f"{split}-case{row // 2}",
                "label_region": ("chest", "head", "")[row % 3],
            }
            writer.writerow([values[column] for column in columns])
    return path


def digests(store: Path) -> dict[str, str]:
    """sha256 of every file of a store but the report of times and memory."""
    files = [file for file in sorted(store.rglob("*")) if file.is_file() and file.name != "build_report.json"]
    return {str(file.relative_to(store)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def build(folder: Path, captions: Sequence[str] = CAPTIONS, **options: object) -> TargetStore:
    """The train store of ``captions``, under ``folder``."""
    for split in ("train", "dev", "test"):
        write_split(folder / "data", split, captions)
    config = {"split": "train", "workers": 1, **options}
    said: list[str] = []
    return build_data_set(
        BuildConfig(dataset="demo", data_root=folder / "data", out=folder / "out", **config), said.append
    )[0]
