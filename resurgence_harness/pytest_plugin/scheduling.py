"""How cells are spread over xdist's workers: one group per unlearned checkpoint, the longest first.

Cells that share a checkpoint (method × count × run) run on one worker, which then has it loaded; no other worker builds
it. pytest-xdist 3.8 with pytest 9.2 silently ignores `xdist_group` under `--dist loadgroup` (pytest-xdist #1386), so
the scheduler is ours, through xdist's own hook. Tests that are no cells are groups of one.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_CELL = re.compile(r"\[(?P<method>[a-z][a-z-]*?)-(?P<count>\d+)-[a-z]+(?:-run(?P<run>\d+))?(?:-[^]]*)?\]$")
OURS = ("load", "loadgroup", "worksteal")
"""Distribution modes that leave the spreading to the plugin; loadfile, loadscope and each are what they say."""


class WorkUnit(NamedTuple):
    """What is kept on one worker."""

    scope: str
    cost: float


def work_unit(nodeid: str) -> WorkUnit:
    """The group of "test_celebrity.py::test_x[esd-10-lora]" is "test_celebrity.py esd-10-0": file, checkpoint, run."""
    found = _CELL.search(nodeid)
    if found is None:
        return WorkUnit(nodeid, 0.0)
    from resurgence_harness.selection import cost

    method, count, run = found["method"], int(found["count"]), found["run"] or "0"
    return WorkUnit(f"{nodeid.split('::', 1)[0]} {method}-{count}-{run}", cost(method, count))


def scheduler(config: Any, log: Any) -> Any:
    """The scheduler for this run."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped,unused-ignore]

    class CheckpointScheduling(LoadScopeScheduling):  # type: ignore[misc,unused-ignore]
        """LoadScopeScheduling whose scopes are checkpoints, and whose queue knows how long each takes."""

        opening = False

        def _split_scope(self, nodeid: str) -> str:
            return work_unit(nodeid).scope

        def schedule(self) -> None:
            """The first distribution gives every worker two groups: the longest ones, each with one of the shortest."""
            self.opening = self.collection is None
            super().schedule()
            self.opening = False

        def _assign_work_unit(self, node: Any) -> None:
            busy = self._pending_of(self.assigned_work.get(node, {})) > 0
            pick = min if self.opening and busy else max
            chosen = pick(self.workqueue, key=self._cost)
            self.workqueue.move_to_end(chosen, last=False)
            super()._assign_work_unit(node)

        def _cost(self, scope: str) -> float:
            return sum(work_unit(nodeid).cost for nodeid in self.workqueue[scope])

        def remove_node(self, node: Any) -> str | None:
            """A test whose worker died is not tried again: it would take the next worker with it."""
            workload = self.assigned_work.pop(node)
            pending = [nodeid for unit in workload.values() for nodeid, done in unit.items() if not done]
            if not pending:
                return None
            for unit in workload.values():
                if pending[0] in unit:
                    unit[pending[0]] = True
            self.workqueue.update({scope: unit for scope, unit in workload.items() if not all(unit.values())})
            for other in self.assigned_work:
                self._reschedule(other)
            return str(pending[0])

    return CheckpointScheduling(config, log)
