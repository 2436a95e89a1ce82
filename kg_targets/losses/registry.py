"""The losses and the target policies by their names in a configuration; add one by a function and one line here.

Nothing here loads torch, which takes seconds, so that a configuration can be checked and explained before: a function
is named as ``module:function`` and imported on first use (a function itself will do as well).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from kg_targets.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from kg_targets.losses.contrastive import ContrastiveBatch

Function = str | Callable[..., Any]
"""A function, or where it is: ``package.module:function``."""


def _imported(function: Function) -> Callable[..., Any]:
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


@dataclass(frozen=True)
class Loss:
    """A loss: the function, and the inputs that it needs."""

    function: Function
    """Pure; its arguments depend on ``targets``, ``mask`` is a keyword; all as in ``kg_targets.losses.contrastive``."""
    targets: Literal["pairs", "policy", "similarity"]
    """pairs: the true pairs alone, ``f(logits_i2t, logits_t2i, offset)``. policy: the policy's P over each row,
    ``f(logits_i2t, logits_t2i, targets_i2t, targets_t2i)``. similarity: S itself, ``f(logits_i2t, targets_i2t)``."""
    summary: str
    """A few words for ``--help``."""
    scaled: bool = True
    """Logits are multiplied by exp(logit_scale); otherwise they are cosines and the scale is not trained."""
    biased: bool = False
    """Logits get the model's learnable ``logit_bias``."""

    @property
    def soft(self) -> bool:
        """Whether the store's similarities are needed."""
        return self.targets != "pairs"

    def load(self) -> "Callable[..., Tensor]":
        """The function, with torch."""
        return _imported(self.function)

    def compute(self, batch: "ContrastiveBatch") -> "Tensor":
        """The loss of a process's rows of a batch, scalar float32."""
        return self.load()(*batch.arguments(self.targets), mask=batch.mask)


@dataclass(frozen=True)
class TargetPolicy:
    """A target policy: the function S, parameters, ``pairs=`` → P, and the names of its parameters."""

    function: Function
    parameters: tuple[Literal["temperature", "alpha", "threshold", "saturation"], ...]
    """Its keyword arguments, each a field of the configuration."""
    temperature: float = 1.0
    """Default temperature, in units of S."""
    threshold: float | None = None
    """Default threshold, in units of S; None for the store's own (the p95 of its similarities)."""
    within_case: bool = False
    """Soft mass goes to the other images of the case, instead of to those of other cases."""
    control: bool = False
    """A control for knowledge: it does not look at S."""


LOSSES: dict[str, Loss] = {
    "semantic_matching": Loss(
        "kg_targets.losses.contrastive:semantic_matching_loss", "policy", "soft targets by the policy"
    ),
    "info_nce": Loss("kg_targets.losses.contrastive:info_nce_loss", "pairs", "CLIP's baseline"),
    "mse": Loss("kg_targets.losses.contrastive:mse_loss", "similarity", "similarities", scaled=False),
    "sigmoid": Loss("kg_targets.losses.contrastive:sigmoid_loss", "similarity", "similarities", biased=True),
}
POLICIES: dict[str, TargetPolicy] = {
    "softmax": TargetPolicy("kg_targets.losses.policies:softmax_policy", ("temperature",)),
    "fixed_mass": TargetPolicy(
        "kg_targets.losses.policies:fixed_mass_policy",
        ("alpha", "temperature", "threshold"),
        temperature=0.05,
        threshold=0.0,
    ),
    "fixed_mass_softmax": TargetPolicy(
        "kg_targets.losses.policies:fixed_mass_softmax_policy", ("alpha", "temperature"), temperature=0.05
    ),
    "evidence": TargetPolicy(
        "kg_targets.losses.policies:evidence_policy", ("threshold", "alpha", "saturation")
    ),
    "identity": TargetPolicy("kg_targets.losses.policies:identity_policy", ()),
    "uniform": TargetPolicy("kg_targets.losses.policies:uniform_policy", ("alpha",), control=True),
    "same_case": TargetPolicy(
        "kg_targets.losses.policies:uniform_policy", ("alpha",), within_case=True, control=True
    ),
}


def bind_policy(
    name: str, temperature: float, alpha: float, threshold: float, saturation: float
) -> "Callable[..., Tensor]":
    """The policy ``name`` with those of the parameters that it has: S and ``pairs=`` to P.

    Raises:
        ConfigError: no such policy.
    """
    if name not in POLICIES:
        raise ConfigError(f'policy.name: "{name}" is not one of {", ".join(POLICIES)}')
    given = {"temperature": temperature, "alpha": alpha, "threshold": threshold, "saturation": saturation}
    policy = POLICIES[name]
    return partial(_imported(policy.function), **{field: given[field] for field in policy.parameters})
