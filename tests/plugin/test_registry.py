"""Methods, judges and tasks of installed packages: their names, their origins, and what a run reports of them.

The packages are folders on PYTHONPATH as pip leaves them: modules beside a .dist-info with its entry points.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from tests.plugin.conftest import ROOT, SUITE, Folder, conftest_for
from tests.plugin.test_mistakes import refused
from tests.plugin.test_options import collected
from tests.plugin.test_strangers import METHOD, plan
from tests.warm_python import python

pytestmark = pytest.mark.slow

STEP = METHOD.partition("def pytest_resurgence_unlearnings")[0].lstrip()
"""The method without the hook that registers it."""
UNLEARNINGS = "[resurgence.unlearnings]\nshrink = acme_erasure.shrinking:Shrink\n"


PLAIN = """
    def test_plain():
        import sys

        assert "resurgence_harness.registry" not in sys.modules
"""


def install(place: Path, name: str, version: str, points: str, **modules: str) -> Path:
    """A package in a folder: its modules ("a__b" is a/b.py) and the metadata that pip writes beside them."""
    recorded = []
    for module, text in modules.items():
        file = place / f"{module.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.parent != place:
            (file.parent / "__init__.py").touch()
            recorded.append(f"{file.parent.name}/__init__.py")
        file.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        recorded.append(str(file.relative_to(place)))
    about = place / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(points, encoding="utf-8")
    (about / "RECORD").write_text("".join(f"{file},,\n" for file in [*recorded, f"{about.name}/RECORD"]), "utf-8")
    return place


@pytest.fixture
def site(suite: Folder, tmp_path: Path) -> Path:
    """A folder for packages, on the path of every process that the suite starts."""
    place = tmp_path / "site"
    place.mkdir()
    suite.environment["PYTHONPATH"] = f"{ROOT}:{place}"
    return place


def resurgence(folder: Folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The `resurgence` command in a folder."""
    command = [python(), "-m", "resurgence_harness.cli", *arguments]
    return subprocess.run(command, cwd=folder.path, env=folder.env(), capture_output=True, text=True, timeout=900)


def key_of(folder: Folder) -> str:
    """The key of the cell's unlearned model in a new process."""
    code = """
        from resurgence_harness.planning import checkpoint_key
        from resurgence_harness.presets import METHODS
        from resurgence_harness.specs import Base, Concept, Recipe

        step = METHODS["shrink"].step(concepts=(Concept(name="cleo marsh"),))
        print(checkpoint_key(Recipe(Base(digest="0" * 64)).then(step)))
    """
    ran = subprocess.run(
        [python(), "-c", dedent(code)], cwd=folder.path, env=folder.env(), capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_a_packages_method_runs_and_every_verdict_names_the_package(suite: Folder, site: Path) -> None:
    """In the workers of xdist as in one process: collected, planned, built, and named with its source."""
    install(site, "acme-erasure", "1.2", UNLEARNINGS, acme_erasure__shrinking=STEP)
    only = "--resurgence-methods=shrink"
    assert collected(suite, "-n", "0", only) == ["shrink-1-lora"]
    planned = plan(suite, only)
    assert planned.returncode == 0 and "share 0.5" in planned.stdout, planned.stdout + planned.stderr
    note = 'Unlearning method "shrink" is from acme-erasure 1.2, source '
    assert note in planned.stdout

    suite.store = suite.path.parent / "store"
    ran = suite.run("-n", "2", only, "--resurgence-engine=fixed")

    (cell,) = ran.verdicts["cells"]
    given = {part["kind"]: part for part in cell["given"]}
    assert given["unlearning"] | {"source": ""} == {
        "kind": "unlearning",
        "name": "shrink",
        "origin": "package",
        "package": "acme-erasure",
        "version": "1.2",
        "source": "",
        "replaces": "",
    }
    source = given["unlearning"]["source"]
    assert len(source) == 64 and note + source[:12] in ran.output
    assert any(note in one for one in ran.verdicts["selection"]["notes"])
    assert (given["task"]["origin"], given["task"]["package"]) == ("conftest", "conftest.py")
    assert given["judge"]["name"] == "gallery" and "finetuning" not in given
    listed = resurgence(suite, "list", "unlearning")
    assert listed.returncode == 0 and "Traceback" not in listed.stderr, listed.stderr
    (row,) = [line.split() for line in listed.stdout.splitlines() if " shrink " in line]
    assert row == ["unlearning", "shrink", "acme-erasure", "1.2", source[:12]]
    assert "1 package: acme-erasure 1.2" in listed.stdout


def test_another_version_or_source_of_a_package_is_another_key(suite: Folder, site: Path) -> None:
    """Its stored models are never used for one that another file of the package or another version makes."""
    install(site, "acme-erasure", "1.2", UNLEARNINGS, acme_erasure__shrinking=STEP, acme_erasure__other="x = 1")
    first = key_of(suite)
    assert key_of(suite) == first
    (site / "acme_erasure" / "other.py").write_text("x = 2\n", encoding="utf-8")
    second = key_of(suite)
    (site / "acme_erasure-1.2.dist-info").rename(site / "acme_erasure-1.3.dist-info")
    metadata = site / "acme_erasure-1.3.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text(encoding="utf-8").replace("1.2", "1.3"), encoding="utf-8")
    assert len({first, second, key_of(suite)}) == 3


def test_a_packages_judge_and_task_are_found_by_name(suite: Folder, site: Path, gallery: Path) -> None:
    """The suite names the task, the task its judge; neither is in a conftest.py."""
    text = f"""
        from dataclasses import replace

        from tests.plugin.gallery import TINY, GalleryJudge

        SEEN = GalleryJudge({str(gallery)!r}, name="seen")
        SMALL = replace(TINY, name="small", judges=("seen",))
    """
    points = "[resurgence.judges]\nseen = acme_judges:SEEN\n[resurgence.tasks]\nsmall = acme_judges:SMALL\n"
    install(site, "acme-judges", "0.1", points, acme_judges=text)
    (suite.path / "conftest.py").unlink()
    suite.write("test_tiny.py", SUITE.replace('task="tiny"', 'task="small"'))
    assert collected(suite, "-n", "0", "--resurgence-methods=uce") == ["uce-1-lora"]
    ran = suite.run("-n", "0", "--resurgence-methods=uce", "--resurgence-engine=fixed")
    (cell,) = ran.verdicts["cells"]
    assert [(one["kind"], one["name"], one["package"]) for one in cell["given"]] == [
        ("task", "small", "acme-judges"),
        ("judge", "seen", "acme-judges"),
    ]
    assert sum("is from acme-judges 0.1" in note for note in ran.verdicts["selection"]["notes"]) == 2


def test_only_a_conftest_takes_an_existing_name_and_the_verdict_says_so(
    suite: Folder, site: Path, gallery: Path
) -> None:
    """A package's judge of a built-in name is refused; a conftest.py's replaces it, and a package's."""
    text = f"from tests.plugin.gallery import GalleryJudge\n\nOWN = GalleryJudge({str(gallery)!r}, name='identity')\n"
    install(site, "acme-judges", "0.1", "[resurgence.judges]\nidentity = acme_judges:OWN\n", acme_judges=text)
    assert refused(suite, "-n", "0").startswith('Two judges are called "identity".')
    said = resurgence(suite, "list")
    assert said.returncode == 4 and 'Two judges are called "identity".' in said.stderr
    assert "built in" in said.stderr and "acme-judges 0.1" in said.stderr and "Traceback" not in said.stderr

    points = site / "acme_judges-0.1.dist-info" / "entry_points.txt"
    points.write_text("[resurgence.judges]\ngallery = acme_judges:OWN\n", encoding="utf-8")
    (site / "acme_judges.py").write_text(text.replace("'identity'", "'gallery'"), encoding="utf-8")
    mine = "TINY, GalleryJudge\n\n\n        class Mine(GalleryJudge):\n            pass\n"
    own = conftest_for(gallery).replace("TINY, GalleryJudge\n", mine)
    suite.write("conftest.py", own.replace("[GalleryJudge(", "[Mine("))
    ran = suite.run("-n", "0", "--resurgence-methods=uce", "--resurgence-engine=fixed")
    (cell,) = ran.verdicts["cells"]
    (judge,) = [part for part in cell["given"] if part["kind"] == "judge"]
    assert (judge["origin"], judge["replaces"]) == ("conftest", "acme-judges 0.1")
    (note,) = [note for note in ran.verdicts["selection"]["notes"] if "gallery" in note]
    assert note.endswith("; it replaces the one of acme-judges 0.1.") and note in ran.output


MISTAKES = {
    "two packages": (
        {"acme-erasure": UNLEARNINGS, "beta-erasure": UNLEARNINGS.replace("acme", "beta")},
        'Two unlearning methods are called "shrink".',
    ),
    "no such module": (
        {"acme-erasure": "[resurgence.unlearnings]\nshrink = acme_erasure.nowhere:Shrink\n"},
        'The entry point "shrink" of acme-erasure 1.0 cannot be imported.',
    ),
    "no such name": (
        {"acme-erasure": "[resurgence.unlearnings]\nshrink = acme_erasure.shrinking:Shrunk\n"},
        'The entry point "shrink" of acme-erasure 1.0 cannot be imported.',
    ),
    "a module that exits": (
        {"acme-erasure": "[resurgence.judges]\nshrink = acme_erasure.exiting:x\n"},
        'The entry point "shrink" of acme-erasure 1.0 cannot be imported.',
    ),
    "a step as a judge": (
        {"acme-erasure": "[resurgence.judges]\nshrink = acme_erasure.shrinking:Shrink\n"},
        'The entry point "shrink" of acme-erasure 1.0 is not a usable judge.',
    ),
    "a step as a task": (
        {"acme-erasure": "[resurgence.tasks]\nshrink = acme_erasure.shrinking:Shrink\n"},
        'The entry point "shrink" of acme-erasure 1.0 is not a usable task.',
    ),
    "an unlearning as a fine-tuning": (
        {"acme-erasure": "[resurgence.finetunings]\nshrink = acme_erasure.shrinking:Shrink\n"},
        'The entry point "shrink" of acme-erasure 1.0 is not a usable fine-tuning.',
    ),
    "a function as an unlearning": (
        {"acme-erasure": "[resurgence.unlearnings]\nshrink = acme_erasure.shrinking:dataclass\n"},
        'The entry point "shrink" of acme-erasure 1.0 is not a usable unlearning method.',
    ),
    "another name": (
        {"acme-erasure": "[resurgence.unlearnings]\nhalf = acme_erasure.shrinking:Shrink\n"},
        'The unlearning method of the entry point "half" is called "shrink".',
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_an_entry_point_that_cannot_be_used_is_a_sentence(suite: Folder, site: Path, what: str) -> None:
    """The same in a suite and in `resurgence list`: exit code 4, before anything is planned."""
    packages, sentence = MISTAKES[what]
    for name, points in packages.items():
        module = name.replace("-", "_")
        modules = {f"{module}__shrinking": STEP, f"{module}__exiting": "raise SystemExit(0)"}
        install(site, name, "1.0", points, **modules)
    assert refused(suite, "-n", "0").startswith(sentence)
    said = resurgence(suite, "list")
    assert said.returncode == 4 and "Traceback" not in said.stderr, said.stderr
    assert said.stderr.startswith(f"resurgence: {sentence}")


def test_a_package_is_not_imported_by_a_run_without_cells(suite: Folder, site: Path) -> None:
    """Nor are entry points read: a project that does not use the plugin does not notice a broken one."""
    install(site, "acme-erasure", "1.0", UNLEARNINGS, acme_erasure__shrinking="raise SystemExit('imported')")
    for name in ("conftest.py", "test_tiny.py"):
        (suite.path / name).unlink()
    suite.write("test_plain.py", PLAIN)
    ran = replace(suite, cold=True).run("-q", "-n", "0", "-p", "no:allure_pytest")
    assert ran.code == 0 and "imported" not in ran.output + ran.errors, ran.output + ran.errors


def test_a_conftests_method_has_its_source_in_its_key(suite: Folder, gallery: Path) -> None:
    """Another formula in the code is another model, though the version is the same; the base's key stays."""
    code = """
        import sys

        from resurgence_harness.cli.cells import collected
        from resurgence_harness.planning import checkpoint_key

        (plan, _), *_ = collected([".", *sys.argv[1:], "--resurgence-methods=shrink"]).plans
        print(checkpoint_key(plan.unlearned), checkpoint_key(plan.base))
    """
    own = [f"--resurgence-base={suite.base}", f"--resurgence-store={suite.store}"]
    keys = []
    for share in ("self.share", "0.25"):
        text = METHOD.replace("mul_(self.share)", f"mul_({share})")
        suite.write("conftest.py", text + dedent(conftest_for(gallery)))
        command = [python(), "-c", dedent(code), *own]
        ran = subprocess.run(command, cwd=suite.path, env=suite.env(), capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        keys.append(ran.stdout.split())
    assert keys[0][0] != keys[1][0] and keys[0][1] == keys[1][1]
