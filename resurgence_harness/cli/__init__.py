"""The command line: what would be made, make it, and look after the store.

    resurgence plan suites/celebrity [--resurgence-counts 10 …]
    resurgence build suites/celebrity
    resurgence store ls | verify | gc | path
    resurgence theory [--figures DIR]
    resurgence validate [--full] [--outcomes FILE]
    resurgence report [--single-file] [--open] [--figures DIR]
    resurgence paper --table 1 [--base micro]

One file for each command or group; the gate's are in gate/command.py. What follows `plan` and `build` is given to
pytest, which collects the suite: they see the cells that pytest sees.
"""

from __future__ import annotations

from resurgence_harness.cli.app import app, main

__all__ = ["app", "main"]
