"""The command line: what it prints, its exit codes, and that it never loads a model to look."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import resurgence_harness
from resurgence_harness import cli
from resurgence_harness.cli.formatting import format_age, format_size, format_time
from resurgence_harness.cli.plan import show_plan
from resurgence_harness.planning import HELD_OUT, images_key, plan
from resurgence_harness.storing import Store, key
from tests.test_planning import ASKED, BASE, TUNED, UNLEARNED, Eye, put

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """run("store", "ls") → (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["resurgence", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        code = left.value.code
        return (code if isinstance(code, int) else 0), out, err

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with two things."""
    store = Store(tmp_path / "store")
    put(store, images_key(BASE, ASKED), "images", content=bytes(2_500_000))
    put(store, key("checkpoint", "c"), "checkpoint", content=bytes(1_000))
    return store


def test_version(run: Any) -> None:
    """--version prints one line."""
    assert run("--version") == (0, f"resurgence-harness {resurgence_harness.__version__}\n", "")


def test_help_tells_the_exit_codes(run: Any) -> None:
    """Every --help names them."""
    for command in (["--help"], ["store", "--help"]):
        code, out, _ = run(*command)
        assert code == 0 and "Exit codes: 0 done" in " ".join(out.split())


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cpu:0", "cuda:99"])
@pytest.mark.parametrize("command", [("gate", "--candidate", "micro"), ("paper", "--table", "1")])
def test_a_device_that_there_is_not_is_refused(
    run: Any, command: tuple[str, ...], device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every command that takes one, before it reads anything else."""
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*command, "--device", device)
    assert code == 4 and err.startswith(f'resurgence: There is no device "{device}"')


def test_ls_shows_sizes_ages_and_words(run: Any, store: Store) -> None:
    """One line per artifact and a sum."""
    code, out, _ = run("store", "ls", "--store", store.root)
    assert code == 0
    assert "2.5 MB" in out and "just now" in out and images_key(BASE, ASKED)[:12] in out
    assert out.splitlines()[-1] == f"2 artifacts, 2.5 MB in {store.root} (checkpoint 1.0 kB, images 2.5 MB)"


def test_ls_of_one_kind(run: Any, store: Store) -> None:
    """--kind chooses."""
    _, out, _ = run("store", "ls", "--kind", "checkpoint", "--store", store.root)
    assert out.splitlines()[-1] == f"1 artifact, 1.0 kB in {store.root}"


def test_ls_of_a_store_that_is_not_there_makes_none(run: Any, tmp_path: Path) -> None:
    """Nothing there is not a mistake."""
    assert run("store", "ls", "--store", tmp_path / "none")[:2] == (0, f"0 artifacts, 0 B in {tmp_path}/none\n")
    assert list(tmp_path.iterdir()) == []


def test_verify_finds_damage(run: Any, store: Store) -> None:
    """Whole: 0. A changed byte: 12, with the file's name."""
    assert run("store", "verify", "--store", store.root)[0] == 0
    path = store.open(images_key(BASE, ASKED)).path / "file"
    path.write_bytes(b"y" + path.read_bytes()[1:])
    code, out, _ = run("store", "verify", "--store", store.root)
    assert code == 12
    assert "file of images" in out and "1 artifact intact, 1 damaged" in out


def test_gc_removes_what_is_old(run: Any, store: Store) -> None:
    """A dry run removes nothing; kinds can be kept."""
    arguments = ("store", "gc", "--older-than", "-1", "--store", store.root)
    assert "2 items" in run(*arguments, "--dry-run")[1]
    assert len(store.ls()) == 2
    assert "1 item, " in run(*arguments, "--keep", "images")[1]
    assert [artifact.kind for artifact in store.ls()] == ["images"]
    assert run("store", "gc", "--store", store.root)[1].startswith("0 items")


def test_path_prints_where_the_store_is(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default, the environment's, the given one."""
    monkeypatch.setenv("RESURGENCE_STORE", str(tmp_path / "env"))
    assert run("store", "path")[1] == f"{tmp_path}/env\n"
    assert run("store", "path", "--resurgence-store", tmp_path / "given")[1] == f"{tmp_path}/given\n"


@pytest.mark.parametrize(
    ("store", "words"), [("nosuch://place", "cannot be reached"), ("{file}", "is not a directory")]
)
def test_a_persons_mistake_is_a_sentence_and_exit_4(run: Any, tmp_path: Path, store: str, words: str) -> None:
    """No traceback, and what to do."""
    (tmp_path / "file").write_text("")
    code, out, err = run("store", "ls", "--store", store.format(file=tmp_path / "file"))
    assert (code, out) == (4, "")
    assert err.startswith("resurgence: The store") and words in err and "Traceback" not in err


def test_looking_at_the_store_loads_no_model(store: Store) -> None:
    """Neither torch nor diffusers nor pytest is imported."""
    script = (
        "import sys; from resurgence_harness import cli\n"
        "sys.argv = ['resurgence', 'store', 'ls', '--store', sys.argv[1]]\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'pytest', 'scipy', 'numpy'}\n"
        "try: cli.main()\n"
        "except SystemExit: print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.root)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_plan_is_told_by_model(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """The sets of one model stand together; the last line says how much and how long."""
    wanted = [(BASE, ASKED, Eye()), (UNLEARNED, ASKED, Eye()), (TUNED, ASKED, Eye()), (TUNED, ASKED, Eye(name="other"))]
    show_plan(plan(store, wanted), cells=1, store=store)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "kind artifact status estimate"
    assert any(line.startswith("checkpoint micro → uce(1) → lora missing") for line in lines)
    assert any(line.startswith("judgments 8 of micro → uce(1) → lora missing") for line in lines)
    assert lines[-2] == f"1 cell; store {store.root}"
    assert lines[-1].startswith(f"To build: 2 checkpoints, {10 + HELD_OUT} images, 16 judgments; about ")
    assert lines[-1].endswith("for one worker, from default times. 1 present.")


def test_a_plan_of_nothing_says_so(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """A warm store has nothing to make."""
    from resurgence_harness.planning import judgments_key

    put(store, judgments_key(BASE, ASKED, Eye()), "judgments")
    show_plan(plan(store, [(BASE, ASKED, Eye())]), cells=1, store=store)
    assert capsys.readouterr().out.splitlines()[-1] == "Nothing has to be built: 1 artifact present."


def test_a_whole_plan_lists_every_artifact(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """--all shows what is there too."""
    show_plan(plan(store, [(BASE, ASKED, Eye())]), cells=1, store=store, every=True)
    out = capsys.readouterr().out
    assert "4 images of micro" in out and "present" in out and "eye on 4 images of micro" in out


SUITE = """
import pytest

@pytest.mark.resurgence(task="small")
def test_erased(claim):
    claim.stays_erased()
"""
CONFTEST = """
from resurgence_harness.specs import Concept
from resurgence_harness.tasks import Task
from tests.test_bench import Brightness

def named(*names):
    return tuple(Concept(name=name, kind="a celebrity") for name in names)

def pytest_resurgence_tasks():
    return [Task(
        name="small", erasable=named("ada quill"), counts=(1,), preserve=named("cleo marsh"), severity="normal",
        held_out=named("dov ferris"), templates=("a photo of {}",), anchor="a celebrity", judges=("brightness",),
    )]

class Knowing(Brightness):
    labels = (*Brightness.labels, "cleo marsh", "dov ferris")

def pytest_resurgence_judges():
    return [Knowing()]
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments for a suite of one cell on a tiny Stable Diffusion, with as few images as there can be."""
    from tests.tiny import save_tiny_stable_diffusion

    folder = tmp_path_factory.mktemp("suite")
    (folder / "test_small.py").write_text(SUITE)
    (folder / "conftest.py").write_text(CONFTEST)
    base = save_tiny_stable_diffusion(folder / "base")
    numbers = ("sampler.steps=1", "sampler.batch=8", "benign.seeds=2", "lora.steps=1")
    return [
        str(folder),
        f"--resurgence-base={base}",
        "--resurgence-methods=uce",
        "--resurgence-counts=1",
        "--resurgence-seeds=1",
        "--resurgence-device=cpu",
        *(f"--resurgence-set={number}" for number in numbers),
    ]


def resurgence(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with the plugin loaded whether or not the package is installed."""
    loaded = any(point.value == "resurgence_harness.pytest_plugin" for point in entry_points(group="pytest11"))
    return subprocess.run(
        [sys.executable, "-m", "resurgence_harness.cli", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
            "PYTEST_ADDOPTS": "" if loaded else "-p resurgence_harness.pytest_plugin",
            "COLUMNS": "200",
            **environment,
        },
        capture_output=True,
        text=True,
    )


def test_plan_then_build_then_plan(suite: list[str], tmp_path: Path) -> None:
    """A cold plan lists one cell's models; after the build nothing is left to make, a step on the way included."""
    store = f"--resurgence-store={tmp_path / 'store'}"
    suite = [*suite, "--resurgence-set=lora.steps=2", "--resurgence-steps=1"]
    cold = resurgence("plan", *suite, store)
    assert cold.returncode == 0, cold.stderr
    lines = [" ".join(line.split()) for line in cold.stdout.splitlines()]
    assert any(line.startswith("checkpoint base → uce(1) missing") for line in lines)
    assert any(line.startswith("checkpoint base → uce(1) → lora missing") for line in lines)
    assert any(
        line.startswith("Pairs needed to distinguish a rise from 5 points with 99 % confidence") for line in lines
    )
    assert lines[-2].startswith("1 cell; store ")
    assert not (tmp_path / "store").exists()
    built = resurgence("build", *suite, store)
    assert built.returncode == 0, built.stderr
    assert built.stdout.splitlines()[-1] == f"All artifacts of 1 cell are in {tmp_path}/store."
    made = Store(tmp_path / "store").ls()
    assert {artifact.kind for artifact in made} >= {"checkpoint", "losses", "canaries"}
    assert [artifact.label for artifact in made if artifact.label.endswith("stopped at 1")]
    warm = resurgence("plan", *suite, store)
    assert "Nothing has to be built" in warm.stdout.splitlines()[-1], warm.stdout


def test_a_plan_loads_no_model(suite: list[str], tmp_path: Path) -> None:
    """Planning imports neither torch nor diffusers; what is imported while pytest captures stderr counts, too."""
    listed = tmp_path / "modules"
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, pathlib, sys\n"
        f"atexit.register(lambda: pathlib.Path({str(listed)!r}).write_text(chr(10).join(sys.modules)))\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1]), *sys.path])
    done = resurgence("plan", *suite, f"--resurgence-store={tmp_path / 'store'}", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    modules = set(listed.read_text().split())
    assert "resurgence_harness.planning" in modules
    assert not {"torch", "diffusers", "transformers"} & modules


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resurgence-methods=nosuch"], 'There is no method "nosuch"'),
        (["--resurgence-base=/nosuch"], "/nosuch"),
        (["nosuch-folder"], "resurgence: file or directory not found: nosuch-folder"),
        (["--resurgence-nosuch=1"], "resurgence: unrecognized arguments: --resurgence-nosuch=1"),
    ],
    ids=["method", "base", "folder", "option"],
)
def test_mistakes_in_a_plan_are_sentences(suite: list[str], tmp_path: Path, arguments: list[str], words: str) -> None:
    """Exit 4, what was wrong, no traceback, nothing written."""
    done = resurgence("plan", *suite, *arguments, f"--resurgence-store={tmp_path / 'store'}")
    assert done.returncode == 4, done.stdout + done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_used_ends_a_build(suite: list[str], tmp_path: Path) -> None:
    """Exit 4 before any model is loaded."""
    done = resurgence("build", *suite, f"--resurgence-store={tmp_path / 'gone' / 'store'}")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "cannot be created" in done.stderr and "Traceback" not in done.stderr


def test_a_suite_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    """pytest's own account of the failure is passed on."""
    (tmp_path / "test_broken.py").write_text("import nosuchmodule")
    done = resurgence("plan", str(tmp_path))
    assert done.returncode == 4
    assert done.stderr.startswith("resurgence: pytest could not collect") and "nosuchmodule" in done.stderr


def test_a_folder_without_cells_is_a_mistake(tmp_path: Path) -> None:
    """Ordinary tests are nothing to plan."""
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass")
    done = resurgence("plan", str(tmp_path))
    assert done.returncode == 4
    assert done.stderr.startswith("resurgence: No cells were collected.")


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (2_500_000, "2.5 MB"), (5e12, "5000.0 GB")]
)
def test_sizes_in_words(number: int, words: str) -> None:
    """Bytes as people write them."""
    assert format_size(number) == words


@pytest.mark.parametrize(("number", "words"), [(0.04, "0.0 s"), (12.3, "12 s"), (150, "2 min"), (7200, "2.0 h")])
def test_times_in_words(number: float, words: str) -> None:
    """Seconds as people say them."""
    assert format_time(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "just now"), (120, "2 min ago"), (7200, "2 h ago"), (86400 * 3, "3 d ago")]
)
def test_ages_in_words(seconds: float, words: str) -> None:
    """Ages as people say them."""
    assert format_age(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Name one table, figure, appendix or experiment."),
        (["--table", "1", "--figure", "9"], "Name one table, figure, appendix or experiment."),
        (["--table", "7"], 'There is no experiment "table-7".'),
        (["--table", "1", "--only", "nobody"], "table-1 has no task or method nobody."),
        (["--table", "1", "--base", "nowhere"], "nowhere"),
    ],
)
def test_a_selection_that_is_none_is_a_sentence(run: Any, tmp_path: Path, arguments: list[str], said: str) -> None:
    """Exit code 4, and no file."""
    code, _, err = run("paper", *arguments, "--to", tmp_path / "out", "--store", tmp_path / "store")
    assert code == 4 and said in err.splitlines()[0]
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_there_is_compared_again(run: Any, tmp_path: Path) -> None:
    """Rows that a file holds are measured no more: the shipped table of the microworld, its figure and the paper's."""
    shutil.copy(ROOT / "reports/microworld/paper/table-1.csv", tmp_path / "table-1.csv")
    code, out, _ = run("paper", "--table", 1, "--to", tmp_path, "--store", tmp_path / "store")
    assert code == 0
    assert "celebrity, 10: Spearman over methods +0.86 by rate after" in out
    assert {path.name for path in tmp_path.iterdir()} == {"table-1.csv", "table-1.png", "table-1.svg"}
