"""Fine-tuning of a Med-VQA model on questions and answers."""
