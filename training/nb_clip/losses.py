"""The older name of ``kg_targets.losses``' contrastive losses and their registry; it keeps working."""

from kg_targets.losses.contrastive import (
    ContrastiveBatch as ContrastiveBatch,
)
from kg_targets.losses.contrastive import (
    info_nce_loss as info_nce_loss,
)
from kg_targets.losses.contrastive import (
    kl_to_targets as kl_to_targets,
)
from kg_targets.losses.contrastive import (
    mse_loss as mse_loss,
)
from kg_targets.losses.contrastive import (
    semantic_matching_loss as semantic_matching_loss,
)
from kg_targets.losses.contrastive import (
    sigmoid_loss as sigmoid_loss,
)
from kg_targets.losses.contrastive import (
    target_entropy as target_entropy,
)
from kg_targets.losses.registry import LOSSES as LOSSES
from kg_targets.losses.registry import Loss as Loss
