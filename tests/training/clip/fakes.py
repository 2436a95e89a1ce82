"""Tiny random models laid out like the real ones: architectures, Hugging Face folders and the hub's cache."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertModel

TINY_TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
HUB_TEXT = "tests/tiny-bert"
HUB_CLIP = "tests/tiny-biomed-clip"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "chest", "head", "ct", "mri", "of", "the", "normal")

Register = Callable[..., str]


def register(folder: Path, name: str, vision: dict[str, Any], text: dict[str, Any] | None = None) -> str:
    """Make an architecture known to open_clip; returns its name."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text or TINY_TEXT}))
    open_clip.add_model_config(path)
    return name


def timm_tower(name: str, size: int, **given: Any) -> dict[str, Any]:
    """vision_cfg of a random timm tower."""
    return {"timm_model_name": name, "timm_model_pretrained": False, "image_size": size, **given}


def hf_text(name: str, **given: Any) -> dict[str, Any]:
    """text_cfg of a Hugging Face tower as BiomedCLIP has it."""
    return {
        "hf_model_name": name,
        "hf_tokenizer_name": name,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 12,
        **given,
    }


def write_bert(folder: Path, words: Sequence[str] = WORDS, positions: int = 16) -> Path:
    """A Hugging Face folder with a random BERT: config.json, model.safetensors, vocab.txt, tokenizer_config.json."""
    folder.mkdir(parents=True)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": positions}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client work without network from this cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def into_cache(cache: Path, repository: str, files: Path) -> None:
    """Put a folder into the hub's cache, as if it had been downloaded."""
    revision = "0" * 40
    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(revision)
    (place / "snapshots").mkdir()
    files.rename(place / "snapshots" / revision)


def cache_biomed_clip(folder: Path, cache: Path) -> None:
    """BiomedCLIP's layout in the hub's cache: a timm ViT, a BERT from another repository, weights as a .bin file.

    Its weights come from an older transformers and hold the text tower's position_ids.
    """
    bert = write_bert(folder / "bert")
    (bert / "model.safetensors").unlink()  # open_clip reads the architecture only
    into_cache(cache, HUB_TEXT, bert)
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": timm_tower("test_vit", 160, timm_pool="", timm_proj="linear"),
            "text_cfg": hf_text(HUB_TEXT),
        },
        "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]},
    }
    clip = folder / "clip"
    clip.mkdir()
    (clip / "open_clip_config.json").write_text(json.dumps(config))
    model = open_clip.create_model(f"local-dir:{clip}", pretrained_text=False)
    weights = dict(model.state_dict())
    weights["text.transformer.embeddings.position_ids"] = torch.arange(16)[None]
    torch.save(weights, clip / "open_clip_pytorch_model.bin")
    into_cache(cache, HUB_CLIP, clip)
