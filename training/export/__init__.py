"""A finished run as a model folder for others: open_clip weights and a model card."""
