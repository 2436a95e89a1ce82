"""Where work runs. An executor knows nothing of the work: it maps a function over items and keeps their order."""

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    initializer: Callable[..., None],
    initargs: tuple[Any, ...],
) -> Iterator[Result]:
    """Results in the order of ``items``, at most ``2·workers`` items in flight, so that memory stays bounded.

    With one worker everything happens in this process. Ctrl-C reaches this process only; workers end with the pool.
    Where processes can be forked, the initializer runs once, here, and workers inherit what it prepared.
    """
    can_fork = sys.platform == "linux"  # elsewhere forking a process with threads is unsafe or impossible
    if workers == 1 or can_fork:
        initializer(*initargs)
    if workers == 1:
        yield from map(function, items)
        return
    prepare = (_nothing,) if can_fork else (initializer, *initargs)
    context = multiprocessing.get_context("fork" if can_fork else None)
    pool = ProcessPoolExecutor(workers, context, initializer=_ignore_interrupt_then, initargs=prepare)
    try:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _nothing() -> None:
    """Prepares nothing: a forked worker has everything already."""


def _ignore_interrupt_then(initializer: Callable[..., None], *initargs: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    initializer(*initargs)
