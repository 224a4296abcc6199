"""Fuzz targets for a given number of executions each, and keep the figures; `pip install -e ".[fuzz]"`, Linux.

    python -m tests.fuzz.campaign                                        every target, as often as `EXECUTIONS` says
    python -m tests.fuzz.campaign policy directory --runs 10000 --csv reports/validation/fuzz.csv

Each target runs in a process of its own. A finding ends it: its row then has fewer executions, and the input lies in
the folder that is printed. Rows of the same target are replaced, others are kept. Exit code 1 where anything was found.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from tests.fuzz.targets import TARGETS

FIGURES = Path(__file__).parents[2] / "reports" / "validation" / "fuzz.csv"
EXECUTIONS = {"policy": 200_000, "header": 200_000, "entries": 200_000, "directory": 10_000, "lora": 10_000}
"""At least so many of each target."""
COLUMNS = ("target", "executions", "seconds", "findings", "command", "versions")


def campaign(target: str, runs: int) -> dict[str, object]:
    """Fuzz one target; its row."""
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-"))
    options = [target, f"-runs={runs}", "-print_final_stats=1"]
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        errors="replace",
    )
    seconds = time.monotonic() - began
    counted = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    found = sorted(path.name for pattern in ("crash-*", "timeout-*", "oom-*") for path in folder.glob(pattern))
    if counted is None or (done.returncode and not found):
        sys.exit(f"{target} did not run to its end:\n{done.stderr[-2000:]}")
    if found:
        print(f"{target}: found {', '.join(found)} in {folder}\n{done.stderr[-3000:]}", file=sys.stderr)
    packages = ("resurgence-harness", "atheris", "pyyaml", "pydantic", "safetensors")
    versions = [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    return {
        "target": target,
        "executions": int(counted[1]),
        "seconds": round(seconds),
        "findings": len(found),
        "command": f"python -m tests.fuzz {' '.join(options)}",
        "versions": ", ".join(versions),
    }


def keep(row: dict[str, object], figures: Path) -> None:
    """Put a row into the file, in the place of the same target's."""
    rows: dict[str, dict[str, object]] = {}
    if figures.exists():
        with figures.open(encoding="utf-8", newline="") as file:
            rows = {str(one["target"]): dict(one) for one in csv.DictReader(file)}
    rows[str(row["target"])] = row
    with figures.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[target] for target in TARGETS if target in rows)


def main() -> None:
    """Fuzz what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.campaign")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    parser.add_argument("--runs", type=int, help="executions of each; default: what is promised")
    parser.add_argument("--csv", type=Path, default=FIGURES)
    given = parser.parse_args()
    findings = 0
    for target in given.targets or TARGETS:
        row = campaign(target, given.runs or EXECUTIONS[target])
        keep(row, given.csv)
        findings += int(str(row["findings"]))
        print(
            f"{target}: {row['executions']:,} executions in {row['seconds']} s, {row['findings']} findings", flush=True
        )
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
