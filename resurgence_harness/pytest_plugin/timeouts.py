"""Refuses timeouts that would end a run with cells with exit code 1, like a regression.

pytest-timeout's method "thread" and pytest's own `faulthandler_exit_on_timeout` call os._exit(1): no result is written
and nothing is cleaned up. In a worker of xdist that is a dead worker, which is reported; without workers such a run is
refused before it begins.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from resurgence_harness.errors import UserError, sentence


def refuse(config: pytest.Config) -> None:
    """UserError if a timeout would end this process with exit code 1."""
    if getattr(config.option, "numprocesses", None) or getattr(config.option, "tx", None):
        return  # cells run in workers
    found = []
    if _value(config, "timeout") or os.environ.get("PYTEST_TIMEOUT"):
        method = getattr(config.option, "timeout_method", None) or _ini(config, "timeout_method")
        found += ["--timeout-method=thread"] if str(method or "") == "thread" else []
    if _ini(config, "faulthandler_exit_on_timeout") is True and float(_ini(config, "faulthandler_timeout") or 0) > 0:
        found.append("faulthandler_exit_on_timeout")
    if found:
        raise UserError(
            sentence(
                "A timeout that ends pytest itself would look like a regression: it exits with code 1.",
                option=", ".join(found),
                do="Use --timeout-method=signal, or run cells in a worker with -n 1.",
            )
        )


def _value(config: pytest.Config, name: str) -> Any:
    return getattr(config.option, name, None) or _ini(config, name)


def _ini(config: pytest.Config, name: str) -> Any:
    """An option of the ini file; None if it is unknown."""
    try:
        return config.getini(name)
    except (ValueError, KeyError):
        return None
