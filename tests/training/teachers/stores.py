"""Teachers' stores written by hand, and tiny random checkpoints in the formats in which teachers are published."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kg_targets.store import StoreWriter, TeacherStore, schema


def unit(count: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Random unit vectors."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def teacher_facts(**change: Any) -> dict[str, Any]:
    """What a manifest says of a teacher of 6 dimensions."""
    facts = {
        "name": "fake",
        "kind": "parquet",
        "digest": "0" * 64,
        "dim": 6,
        "scale": 20.0,
        "preprocessing": {},
    }
    return {**facts, **change}


def write_teacher_store(
    folder: Path,
    captions: Sequence[str],
    images: NDArray[np.float32] | None = None,
    texts: NDArray[np.float32] | None = None,
    **facts: Any,
) -> TeacherStore:
    """A whole store under ``folder``; two images to a case."""
    count = len(captions)
    stated = teacher_facts(**facts)
    dim = int(stated["dim"])
    factors = {
        "image_factor": unit(count, dim, 0) if images is None else images,
        "text_factor": unit(count, dim, 1) if texts is None else texts,
    }
    columns: dict[str, Any] = {
        "row": np.arange(count),
        "image_id": [f"img{row:03d}" for row in range(count)],
        "image_path": [f"images/img{row:03d}.png" for row in range(count)],
        "caption": list(captions),
        "group_id": [f"case{row // 2}" for row in range(count)],
        "licence": [""] * count,
        "label_region": ["chest"] * count,
        "known": np.linalg.norm(factors["image_factor"], axis=1) > 0 if dim else np.ones(count, dtype=bool),
        **{name: list(values) for name, values in factors.items()},
    }
    wanted = schema.teacher_columns(("region",), dim)
    table = pa.table({name: pa.array(columns[name], wanted.field(name).type) for name in wanted.names})
    with StoreWriter(folder / "train", schema.TEACHER) as writer:
        writer.write("targets/part-00000.parquet", table)
        writer.finish(
            {
                "kind": "teacher",
                "dataset": "demo",
                "split": "train",
                "rows": count,
                "labels": ["region"],
                "config": {"scorer": "teacher"},
                "teacher": stated,
                "inputs": {},
            },
            {},
        )
    store = TeacherStore.open(folder / "train")
    assert isinstance(store, TeacherStore)
    return store
