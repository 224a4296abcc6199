"""State of the plugin in one pytest process: keys of `config.stash`, and functions that fill them on first use.

Options are read and the bench is made for the first test that needs them, so a project without such a test neither
imports their modules nor sees errors in them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest

from resurgence_harness.pytest_plugin import own

if TYPE_CHECKING:
    from resurgence_harness.pytest_plugin.engine import Engine
    from resurgence_harness.pytest_plugin.gating import Gating
    from resurgence_harness.pytest_plugin.options import Options
    from resurgence_harness.specs import Base

OPTIONS: pytest.StashKey[Options] = pytest.StashKey()
"""The options of this run, once they are read."""
ENGINE: pytest.StashKey[Engine] = pytest.StashKey()
"""The engine of this process, once it is made; the fixtures use it."""
GATING: pytest.StashKey[Gating] = pytest.StashKey()
"""The gate of this process, once it is needed."""
SHARE: pytest.StashKey[Share] = pytest.StashKey()
"""The inputs of this process, once they are known."""


class Share(Protocol):
    """Inputs of one process of the run; in the controller its session."""

    @property
    def base(self) -> Base | None:
        """The published model, if the controller has read and checked it."""

    @property
    def folder(self) -> Path:
        """The run's folder, into which progress is written."""

    @property
    def name(self) -> str:
        """ "main", or the worker's id."""

    @property
    def found(self) -> dict[str, Any] | None:
        """The controller's findings about a gate's models; None in the controller itself."""


class WorkerShare(NamedTuple):
    """Inputs of a worker."""

    base: Base | None
    folder: Path
    name: str
    found: dict[str, Any] | None


def options_of(config: pytest.Config) -> Options:
    """The options of this run. UserError for an invalid one."""
    if OPTIONS not in config.stash:
        from resurgence_harness.pytest_plugin.options import read_options

        config.stash[OPTIONS] = read_options(config)
    return config.stash[OPTIONS]


def engine_in(config: pytest.Config) -> Engine:
    """The engine of this process."""
    if ENGINE not in config.stash:
        from resurgence_harness.pytest_plugin.engine import Engine
        from resurgence_harness.watching import EventWriter, Recorder

        options, share = options_of(config), _share_of(config)
        progress = Recorder(EventWriter(share.folder / f"events-{share.name}.jsonl"), worker=share.name)
        own.register_own(config)
        config.stash[ENGINE] = Engine(options, base=share.base, progress=progress)
    return config.stash[ENGINE]


def engine_of(request: pytest.FixtureRequest) -> Engine:
    """The engine of this process, for fixtures."""
    return engine_in(request.config)


def gating_in(config: pytest.Config) -> Gating:
    """The gate of this process."""
    if GATING not in config.stash:
        from resurgence_harness.pytest_plugin.gating import Gating
        from resurgence_harness.watching import EventWriter, Recorder

        options, share = options_of(config), _share_of(config)
        progress = Recorder(EventWriter(share.folder / f"events-{share.name}.jsonl"), worker=share.name)
        own.register_own(config)
        config.stash[GATING] = Gating(options, found=share.found, progress=progress)
    return config.stash[GATING]


def _share_of(config: pytest.Config) -> Share:
    """The inputs of this process; a worker receives them from the controller."""
    inputs = getattr(config, "workerinput", None)
    if inputs is None:
        return config.stash[SHARE]
    from resurgence_harness.specs import Base

    given = inputs["resurgence"]
    base = Base(**given["base"]) if given["base"] else None
    return WorkerShare(base, Path(given["folder"]), inputs["workerid"], given["gate"])
