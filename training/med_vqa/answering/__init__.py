"""Answering: candidates ranked exactly or from a short-list, or free generation."""

from training.med_vqa.answering.answerer import Answerer
from training.med_vqa.answering.modes import MODES, Answered

__all__ = ["MODES", "Answered", "Answerer"]
