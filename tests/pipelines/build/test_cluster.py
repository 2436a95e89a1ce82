"""Builds on a Ray cluster of two nodes in this process's tree: whatever dies, the store has the pool's bytes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kg_targets.errors import ConfigError, DataError
from pipelines.build.cluster import map_on_cluster
from pipelines.cli import main
from tests.builds import RICH, digests, write_split


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    pytest.importorskip("ray", reason="ray is not installed: pip install 'kg-targets[cluster]'")
    import ray
    from ray.cluster_utils import Cluster

    memory = 100 * 2**20
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": memory},
    )
    made.add_node(num_cpus=1, object_store_memory=memory)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def _nothing() -> None:
    pass


def _square(given: tuple[int, str]) -> int:
    """Slow; the first to reach item 7 dies as of the kernel's out-of-memory killer."""
    number, folder = given
    died = Path(folder, "died")
    if number == 7 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 40:
        raise DataError("row 40 is malformed")
    time.sleep(0.02)
    return number * number


def test_a_killed_actor_changes_no_order_and_an_error_of_the_work_is_raised_as_it_is(
    cluster: Any, tmp_path: Path
) -> None:
    told: list[str] = []
    items = ((number, str(tmp_path)) for number in range(41))
    found = map_on_cluster(_square, items, cluster.address, 2, _nothing, (), told.append)
    assert [next(found) for _ in range(40)] == [number * number for number in range(40)]
    with pytest.raises(DataError, match="row 40 is malformed"):
        next(found)
    assert len(told) == 1 and "a Ray actor was lost" in told[0]


def test_what_kills_every_actor_ends_in_one_line(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.build.cluster._LOSSES", 1)
    with pytest.raises(ConfigError, match="actors died of the same work"):
        list(map_on_cluster(os._exit, [1], cluster.address, 2, _nothing, (), lambda line: None))


def test_a_build_survives_the_death_of_its_driver_and_then_of_a_node(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "dev", "test"):
        write_split(tmp_path / "data", split, RICH * 150)
    given = ["build", "demo", "--split", "train", "--data-root", str(tmp_path / "data")]
    given += ["--rows-per-shard", "4", "--top-k", "3"]
    assert main([*given, "--out", str(tmp_path / "pool"), "--workers", "2"]) == 0
    given += ["--out", str(tmp_path / "ray"), "--executor", "ray", "--ray-address", cluster.address]

    def staged() -> int:
        return len([*(tmp_path / "ray").rglob("staged-mentions-*")])

    def after_some(parts: int, kill: Any, alive: Any) -> None:
        while staged() < parts and alive():
            time.sleep(0.002)
        kill()

    driver = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *given], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    after_some(20, driver.kill, lambda: driver.poll() is None)
    assert driver.wait() == -signal.SIGKILL, driver.communicate()[0]

    before = staged()
    assert 0 < before < 525 and not (tmp_path / "ray" / "train").exists()
    node = cluster.list_all_nodes()[-1]
    killer = threading.Thread(
        target=after_some,
        args=(
            20,
            lambda: cluster.remove_node(node, allow_graceful=False),
            lambda: not (tmp_path / "ray" / "train").exists(),
        ),
    )
    for path in (tmp_path / "ray").rglob("staged-mentions-*"):
        path.unlink()
    killer.start()
    assert main(given) == 0
    killer.join()
    assert digests(tmp_path / "ray" / "train") == digests(tmp_path / "pool" / "train")
    if "a Ray actor was lost" not in capsys.readouterr().out:
        pytest.skip("the bytes are right, but the node was gone too late to be missed")


def test_without_ray_the_build_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_split(tmp_path / "data", "train", RICH)
    given = ["build", "demo", "--split", "train", "--data-root", str(tmp_path / "data")]
    assert main([*given, "--out", str(tmp_path / "out"), "--executor", "ray"]) == 2
    assert capsys.readouterr().err.strip().endswith("pip install 'kg-targets[cluster]'")
    assert not (tmp_path / "out" / "train").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "dask"], "--executor dask is not one of processes, ray"),
        (["--ray-address", "auto"], "--ray-address needs --executor ray"),
        (["--executor", "ray", "--scorer", "teacher", "--teacher", "clip"], "reads captions"),
    ],
)
def test_options_that_contradict_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "demo", *options]) == 2
    assert message in capsys.readouterr().err
