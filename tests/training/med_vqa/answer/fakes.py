"""A tiny Med-VQA model with random weights and a vocabulary of a few words, for tests of answering."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import BertTokenizerFast

from training.med_vqa.model.build import build_med_vqa
from training.med_vqa.model.config import VQAModelConfig
from training.med_vqa.model.saving import Answers, MedVQA

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = (
    "yes", "no", "left", "right", "lung", "upper", "lobe", "of", "the", "what", "is", "where", "axial", "ct", "mri",
    "x", "ray", "-", "##s", "##al", "1", "2", "3", "5",
)  # fmt: skip
CANDIDATES = [
    "yes", "no", "left", "left lung", "left upper lobe", "left upper lobe of the lung", "right", "right lung",
    "ct", "x ray", "x rays", "mri", "3", "axial", "axial ct",
]  # fmt: skip


QUESTIONS = ["what is the", "", "where is the left upper lobe of the right lung", "is ct left", "mri"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors are tiny: threads would only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_tokenizer(folder: Path) -> Path:
    """A folder with a WordPiece tokenizer of ``SPECIAL`` and ``WORDS``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def tiny_med_vqa(folder: Path, seed: int = 0, **config: object) -> MedVQA:
    """The preset ``tiny`` in eval mode, its weights scaled up so that answers differ in likelihood."""
    torch.manual_seed(seed)
    tokenizer = str(write_tokenizer(folder))
    built = build_med_vqa(VQAModelConfig(preset="tiny", text=None, tokenizer=tokenizer, **config))  # type: ignore[arg-type]
    for parameter in built.model.parameters():
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)
    built.model.eval()
    return built


def answers(candidates: list[str] | None = None, knowledge: list[str] | None = None) -> Answers:
    """Candidates, which the gate knows too unless told otherwise."""
    listed = CANDIDATES if candidates is None else candidates
    return Answers(listed, listed if knowledge is None else knowledge, "strict", "tiny", "of a test")
