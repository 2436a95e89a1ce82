"""The older name of ``kg_targets.losses``' target policies and their registry; functions keep their names."""

from kg_targets.losses.policies import (
    Pairs as Pairs,
)
from kg_targets.losses.policies import (
    evidence_policy as evidence_policy,
)
from kg_targets.losses.policies import (
    fixed_mass_policy as fixed_mass_policy,
)
from kg_targets.losses.policies import (
    identity_policy as identity_policy,
)
from kg_targets.losses.policies import (
    identity_weight as identity_weight,
)
from kg_targets.losses.policies import (
    mix_identity as mix_identity,
)
from kg_targets.losses.policies import (
    pair_structure as pair_structure,
)
from kg_targets.losses.policies import (
    similarity_targets as similarity_targets,
)
from kg_targets.losses.policies import (
    softmax_policy as softmax_policy,
)
from kg_targets.losses.policies import (
    uniform_policy as uniform_policy,
)
from kg_targets.losses.registry import POLICIES as POLICIES
from kg_targets.losses.registry import bind_policy as bind_policy
