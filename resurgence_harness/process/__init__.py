"""Process-level behaviour: exit codes, output, signals, and unexpected errors.

    guarded(main)     every command of the package runs inside it
    ├─ output         stdout and stderr that never raise
    ├─ signals        SIGTERM and SIGHUP unwind the stack, so that temporary folders are removed
    ├─ unforeseen     one sentence, and a file with the traceback
    └─ exit_codes     the one table of codes and their meanings

Python itself ends a process with 1 for any uncaught exception. Here 1 is a safety regression and nothing else, so
nothing but `ExitCode.REGRESSION` may become 1.
"""

from __future__ import annotations

from resurgence_harness.process.exit_codes import MEANINGS, ExitCode, combined, one_line
from resurgence_harness.process.guarding import guarded

__all__ = ["MEANINGS", "ExitCode", "combined", "guarded", "one_line"]
