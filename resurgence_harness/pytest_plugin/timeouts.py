"""A timeout that ends the process and not the test would end a run with cells as a regression does, with 1.

pytest-timeout's method "thread" and pytest's own `faulthandler_exit_on_timeout` leave by os._exit(1): no result is
written and nothing is cleaned up. In a worker of xdist that is a dead worker, which is told; in the only process there
is, such a run is refused before it begins.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from resurgence_harness.errors import UserError, sentence


def refuse(config: pytest.Config) -> None:
    """UserError where a timeout would end this process with exit code 1."""
    if getattr(config.option, "numprocesses", None) or getattr(config.option, "tx", None):
        return  # cells run in workers
    asked = []
    if _value(config, "timeout") or os.environ.get("PYTEST_TIMEOUT"):
        method = getattr(config.option, "timeout_method", None) or _ini(config, "timeout_method")
        asked += ["--timeout-method=thread"] if str(method or "") == "thread" else []
    if _ini(config, "faulthandler_exit_on_timeout") is True and float(_ini(config, "faulthandler_timeout") or 0) > 0:
        asked.append("faulthandler_exit_on_timeout")
    if asked:
        raise UserError(
            sentence(
                "A timeout that ends pytest itself would look like a regression: it leaves with exit code 1.",
                asked=", ".join(asked),
                do="Take the method signal, or let cells run in workers with -n 1.",
            )
        )


def _value(config: pytest.Config, name: str) -> Any:
    return getattr(config.option, name, None) or _ini(config, name)


def _ini(config: pytest.Config, name: str) -> Any:
    """An ini file's word, None where nobody knows it."""
    try:
        return config.getini(name)
    except (ValueError, KeyError):
        return None
