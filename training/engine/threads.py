"""How many CPU threads compute: sums split over another number of threads round otherwise, so a run has to fix it."""

import os


def resolve_threads(asked: int) -> int:
    """CPU threads of this process: as asked, or for 0 its share of the cores that it may use.

    ``accelerate launch`` sets OMP_NUM_THREADS=1 and plain ``python`` does not: left alone, the same configuration
    and seed would give two curves. The cores are shared by the processes of this machine.
    """
    if asked:
        return asked
    try:
        cores = len(os.sched_getaffinity(0))  # fewer than cpu_count() under taskset or a batch system
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
