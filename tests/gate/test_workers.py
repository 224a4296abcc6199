"""A gate's workers: the same verdict as one process gives, by processes that fail, are killed or are stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.errors import BuildError, HarnessError, UserError
from resurgence_harness.executing import capacity, pool
from resurgence_harness.executing.jobs import Order
from resurgence_harness.gate import demo, running, workers
from resurgence_harness.gate.asking import Gate
from resurgence_harness.gate.models import Models
from resurgence_harness.gate.release_policy import resolve
from resurgence_harness.gate.workers import GateBuilder, chosen, read_workers, start_early, usable_cores
from resurgence_harness.selection import resolve_base
from resurgence_harness.specs import Recipe
from resurgence_harness.storing import Store
from resurgence_harness.tasks import TASKS
from tests.executing.conftest import leftovers, without_times
from tests.gate.microworld import POLICY, Micro, environment, resurgence

ENOUGH = {"parts": 6, "seconds": 300.0, "memory": 10, "free": 1000}


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """cores(8): this process may use so many, and no variable says otherwise."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return lambda number: monkeypatch.setattr(workers, "cores", lambda: number)


def test_a_number_of_workers_is_read_from_the_command_line() -> None:
    """Whole numbers from 1, and auto."""
    assert [read_workers(given) for given in ("1", " 12", 3, "auto")] == [1, 12, 3, None]
    for wrong in ("0", "-1", "two", "", "1.5", "²", 0):
        with pytest.raises(UserError, match=r"\AThe number of workers is "):
            read_workers(wrong)


def test_auto_is_one_worker_per_core_as_parts_memory_and_work_allow(cores: Callable[[int], None]) -> None:
    """At most 4, at least 1."""
    for number, expected in ((1, 1), (2, 2), (4, 4), (64, 4)):
        cores(number)
        assert chosen(**ENOUGH) == expected  # type: ignore[arg-type]
    for changed, expected in (({"parts": 3}, 3), ({"seconds": 5.0}, 1), ({"free": 29}, 2), ({"free": 9}, 1)):
        assert chosen(**{**ENOUGH, **changed}) == expected  # type: ignore[arg-type]
    assert chosen(**{**ENOUGH, "free": None}) == 4  # type: ignore[arg-type]


def test_cores_are_no_more_than_omp_num_threads(cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable by which batch systems and test runners say how many cores a process may use."""
    cores(8)
    for value, expected in (("2", 2), ("4,2", 4), ("16", 8), ("0", 8), ("many", 8), ("", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert usable_cores() == expected


def test_free_memory_is_that_of_the_machine_or_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smaller one; None where neither is known."""
    files = {name: tmp_path / name for name in ("MEMORY", "LIMIT", "USED")}
    for name, path in files.items():
        monkeypatch.setattr(capacity, name, path)
    assert capacity.free_memory() is None
    files["MEMORY"].write_text("MemTotal: 9 kB\nMemAvailable:    4 kB\n")
    files["USED"].write_text("1000\n")
    for limit, expected in (("max\n", 4096), ("3000\n", 2000), ("9000\n", 4096), ("500\n", 0)):
        files["LIMIT"].write_text(limit)
        assert capacity.free_memory() == expected


def written(folder: Path) -> dict[str, Any]:
    """An artifact of one file."""
    (folder / "file").write_text("x")
    return {}


def gate_on(folder: Path, **how: Any) -> Gate:
    """A gate on the embedded base alone; nothing of it is sampled yet."""
    policy = resolve(demo.policy(demo.CANDIDATES[0]), folder, tasks=TASKS)
    found = Models(
        candidate=Recipe(resolve_base("micro")),
        label="micro",
        unlearned=None,
        base=None,
        files={},
        differs=None,
        notes=(),
        audit=None,
    )
    return Gate(policy, found, store=Store(folder / "store"), **how)


def test_several_workers_on_a_gpu_are_a_mistake(tmp_path: Path) -> None:
    """One process is faster there; auto is one."""
    with pytest.raises(UserError, match=r"\AA gate on a GPU uses one process, not 2\."):
        gate_on(tmp_path, device="cuda", workers=2)
    gate_on(tmp_path, device="cuda", workers=None)


def test_imports_start_early_only_where_all_images_have_to_be_sampled(
    tmp_path: Path, cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on a GPU, not for one process, not with a store that has artifacts, and never an error of the store's."""
    started: list[bool] = []
    monkeypatch.setattr(pool, "preload", lambda: started.append(True))
    store = Store(tmp_path / "store")
    cores(1)
    start_early(store, device="cpu", number=None)
    cores(2)
    start_early(store, device="cuda", number=None)
    start_early(store, device="cpu", number=1)
    assert started == []
    start_early(store, device="cpu", number=None)
    assert started == [True]
    start_early(Store("nul\0l"), device="cpu", number=2)
    started[:] = [True]
    store.make("ab" * 32, kind="images", label="x", inputs={}, build=written)
    start_early(store, device="cpu", number=2)
    assert started == [True]


class Dying(GateBuilder):
    """One whose first order kills its process, as the kernel does where memory is short."""

    def _make(self, order: Order) -> int | None:
        os.kill(os.getpid(), signal.SIGKILL)
        return None


class Failing(GateBuilder):
    """One that can build nothing."""

    def _make(self, order: Order) -> int | None:
        raise BuildError("The images are not numbers.")


class Refusing:
    """One that cannot be made ready."""

    def __init__(self, *given: object, **named: object) -> None:
        raise HarnessError("The judge cannot be loaded.")


OPENED = {"dying": Dying, "failing": Failing, "refusing": Refusing}


def opened(kind: str, plans: Any, judges: tuple[str, ...], store: str, *rest: Any) -> Any:
    """For a worker."""
    workers.GateBuilder = OPENED[kind]  # type: ignore[misc, assignment]
    return workers.open_worker(plans, judges, store, *rest)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="how a process was killed is known on Linux")
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("dying", "9 workers ended one after the other, and none has finished a job"),
        ("failing", "The images are not numbers."),
        ("refusing", "The judge cannot be loaded."),
    ],
)
def test_a_gate_whose_workers_cannot_work_has_no_verdict(
    kind: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12, with the reason, and no process is left."""
    monkeypatch.setattr(pool, "IMPORTED", ("resurgence_harness.gate.workers", "resurgence_harness.judging"))
    monkeypatch.setattr(workers, "open_worker", _Opening(kind))
    gate = gate_on(tmp_path, device="cpu", workers=2)

    found, _ = running.run(gate, progress=lambda group, record: None)

    assert found["exit_code"] == 12 and found["cells"] == []
    (missing,) = found["missing"]
    assert why in missing["why"], missing
    assert not multiprocessing.active_children()


class _Opening:
    """`open_worker` with another builder; a worker finds it by the names in this module."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, *given: Any) -> Any:
        return opened(self.kind, *given)


def command(micro: Micro, here: Path, store: str, number: int) -> list[str]:
    """Options of a gate that finds a regression in one or two looks."""
    (here / "policy.yaml").write_text(POLICY.replace("steps: 5", "steps: 2"), encoding="utf-8")
    given = ["--candidate", str(micro.files["unet"]), "--unlearned", str(micro.files["unlearned"]), "--base", "micro"]
    more = ["--store", store, "--out", f"out-{store}", "--device", "cpu", "--workers", str(number)]
    return ["gate", "--policy", "policy.yaml", *given, *more]


def begun(words: list[str], here: Path, log: Path, builds: int) -> subprocess.Popen[str]:
    """The command in a process of its own, after so many artifacts were built."""
    program = [sys.executable, "-m", "resurgence_harness.cli", *words]
    env = environment(RESURGENCE_BUILD_LOG=str(log))
    process = subprocess.Popen(
        program,
        cwd=here,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    until = time.monotonic() + 600
    while time.monotonic() < until and process.poll() is None and len(lines(log, "built")) < builds:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    return process


def lines(log: Path, what: str) -> list[list[str]]:
    """The log's lines of one kind: kind, key, process, time, label."""
    read = log.read_text(encoding="utf-8") if log.is_file() else ""
    return [found for line in read.splitlines() if (found := line.split("\t"))[0] == what]


def alive(process: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_two_workers_give_the_verdict_of_one_process_even_if_one_is_killed(micro: Micro, here: Path) -> None:
    """verdict.json is the same up to times, and every image was made by a worker."""
    process = begun(command(micro, here, "two", 2), here, here / "log", builds=3)
    first = {int(found[2]) for found in lines(here / "log", "built")}
    os.kill(min(first), signal.SIGKILL)
    said = process.communicate(timeout=900)[0]
    assert process.returncode == 1, said
    assert "was lost (the process ended with SIGKILL); its job is started again." in said

    one = resurgence(*command(micro, here, "one", 1), cwd=here)
    assert one.returncode == 1, one.stdout + one.stderr
    runs = [json.loads((here / f"out-{store}/verdict.json").read_text()) for store in ("one", "two")]
    for run in runs:
        del run["run_id"]
    assert without_times(runs[0]) == without_times(runs[1])
    assert runs[0]["cells"][0]["verdict"] == "VIOLATED"
    sheets = [(here / f"out-{store}/contact-sheet-erased.jpg").read_bytes() for store in ("one", "two")]
    assert sheets[0] == sheets[1]
    made = {int(found[2]) for found in lines(here / "log", "built")}
    assert process.pid not in made and len(made) == 3
    assert not any(map(alive, made)) and leftovers(here / "two") == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, 143)])
def test_a_stopped_gate_stops_its_workers_and_leaves_nothing_half_made(
    micro: Micro, here: Path, number: signal.Signals, code: int
) -> None:
    """No report, and what is in the store is whole."""
    process = begun(command(micro, here, "store", 2), here, here / "log", builds=1)
    process.send_signal(number)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == code, said
    assert "Traceback" not in said
    begun_by = {int(found[2]) for found in lines(here / "log", "begun")}
    assert begun_by and not any(map(alive, begun_by))
    assert leftovers(here / "store") == [] and not (here / "out-store/verdict.json").exists()
    store = Store(here / "store")
    keys = store.keys()
    assert keys and all(store.open(key) for key in keys)
