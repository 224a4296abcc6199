"""Registers what a suite's conftest.py, or another pytest plugin, returns from our hooks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import UserError, sentence

if TYPE_CHECKING:
    import pytest

    from resurgence_harness.registry import Origin
    from resurgence_harness.registry.tables import OfSuite

EXAMPLES = {"unlearning": "[Shrink]", "finetuning": "[KeyValue]", "judge": "[Darkness()]", "task": "[NIGHT]"}


def register_own(config: pytest.Config) -> None:
    """Register the hooks' objects in this process, in place of those of an earlier call.

    Called whenever names are resolved for the first time in a new phase of the run, since a conftest.py in a folder
    below the arguments is only loaded during collection. UserError for objects of another kind, and for a name that two
    of them have; only a conftest.py may take an existing name.
    """
    from resurgence_harness import judging, presets  # noqa: F401  the tables are defined when these are imported
    from resurgence_harness.registry import registered_by_suite

    registered_by_suite(_returned(config))


def _returned(config: pytest.Config) -> Iterator[OfSuite]:
    from resurgence_harness.registry import KINDS
    from resurgence_harness.registry.tables import OfSuite

    for kind, about in KINDS.items():
        for implementation in reversed(getattr(config.hook, about.hook).get_hookimpls()):
            if implementation.wrapper or implementation.hookwrapper:
                continue
            found = implementation.function()
            origin, file = _origin(config, implementation.plugin, implementation.plugin_name)
            if not isinstance(found, list | tuple):
                raise UserError(
                    sentence(
                        f"{about.hook} did not return a list.",
                        origin=origin,
                        got=repr(found)[:80],
                        do=f"Return a list: return {EXAMPLES[kind]}.",
                    )
                )
            for given in found:
                yield OfSuite(kind, given, origin, file)


def _origin(config: pytest.Config, plugin: Any, name: str) -> tuple[Origin, Path]:
    """Where a hook's implementation comes from, and the file that holds it."""
    from resurgence_harness.registry import Origin

    file = Path(getattr(plugin, "__file__", None) or type(plugin).__module__)
    if file.name == "conftest.py":
        return Origin.of_conftest(_near(file, config.rootpath)), file
    for other, package in config.pluginmanager.list_plugin_distinfo():
        if other is plugin:
            return Origin.of_package(package.metadata["name"], package.version), file
    return Origin(kind="plugin", name=name), file


def _near(file: Path, root: Path) -> str:
    try:
        near = os.path.relpath(file, root)
    except ValueError:  # on another drive
        return str(file)
    return str(file) if near.startswith("..") else near
