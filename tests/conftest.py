"""How the tests run: one thread in each process, and a fast lane.

One thread, since pytest -n runs a process for each core: two threads in each of two processes on two cores made the
tests more than twice as slow. Set before torch is imported, and inherited by every worker and every command that a test
starts; a number that is set already stays.

`pytest tests -m "not slow"` leaves out the tests that train, start processes or draw many images. Files that hold only
such tests say so with `pytestmark = pytest.mark.slow` and are then not even imported.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

ALL_SLOW = re.compile(r"^pytestmark = (pytest\.mark\.slow$|\[.*pytest\.mark\.slow[,\]])", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether the fast lane passes a file by."""
    if config.getoption("markexpr", "") != "not slow" or collection_path.suffix != ".py":
        return None
    return bool(ALL_SLOW.search(collection_path.read_text(encoding="utf-8"))) or None
