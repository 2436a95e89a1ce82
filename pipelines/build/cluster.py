"""Work on a Ray cluster: the same function over the same items as the process pool, by one actor per core.

Nodes share the driver's file system and code. Ray is an extra: ``pip install 'kg-targets[cluster]'``.
"""

import os
import socket
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kg_targets.errors import ConfigError
from pipelines.build.executors import Item, Result, Say
from pipelines.build.write import code_digest

LOCAL = "local"
_LOSSES = 5
"""Actors that may be lost with one item before the item itself is held to be the reason."""
_PREPARING = -1
"""Number of what is no item: an actor's preparation."""


@contextmanager
def connected(address: str, cores: int) -> Iterator[Any]:
    """The module ``ray``, connected to a cluster, which is left as it was; ``local`` starts one here and ends it.

    Raises:
        ConfigError: ray is not installed, or no cluster answers.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before the import: nothing is reported to anyone
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--executor ray needs an extra: pip install 'kg-targets[cluster]'") from error
    with ExitStack() as stack:
        if not ray.is_initialized():
            quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
            if address == LOCAL:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp"))
                quiet |= {"num_cpus": cores, "include_dashboard": False, "_temp_dir": folder}
            try:
                ray.init(address=address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"--ray-address {address}: no Ray cluster answers there ({type(error).__name__})"
                ) from error
            stack.callback(ray.shutdown)
        yield ray


class Worker:
    """One core's share of the work; runs in an actor."""

    def prepare(self, folder: str, code: str, initializer: Callable[..., None], initargs: Any) -> None:
        """Stand where the driver stands, check that both run the same code, and prepare for the work.

        Raises:
            ConfigError: the node lacks the driver's folder, or has other code.
        """
        node = socket.gethostname()
        if not Path(folder).is_dir():
            raise ConfigError(
                f"node {node} has no folder {folder}: the nodes must share the driver's file system"
            )
        if code_digest() != code:
            raise ConfigError(
                f"node {node} has another version of kg-targets than the driver: install the same"
            )
        os.chdir(folder)
        initializer(*initargs)

    def work(self, function: Callable[[Item], Result], item: Item) -> Result:
        """The function's result."""
        return function(item)


def map_on_cluster(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    address: str,
    cores: int,
    initializer: Callable[..., None],
    initargs: tuple[Any, ...],
    say: Say,
) -> Generator[Result, None, None]:
    """Results in the order of ``items``, as ``map_in_order`` gives them; work that was lost is done again.

    Each core of the cluster has one actor, which holds at most two items; at most four items per actor are under way
    or wait for one before them. An actor that dies, alone or with its node, is replaced as soon as a core is free, and
    others do what it had. ``initargs`` are stored once per node: actors share their arrays and mapped files and copy
    the rest.

    Raises:
        ConfigError: no cluster answers, a node differs from the driver, or actors keep dying of one item.
    """
    with connected(address, cores) as ray:
        crew = _Crew(ray, (str(Path.cwd()), code_digest(), initializer, ray.put(list(initargs))), say)
        try:
            yield from _in_order(crew, function, items)
        finally:
            crew.end()


def _in_order(
    crew: "_Crew", function: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[Result, None, None]:
    numbered = enumerate(items)
    finished: dict[int, Result | _Failure] = {}
    following, more = 0, True
    while more or crew.under_way():
        if not crew.has_place() and not crew.under_way():
            crew.take()  # the first actor is ready
        while more and crew.has_place() and crew.given - following < 4 * crew.size:
            number, item = next(numbered, (0, None))
            more = item is not None
            if item is not None:
                crew.give(number, function, item)
        if crew.under_way():
            finished.update(crew.take())
        while following in finished:
            result = finished.pop(following)
            if isinstance(result, _Failure):
                raise result.error from None
            yield result
            following += 1


@dataclass(frozen=True)
class _Failure:
    """What an item's work raised, in the place of its result."""

    error: BaseException


class _Crew:
    """The actors, and what each of them has to do."""

    def __init__(self, ray: Any, prepare: tuple[Any, ...], say: Say) -> None:
        self._ray, self._prepare, self._say = ray, prepare, say
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Worker)
        self.size = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.given = 0
        self._calls: dict[
            Any, tuple[Any, int | None]
        ] = {}  # the actor, and the item's number: None while it prepares
        self._places: list[Any] = []  # actors that can take an item, once for each item
        self._work: dict[int, tuple[Any, Any]] = {}
        self._losses: Counter[int] = Counter()
        self._again: deque[int] = deque()
        for _ in range(self.size):
            self._start()

    def _start(self) -> None:
        """Ask for an actor, which begins when a core is free."""
        actor = self._actor.remote()
        self._calls[actor.prepare.remote(*self._prepare)] = actor, None

    def has_place(self) -> bool:
        """Whether an actor could take one more item."""
        return bool(self._places)

    def under_way(self) -> bool:
        """Whether a result is still to come."""
        return bool(self._work)

    def give(self, number: int, function: Callable[[Any], Any], item: Any) -> None:
        """Give an item to an actor that has a place."""
        self._work[number] = function, item
        self.given += 1
        self._submit(number)

    def _submit(self, number: int) -> None:
        actor = self._places.pop(0)
        self._calls[actor.work.remote(*self._work[number])] = actor, number

    def take(self) -> dict[int, Any]:
        """Wait for the next event; the result that came, if it was one, by its number."""
        while self._again and self._places:
            self._submit(self._again.popleft())
        (call,), _ = self._ray.wait(list(self._calls), num_returns=1)
        actor, number = self._calls.pop(call)
        try:
            result = self._ray.get(call)
        except (
            self._ray.exceptions.RayTaskError
        ) as error:  # the function's own error, told when it is its turn
            if number is None:
                raise error.cause from None
            result = _Failure(error.cause)
        except self._ray.exceptions.RayError:
            self._lose(actor, number)
            return {}
        self._places += [actor] * (1 if number is not None else 2)
        if number is None:
            del self._losses[_PREPARING]
            return {}
        del self._work[number]
        return {number: result}

    def _lose(self, actor: Any, number: int | None) -> None:
        """Take an actor's work back, and ask for another in its place."""
        lost = [call for call, (other, _) in self._calls.items() if other is actor]
        numbers = [
            each for each in (number, *(self._calls.pop(call)[1] for call in lost)) if each is not None
        ]
        self._places = [other for other in self._places if other is not actor]
        self._ray.kill(actor)
        self._losses.update([_PREPARING] if number is None else numbers)
        if max(self._losses.values()) > _LOSSES:
            raise ConfigError(
                f"{_LOSSES + 1} Ray actors died of the same work: either memory ran out (give each core more of it), "
                "or kg-targets is not installed on each node"
            )
        self._again.extend(sorted(numbers))
        self._say(f"warning: a Ray actor was lost; {len(numbers)} of its parts will be read again")
        self._start()

    def end(self) -> None:
        """End all actors."""
        for actor in [*(actor for actor, _ in self._calls.values()), *self._places]:
            self._ray.kill(actor)
