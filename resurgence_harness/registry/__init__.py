"""One registry of unlearning methods, fine-tunings, judges and tasks, wherever they come from.

    built in         registered where they are defined                METHODS, FINETUNINGS, JUDGES, TASKS, PUBLISHED
    packages         entry points of the groups resurgence.unlearnings, .finetunings, .judges and .tasks
    conftest.py      hooks pytest_resurgence_unlearnings, _finetunings, _judges and _tasks
    settings file    commands of the file that --resurgence-settings names

    register("unlearning", Shrink, Origin.of_package("acme-erasure", "1.2"))      METHODS["shrink"]

Entry points are read when a table is first used, so a process that needs no names reads none. A name
cannot be registered twice; only a suite's conftest.py (or a module that the user names with `-p`) may replace what is
built in or a package's, and every verdict says so.
"""

from __future__ import annotations

from resurgence_harness.registry.origins import BUILT_IN, Origin, in_key
from resurgence_harness.registry.tables import (
    KINDS,
    Entry,
    Given,
    Table,
    entries,
    given_parts,
    register,
    registered_by_settings,
    registered_by_suite,
    temporary,
)

__all__ = [
    "BUILT_IN",
    "KINDS",
    "Entry",
    "Given",
    "Origin",
    "Table",
    "entries",
    "given_parts",
    "in_key",
    "register",
    "registered_by_settings",
    "registered_by_suite",
    "temporary",
]
