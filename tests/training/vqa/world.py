"""A generated Med-VQA data set in VQA-RAD's layout, a tokenizer for it, and how to fine-tune a tiny model on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import BertTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "yes", "no", "left", "right", "ray", "x", "where", "what", "is", "the", "side", "bright", "shown", "this", "a",
    "ct", "of", "lung", "or", "brain", "else", "and", "upper", "lobe",
)  # fmt: skip
CHINESE_WORDS = (*SPECIAL, *"哪里亮左右是不")
LONG = "is this a ct of the lung or of the brain or of what else and is the left side or the right side shown"


def write_world(folder: Path, images: int = 12, test_images: int = 4) -> Path:
    """``data/`` with images that are bright on one side and four questions about each, and ``tokenizer/``."""
    write_questions(folder / "data", "train", images)
    write_questions(folder / "data", "test", test_images)
    place = folder / "tokenizer"
    place.mkdir()
    (place / "vocab.txt").write_text("\n".join((*SPECIAL, *WORDS)) + "\n", encoding="utf-8")
    BertTokenizerFast(str(place / "vocab.txt")).save_pretrained(place)
    return folder


def write_questions(data: Path, part: str, images: int) -> None:
    """``<part>set.json`` and its images; a test answer never occurs in training."""
    (data / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number in range(images):
        side = ("left", "right")[number % 2]
        name = f"{part}{number}.png"
        pixels = np.random.default_rng(number).integers(0, 60, (40, 40), dtype=np.uint8)
        pixels[:, :20] += 190 * (side == "left")
        pixels[:, 20:] += 190 * (side == "right")
        Image.fromarray(pixels).save(data / "images" / name)
        shown = "x ray" if part == "train" else "upper lobe"
        for kind, question, answer in (
            ("OPEN", "where is the bright side", side.title()),
            ("CLOSED", "is the left side bright", "Yes" if side == "left" else "No"),
            ("OPEN", "what is shown", shown),
            ("CLOSED", LONG, "no"),
        ):
            rows.append(
                {
                    "qid": f"{part}-{len(rows)}", "image_name": name, "question": question, "answer": answer,
                    "answer_type": kind, "question_type": "PRES",
                }
            )  # fmt: skip
    (data / f"{part}set.json").write_text(json.dumps(rows), encoding="utf-8")


def write_slake(data: Path) -> None:
    """``train.json``, ``validate.json``, ``test.json`` and ``imgs/`` as SLAKE has them, with Chinese questions only."""
    for part, images in (("train", 8), ("validate", 2), ("test", 2)):
        rows: list[dict[str, Any]] = []
        for number in range(images):
            name = f"{part}{number}/source.jpg"
            pixels = np.random.default_rng(number).integers(0, 255, (40, 40), dtype=np.uint8)
            (data / "imgs" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(data / "imgs" / name)
            for question, answer in (("哪里亮", "左右"[number % 2]), ("左亮", "是不"[number % 2])):
                rows.append(
                    {
                        "qid": f"{part}{len(rows)}", "img_name": name, "question": question, "answer": answer,
                        "q_lang": "zh", "answer_type": "OPEN", "content_type": "Position",
                    }
                )  # fmt: skip
        (data / f"{part}.json").write_text(json.dumps(rows), encoding="utf-8")


def edit_questions(data: Path, part: str, **changes: dict[str, Any]) -> None:
    """Change fields of questions, by id with ``_`` for ``-``."""
    path = data / f"{part}set.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    for row in rows:
        row.update(changes.get(row["qid"].replace("-", "_"), {}))
    path.write_text(json.dumps(rows), encoding="utf-8")


def finetune_arguments(world: Path, output: Path, *extra: str) -> list[str]:
    """A fine-tuning of the tiny preset: five batches of eight an epoch, two epochs, no dropout."""
    return [
        "--task=med_vqa_finetune", "--data.dataset=vqa_rad", f"--data.data_root={world / 'data'}",
        f"--output={output}", "--model.preset=tiny", "--model.text=null", "--model.dropout=0",
        f"--model.tokenizer={world / 'tokenizer'}", "--data.batch_size=8", "--data.validation_share=0.2",
        f"--data.cache={world / 'cache'}", "--optim.epochs=2", "--log.every=1", "--log.trackers=none", "--threads=1",
        *extra,
    ]  # fmt: skip


def logged(output: Path, name: str) -> list[float]:
    """One value of every log line that has it."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]
