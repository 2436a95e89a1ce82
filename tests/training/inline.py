"""An executor without threads, for what is one thread's alone."""

from concurrent.futures import Executor, Future
from typing import Any


class Inline(Executor):
    """Does the work when it is submitted; the fake device is the calling thread's alone."""

    def __init__(self, *given: Any, **named: Any) -> None:
        pass

    def submit(self, work: Any, /, *given: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*given, **named))
        return done
