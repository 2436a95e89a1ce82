"""Cases (patient, study, article) of images as numbers, from the store's `group_id`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def case_codes(group_ids: Sequence[str]) -> NDArray[np.int64]:
    """One integer per case, from 0; an image without ``group_id`` is a case of its own. int64 [N]."""
    names = [group or f"\0{row}" for row, group in enumerate(group_ids)]
    codes: NDArray[np.int64] = np.unique(np.array(names, dtype=object), return_inverse=True)[1].astype(
        np.int64
    )
    return codes


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
