"""Whether the tests of `statistics/` would notice a wrong statistic: its code is changed in one place at a time.

    python -m benchmarks.mutants --sample 300 --seed 0 --jobs 1 --to reports/validation/mutants.csv

The changes are those of mutmut's operators (BSD-3-Clause; `pip install "mutmut>=3.8"`, needed by this script alone):
comparisons, numbers, operators, booleans, conditions, assignments, and arguments replaced or removed. mutmut's own
runner changes undecorated functions only; here the operators walk the whole of every file, properties, defaults and
constants included. Left out are changes of nothing but a text (a string, or an argument that is one), annotations,
decorators, `__all__`, and the arguments of len and isinstance, as mutmut leaves them.

From each file as many are drawn as its share of all; which ones is decided by a hash of the seed and the change, so
that an edit elsewhere leaves the sample as it was.

One process imports numpy, scipy, hypothesis and pytest, and never the statistics. Each mutant is tested in a fork of
it, whose import system serves the changed text for that one module: nothing is written, so that jobs cannot collide,
and no state is left over. Before the first, the unchanged texts must pass in the same way. Hypothesis draws the same
examples every time. A test that measures seconds is left out, so that a busy machine kills nothing.

A run that was stopped goes on where it was. `--again survived` tests those once more, after tests were added; `--show
ID` prints one change and what the tests say of it. What was reviewed as equivalent stands beside the table, in
`mutants_equivalent.csv` (id, reason, and the change for the reader): it counts as survived in the first figure and is
left out of the second, and is not tested again.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_arg_removal, operator_assignment, operator_string

ROOT = Path(__file__).parents[1]
PACKAGE = "resurgence_harness.statistics"
FOLDER = ROOT / "resurgence_harness" / "statistics"
OWN = {
    **dict.fromkeys(("cells", "controls", "policies", "sentences"), "tests/statistics/test_verdicts.py"),
    "words": "tests/statistics/test_scopes.py",
}
"""The tests that are asked first where no file bears the module's name."""
BESIDE = ("tests/validation/test_exactness.py", "tests/validation/test_looks.py")
"""Fast tests of the statistics outside of tests/statistics."""
DESELECTED = ("test_three_hundred_cells_are_decided_in_a_second",)
PRELOADED = (
    "numpy", "scipy.special", "scipy.stats", "hypothesis", "hypothesis.strategies", "pytest",
    "statsmodels.stats.proportion", "statsmodels.stats.contingency_tables", "statsmodels.stats.multitest",
)  # fmt: skip
COLUMNS = (
    "id", "file", "line", "scope", "operator", "original", "mutated", "result", "by", "seconds", "equivalent",
)  # fmt: skip
TEST_SECONDS = 20.0
"""Processor time that one test may take; the slowest takes 3."""
MEMORY = 6 * 2**30
"""Bytes of address space that one mutant may ask for."""
TEXTS = (cst.SimpleString, cst.ConcatenatedString, cst.FormattedString)


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one file, and what became of it."""

    id: str
    file: str
    line: int
    scope: str
    """Class and function, or "module"."""
    operator: str
    original: str
    mutated: str
    result: str = ""
    """killed, timeout, survived, or error where the tests could not be run; empty before."""
    by: str = ""
    """The first test that failed."""
    seconds: float = 0.0
    source: str = ""
    """The whole changed text; made when it is needed."""


class Walk(cst.CSTVisitor):
    """Every place of a file that an operator changes."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, str, str, cst.CSTNode, cst.CSTNode]] = []
        """(line, scope, operator, node, what replaces it)."""
        self.scope: list[str] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Apply every operator to the node, and go deeper unless nothing below may be changed."""
        if _left_out(node):
            return False
        if isinstance(node, (cst.ClassDef, cst.FunctionDef)):
            self.scope.append(node.name.value)
        for kind, operator in mutation_operators:
            if not isinstance(node, kind) or operator is operator_string:
                continue
            for changed in operator(node):
                if not _is_of_text(operator, node, changed):
                    line = self.get_metadata(PositionProvider, node).start.line
                    name = operator.__name__.removeprefix("operator_")
                    self.found.append((line, ".".join(self.scope) or "module", name, node, changed))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        """Leave a class or function behind."""
        if isinstance(original_node, (cst.ClassDef, cst.FunctionDef)):
            self.scope.pop()


def _left_out(node: cst.CSTNode) -> bool:
    """What is never run, or only when the file is loaded and by somebody else's rules."""
    if isinstance(node, (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom)):
        return True
    if isinstance(node, cst.If):
        return isinstance(node.test, cst.Name) and node.test.value == "TYPE_CHECKING"
    if isinstance(node, cst.Assign):
        target = node.targets[0].target
        return isinstance(target, cst.Name) and target.value == "__all__"
    return isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in ("len", "isinstance")


def _is_of_text(operator: Any, node: Any, changed: Any) -> bool:
    """Whether nothing but a text is changed: one assigned, or one that is an argument."""
    if operator is operator_assignment:
        return isinstance(node.value, TEXTS)
    if operator is not operator_arg_removal:
        return False
    place = next(
        (place for place, (one, other) in enumerate(zip(node.args, changed.args, strict=False)) if one is not other),
        len(node.args) - 1,
    )
    return isinstance(node.args[place].value, TEXTS)


def mutants_of(path: Path) -> Iterator[tuple[Mutant, cst.Module, cst.CSTNode, cst.CSTNode]]:
    """Every mutant of one file, with what makes its text."""
    wrapper = MetadataWrapper(cst.parse_module(path.read_text(encoding="utf-8")), unsafe_skip_copy=True)
    walk = Walk()
    wrapper.visit(walk)
    module, seen = wrapper.module, Counter[tuple[str, ...]]()
    for line, scope, operator, node, changed in walk.found:
        one, other = (module.code_for_node(each).strip() for each in (node, changed))
        if one == other:
            continue
        key = (path.name, scope, operator, one, other)
        seen[key] += 1
        name = hashlib.sha256("\0".join([*key, str(seen[key])]).encode()).hexdigest()[:10]
        original, mutated = _short(one, other)
        mutant = Mutant(
            id=name, file=path.name, line=line, scope=scope, operator=operator, original=original, mutated=mutated
        )
        yield mutant, module, node, changed


def _short(one: str, other: str, around: int = 30) -> tuple[str, str]:
    """Both codes on one line each, cut down to where they differ."""
    one, other = " ".join(one.split()), " ".join(other.split())
    start = _shared(one, other)
    end = _shared(one[start:][::-1], other[start:][::-1])

    def cut(text: str) -> str:
        left, right = max(start - around, 0), min(len(text) - end + around, len(text))
        return f"{'…' if left else ''}{text[left:right]}{'…' if right < len(text) else ''}"

    return cut(one), cut(other)


def _shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    return sum(1 for _ in itertools.takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))


def drawn(sample: int, seed: int) -> tuple[list[Mutant], Counter[str]]:
    """The sample with its texts, and how many mutants each file has."""
    files = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")
    everything = {path.name: list(mutants_of(path)) for path in files}
    sizes = Counter({name: len(found) for name, found in everything.items()})
    chosen = []
    for name, number in _shares(sizes, min(sample, sizes.total())).items():

        def place(entry: tuple[Mutant, cst.Module, cst.CSTNode, cst.CSTNode]) -> bytes:
            return hashlib.sha256(f"{seed}:{entry[0].id}".encode()).digest()

        kept = sorted(everything[name], key=place)[:number]
        for mutant, module, node, changed in kept:
            text = cst.ensure_type(module.deep_replace(node, changed), cst.Module).code
            chosen.append(replace(mutant, source=text))
    return sorted(chosen, key=lambda mutant: (mutant.file, mutant.line, mutant.id)), sizes


def _shares(sizes: Mapping[str, int], sample: int) -> dict[str, int]:
    """How many of each file: its share rounded down, and the rest to the largest remainders."""
    exact = {name: size * sample / sum(sizes.values()) for name, size in sizes.items()}
    given = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: (given[name] - exact[name], name))[: sample - sum(given.values())]:
        given[name] += 1
    return given


class Served(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports these modules from given texts, and caches nothing."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> Any:
        """Ours, or somebody else's."""
        if fullname not in self.texts:
            return None
        return importlib.util.spec_from_file_location(fullname, self.get_filename(fullname), loader=self)

    def get_filename(self, fullname: str) -> str:
        """Where the unchanged text lies."""
        return str(FOLDER / f"{fullname.rpartition('.')[2]}.py")

    def get_data(self, path: str | bytes) -> bytes:
        """The text."""
        return self.texts[f"{PACKAGE}.{Path(os.fsdecode(path)).stem}"].encode()


class First:
    """A pytest plugin that keeps the first failure, and ends the process if a test goes on for too long."""

    by = ""

    def pytest_runtest_setup(self, item: Any) -> None:
        """Processor time, so that a busy machine ends nothing; the signal's default is to end the process."""
        signal.setitimer(signal.ITIMER_PROF, TEST_SECONDS)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test's phase."""
        if report.failed:
            self.by = self.by or report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        """A file that could not be loaded."""
        if report.failed:
            self.by = self.by or report.nodeid


def preload() -> None:
    """Import what every fork needs, and never the statistics."""
    os.environ.update(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    sys.dont_write_bytecode = True
    for name in PRELOADED:
        importlib.import_module(name)
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "mutants", derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    settings.load_profile("mutants")
    assert not [name for name in sys.modules if name.startswith("resurgence_harness.")]


def tests_for(file: str) -> list[str]:
    """Files of tests, the module's own first."""
    stem = file.removesuffix(".py")
    own = OWN.get(stem, f"tests/statistics/test_{stem}.py")
    others = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "statistics").glob("test_*.py"))
    return [own, *(name for name in (*others, *BESIDE) if name != own)]


def _in_the_fork(texts: Mapping[str, str], tests: Sequence[str], answer: Path, *, quiet: bool) -> None:
    """Run the tests on these texts, write what they said, and never return."""
    told: dict[str, object] = {"code": -1, "by": ""}
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        if quiet:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
        sys.meta_path.insert(0, Served(texts))
        try:
            for name in (PACKAGE, *texts):
                importlib.import_module(name)
        except BaseException as error:  # a mutant may raise anything
            told = {"code": 1, "by": f"import: {type(error).__name__}"}
        else:
            import pytest

            first = First()
            options = ["-x", "-q", "-p", "no:cacheprovider", "--confcutdir=tests", "-o", "filterwarnings=ignore"]
            # Names of tests, not of files: deselecting by node would need each file's path.
            options += ["-k", " and ".join(f"not {name}" for name in DESELECTED)]
            if quiet:
                options += ["--tb=no", "--no-header"]
            # The module's own tests alone first: most mutants need no others to be collected.
            code = int(pytest.main([*options, tests[0]], plugins=[first]))
            if code == 0 and tests[1:]:
                code = int(pytest.main([*options, *tests[1:]], plugins=[first]))
            ours = all(isinstance(sys.modules[name].__loader__, Served) for name in texts)
            told = {"code": code if ours else -1, "by": first.by}
    except BaseException:
        told["by"] = traceback.format_exc(limit=1).strip().splitlines()[-1]
    answer.write_text(json.dumps(told), encoding="utf-8")
    os._exit(0)


class Pool:
    """Forks at work, at most `jobs` of them."""

    def __init__(self, jobs: int, folder: Path, *, quiet: bool = True) -> None:
        self.jobs, self.folder, self.quiet = jobs, folder, quiet
        self.running: dict[int, tuple[str, float, float]] = {}
        """Process → (id, start, limit in seconds)."""

    def start(self, name: str, texts: Mapping[str, str], tests: Sequence[str], limit: float) -> None:
        """Fork."""
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            _in_the_fork(texts, tests, self.folder / f"{name}.json", quiet=self.quiet)
        self.running[process] = (name, time.monotonic(), limit)

    def next(self) -> tuple[str, str, str, float]:
        """Wait for one to end: (id, result, by, seconds)."""
        while True:
            for process, (name, started, limit) in list(self.running.items()):
                seconds = time.monotonic() - started
                late = seconds > limit
                if late:
                    os.killpg(process, signal.SIGKILL)
                ended, status = os.waitpid(process, 0 if late else os.WNOHANG)
                if not ended:
                    continue
                del self.running[process]
                answer = self.folder / f"{name}.json"
                late = late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF)
                if late and not answer.exists():
                    return name, "timeout", "", seconds
                if not answer.exists():
                    return name, "killed", "the process died", seconds
                told = json.loads(answer.read_text(encoding="utf-8"))
                answer.unlink()
                # pytest: 0 all passed, 1 a test failed, 2 a file could not be loaded, 4 a conftest could not
                result = {0: "survived", 1: "killed", 2: "killed", 4: "killed"}.get(told["code"], "error")
                by = str(told["by"]).removeprefix("tests/")
                return name, result, by if len(by) <= 100 else f"{by[:99]}…", seconds
            time.sleep(0.02)


def clean(folder: Path) -> float:
    """Seconds that all tests take on the unchanged texts, served as mutants are; they must pass."""
    texts = {f"{PACKAGE}.{path.stem}": path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}
    del texts[f"{PACKAGE}.__init__"]
    pool = Pool(1, folder)
    pool.start("clean", texts, tests_for("verdicts.py"), 600.0)
    _, result, by, seconds = pool.next()
    if result != "survived":
        raise SystemExit(f"The tests do not pass on the unchanged statistics ({result}: {by}).")
    return seconds


def read(path: Path) -> dict[str, dict[str, str]]:
    """Rows by id; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def write(path: Path, sample: Sequence[Mutant], equivalent: Mapping[str, object]) -> None:
    """The table of those that were tested, in the sample's order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    with beside.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for one in sample:
            if one.result:
                is_equivalent = "yes" if one.id in equivalent and one.result == "survived" else ""
                values = (getattr(one, name) for name in COLUMNS[:-2])
                table.writerow((*values, f"{one.seconds:.1f}", is_equivalent))
    beside.replace(path)


def summary(sample: Sequence[Mutant], sizes: Mapping[str, int], equivalent: Mapping[str, object], command: str) -> str:
    """Both figures, per file and over all."""
    lines = [f"$ {command}", "", f"{'file':<18}{'mutants':>9}{'drawn':>7}{'killed':>8}{'timeout':>9}{'survived':>10}"]
    lines[-1] += f"{'equivalent':>12}"
    for name in [*sizes, "all"]:
        rows = [one for one in sample if name in (one.file, "all")]
        counts = Counter(one.result for one in rows)
        same = sum(one.result == "survived" and one.id in equivalent for one in rows)
        size = sizes.get(name, sum(sizes.values()))
        lines.append(
            f"{name:<18}{size:>9}{len(rows):>7}{counts['killed']:>8}{counts['timeout']:>9}"
            f"{counts['survived']:>10}{same:>12}"
        )
        if counts["error"] or counts[""]:
            lines.append(f"  {counts['error']} could not be tested, {counts['']} were not yet")
    noticed = counts["killed"] + counts["timeout"]
    lines += ["", f"killed (timeouts included) of all sampled   {noticed} of {len(rows)}, {noticed / len(rows):.1%}"]
    rest = max(len(rows) - same, 1)
    lines += [f"killed of those not equivalent by review    {noticed} of {rest}, {noticed / rest:.1%}"]
    return "\n".join(lines) + "\n"


def show(mutant: Mutant) -> None:
    """Print one change, and what the tests say of it."""
    before = (FOLDER / mutant.file).read_text(encoding="utf-8").splitlines()
    print("\n".join(difflib.unified_diff(before, mutant.source.splitlines(), mutant.file, mutant.id, lineterm="", n=2)))
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(1, Path(folder), quiet=False)
        texts = {f"{PACKAGE}.{mutant.file.removesuffix('.py')}": mutant.source}
        pool.start(mutant.id, texts, tests_for(mutant.file), 600.0)
        print(pool.next())


def main() -> None:
    """Draw the sample, test what was not tested yet, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--to", type=Path, required=True, help="the table; its summary is written beside it, as .txt")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no mutant after so many")
    parser.add_argument("--again", default="", help="results to test once more: survived,timeout,error")
    parser.add_argument("--show", default="", metavar="ID")
    asked = parser.parse_args()
    asked.to = asked.to.absolute()
    os.chdir(ROOT)
    sample, sizes = drawn(asked.sample, asked.seed)
    if asked.show:
        preload()
        return show(next(one for one in sample if one.id == asked.show))
    equivalent = read(asked.to.with_name(f"{asked.to.stem}_equivalent.csv"))
    known, again = read(asked.to), set(asked.again.split(",")) | {""}
    for place, one in enumerate(sample):
        if row := known.get(one.id):
            sample[place] = replace(one, result=row["result"], by=row["by"], seconds=float(row["seconds"]))
    reviewed = {one.id for one in sample if one.result == "survived" and one.id in equivalent}
    waiting = [place for place, one in enumerate(sample) if one.result in again and one.id not in reviewed]
    print(f"{len(sample)} of {sizes.total()} mutants, {len(waiting)} to test", flush=True)
    if waiting:
        preload()
        with tempfile.TemporaryDirectory() as folder:
            test(sample, waiting, Path(folder), asked, equivalent)
    write(asked.to, sample, equivalent)
    command = f"python -m benchmarks.mutants --sample {asked.sample} --seed {asked.seed} --jobs {asked.jobs}"
    told = summary(sample, sizes, equivalent, f"{command} --to reports/validation/{asked.to.name}")
    asked.to.with_suffix(".txt").write_text(told, encoding="utf-8")
    print(told)


def test(
    sample: list[Mutant],
    waiting: list[int],
    folder: Path,
    asked: argparse.Namespace,
    equivalent: Mapping[str, object],
) -> None:
    """Test those that wait, and write the table after each."""
    started = time.monotonic()
    seconds = clean(folder)
    limit = 10 + 5 * seconds * (1 if asked.jobs == 1 else 2)
    print(f"unchanged: {seconds:.1f} s, so each mutant may take {limit:.0f} s", flush=True)
    pool, places = Pool(asked.jobs, folder), {sample[place].id: place for place in waiting}
    while waiting or pool.running:
        if waiting and time.monotonic() - started > 60 * asked.minutes:
            waiting = []
        if waiting and len(pool.running) < pool.jobs:
            one = sample[waiting.pop(0)]
            texts = {f"{PACKAGE}.{one.file.removesuffix('.py')}": one.source}
            pool.start(one.id, texts, tests_for(one.file), limit)
            continue
        if not pool.running:
            break
        name, result, by, seconds = pool.next()
        place = places[name]
        one = sample[place] = replace(sample[place], result=result, by=by, seconds=seconds)
        write(asked.to, sample, equivalent)
        what = f"{one.file}:{one.line} {one.original} -> {one.mutated}"
        print(f"{one.id} {what}: {result} {by} {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
