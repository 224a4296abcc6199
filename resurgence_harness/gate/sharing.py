"""What leaves this machine when it is asked for: a verdict for an experiment tracker, a model card's pull request.

Everything is made ready before an image is drawn, so that a missing library, account or network costs no hours. What
fails afterwards changes no verdict: the reports are written, and the exit code is 12 unless there was a regression.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import HarnessError

if TYPE_CHECKING:
    from resurgence_harness.reporting.model_card_pr import Proposal
    from resurgence_harness.reporting.tracking import Tracker

REGRESSION, HARNESS_ERROR = 1, 12


@dataclass(kw_only=True)
class Sharing:
    """Trackers with open runs, and a repository to propose to."""

    trackers: dict[str, Tracker]
    proposal: Proposal | None

    def tell(self, run: dict[str, Any], files: Sequence[Path]) -> int:
        """Tell everybody; gives the exit code."""
        from resurgence_harness.reporting import tracking

        code = int(run["exit_code"])
        for name in list(self.trackers):
            code = _tried(partial(tracking.log, name, self.trackers.pop(name), run, files), code)
        return _tried(partial(self.proposal.send, run), code) if self.proposal is not None else code


def _tried(share: Callable[[], str], code: int) -> int:
    """The exit code after sharing: a verdict that somebody did not hear is no pass."""
    try:
        print(f"Shared: {share()}")
    except HarnessError as error:
        print(f"resurgence: {error}", file=sys.stderr)
        return code if code == REGRESSION else HARNESS_ERROR
    return code


@contextmanager
def opened(*, log: Sequence[str], repo: str | None, title: str, folder: Path) -> Iterator[Sharing]:
    """Look up the repository and open the trackers' runs; those that heard no verdict are failed runs."""
    from resurgence_harness.reporting import model_card_pr, tracking

    proposal = model_card_pr.prepared(repo) if repo is not None else None
    sharing = Sharing(trackers={}, proposal=proposal)
    try:
        for name in dict.fromkeys(log):
            sharing.trackers[name] = tracking.opened(name, title=title, folder=folder)
        yield sharing
    finally:
        for tracker in sharing.trackers.values():
            with suppress(Exception):  # the error that is on its way says more
                tracker.close(HARNESS_ERROR)
