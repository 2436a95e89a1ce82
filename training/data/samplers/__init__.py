"""Which images make up which step, one file per plan; the registry is ``training/data/sampler.py``."""
