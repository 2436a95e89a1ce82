"""Leakage: what two data sets, or two parts of one, share."""
