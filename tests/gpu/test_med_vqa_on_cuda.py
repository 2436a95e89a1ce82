"""Med-VQA on a GPU: the loss, its gradient and the ranking of a tiny model are those of the CPU."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.med_vqa.answer.fakes import CANDIDATES, answers, tiny_med_vqa
from training.med_vqa.answer import Answerer
from training.med_vqa.model.saving import MedVQA

QUESTIONS = ["what is the left lung", "where", "is the right lobe ct"]


@pytest.fixture
def med_vqa(tmp_path: Path) -> MedVQA:
    return tiny_med_vqa(tmp_path)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(len(QUESTIONS), 3, 32, 32, generator=torch.Generator().manual_seed(3))


def gradients(med_vqa: MedVQA, images: Tensor, device: str) -> tuple[float, dict[str, Tensor]]:
    model = copy.deepcopy(med_vqa.model).to(device)
    asked = med_vqa.tokenizer(QUESTIONS, padding=True, return_tensors="pt").to(device)
    said = med_vqa.tokenizer(CANDIDATES[: len(QUESTIONS)], padding=True, return_tensors="pt").to(device)
    known = med_vqa.tokenizer(CANDIDATES, add_special_tokens=False, padding=True, return_tensors="pt").to(
        device
    )
    loss = model(
        images=images.to(device),
        question_ids=asked["input_ids"],
        question_mask=asked["attention_mask"],
        answer_ids=said["input_ids"],
        answer_mask=said["attention_mask"],
        knowledge_ids=known["input_ids"],
        knowledge_mask=known["attention_mask"],
    )["loss"]
    loss.backward()
    found = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), found


def test_loss_and_gradient_are_those_of_the_cpu(med_vqa: MedVQA, images: Tensor) -> None:
    expected_loss, expected = gradients(med_vqa, images, "cpu")
    loss, found = gradients(med_vqa, images, "cuda")
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        scale = max(1e-3, float(expected[name].abs().max()))
        assert float((gradient - expected[name]).abs().max()) < 2e-3 * scale, name


@pytest.mark.parametrize("mode", ["exact", "winner", "shortlist", "generate"])
def test_answers_are_those_of_the_cpu(med_vqa: MedVQA, images: Tensor, mode: str) -> None:
    expected = Answerer(med_vqa, answers(), "cpu").answer(images, QUESTIONS, mode=mode, k=4)
    found = Answerer(med_vqa, answers(), "cuda").answer(images, QUESTIONS, mode=mode, k=4)
    assert [row[0].text for row in found] == [row[0].text for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row[0].log_likelihood == pytest.approx(other[0].log_likelihood, abs=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_gives_probabilities(med_vqa: MedVQA, images: Tensor, precision: str) -> None:
    found = Answerer(med_vqa, answers(), "cuda", precision).answer(images, QUESTIONS, top=99)
    for row in found:
        assert sum(one.probability for one in row) == pytest.approx(1, abs=1e-3)
