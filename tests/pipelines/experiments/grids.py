"""Grids of both tasks that tests change at one place, and the training configurations that they name."""

from pathlib import Path
from typing import Any

import yaml

from pipelines.experiments.med_vqa_grid import MedVQAGrid
from pipelines.experiments.retrieval_grid import RetrievalGrid
from pipelines.experiments.tasks import read_grid

MODEL = {"preset": "tiny", "text": None, "tokenizer": "tokenizer"}
FINETUNE = {
    "task": "med_vqa_finetune", "output": "run", "model": MODEL, "data": {"dataset": "vqa_rad", "data_root": "data"},
}  # fmt: skip
ONE = {**FINETUNE, "task": "med_vqa_pretrain", "data": {"store": "store", "data_root": "data"}}
TWO = {**ONE, "stage": "two", "model": {**MODEL, "init_from": "before"}}
OFFICIAL: dict[str, Any] = {
    "title": "Tiny",
    "dataset": "demo",
    "base": "training/configs/nb_clip_demo.yaml",
    "seeds": [0],
    "split": {"official": {"train": "train", "test": "test"}},
    "stores": {"ontology": {}},
    "evaluate_on": "ontology",
    "rows": {
        "infonce": {"title": "InfoNCE", "store": "ontology", "set": {"loss.name": "info_nce"}},
        "sm": {"title": "SM", "store": "ontology"},
    },
    "tables": [{"title": "Table 1", "rows": ["infonce", "sm"], "baseline": "infonce"}],
    "primary": {"row": "sm", "baseline": "infonce", "measure": "CUI@50"},
}
"""Of retrieval, on the official splits of a data set."""


def retrieval() -> dict[str, Any]:
    return {
        "title": "Tiny",
        "dataset": "demo",
        "data_root": "data",
        "base": "training/configs/nb_clip_demo.yaml",
        "set": {"optim.epochs": 1},
        "seeds": [0, 1],
        "split": {"folds": {"count": 2, "test": ["train", "test"], "train_only": ["dev"]}},
        "stores": {"ontology": {}, "none": {"no_ontology": True}, "unused": {"scorer": "noise"}},
        "evaluate_on": "ontology",
        "rows": {
            "infonce": {"title": "InfoNCE", "store": "ontology", "set": {"loss.name": "info_nce"}},
            "sm": {"title": "SM", "store": "none", "set": {"optim.epochs": 3, "optim.clip_norm": None}},
        },
        "tables": [{"title": "Table 1", "rows": ["infonce", "sm"], "baseline": "infonce"}],
        "evaluation": {"features": ["before", "after"], "recall": False, "draws": 50},
        "primary": {"row": "sm", "baseline": "infonce", "measure": "CUI@50"},
        "secondary": ["CUI@10"],
        "subsets": {"official test": "test"},
    }


def med_vqa() -> dict[str, Any]:
    return {
        "title": "Tiny",
        "dataset": "vqa_rad",
        "data_root": "data",
        "base": "base.yaml",
        "set": {"optim.epochs": 3},
        "seeds": [0, 1],
        "parts": [{"protocol": "strict"}, {"protocol": "image_disjoint", "folds": [1, 2]}],
        "stores": {
            "kg": {"command": "kg-targets build demo --data-root {data_root} --out {here}"},
            "teacher": {
                "command": "python training/run.py --data.train_store {kg}/train --output {here}",
                "requires": {"models/clip": "fetch it"},
            },
        },
        "pretrain": [
            {"base": "one.yaml", "set": {"data.store": "{kg}/train"}},
            {"base": "two.yaml", "set": {"data.store": "{kg}/train"}},
        ],
        "baseline": "plain",
        "plot": {"x": "λ", "marked": 0.1},
        "rows": {
            "plain": {"title": "plain", "controls": ["question_only", "shuffled"]},
            "kg": {
                "title": "KG",
                "set": {"optim.lr": 1e-4, "optim.clip_norm": None},
                "pretrain": {"set": {"soft_labels": [{"store": "{kg}/train", "policy": "evidence"}]}},
                "point": {"series": ["a", "b"], "x": 0},
            },
            "teacher": {
                "title": "CLIP",
                "paper": "clip",
                "pretrain": [{"base": "one.yaml", "set": {"soft_labels": [{"store": "{teacher}/train"}]}}],
            },
        },
    }


BASES = {"retrieval": retrieval, "med_vqa": med_vqa}


def changed(kind: str, key: str, value: Any) -> dict[str, Any]:
    """The grid with one value changed, or left out for ``...``; the key is dotted with slashes."""
    content = BASES[kind]()
    *groups, last = key.split("/")
    place: Any = content
    for group in groups:
        place = place[int(group)] if isinstance(place, list) else place[group]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


def written(content: Any, folder: Path = Path()) -> str:
    """Path of the grid's file, beside the configurations that Med-VQA's names."""
    for name, one in (("base", FINETUNE), ("one", ONE), ("two", TWO), ("tiny", content)):
        text = yaml.safe_dump(one, sort_keys=False, allow_unicode=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return str(folder / "tiny.yaml")


def read_retrieval(name: str, data_root: Path | None = None) -> RetrievalGrid:
    grid = read_grid(name, data_root)
    assert isinstance(grid, RetrievalGrid)
    return grid


def read_med_vqa(name: str) -> MedVQAGrid:
    grid = read_grid(name)
    assert isinstance(grid, MedVQAGrid)
    return grid
