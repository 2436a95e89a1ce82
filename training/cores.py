"""The CPU cores that this process may use for itself."""

import os


def own_cores() -> int:
    """At least 1: those it may run on, shared by the processes that a launcher started on this machine."""
    try:
        cores = len(os.sched_getaffinity(0))  # fewer than cpu_count() under taskset or a batch system
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
