"""How the tests run: one thread in each process, compiled modules kept, and a fast lane.

One thread, since pytest -n runs a process for each core, whose threads would compete for it. Set before torch is
imported, and inherited by every worker and every command that a test starts; a number that is set already stays.

Where PYTHONDONTWRITEBYTECODE is set, every command of a test would compile the package again: compiled modules go into
a temporary folder instead.

`pytest tests -m "not slow"` leaves out the tests that train, start processes or draw many images. Files that hold only
such tests say so with `pytestmark = pytest.mark.slow` and are then not even imported.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels of diffusion/half on a CPU; read when triton is imported
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    compiled = os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = tempfile.mkdtemp(prefix="compiled")
    sys.dont_write_bytecode = False
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)

ALL_SLOW = re.compile(r"^pytestmark = (pytest\.mark\.slow$|\[.*pytest\.mark\.slow[,\]])", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether the fast lane passes a file by."""
    if config.getoption("markexpr", "") != "not slow" or collection_path.suffix != ".py":
        return None
    return bool(ALL_SLOW.search(collection_path.read_text(encoding="utf-8"))) or None
