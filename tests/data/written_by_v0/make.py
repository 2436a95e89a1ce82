"""Made the files beside it, once, with the code of commit a7fe849; see README.md. Do not run it in this folder."""

import json
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import open_clip
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import save_file
from tests.vqa_world import SPECIAL, WORDS, write_questions
from training.med_vqa.build import load_answers, load_med_vqa, save_med_vqa
from training.med_vqa.evaluate.__main__ import main as evaluate_vqa
from training.med_vqa.finetune_run import FinetuneRun
from transformers import BertConfig, BertModel, BertTokenizerFast

from pipelines.cli import main as kg_targets
from tests.e2e.test_written_by_v0 import EXPECTED, MEASURES, digests
from training.nb_clip.run import NBClipRun
from training.run import main as train

SIZE = 32
"""Side of the drawn images after shrinking, in pixels."""
COMMON = ("--log.every=1", "--log.trackers=none", "--threads=1")
NB_CLIP = (
    "--model.name=local-dir:clip", "--data.train_store=stores/train", "--data.dev_store=stores/test",
    "--data.data_root=data", "--data.batch_size=8", "--optim.epochs=4", "--optim.lr=0.001", "--select=cui@2", *COMMON,
)  # fmt: skip
PRETRAIN = (
    "--task=med_vqa_pretrain", "--data.store=stores/train", "--data.data_root=data", "--data.batch_size=8",
    "--data.dev_share=0.2", "--data.cache=cache", "--model.preset=tiny",
    "--model.vision=local-dir:nb_clip/checkpoint", "--model.text=bert", "--model.text_layers=1",
    "--model.hidden_size=8", "--model.dropout=0", "--soft_labels=[{store: teacher/train}]", "--optim.epochs=2",
    "--optim.lr=0.01", *COMMON,
)  # fmt: skip
FINETUNE = (
    "--task=med_vqa_finetune", "--data.dataset=vqa_rad", "--data.data_root=vqa", "--data.batch_size=8",
    "--data.validation_share=0.2", "--data.cache=cache", "--model.preset=tiny",
    "--model.vision=local-dir:nb_clip/checkpoint", "--model.text=bert", "--model.text_layers=1",
    "--model.hidden_size=8", "--model.dropout=0", "--model.start=pretrained", "--optim.lr=0.02",
    *COMMON,
)  # fmt: skip

UNFINISHED = {
    "nb_clip_unfinished": [*NB_CLIP, "--output=nb_clip_unfinished"],
    "med_vqa_unfinished": [*FINETUNE, "--optim.epochs=3", "--output=med_vqa_unfinished"],
}


def write_text_tower(folder: Path, words: list[str]) -> None:
    """A random BERT with its tokenizer, in Hugging Face's layout."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64,
    )  # fmt: skip
    model = BertModel(config)
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)  # so that every word has its say
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)


def write_clip(folder: Path, text: Path) -> None:
    """A random CLIP that open_clip loads by ``local-dir:``; its text tower is laid out like BiomedCLIP's."""
    folder.mkdir()
    vision = {"image_size": SIZE, "layers": 1, "width": 8, "head_width": 4, "patch_size": 8}
    hf = {"hf_model_name": str(text), "hf_tokenizer_name": str(text), "hf_proj_type": "mlp",
          "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 24}  # fmt: skip
    config: dict[str, Any] = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": hf}
    (folder.parent / "fixture-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder.parent / "fixture-clip.json")
    torch.manual_seed(1)
    model = open_clip.create_model("fixture-clip", pretrained_text=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((text / name).read_bytes())
    config["text_cfg"] |= {"hf_model_name": ".", "hf_tokenizer_name": "."}
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    (folder.parent / "fixture-clip.json").unlink()


def run(*arguments: str) -> None:
    """One training run that ends as it should."""
    AcceleratorState._reset_state(reset_partial_state=True)
    if (code := train(list(arguments))) != 0:
        sys.exit(f"{' '.join(arguments)}: exit code {code}")


def run_until(step: int, task: Any, *arguments: str) -> None:
    """The same, asked to stop in a step in the middle of an epoch."""
    original = task.backward

    def backward(self: Any, batch: Any, number: int, measured: bool) -> Any:
        if number == step:
            signal.raise_signal(signal.SIGTERM)
        return original(self, batch, number, measured)

    task.backward = backward
    AcceleratorState._reset_state(reset_partial_state=True)
    code = train(list(arguments))
    task.backward = original
    if code != 143:
        sys.exit(f"{' '.join(arguments)}: exit code {code}, not 143")


def strengthen(folder: Path) -> None:
    """Save a Med-VQA model again with larger weights: so few steps teach it to answer the same to everything."""
    saved, answers = load_med_vqa(folder), load_answers(folder)
    for parameter in saved.model.parameters():
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)
    save_med_vqa(folder, saved.model, saved.tokenizer, answers)


def done(code: int) -> None:
    """A command's exit code must be 0."""
    if code != 0:
        sys.exit(code)


def main() -> None:
    """Fill the current folder, which must be empty."""
    if any(Path().iterdir()):
        sys.exit("the current folder is not empty")
    done(kg_targets(["demo-data", "--out", "data", "--images", "40"]))
    for path in sorted(Path("data/images").iterdir()):
        with Image.open(path) as image:
            small = image.convert("L").resize((SIZE, SIZE))
        small.save(path)
    build = ["build", "demo", "--data-root", "data", "--workers", "1"]
    done(kg_targets([*build, "--out", "stores"]))
    done(kg_targets([*build, "--out", "noise", "--scorer", "noise", "--split", "test"]))
    texts = " ".join(path.read_text(encoding="utf-8") for path in sorted(Path("data").glob("*.csv")))
    words = sorted(set(re.findall(r"[a-z]{3,}", texts.lower())) - set(WORDS))[:60]
    write_text_tower(Path("bert"), [*SPECIAL, *WORDS, ".", ",", *words])
    write_clip(Path("clip"), Path("bert"))
    teacher = ["--scorer", "teacher", "--teacher", "open_clip:clip", "--split", "train"]
    done(kg_targets([*build, "--out", "teacher", *teacher]))
    run(*NB_CLIP, "--output=nb_clip")
    run_until(5, NBClipRun, *UNFINISHED["nb_clip_unfinished"])
    write_questions(Path("vqa"), "train", 12)
    write_questions(Path("vqa"), "test", 4)
    run(*PRETRAIN, "--output=pretrained")
    run(*FINETUNE, "--optim.epochs=2", "--output=med_vqa")
    strengthen(Path("med_vqa/checkpoint"))
    run_until(8, FinetuneRun, *UNFINISHED["med_vqa_unfinished"])
    data = ["--model", "med_vqa", "--dataset", "vqa_rad", "--data-root", "vqa"]
    done(evaluate_vqa([*data, "--out", "predictions"]))
    for folder in ("cache", ".cache", "noise/train"):
        shutil.rmtree(folder, ignore_errors=True)
    record()


def record() -> None:
    """Write down what is read from a copy of the files; these stay as they are."""
    here = Path.cwd()
    content: dict[str, Any] = {"commands": UNFINISHED, "sha256": digests(here)}
    (here / EXPECTED).write_text(json.dumps(content))
    content["measured"] = {}
    for name, measure in MEASURES.items():
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(here, copy, dirs_exist_ok=True)
            os.chdir(copy)
            content["measured"][name] = measure()
            os.chdir(here)
    lines = json.dumps(content, ensure_ascii=False, indent=1).splitlines()
    (here / EXPECTED).write_text("\n".join(line.strip() for line in lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
