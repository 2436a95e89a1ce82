"""An invented Med-VQA data set in VQA-RAD's layout, with pictures; shared by the tests of training.vqa."""

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from kg_targets.manifest import Manifest

TRAIN_IMAGES, TEST_IMAGES = 12, 4


def rows(images: range, first_id: int, **changes: object) -> list[dict[str, object]]:
    """Three questions about each image: yes/no, a choice, and a free one whose answer depends on the image."""
    found: list[dict[str, object]] = []
    for image in images:
        for question, answer, kind, closed in (
            ("Is there a shadow?", "Yes" if image % 3 else "no", "PRES", "CLOSED"),
            ("Left or right?", "left" if image % 2 else "right", "POS", "CLOSED "),
            ("Which organ is shown?", f"organ {image}", "ORGAN", "OPEN"),
        ):
            found.append(
                {
                    "qid": first_id + len(found),
                    "image_name": f"synpic{image}.png",
                    "question": question,
                    "answer": answer,
                    "question_type": kind,
                    "answer_type": closed,
                    **changes,
                }
            )
    return found


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A smooth random picture of its own for each seed."""
    grey = np.random.default_rng(seed).integers(0, 256, size=(6, 8), dtype=np.uint8)
    return Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)


def write_data(
    root: Path,
    train: list[dict[str, object]] | None = None,
    test: list[dict[str, object]] | None = None,
    pictures: bool = False,
) -> Manifest:
    """Files under ``root`` and the manifest that describes them. By default test images are training images, too."""
    root.mkdir(parents=True, exist_ok=True)
    train = rows(range(TRAIN_IMAGES), 0) if train is None else train
    test = rows(range(TEST_IMAGES), 1000, phrase_type="freeform") if test is None else test
    (root / "trainset.json").write_text(json.dumps(train), encoding="utf-8")
    (root / "testset.json").write_text(json.dumps(test), encoding="utf-8")
    if pictures:
        (root / "images").mkdir(exist_ok=True)
        for name in {str(row["image_name"]) for row in (*train, *test)}:
            picture(int(name.removeprefix("synpic").removesuffix(".png"))).save(root / "images" / name)
    manifest = {
        "name": "tiny_vqa",
        "title": "An invented data set",
        "reader": "vqa_rad",
        "licence": "CC0-1.0",
        "how_to_get": "It is invented by the tests.",
        "data_root": str(root),
        "id_pattern": "synpic[0-9]+",
        "splits": {
            "train": {"files": {"questions": "trainset.json"}, "images": "images"},
            "test": {"files": {"questions": "testset.json"}, "images": "images"},
        },
    }
    path = root / "tiny_vqa.yaml"
    path.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    return Manifest.load(path, "questions")
