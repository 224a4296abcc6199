"""Where the plugin keeps what one pytest process knows: keys of `config.stash`, reachable from everywhere one way.

Choices are read and a bench is made when the first test that needs them is met: a project that has no such test never
imports what they are made of, and never hears of a mistake in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from resurgence_harness.pytest_plugin.engine import Engine
    from resurgence_harness.pytest_plugin.gating import Gating
    from resurgence_harness.pytest_plugin.options import Options
    from resurgence_harness.pytest_plugin.session import Session

OPTIONS: pytest.StashKey[Options] = pytest.StashKey()
"""The choices of this run, once they are read."""
ENGINE: pytest.StashKey[Engine] = pytest.StashKey()
"""The bench of this process, once it is made; the fixtures stand on it."""
GATING: pytest.StashKey[Gating] = pytest.StashKey()
"""The gate of this process, once it is needed."""
SESSION: pytest.StashKey[Session] = pytest.StashKey()
"""What the controller knows of the whole run; absent in workers."""


def options_of(config: pytest.Config) -> Options:
    """The choices of this run. UserError for one that means nothing."""
    if OPTIONS not in config.stash:
        from resurgence_harness.pytest_plugin.options import read_options

        config.stash[OPTIONS] = read_options(config)
    return config.stash[OPTIONS]


def engine_in(config: pytest.Config) -> Engine:
    """The bench of this process."""
    if ENGINE not in config.stash:
        from resurgence_harness.pytest_plugin.engine import of_process

        config.stash[ENGINE] = of_process(config)
    return config.stash[ENGINE]


def engine_of(request: pytest.FixtureRequest) -> Engine:
    """The bench of this process, for fixtures."""
    return engine_in(request.config)


def gating_in(config: pytest.Config) -> Gating:
    """The gate of this process."""
    if GATING not in config.stash:
        from resurgence_harness.pytest_plugin.gating import of_process

        config.stash[GATING] = of_process(config)
    return config.stash[GATING]
