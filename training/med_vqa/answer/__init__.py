"""Answering: candidates ranked exactly or from a short-list, or free generation."""

from training.med_vqa.answer.answerer import Answerer, Saved
from training.med_vqa.answer.modes import MODES, MODES_HELP, Answer

__all__ = ["MODES", "MODES_HELP", "Answer", "Answerer", "Saved"]
