"""The older name of ``kg_targets.losses``' target policies and their registry; functions keep their names."""

from kg_targets.losses.policies import (
    Pairs,
    evidence_policy,
    fixed_mass_policy,
    identity_policy,
    identity_weight,
    mix_identity,
    pair_structure,
    similarity_targets,
    softmax_policy,
    uniform_policy,
)
from kg_targets.losses.registry import POLICIES, bind_policy

__all__ = [
    "POLICIES", "Pairs", "bind_policy", "evidence_policy", "fixed_mass_policy", "identity_policy", "identity_weight",
    "mix_identity", "pair_structure", "similarity_targets", "softmax_policy", "uniform_policy",
]  # fmt: skip
