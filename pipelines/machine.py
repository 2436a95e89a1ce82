"""What the machine offers to this process."""

import os
import sys


def available_cores() -> int:
    """Cores that this process may use; all of the machine's where the system (macOS, Windows) cannot tell."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
