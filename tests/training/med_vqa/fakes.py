"""Tiny random Med-VQA models and batches."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.training.clip import fakes as clip_fakes
from training.clip.load import model_config
from training.med_vqa import MedVQAConfig, MedVQAModel
from training.med_vqa.model.build import build_med_vqa
from training.med_vqa.model.config import VQAModelConfig
from training.med_vqa.model.saving import MedVQA

WORDS = 40
FIRST_WORD = 5  # below: [PAD], [UNK], [CLS], [SEP], [MASK]
CLS, SEP = 2, 3


def bert(width: int = 32, layers: int = 2, **given: Any) -> dict[str, Any]:
    """``MedVQAConfig.text`` or ``decoder``."""
    return {
        "model_type": "bert",
        "vocab_size": WORDS,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 24,
        **given,
    }


def config(**given: Any) -> MedVQAConfig:
    """Three widths, so that a projection left out shows; two co-attention layers, three of the decoder."""
    vision = {key: model_config("test-vit")[key] for key in ("embed_dim", "vision_cfg")}
    return MedVQAConfig(
        **{
            "clip": {
                "model_cfg": vision,
                "preprocess_cfg": {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3},
            },
            "text": bert(),
            "decoder": bert(width=16, layers=3),
            "cross_attention_layers": 2,
            "hidden_size": 24,
            "co_attention_layers": 2,
            "co_attention_heads": 3,
            "co_attention_ffn": 40,
            "gate_heads": 2,
            "gate_ffn": 40,
            **given,
        }
    )


def model(seed: int = 0, **given: Any) -> MedVQAModel:
    """In eval mode, with weights large enough that every part has its say."""
    torch.manual_seed(seed)
    made = MedVQAModel(config(**given))
    for name, value in made.named_parameters():
        if not name.startswith("vision.") and value.dim() > 1:
            value.data.mul_(8.0)
    return made.eval()


def ids(rows: int, length: int, seed: int = 0) -> Tensor:
    """Word pieces, int64 ``[rows, length]``."""
    return torch.randint(FIRST_WORD, WORDS, (rows, length), generator=torch.Generator().manual_seed(seed))


def mask(*lengths: int) -> Tensor:
    """bool ``[rows, longest]``."""
    return torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Three questions of 6, 4 and 2 tokens with answers of 1, 3 and 2 words, and four answers as knowledge."""
    answers = ids(3, 5, seed + 1)
    answers[:, 0] = CLS
    answer_mask = mask(3, 5, 4)
    answers[torch.arange(3), answer_mask.sum(1) - 1] = SEP
    return {
        "images": torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed)),
        "question_ids": ids(3, 6, seed + 2),
        "question_mask": mask(6, 4, 2),
        "answer_ids": answers.where(answer_mask, 0),
        "answer_mask": answer_mask,
        "knowledge_ids": ids(4, 3, seed + 3),
        "knowledge_mask": mask(1, 3, 2, 1),
    }


def hard_targets(rows: int, columns: int, offset: int = 0) -> Tensor:
    """1 at each row's positive, float32 ``[rows, columns]``."""
    return torch.eye(columns)[offset : offset + rows]


def built(folder: Path, seed: int = 0, **given: Any) -> MedVQA:
    """The ``tiny`` preset from a random BERT that is written to ``folder``."""
    if not folder.exists():
        clip_fakes.write_bert(folder)
    torch.manual_seed(seed)
    return build_med_vqa(VQAModelConfig(**{"preset": "tiny", "text": str(folder), **given}))
