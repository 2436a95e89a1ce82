"""Tiny random checkpoints in the formats in which teachers are published."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    SwinConfig,
    SwinModel,
)

from tests.training.clip import fakes as fakes
from training.clip.load import load_clip, write_model_folder

WORDS = (*fakes.WORDS, "right", "pleural", "effusion", "brain", "normal", "fracture")


def tiny_bert(width: int = 64, positions: int = 80) -> BertModel:
    """A BERT with heads of 64."""
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        num_hidden_layers=3,
        num_attention_heads=width // 64,
        intermediate_size=2 * width,
        max_position_embeddings=positions,
    )
    return BertModel(config)


def write_vocabulary(folder: Path) -> None:
    """vocab.txt alone, as Bio_ClinicalBERT's repository has it."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")


def write_medclip(folder: Path, swin: bool = True, older: bool = False) -> dict[str, Tensor]:
    """``pytorch_model.bin`` and ``vocab.txt``; ``older`` adds the buffers that older transformers stored."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    if swin:
        config = SwinConfig(embed_dim=24, depths=[1, 2], num_heads=[2, 4], window_size=7, patch_size=16)
        SwinModel(config).save_pretrained(
            folder / "swin"
        )  # under the names that transformers has always stored
        stored = load_file(folder / "swin" / "model.safetensors")
        vision = {f"model.{name}": value for name, value in stored.items()}
        vision["projection_head.weight"] = torch.randn(16, 48)
    else:
        tower = ResNet(Bottleneck, [1, 1, 1, 1])
        tower.fc = nn.Linear(2048, 16, bias=False)
        vision = {f"model.{name}": value for name, value in tower.state_dict().items()}
    weights = {
        **{f"vision_model.{name}": value for name, value in vision.items()},
        **{f"text_model.model.{name}": value for name, value in tiny_bert().state_dict().items()},
        "text_model.projection_head.weight": torch.randn(16, 64),
        "logit_scale": torch.tensor(2.0),
    }
    if older:
        weights["text_model.model.embeddings.position_ids"] = torch.arange(80)[None]
        weights["text_model.projection_head.bias"] = torch.randn(16)
    torch.save(weights, folder / "pytorch_model.bin")
    write_vocabulary(folder)
    return weights


def write_pmc_clip(folder: Path, parts: bool) -> dict[str, Tensor]:
    """``checkpoint.pt`` as its training saves it (``module.``, other heads), or the three published files."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    vision = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "patch_size": None, "head_width": 64}
    visual = open_clip.CLIP(
        embed_dim=64, vision_cfg=open_clip.CLIPVisionCfg(**vision), text_cfg=open_clip.CLIPTextCfg(layers=1)
    ).visual.state_dict()
    bert = tiny_bert().state_dict()
    projection = torch.randn(64, 64)
    if parts:
        torch.save(visual, folder / "image_encoder(resnet50).pth")
        torch.save(bert, folder / "text_encoder.pth")
        torch.save(projection, folder / "text_projection_layer.pth")
    else:
        weights = {
            **{f"module.visual.{name}": value for name, value in visual.items()},
            **{f"module.text_encoder.{name}": value for name, value in bert.items()},
            "module.text_projection": projection,
            "module.logit_scale": torch.tensor(3.0),
            "module.mlm_projection": torch.randn(64, 9),
            "module.fusion_module.resblocks.0.ln_1.weight": torch.randn(64),
        }
        torch.save({"epoch": 3, "name": "RN50_fusion4", "state_dict": weights}, folder / "checkpoint.pt")
    write_vocabulary(folder)
    text = {f"text_encoder.{name}": value for name, value in bert.items()}
    return {**visual, **text, "text_projection": projection}


def write_open_clip(folder: Path, name: str = "tiny-teacher") -> Path:
    """An open_clip model folder, ``folder/clip``; ``name`` becomes known to open_clip."""
    folder.mkdir(parents=True, exist_ok=True)
    fakes.register(folder, name, {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32})
    torch.manual_seed(0)
    clip = load_clip(name)
    write_model_folder(folder / "clip", clip.model, clip)
    return folder / "clip"


def write_hf_clip(folder: Path, pickled: bool = False) -> CLIPModel:
    """PubMedCLIP's layout: config, weights, processor, tokenizer."""
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    symbols = [
        "c",
        "t",
        "h",
        "e",
        "a",
        "d",
        "c</w>",
        "t</w>",
        "d</w>",
        "ct</w>",
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    text = CLIPTextConfig(
        vocab_size=len(symbols), max_position_embeddings=12, bos_token_id=10, eos_token_id=11, **small
    )
    vision = CLIPVisionConfig(image_size=32, patch_size=16, **small)
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    ).eval()
    model.save_pretrained(folder)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    (folder / "vocab.json").write_text(json.dumps({symbol: place for place, symbol in enumerate(symbols)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc t</w>\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 12,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return model
