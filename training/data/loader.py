"""Batches that are decoded in background threads while the step before them runs.

What a batch holds depends neither on the number of threads nor on their order: each image has its place in the plan
of the sampler. An image that turns out to be broken is counted and replaced by the image that the plan shows at the
same place of the next step (or the one after, until one can be read; in an epoch of one step, by the next image of
the batch). So no batch shows an image twice, whatever the number of processes, but an epoch may.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.cores import own_cores
from training.data.dataset import Batch, CaptionedImages
from training.data.decode import BrokenImage
from training.data.samplers.base import Sampler
from training.errors import DataError

CHUNKS = 4
"""Pieces of a batch per thread: enough that no thread waits long for the last one."""


class Loader:
    """Batches of a sampler's plan, in its order.

    Args:
        images: what to read.
        sampler: this process's plan.
        workers: threads that decode; 0 decodes when a batch is asked for; None: one for each core of this process.
            Images in memory need none.
        prefetch: batches decoded ahead of the one in use: decoding waits once there are as many.
        pin: put pixels where a GPU can fetch them while it computes.
    """

    def __init__(
        self,
        images: CaptionedImages,
        sampler: Sampler,
        workers: int | None = 0,
        prefetch: int = 2,
        pin: bool = False,
    ) -> None:
        self.images, self.sampler = images, sampler
        self._workers = 0 if images.in_memory else own_cores() if workers is None else workers
        self._prefetch, self._pin = prefetch, pin
        self.waited = 0.0
        """Seconds that the consumer has waited for batches so far."""

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Batches after the first ``skip``, which are not read. Closing the iterator stops its threads.

        Raises:
            DataError: more images are broken than allowed, or an image cannot be read for want of a package.
        """
        plan, steps = _Plan(self.sampler.epoch(epoch), self.sampler.steps), self.sampler.steps
        stop, ahead = Event(), deque[_Pending]()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="loader") if self._workers else None
        coming = steps if self.images.in_memory else skip
        try:
            for step in range(skip, steps):
                while coming < steps and len(ahead) <= (self._prefetch if pool else 0):
                    ahead.append(self._begin(plan, coming, pool, stop))
                    coming += 1
                began = time.perf_counter()
                batch = (
                    self._finish(plan, ahead.popleft()) if ahead else self.images.batch(plan[step], self._pin)
                )
                self.waited += time.perf_counter() - began
                yield batch
        finally:
            stop.set()
            if pool:
                pool.shutdown(cancel_futures=True)

    def state(self) -> dict[str, Any]:
        """State for JSON: images that were found broken, by store row."""
        return {"broken": [[row, problem] for row, problem in self.images.found.items()]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Know the broken images of ``state`` as if they had been found here."""
        self.images.found.update({int(row): str(problem) for row, problem in state["broken"]})

    def _begin(self, plan: "_Plan", step: int, pool: ThreadPoolExecutor | None, stop: Event) -> "_Pending":
        positions = plan[step].copy()
        pending = _Pending(step, positions, self.images.empty(len(positions), self._pin), [])
        places = self.images.by_locality(positions)
        if pool is None:
            pending.chunks.append(partial(self._decode, pending, places, stop))
            return pending
        size = -(-len(places) // (CHUNKS * self._workers))
        for start in range(0, len(places), size):
            future = pool.submit(self._decode, pending, places[start : start + size], stop)
            pending.chunks.append(future.result)
        return pending

    def _decode(self, pending: "_Pending", places: list[int], stop: Event) -> dict[int, str]:
        """Fill places of a batch; what is wrong with those that cannot be."""
        out, problems = pending.pixels.numpy(), {}
        for place in places:
            if stop.is_set():
                break
            try:
                out[place] = self.images.decode(int(pending.positions[place]))
            except BrokenImage as error:
                problems[place] = str(error)
        return problems

    def _finish(self, plan: "_Plan", pending: "_Pending") -> Batch:
        """Count what is broken and put others in its place, in the batch's order."""
        problems: dict[int, str] = {}
        for chunk in pending.chunks:
            problems.update(chunk())
        for place in sorted(problems):
            self.images.note_broken(int(pending.positions[place]), problems[place])
            pending.positions[place] = self._replace(plan, pending, place)
        return self.images.with_pixels(pending.positions, pending.pixels)

    def _replace(self, plan: "_Plan", pending: "_Pending", place: int) -> int:
        for position in plan.others(pending.step, place):
            try:
                pending.pixels.numpy()[place] = self.images.decode(position)
            except BrokenImage as error:
                self.images.note_broken(position, str(error))
                continue
            return position
        raise DataError(f"no image can be read: {'; '.join(self.images.broken[:3])}")


@dataclass(frozen=True)
class _Pending:
    """A batch that is being decoded."""

    step: int
    positions: NDArray[np.int64]
    pixels: Tensor
    chunks: list[Callable[[], dict[int, str]]]
    """Each gives what is wrong with its places, once it has filled the others."""


class _Plan:
    """The positions of an epoch's steps, asked for only as far as needed."""

    def __init__(self, steps: Iterator[NDArray[np.int64]], length: int) -> None:
        self._coming, self._known, self._length = steps, list[NDArray[np.int64]](), length

    def __getitem__(self, step: int) -> NDArray[np.int64]:
        while len(self._known) <= step:
            self._known.append(next(self._coming))
        return self._known[step]

    def others(self, step: int, place: int) -> Iterator[int]:
        """Substitutes for a place: the same place of the other steps, then the other places of the step."""
        for later in range(1, self._length):
            yield int(self[(step + later) % self._length][place])
        here = self[step]
        for later in range(1, len(here)):
            yield int(here[(place + later) % len(here)])
