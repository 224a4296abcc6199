"""Folders that many tests copy, without copying the bytes."""

from __future__ import annotations

import os
import shutil


def linked(source: str, target: str) -> str:
    """For `shutil.copytree`: a hard link where both are on one file system, else a copy.

    Such a file is replaced, never written into.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
