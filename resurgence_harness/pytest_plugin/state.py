"""Where the plugin keeps what one pytest process knows: keys of `config.stash`, reachable from everywhere one way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from resurgence_harness.pytest_plugin.engine import Engine
    from resurgence_harness.pytest_plugin.options import Options
    from resurgence_harness.pytest_plugin.session import Session

OPTIONS: pytest.StashKey[Options] = pytest.StashKey()
"""The choices of this run."""
ENGINE: pytest.StashKey[Engine] = pytest.StashKey()
"""The bench of this process; the fixtures stand on it."""
SESSION: pytest.StashKey[Session] = pytest.StashKey()
"""What the controller knows of the whole run; absent in workers."""


def engine_of(request: pytest.FixtureRequest) -> Engine:
    """The bench of this process, for fixtures."""
    return request.config.stash[ENGINE]
