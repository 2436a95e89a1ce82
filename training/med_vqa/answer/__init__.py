"""Answering: candidates ranked exactly or from a short-list, or free generation."""

from training.med_vqa.answer.answerer import Answerer
from training.med_vqa.answer.modes import MODES, Answered

__all__ = ["MODES", "Answered", "Answerer"]
