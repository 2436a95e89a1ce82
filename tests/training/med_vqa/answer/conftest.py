"""One tiny model and five images for all tests of answering."""

import pytest
import torch
from torch import Tensor

from tests.training.med_vqa.answer.fakes import QUESTIONS, tiny_med_vqa
from training.med_vqa.model.saving import MedVQA


@pytest.fixture(scope="module")
def med_vqa(tmp_path_factory: pytest.TempPathFactory) -> MedVQA:
    return tiny_med_vqa(tmp_path_factory.mktemp("answering"))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(len(QUESTIONS), 3, 32, 32, generator=torch.Generator().manual_seed(1))
