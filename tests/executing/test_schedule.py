"""The schedule: every job once and after its inputs, the longest chain first, whatever is lost on the way."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resurgence_harness.executing.jobs import Done, Job, Order
from resurgence_harness.executing.schedule import TRIES, Schedule


class Looks:
    """A course whose looks are known beforehand; what `stored` has is no job any more."""

    def __init__(self, name: str, looks: list[list[Job]], stored: set[str] | None = None) -> None:
        self.name, self.seconds, self.looks = name, 0.0, looks
        self.stored = set() if stored is None else stored

    def look(self) -> list[Job]:
        """The next one."""
        while self.looks:
            if jobs := [job for job in self.looks.pop(0) if job.order.key not in self.stored]:
                return jobs
        return []

    def done(self, result: Done) -> None:
        """It is stored."""
        self.stored.add(result.key)


def job(key: str, *needs: str, seconds: float = 1.0, model: str = "") -> Job:
    """A job named by its key."""
    return Job(order=Order(key, "images", "cell", key), needs=needs, seconds=seconds, model=model)


def finished(schedule: Schedule, workers: int, *, lose: random.Random | None = None) -> list[str]:
    """Run everything on workers that end in a random order; the keys in the order in which they were done."""
    order, running, losses = [], {}, Counter[str]()
    dice = lose or random.Random(0)
    while not schedule.finished:
        for worker in range(workers):
            if worker not in running and (one := schedule.next("", workers=workers)) is not None:
                assert all(need in order for need in one.needs), "started before its input was done"
                running[worker] = one
        if not running:
            assert schedule.finished, "nothing runs and not everything is done"
            break
        worker = dice.choice(sorted(running))
        one = running.pop(worker)
        if lose is not None and dice.random() < 0.2 and losses[one.order.key] < TRIES - 1:
            losses[one.order.key] += 1
            schedule.lost(one.order.key, "killed")
        else:
            schedule.done(Done(one.order.key))
            order.append(one.order.key)
    return order


def chain(name: str, *seconds: float) -> list[Job]:
    """Jobs each of which needs the one before."""
    keys = [f"{name}{place}" for place in range(len(seconds))]
    return [
        job(key, *keys[max(0, place - 1) : place], seconds=own)
        for place, (key, own) in enumerate(zip(keys, seconds, strict=True))
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_job_is_done_once_and_after_its_inputs(data: st.DataObject) -> None:
    """Cells share jobs, look several times, and workers are lost; nothing is done twice at the same time."""
    shared = [job("base", seconds=2)]
    courses: list[Looks] = []
    stored: set[str] = set()
    for name in "abcde"[: data.draw(st.integers(1, 5))]:
        looks = [[*shared, *(job(f"{name}0{k}", "base") for k in range(data.draw(st.integers(1, 4))))]]
        for look in range(1, data.draw(st.integers(1, 3))):
            looks.append(chain(f"{name}{look}", *[1.0] * data.draw(st.integers(1, 3))))
        courses.append(Looks(name, looks, stored))
    wanted = {one.order.key for course in courses for look in course.looks for one in look}
    dice = random.Random(data.draw(st.integers(0, 1000)))
    schedule = Schedule(courses)
    order = finished(schedule, data.draw(st.integers(1, 4)), lose=dice)
    assert max(Counter(order).values()) == 1
    assert set(order) == wanted and not schedule.failed
    assert schedule.complete == len(courses)


def test_the_longest_chain_is_started_first() -> None:
    """A short job that much waits for goes before a long one that nothing waits for."""
    schedule = Schedule([Looks("a", [[job("long", seconds=5.0), *chain("chain", 1, 2, 3, 4)]])])
    first, second = schedule.next("", workers=2), schedule.next("", workers=2)
    assert first is not None and second is not None
    assert (first.order.key, second.order.key) == ("chain0", "long")


def test_a_loaded_model_is_preferred_unless_another_chain_is_much_longer() -> None:
    """Of two about equal jobs the one whose weights are loaded; of very unequal ones the longer."""
    jobs = [job("other", seconds=10, model="m2"), job("mine", seconds=8, model="m1")]
    first = Schedule([Looks("a", [jobs])]).next("m1")
    assert first is not None and first.order.key == "mine"
    jobs = [job("other", seconds=10, model="m2"), job("mine", seconds=1, model="m1")]
    first = Schedule([Looks("a", [jobs])]).next("m1")
    assert first is not None and first.order.key == "other"


def test_a_failed_job_gives_up_the_cells_that_need_it_and_no_other() -> None:
    """With the reason; what both need is still built for the other."""
    schedule = Schedule([Looks("a", [[job("base"), job("a0", "base"), job("a1", "a0")]]), Looks("b", [[job("base")]])])
    assert schedule.next("", workers=1).order.key == "base"  # type: ignore[union-attr]
    schedule.done(Done("base"))
    assert schedule.next("").order.key == "a0"  # type: ignore[union-attr]
    schedule.done(Done("a0", "its loss is NaN", "failed"))
    assert schedule.failed == {"a": "its loss is NaN"}
    assert schedule.next("") is None and schedule.finished and schedule.complete == 2


def test_a_job_that_kills_every_worker_is_given_up() -> None:
    """After `TRIES` workers, saying so."""
    schedule = Schedule([Looks("a", [[job("heavy")]])])
    for _ in range(TRIES):
        assert schedule.next("") is not None
        schedule.lost("heavy", "out of memory")
    assert schedule.finished and "ended 4 workers" in schedule.failed["a"] and "out of memory" in schedule.failed["a"]


@pytest.mark.parametrize("cells", [10, 2_000])
def test_cells_are_admitted_as_workers_need_them(cells: int) -> None:
    """So the number of jobs in memory does not grow with the plan."""
    schedule = Schedule(Looks(str(place), [[job(f"{place}-{k}") for k in range(10)]]) for place in range(cells))
    most = 0
    while (one := schedule.next("", workers=2)) is not None:
        most = max(most, schedule.known)
        schedule.done(Done(one.order.key))
    assert schedule.built == 10 * cells and most <= 20
