"""Ends a run of the gate's suite without the pytest plugin: it would end with 1, like a regression.

`-p no:resurgence` and PYTEST_DISABLE_PLUGIN_AUTOLOAD remove the fixture `gate_claim`, and pytest's code for a
missing fixture is 1. pytest rejects the plugin's options by itself then, but not RESURGENCE_POLICY.
"""

from __future__ import annotations

import sys
import warnings

import pytest

from resurgence_harness.errors import sentence

PLUGIN = "resurgence_harness.pytest_plugin"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """4 without the plugin. A worker of xdist cannot set the run's code: it drops every test, which gives 5."""
    if config.pluginmanager.is_registered(sys.modules.get(PLUGIN)):
        return
    message = sentence(
        "The release gate cannot be run: its pytest plugin is switched off.",
        plugin=PLUGIN,
        do=f"Take -p no:resurgence and PYTEST_DISABLE_PLUGIN_AUTOLOAD away, or add -p {PLUGIN}.",
    )
    if not hasattr(config, "workerinput"):
        raise pytest.UsageError(message)
    items.clear()
    warnings.warn(message, stacklevel=1)
