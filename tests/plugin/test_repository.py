"""Our own suites: found, collected, and served by our own fixtures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resurgence_harness.limits.limits_file import load_limits
from resurgence_harness.statistics import Policy
from tests.plugin.conftest import INSTALLED, ROOT

pytestmark = pytest.mark.slow


def collect(*arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """pytest --collect-only in the repository."""
    plugin = [] if INSTALLED else ["-p", "resurgence_harness.pytest_plugin"]
    own = ["-p", "no:cacheprovider", "--import-mode=importlib", "-o", "pythonpath=.", f"--rootdir={ROOT}"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *plugin, *own, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), path]))},
        capture_output=True,
        text=True,
    )


def test_the_celebrity_suite_has_its_cells() -> None:
    """Quick: seven methods, 1 and 10 names."""
    ran = collect("suites/celebrity")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    words = [line.split("[")[1].rstrip("]") for line in ran.stdout.splitlines() if "[" in line]
    seven = ("uce", "esd", "sdd", "mace", "salun", "shs", "erasediff")
    assert words == [f"{method}-{count}-lora" for method in seven for count in (1, 10)]


def test_our_fixtures_are_found_beside_another_package_of_that_name(tmp_path: Path) -> None:
    """A package called fixtures exists on the index; installed or not, ours is loaded."""
    (tmp_path / "fixtures").mkdir()
    (tmp_path / "fixtures" / "__init__.py").write_text("raise ImportError('the wrong fixtures')", encoding="utf-8")
    ran = collect("suites/celebrity", "--fixtures", "-v", path=str(tmp_path))
    assert ran.returncode == 0 and "the wrong fixtures" not in ran.stdout + ran.stderr, ran.stdout + ran.stderr
    for name, module in (("base_model", "models"), ("judge", "judges"), ("claim", "evidence")):
        assert f"{name} -- fixtures/{module}.py:" in ran.stdout


def test_the_celebrity_limits_are_the_policy() -> None:
    """What the file beside the suite says is the policy that was written before the first run."""
    limits = load_limits(ROOT / "suites" / "celebrity" / "limits.yaml")
    from resurgence_harness.specs import Cell

    cell = Cell(task="celebrity", method="esd", count=10, finetuning="lora")
    assert limits.policy_for(cell) == Policy.for_task("celebrity")


def test_no_module_takes_the_name_that_its_package_exports() -> None:
    """Importing a module sets it as an attribute of its package, in place of a function of that name there."""
    code = (
        "import importlib, pkgutil, types, resurgence_harness as top\n"
        "found = [one.name for one in pkgutil.walk_packages(top.__path__, 'resurgence_harness.')\n"
        "         if '__main__' not in one.name and '.gate.test_' not in one.name and '.suite.' not in one.name]\n"
        "modules = [importlib.import_module(name) for name in found if not name.endswith('.gate.conftest')]\n"
        "print([f'{one.__name__}.{name}' for one in modules for name in getattr(one, '__all__', ())\n"
        "       if isinstance(getattr(one, name), types.ModuleType) and hasattr(one, '__path__')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr[-2000:]
