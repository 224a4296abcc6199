"""Uploads that the user requested: a verdict to an experiment tracker, a pull request for a model card.

Everything is prepared before any image is drawn, so that a missing library, account or network costs no hours. Later
failures change no verdict: the reports are written, and the exit code is 12 unless there was a regression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.gate.delivery import Delivery
from resurgence_harness.process import ExitCode

if TYPE_CHECKING:
    from resurgence_harness.reporting.model_card_pr import Proposal
    from resurgence_harness.reporting.tracking import Tracker


@dataclass(kw_only=True)
class Sharing:
    """Trackers with open runs, and a repository for a pull request."""

    trackers: dict[str, Tracker]
    proposal: Proposal | None

    def share(self, run: dict[str, Any], files: Sequence[Path], delivery: Delivery) -> None:
        """Upload to every tracker and to the hub; a failure of one does not affect the others."""
        from resurgence_harness.reporting import tracking

        for name in list(self.trackers):
            delivery.part(partial(_shared, partial(tracking.log, name, self.trackers.pop(name), run, files)))
        if self.proposal is not None:
            delivery.part(partial(_shared, partial(self.proposal.send, run)))


def _shared(share: Callable[[], str]) -> None:
    print(f"Shared: {share()}")


@contextmanager
def open_sharing(*, log: Sequence[str], repo: str | None, title: str, folder: Path) -> Iterator[Sharing]:
    """Look up the repository and open the trackers' runs; runs that received no verdict are closed as failed."""
    from resurgence_harness.reporting import model_card_pr, tracking

    proposal = model_card_pr.prepared(repo) if repo is not None else None
    sharing = Sharing(trackers={}, proposal=proposal)
    try:
        for name in dict.fromkeys(log):
            sharing.trackers[name] = tracking.open_tracker(name, title=title, folder=folder)
        yield sharing
    finally:
        for tracker in sharing.trackers.values():
            with suppress(Exception, SystemExit):  # the error being raised is more informative
                tracker.close(ExitCode.HARNESS_ERROR)
