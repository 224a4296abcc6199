"""The command line: plan and build what a suite needs, and manage the store.

    resurgence setup --base sd14 --task object [--dry-run]
    resurgence doctor [--base NAME --task NAME]
    resurgence fetch NAME… [--agree LICENCE] [--from NAME=PATH]
    resurgence label DIR --by ROLE
    resurgence calibration draw | count | show | export | import
    resurgence plan suites/celebrity [--resurgence-counts 10 …]
    resurgence build suites/celebrity
    resurgence store ls | verify | gc | path
    resurgence theory [--figures DIR]
    resurgence validate [--full] [--outcomes FILE]
    resurgence report [--single-file] [--open] [--figures DIR]
    resurgence paper --table 1 [--base micro]

One file for each command or group; the gate's are in cli/gate.py. The arguments of `plan` and `build` are passed to
pytest, which collects the suite, so their cells are the cells of a pytest run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resurgence_harness.cli.entry import main

if TYPE_CHECKING:
    from resurgence_harness.cli.commands import app

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    """Import `app` on first access: a failing import must not break `main` before its error handling starts."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from resurgence_harness.cli.commands import app

    return app
