"""A generated target store with images beside `tests/training/vqa/world.py`, and how to pre-train."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import BertTokenizerFast

from kg_targets.store import StoreWriter, TargetStore, schema
from tests.training.tiny import FINDINGS, write_store
from tests.training.vqa.world import SPECIAL, WORDS, write_world


def write_pretrain_world(folder: Path, images: int = 24) -> Path:
    """``data/`` and ``tokenizer/`` of the Med-VQA world, ``store/`` of captioned images in ``captioned/``."""
    write_world(folder)
    words = (*SPECIAL, *WORDS, "shows", ".", *FINDINGS)
    place = folder / "tokenizer"
    (place / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizerFast(str(place / "vocab.txt")).save_pretrained(place)
    write_store(folder / "store", folder / "captioned", "train", images=images)
    return folder


def pretrain_arguments(world: Path, output: Path, *extra: str) -> list[str]:
    """A pre-training of the tiny preset with the store's own soft labels: 20 images, two steps of eight an epoch."""
    return [
        "--task=med_vqa_pretrain", f"--data.store={world / 'store'}", f"--data.data_root={world / 'captioned'}",
        f"--output={output}", "--model.preset=tiny", "--model.text=null", f"--model.tokenizer={world / 'tokenizer'}",
        "--data.batch_size=8", "--data.dev_share=0.2", f"--data.cache={world / 'cache'}", "--optim.epochs=2",
        f"--soft_labels=[{{store: {world / 'store'}}}]", "--log.every=1", "--log.trackers=none", "--threads=1", *extra,
    ]  # fmt: skip


def stage_two(start: Path, *extra: str) -> list[str]:
    """What turns ``pretrain_arguments`` into stage two, after the run of stage one in ``start``."""
    return ["--stage=two", f"--model.init_from={start}", *extra]


def write_teacher_store(
    target: Path, data: Path, seed: int = 0, stated_dim: int = 6, first_value: float | None = None
) -> Path:
    """What a random teacher says of the images and captions of the store in ``data``; its factors are 6 wide."""
    store = TargetStore.open(data)
    rng = np.random.default_rng(seed)
    count = len(store)
    dim = 6
    images, texts = rng.normal(size=(2, count, dim)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    if first_value is not None:
        images[0, 0] = first_value
    columns = {
        "row": list(range(count)), "image_id": store.image_ids, "image_path": store.image_paths,
        "caption": store.captions, "group_id": store.group_ids, "licence": store.licences, "known": [True] * count,
        "image_factor": list(images),
        "text_factor": list(texts / np.linalg.norm(texts, axis=1, keepdims=True)),
    }  # fmt: skip
    with StoreWriter(target) as writer:
        table = pa.table(columns, schema=schema.teacher_columns((), dim))
        writer.write("targets/part-00000.parquet", table)
        teacher = {
            "name": "random",
            "kind": "open_clip",
            "digest": f"{seed}",
            "dim": stated_dim,
            "scale": 20.0,
        }
        writer.finish(
            {
                "dataset": store.dataset, "split": store.split, "rows": count, "labels": [], "kind": "teacher",
                "teacher": teacher, "config": {"scorer": "teacher"},
            },
            {},
        )  # fmt: skip
    return target
