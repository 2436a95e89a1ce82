"""Evaluation of a fine-tuned Med-VQA model on one part of a data set."""
