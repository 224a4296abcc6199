"""Git commit of a run's working directory, and the machine's GPUs with their driver.

Read from git and from the kernel's files, so that the controller need not import torch.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

NVIDIA = Path("/proc/driver/nvidia")
"""Where NVIDIA's kernel module publishes its version and the GPUs."""


def surroundings(folder: Path, nvidia: Path = NVIDIA) -> dict[str, str]:
    """Names and values; unknown ones are left out."""
    return {**_commit(folder), **_cards(nvidia)}


def _commit(folder: Path) -> dict[str, str]:
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": head + (" and uncommitted changes" if changed else "")} if head else {}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", errors="replace", timeout=5, check=True
    )
    return done.stdout.strip()


def _cards(nvidia: Path) -> dict[str, str]:
    try:
        first = (nvidia / "version").read_text(encoding="utf-8").splitlines()[0]
        cards = [
            line.partition(":")[2].strip()
            for file in sorted((nvidia / "gpus").glob("*/information"))
            for line in file.read_text(encoding="utf-8").splitlines()
            if line.startswith("Model:")
        ]
    except (OSError, IndexError, ValueError):
        return {}
    found = {"driver": first.partition(":")[2].strip() or first}
    return found | ({"gpus": ", ".join(cards)} if cards else {})
