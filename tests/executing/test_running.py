"""The driver with real processes: mistakes, failures, lost workers, several kinds of machines, and being stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from resurgence_harness.errors import HarnessError, UserError
from resurgence_harness.executing.builder import About
from resurgence_harness.executing.pool import LocalPool
from resurgence_harness.executing.running import Outcome, Worker, run
from resurgence_harness.executing.schedule import Schedule
from resurgence_harness.storing import Store
from tests.executing import light_work
from tests.executing.light_work import ABOUT, Chain, chain, log_of

pytestmark = pytest.mark.slow


class Noted:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.most = 0

    def show(self, workers: list[Worker], schedule: Schedule) -> None:
        """How many workers there were."""
        self.most = max(self.most, len(workers))

    def note(self, line: str) -> None:
        """Keep it."""
        self.notes.append(line)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store; nothing incomplete is in it in the end."""
    made = Store(tmp_path / "store")
    yield made
    assert not (made.root / "tmp").exists() or not list((made.root / "tmp").iterdir())


def built(store: Store, opening: object, *, workers: int = 2, cells: int = 2, mine: About | None = ABOUT) -> Outcome:
    """Build cells of light jobs on processes."""
    pool = LocalPool(opening, workers=workers)  # type: ignore[arg-type]
    return run(pool, Schedule(Chain(store, cell) for cell in range(cells)), Noted(), mine=mine)


def test_two_processes_build_everything_once(store: Store, tmp_path: Path) -> None:
    """Inputs first, and every artifact is whole."""
    log = tmp_path / "log"
    outcome = built(store, partial(light_work.opened, str(store.root), 0.01, ABOUT, str(log)))
    wanted = {job.order.key for cell in range(2) for job in chain(cell)}
    assert outcome == Outcome(len(wanted), 0, {})
    assert set(store.keys()) == wanted and all(store.open(key) for key in wanted)
    assert Counter(key for what, key, _ in log_of(log) if what == "built") == Counter(wanted)
    assert len({process for *_, process in log_of(log)}) == 2


@pytest.mark.parametrize(("kind", "error"), [("mistake", UserError), ("broken", HarnessError)])
def test_workers_that_cannot_be_made_ready_end_the_build(store: Store, kind: str, error: type[Exception]) -> None:
    """With their own sentence."""
    with pytest.raises(error, match="the base is not here"):
        built(store, partial(light_work.refusing, kind))


def test_a_mistake_that_a_worker_finds_ends_the_build_and_a_failure_gives_up_its_cells(store: Store) -> None:
    """A store that cannot be used ends it, too."""
    store.here.make()
    with pytest.raises(UserError, match="it mistake"):
        built(store, partial(light_work.failing, "mistake", str(store.root)))
    with pytest.raises(HarnessError, match="it store"):
        built(store, partial(light_work.failing, "store", str(store.root)))
    outcome = built(store, partial(light_work.failing, "failed", str(store.root)))
    assert outcome.failed == {"cell 0": "it failed", "cell 1": "it failed"} and outcome.built == 0


def test_a_job_that_kills_its_workers_is_given_up(store: Store) -> None:
    """Each time a new process takes the place of the dead one."""
    outcome = built(store, partial(light_work.failing, "dies", str(store.root)), workers=1, cells=1)
    assert "ended 4 workers" in outcome.failed["cell 0"] and outcome.lost == 4


def test_workers_of_another_kind_are_not_used_and_that_is_said(store: Store, tmp_path: Path) -> None:
    """Images that are compared must be drawn alike: the most frequent kind builds everything."""
    other = ABOUT._replace(hardware="another GPU")
    opening = partial(light_work.of_kinds, str(store.root), (ABOUT, other, ABOUT), str(tmp_path / "count"))
    pool, noted = LocalPool(opening, workers=3), Noted()
    outcome = run(pool, Schedule([Chain(store, 0)]), noted, mine=ABOUT)
    assert outcome.failed == {} and outcome.lost == 0
    (note,) = noted.notes
    assert note.startswith("1 of 3 workers are not used, since images that are compared must be drawn alike: another")


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({"package": "2"}, "has another version of resurgence-harness"),
        ({"plan": "q"}, "plans other artifacts for this suite"),
        ({"sealed": "abc"}, "RESURGENCE_STORE_KEY is not the same"),
    ],
)
def test_a_node_that_would_build_something_else_is_refused(store: Store, there: dict[str, str], words: str) -> None:
    """A version, a plan or a key that is not the driver's: one sentence, exit code 4."""
    with pytest.raises(UserError, match=words) as refused:
        built(store, partial(light_work.opened, str(store.root), 0.01, ABOUT._replace(**there)), workers=1)
    assert "\n  there " in str(refused.value)


def test_being_stopped_leaves_nothing_half_made(store: Store) -> None:
    """Ctrl-C while builds run: the workers unwind them."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_build_slowly, args=(str(store.root),))
    process.start()
    until = time.monotonic() + 60
    while time.monotonic() < until and not list((store.root / "tmp").glob("*/half")):
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 7  # see _build_slowly; the fixture looks for leftovers


def _build_slowly(root: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        built(Store(root), partial(light_work.opened, root, 20.0), cells=1)
    except KeyboardInterrupt:
        os._exit(7)
    os._exit(0)
