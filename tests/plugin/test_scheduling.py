"""One group per unlearned checkpoint, the longest first, and every worker gets work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resurgence_harness.pytest_plugin.scheduling import work_unit
from resurgence_harness.pytest_plugin.workers import give_way, gpu_for, number, share_cores, visible_gpus
from tests.plugin.conftest import Folder

pytestmark = pytest.mark.slow


def test_cells_of_a_checkpoint_are_one_group() -> None:
    """Fine-tunings of one checkpoint share a group; methods, counts, runs and files do not."""
    same = {work_unit(f"a.py::test_x[esd-10-{tuning}]").scope for tuning in ("lora", "lora-te", "mine_2", "full-0")}
    assert len(same) == 1
    again = {work_unit(f"a.py::test_x[esd-10-{word}]").scope for word in ("lora-run1", "lora-te-run1", "full-run1-0")}
    assert len(again) == 1 and not again & same
    others = {
        work_unit(nodeid).scope
        for nodeid in (
            "a.py::test_x[esd-10-lora]",
            "a.py::test_x[esd-1-lora]",
            "a.py::test_x[uce-10-lora]",
            "a.py::test_x[esd-u-10-lora]",
            "a.py::test_x[ours2-10-lora]",
            "a.py::test_x[esd-10-lora-run1]",
            "b.py::test_x[esd-10-lora]",
            "a.py::test_plain",
            "a.py::test_other[esd]",
        )
    }
    assert len(others) == 9


def test_longer_checkpoints_cost_more() -> None:
    """ESD before UCE, 100 names before 10, cells before plain tests."""
    words = ["esd-100-lora", "esd-10-lora", "esd-1-lora", "uce-100-lora", "uce-1-lora"]
    costs = [work_unit(f"a.py::test_x[{word}]").cost for word in words]
    assert costs == sorted(costs, reverse=True) and costs[-1] > work_unit("a.py::test_plain").cost


@pytest.mark.parametrize("dist", [[], ["--dist", "loadgroup"]])
def test_groups_stay_on_one_worker_and_all_workers_work(suite: Folder, dist: list[str]) -> None:
    """Eight checkpoints with two fine-tunings each, four workers: none is idle, no checkpoint has two workers."""
    suite.write(
        "test_tiny.py",
        """
        import json, time
        import pytest

        @pytest.mark.resurgence(task="tiny")
        def test_where(cell, worker_id):
            start = time.time()
            time.sleep(0.2)
            with open(f"{worker_id}-{cell.id}.json", "w") as file:
                json.dump([f"{cell.method}-{cell.count}", worker_id, start], file)
        """,
    )
    methods = "--resurgence-methods=uce,uce-last,esd,esd-u"
    ran = suite.run("-n", "4", *dist, methods, "--resurgence-counts=1,2", "--resurgence-finetune=lora,full")
    assert ran.code == 0, ran.output
    told = [json.loads(file.read_text(encoding="utf-8")) for file in suite.path.glob("*.json")]
    assert len(told) == 16
    workers: dict[str, set[str]] = {}
    for checkpoint, worker, _ in told:
        workers.setdefault(checkpoint, set()).add(worker)
    assert all(len(found) == 1 for found in workers.values())
    assert len(set.union(*workers.values())) == 4
    first = {worker: checkpoint for checkpoint, worker, _ in sorted(told, key=lambda entry: -entry[2])}
    assert set(first.values()) == {"esd-u-1", "esd-u-2", "esd-1", "esd-2"}


def test_another_distribution_is_respected(suite: Folder) -> None:
    """--dist loadfile is what it says."""
    suite.write(
        "test_tiny.py",
        """
        import pytest

        @pytest.mark.resurgence(task="tiny")
        def test_where(cell, worker_id):
            open(f"{worker_id}.txt", "w").close()
        """,
    )
    assert suite.run("-n", "2", "--dist", "loadfile").code == 0
    assert len(list(suite.path.glob("gw*.txt"))) == 1


def test_gpus_go_round(tmp_path: Path) -> None:
    """Workers take GPUs in turn, from what CUDA_VISIBLE_DEVICES allows, whatever its entries are called."""
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-a, MIG-b"}) == ("GPU-a", "MIG-b")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == ()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "sda"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ("0", "1")
    assert [gpu_for(number(f"gw{k}"), ("3", "5")) for k in range(4)] == ["3", "5", "3", "5"]
    assert gpu_for(0, ()) is None


def test_the_worker_of_the_shortest_cell_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where workers outnumber the cores, all but the last give way."""
    given: list[int] = []
    monkeypatch.setattr("resurgence_harness.pytest_plugin.workers.os.nice", given.append, raising=False)
    monkeypatch.setattr("resurgence_harness.pytest_plugin.workers.cores", lambda: 2)
    for worker in range(4):
        give_way(worker, 4)
    assert given == [10, 10, 10]
    give_way(0, 2)
    assert len(given) == 3


def test_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are cores ÷ workers, at least one; a user's own number stays."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("resurgence_harness.pytest_plugin.workers.cores", lambda: 8)
    assert share_cores(4) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert share_cores(4) == 5
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert share_cores(64) == 1
