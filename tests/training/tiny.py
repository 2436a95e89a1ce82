"""Sixteen drawn images and a store of eight dimensions to train on in seconds, and how to do it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from kg_targets.store import StoreWriter, schema

FINDINGS = ("nodule", "fracture", "effusion", "mass")


def write_store(target: Path, data_root: Path, prefix: str, images: int = 16, before: str = "") -> Path:
    """A valid store with images: two images a case, four findings, the last image without concepts.

    ``before`` stands in front of every caption.
    """
    rng = np.random.default_rng(len(prefix))
    (data_root / "images").mkdir(parents=True, exist_ok=True)
    findings = [FINDINGS[(row // 2) % 4] for row in range(images)]
    for row, finding in enumerate(findings):
        picture = rng.integers(0, 60, (40, 40), dtype=np.uint8)
        picture[:, 10 * FINDINGS.index(finding) :][:, :10] = 220
        Image.fromarray(picture).save(data_root / "images" / f"{prefix}{row}.png")
    known = [row != images - 1 for row in range(images)]
    factors = np.zeros((images, 8), np.float32)
    for row, finding in enumerate(findings):
        factors[row, FINDINGS.index(finding)], factors[row, 7] = (0.8, 0.6) if known[row] else (0, 0)
    columns = {
        "row": list(range(images)),
        "image_id": [f"{prefix}{row}" for row in range(images)],
        "image_path": [f"images/{prefix}{row}.png" for row in range(images)],
        "caption": [f"{before}CT shows a {finding}." for finding in findings],
        "group_id": [f"case{row // 2}" for row in range(images)],
        "licence": ["CC0-1.0"] * images,
        "label_modality": ["ct" if row % 3 else "x-ray" for row in range(images)],
        "label_finding": findings,
        "cuis": [
            [f"C{FINDINGS.index(f):07d}", "C0000009"] if k else []
            for f, k in zip(findings, known, strict=True)
        ],
        "known": known,
        "factor": list(factors),
        "neighbor_rows": [[]] * images,
        "neighbor_scores": [[]] * images,
    }
    captions = zip(columns["image_id"], columns["caption"], findings, known, strict=True)
    mentions = [
        {"image_id": name, "cui": f"C{FINDINGS.index(finding):07d}", "name": finding, "start": caption.index(finding),
         "end": caption.index(finding) + len(finding), "text": finding, "score": 1.0, "negated": False, "source": "x"}
        for name, caption, finding, asserted in captions if asserted
    ]  # fmt: skip
    concepts = [f"C{index:07d}" for index in (*range(4), 9)]
    concept_rows = [
        {"concept": i, "cui": cui, "name": cui, "kind": "finding", "semantic_types": [], "images": 4,
         "fit_asserted": 4, "fit_covered": 4, "ic": 1.0, "idf": 1.0}
        for i, cui in enumerate(concepts)
    ]  # fmt: skip
    labels = ("modality", "finding")
    with StoreWriter(target) as writer:
        writer.write(
            "mentions/part-00000.parquet", pa.Table.from_pylist(mentions, schema=schema.MENTION_COLUMNS)
        )
        writer.write("targets/part-00000.parquet", pa.table(columns, schema=schema.target_columns(labels, 8)))
        writer.write(
            schema.part(schema.CONCEPTS, 0), pa.Table.from_pylist(concept_rows, schema=schema.CONCEPT_COLUMNS)
        )
        manifest = {
            "dataset": "tiny", "split": prefix, "rows": images, "labels": list(labels),
            "fit": {"split": "train", "captions": 16}, "similarity": {"fit_p95": 0.5}, "factors": {"dense": 8},
            "config": {"top_k": 8},
        }  # fmt: skip
        writer.finish(manifest, {})
    return target


def write_world(folder: Path) -> Path:
    """A folder with data/, train/ and dev/."""
    write_store(folder / "train", folder / "data", "train")
    write_store(folder / "dev", folder / "data", "dev", images=12)
    return folder


def arguments(world: Path, output: Path, *extra: str) -> list[str]:
    return [
        f"--data.train_store={world / 'train'}", f"--data.dev_store={world / 'dev'}",
        f"--data.data_root={world / 'data'}", f"--output={output}", "--model.name=test-vit",
        "--data.batch_size=8", "--optim.epochs=2", "--log.every=1", "--log.trackers=none", *extra,
    ]  # fmt: skip


def losses(output: Path) -> list[float]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]
