"""Target policies and contrastive losses as pure functions of torch tensors, for any training loop (methods.md §1.4).

``contrastive`` has the losses and the gathering of all ranks' features, ``chunked`` a loss in ranges of rows for large
batches, ``policies`` what turns similarities into targets, ``registry`` the names of losses and policies in a
configuration. torch must be installed (``pip install 'kg-targets[train]'``), and is loaded when a function is first
used. Training loops that use it: docs/losses.md.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from kg_targets.errors import MissingExtraError
from kg_targets.lazy import lazy_names

if TYPE_CHECKING:
    from kg_targets.losses.chunked import chunked_loss as chunked_loss
    from kg_targets.losses.contrastive import gather_features as gather_features
    from kg_targets.losses.contrastive import gather_rows as gather_rows
    from kg_targets.losses.contrastive import info_nce_loss as info_nce_loss
    from kg_targets.losses.contrastive import mse_loss as mse_loss
    from kg_targets.losses.contrastive import semantic_matching_loss as semantic_matching_loss
    from kg_targets.losses.contrastive import sigmoid_loss as sigmoid_loss
    from kg_targets.losses.policies import evidence_policy as evidence_policy
    from kg_targets.losses.policies import fixed_mass_policy as fixed_mass_policy
    from kg_targets.losses.policies import fixed_mass_softmax_policy as fixed_mass_softmax_policy
    from kg_targets.losses.policies import pair_structure as pair_structure
    from kg_targets.losses.policies import similarity_targets as similarity_targets
    from kg_targets.losses.policies import softmax_policy as softmax_policy

if find_spec("torch") is None:
    raise MissingExtraError("kg_targets.losses needs torch: pip install 'kg-targets[train]'", name="torch")

_POLICIES = (
    "evidence_policy",
    "fixed_mass_policy",
    "fixed_mass_softmax_policy",
    "pair_structure",
    "similarity_targets",
    "softmax_policy",
)
_LOSSES = (
    "gather_features",
    "gather_rows",
    "info_nce_loss",
    "mse_loss",
    "semantic_matching_loss",
    "sigmoid_loss",
)
__all__ = ["chunked_loss", *_LOSSES, *_POLICIES]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "chunked_loss": "kg_targets.losses.chunked",
        **dict.fromkeys(_LOSSES, "kg_targets.losses.contrastive"),
        **dict.fromkeys(_POLICIES, "kg_targets.losses.policies"),
    },
)
