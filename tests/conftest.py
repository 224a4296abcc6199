"""How the tests compute: one thread in each process, since pytest -n runs a process for each core.

Set before torch is imported, and inherited by every worker and every command that a test starts. Somebody's own number
stays. Two threads in each of two processes on two cores made the tests more than twice as slow.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
