"""Cases (patient, study, article) of images as numbers, from the store's `group_id`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kg_targets.store.block import case_codes as case_codes


def rows_of_share(group_ids: Sequence[str], share: float) -> NDArray[np.int64]:
    """Rows of a share of the cases, at least one; a smaller share's cases are among a larger one's.

    Args:
        group_ids: case of each row, length N.
        share: in (0, 1]; 1 gives all rows.

    Returns:
        int64 ``[M]``, ascending.
    """
    codes = case_codes(group_ids)
    cases = int(codes.max()) + 1
    chosen = np.random.default_rng(0).permutation(cases)[: max(1, round(share * cases))]
    return np.flatnonzero(np.isin(codes, chosen))
