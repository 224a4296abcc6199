"""Removes the results of an earlier run as soon as the folder of results is known, even if this run fails.

This happens twice: before conftest.py files are loaded and options are checked, and again when the run is configured. A
run that only shows something (`--help`, `--collect-only` …) and a run without cells remove nothing.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.pytest_plugin import options, sight

SHOWING = ("help", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow", "collectonly")
"""Options, by their name in pytest, with which no test runs and nothing is removed."""
_HELD = pytest.StashKey[Path]()
"""The folder of results that this run has locked."""
_SIGHT = pytest.StashKey[tuple[tuple[str, ...], sight.Sight]]()


def shows_only(given: Any) -> bool:
    """Whether pytest only shows something and runs no test."""
    # pytest handles a single --version before it loads plugins, and runs tests if the environment or a file sets it.
    return any(getattr(given, name, None) for name in SHOWING) or getattr(given, "version", 0) > 1


def requested(config: pytest.Config) -> tuple[list[str], Any]:
    """Arguments and options. pytest stops parsing at --help; then those that it parsed before."""
    if not config.option.help:
        return config.args, config.option
    given = config.known_args_namespace
    return [*given.file_or_dir] or [*config.getini("testpaths")], given


def seen(config: pytest.Config, arguments: list[str], given: Any) -> sight.Sight:
    """The test files that the arguments name, parsed; cached for the same arguments."""
    key = tuple(map(str, arguments))
    if _SIGHT not in config.stash or config.stash[_SIGHT][0] != key:
        policy = bool(getattr(given, "resurgence_policy", None))
        config.stash[_SIGHT] = (key, sight.look(key, config.invocation_params.dir, policy=policy))
    return config.stash[_SIGHT][1]


def remove_stale_outputs(config: pytest.Config, given: Any) -> None:
    """Lock the folder of results until the run is over, and remove its old results. UserError if that fails."""
    from resurgence_harness.gate import out_lock, running

    out = options.chosen_out(config, given)
    if config.stash.get(_HELD, None) != out:
        holding = ExitStack()
        holding.enter_context(out_lock.held([out], option="--resurgence-out"))
        config.add_cleanup(holding.close)
        config.stash[_HELD] = out
    running.remove_stale_outputs(out, option="--resurgence-out")


def forget_early(config: pytest.Config) -> None:
    """The same before anything is checked; errors are ignored here and reported when the run is configured."""
    given = config.known_args_namespace
    if "PYTEST_XDIST_WORKER" in os.environ or shows_only(given):
        return
    try:
        named = [*given.file_or_dir] or [*config.getini("testpaths")] or [str(config.invocation_params.dir)]
        if seen(config, named, given).claims:
            remove_stale_outputs(config, given)
    except Exception:  # another project's configuration must not stop pytest here
        return
