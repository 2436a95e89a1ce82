"""Which images belong to one case (patient, study, article): what `group_id` says, as numbers."""

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
