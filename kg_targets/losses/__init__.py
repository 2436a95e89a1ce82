"""Target policies and contrastive losses as pure functions of torch tensors, for any training loop (methods.md §1.4).

``contrastive`` has the losses and the gathering of all ranks' features, ``policies`` what turns similarities into
targets, ``registry`` the names of losses and policies in a configuration. Only the registry does without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kg_targets.losses.contrastive import info_nce_loss as info_nce_loss
    from kg_targets.losses.contrastive import mse_loss as mse_loss
    from kg_targets.losses.contrastive import semantic_matching_loss as semantic_matching_loss
    from kg_targets.losses.contrastive import sigmoid_loss as sigmoid_loss
    from kg_targets.losses.policies import evidence_policy as evidence_policy
    from kg_targets.losses.policies import fixed_mass_policy as fixed_mass_policy
    from kg_targets.losses.policies import softmax_policy as softmax_policy

__all__ = [
    "evidence_policy",
    "fixed_mass_policy",
    "info_nce_loss",
    "mse_loss",
    "semantic_matching_loss",
    "sigmoid_loss",
    "softmax_policy",
]


def __getattr__(name: str) -> Any:
    """Import a function with torch on first use: a configuration only needs the names of the registry."""
    if name in __all__:
        module = "policies" if name.endswith("_policy") else "contrastive"
        return getattr(import_module(f"kg_targets.losses.{module}"), name)
    raise AttributeError(f"module 'kg_targets.losses' has no attribute {name!r}")
