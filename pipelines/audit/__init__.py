"""Audits: how good targets and concepts are, measured without training."""
