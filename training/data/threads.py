"""Work in threads that ends when the caller does. Decoding and NumPy's copies release the interpreter lock."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def for_each(work: Callable[[int], Any], items: Sequence[int]) -> None:
    """Call ``work`` on every item, in threads, roughly in order; an error or Ctrl-C drops what has not begun.

    Raises:
        Exception: what the first failing call raised.
    """
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="images")
    try:
        for _ in pool.map(work, items):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
