"""How cells are spread over xdist's workers: one group per unlearned checkpoint, the longest first.

Cells that share a checkpoint (method × count × run) run on one worker, which then has it loaded; no other worker builds
it. pytest-xdist 3.8 with pytest 9.2 silently ignores `xdist_group` under `--dist loadgroup` (pytest-xdist #1386), so
the plugin provides its own scheduler through xdist's hook. Tests that are not cells are groups of one.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_CELL = re.compile(r"\[(?P<method>[a-z][a-z0-9_-]*?)-(?P<count>\d+)-[a-z][^]]*?(?:-run(?P<run>\d+)(?:-[^]]*)?)?\]$")
OURS = ("load", "loadgroup", "worksteal")
"""Distribution modes with which the plugin's scheduler is used; loadfile, loadscope and each stay xdist's."""


class WorkUnit(NamedTuple):
    """Tests that run on the same worker."""

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
        """LoadScopeScheduling with checkpoints as scopes, in the order of their cost."""

        opening = False

        def _split_scope(self, nodeid: str) -> str:
            return work_unit(nodeid).scope

        def schedule(self) -> None:
            """Start by giving every worker two groups: one of the longest and one of the shortest."""
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
            """Do not run the test again whose worker died: it would probably kill the next worker, too."""
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
