"""A real Ray cluster on this machine: faults, mistakes, other versions, and what a person sees."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ray_faults import Place, scenario
from resurgence_harness.errors import UserError
from resurgence_harness.executing.ray_pool import RayPool, Resources
from resurgence_harness.executing.running import run
from resurgence_harness.executing.schedule import Schedule
from resurgence_harness.storing import Store
from tests.executing import light_work
from tests.executing.light_work import ABOUT, Chain, chain
from tests.executing.test_running import Noted

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A head and two nodes of one CPU each."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])  # for the nodes
    made = Place(nodes=2)
    yield made
    made.close()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_actor_a_node_and_the_driver_are_killed(place: Place, tmp_path: Path, seed: int) -> None:
    """Everything is built once, nothing is unreadable, and the bytes are those of an undisturbed run."""
    row = scenario(seed, place, tmp_path, cells=2, seconds=0.05)
    assert row.good, row
    assert row.begun_again <= 2 * 3  # at most the builds that ran at the three kills


@pytest.fixture
def connected(place: Place) -> Iterator[Any]:
    """This process as a driver of the cluster."""
    import ray

    yield ray
    ray.shutdown()


def built(place: Place, store: Store, opening: Any, *, cells: int = 1, **resources: Any) -> Noted:
    """Build light cells on the cluster."""
    pool, noted = RayPool(opening, address=place.address, device="cpu", resources=Resources(**resources)), Noted()
    outcome = run(pool, Schedule(Chain(store, cell) for cell in range(cells)), noted, mine=ABOUT)
    assert outcome.failed == {} and outcome.lost == 0
    return noted


def test_one_actor_for_each_cpu_and_nothing_but_keys_in_the_object_store(
    place: Place, connected: Any, tmp_path: Path
) -> None:
    """Names that a person understands, and an object store that stays empty."""
    store, used = Store(tmp_path / "store"), []

    class Watching(Noted):
        def show(self, workers: list[Any], schedule: Schedule) -> None:
            super().show(workers, schedule)
            has = connected.cluster_resources()["object_store_memory"]
            used.append(has - connected.available_resources().get("object_store_memory", has))
            self.names = [worker.name for worker in workers]

    pool, noted = (
        RayPool(
            partial(light_work.opened, str(store.root)), address=place.address, device="cpu", resources=Resources()
        ),
        Watching(),
    )
    run(pool, Schedule([Chain(store, 0)]), noted, mine=ABOUT)
    assert noted.most == 2 and noted.names == ["worker 0", "worker 1"]
    assert max(used) < 1_000_000
    assert set(store.keys()) == {job.order.key for job in chain(0)}


def test_fewer_workers_than_fit_and_none_that_fits(place: Place, connected: Any, tmp_path: Path) -> None:
    """--workers is a limit; a worker that no node can hold is a mistake."""
    store = Store(tmp_path / "store")
    assert built(place, store, partial(light_work.opened, str(store.root)), workers=1).most == 1
    for too_much in ({"cpus": 64.0}, {"memory": 1e6}):
        with pytest.raises(UserError, match="no room for a worker"):
            built(place, store, partial(light_work.opened, str(store.root)), **too_much)
    with pytest.raises(UserError, match="--workers is 0"):
        Resources(workers=0)


def test_a_node_without_this_package_is_a_sentence(place: Place, connected: Any, tmp_path: Path) -> None:
    """The module that a worker needs cannot be imported there."""
    script = tmp_path / "elsewhere_only.py"
    script.write_text("def opening():\n    raise AssertionError\n", encoding="utf-8")
    sys.path.insert(0, str(tmp_path))
    try:
        import elsewhere_only  # type: ignore[import-not-found]

        with pytest.raises(UserError, match="does not have resurgence-harness, or not this version"):
            built(place, Store(tmp_path / "store"), elsewhere_only.opening)
    finally:
        sys.path.remove(str(tmp_path))


def test_another_version_on_a_node_is_a_sentence(place: Place, connected: Any, tmp_path: Path) -> None:
    """Two versions must not write one store."""
    store, other = Store(tmp_path / "store"), ABOUT._replace(package="0.0.1")
    with pytest.raises(UserError, match="another version of resurgence-harness than this machine"):
        built(place, store, partial(light_work.opened, str(store.root), 0.01, other))
    assert store.keys() == []


@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "no-such-host.invalid:6379"])
def test_an_address_that_nobody_answers_is_a_sentence(address: str, tmp_path: Path) -> None:
    """Within seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        there = address.format(free=free.getsockname()[1])
    pool = RayPool(partial(light_work.opened, str(tmp_path)), address=there, device="cpu", resources=Resources())
    with pytest.raises(UserError, match=f"No Ray cluster answers at {there}"):
        run(pool, Schedule([]), Noted(), mine=ABOUT)


def test_an_address_of_ray_client_is_refused(tmp_path: Path) -> None:
    """It would send every call through a proxy; `ray job submit` is the way from outside."""
    pool = RayPool(partial(light_work.opened, str(tmp_path)), address="ray://a:1", device="cpu", resources=Resources())
    with pytest.raises(UserError, match="is not that of a cluster's head"):
        run(pool, Schedule([]), Noted(), mine=ABOUT)


def test_no_ray_installed_is_a_sentence(tmp_path: Path) -> None:
    """With the command that installs it; a process of its own, in which the import fails."""
    script = (
        "import sys; sys.modules['ray'] = None\n"
        "from resurgence_harness.executing.ray_pool import RayPool, Resources\n"
        "try: RayPool(print, address=None, device='cpu', resources=Resources()).start()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UserError Ray is not installed.")
    assert 'pip install "resurgence-harness[ray]"' in done.stdout
