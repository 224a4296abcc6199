"""Ends a run of the gate's suite in which the pytest plugin is switched off: it would end with 1, as a regression does.

`-p no:resurgence` and PYTEST_DISABLE_PLUGIN_AUTOLOAD take the fixture `gate_claim` away, and pytest's own code for a
missing fixture is 1. pytest refuses the plugin's options itself then, and knows nothing of RESURGENCE_POLICY.
"""

from __future__ import annotations

import sys
import warnings

import pytest

from resurgence_harness.errors import sentence

PLUGIN = "resurgence_harness.pytest_plugin"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """4 without the plugin. A worker of xdist has no say in the run's code: it drops every test, which gives 5."""
    if config.pluginmanager.is_registered(sys.modules.get(PLUGIN)):
        return
    said = sentence(
        "The release gate cannot be run: its pytest plugin is switched off.",
        plugin=PLUGIN,
        do=f"Take -p no:resurgence and PYTEST_DISABLE_PLUGIN_AUTOLOAD away, or add -p {PLUGIN}.",
    )
    if not hasattr(config, "workerinput"):
        raise pytest.UsageError(said)
    items.clear()
    warnings.warn(said, stacklevel=1)
