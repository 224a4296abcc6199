"""What a stranger writes wrongly in a method, a judge or a task is a sentence and exit code 4, wherever it is met.

Methods are registered by a hook of conftest.py; test_registry.py has those of packages. None has preset values.
"""

from __future__ import annotations

import re
import subprocess
from textwrap import dedent, indent

import pytest

from tests.plugin.conftest import ROOT, SUITE, Folder
from tests.plugin.test_mistakes import refused
from tests.plugin.test_options import collected
from tests.warm_python import python

pytestmark = pytest.mark.slow

NIGHT = re.findall(r"```python\n# (\S+)\n(.*?)```", (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8"), re.S)
"""The documented task and judge."""
CHECKED = re.findall(r"```python\n(import .*?)```", (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8"), re.S)
"""The documented test of that judge."""
METHOD = """
from dataclasses import dataclass
from typing import ClassVar

from resurgence_harness.diffusion.parameters import StrictKeyValue
from resurgence_harness.presets.methods import Method
from resurgence_harness.specs import Concept
from resurgence_harness.unlearning import Unlearning


@dataclass(frozen=True, kw_only=True)
class Shrink(Unlearning):
    name: ClassVar[str] = "shrink"
    version: ClassVar[int] = 1
    concepts: tuple[Concept, ...]
    share: float = 0.5

    @property
    def moves(self):
        return StrictKeyValue()

    def apply(self, model, run):
        changed = model.copy()
        for name, parameter in changed.unet.named_parameters():
            if self.moves.selects(f"unet.{name}"):
                parameter.data.mul_(self.share)
        return changed


def pytest_resurgence_unlearnings():
    return [Method(Shrink, {}, 5, "shrink")]
"""


@pytest.fixture
def night(folder: Folder) -> Folder:
    """The documented task on a very small base."""
    for name, text in NIGHT:
        folder.write(name, text)
    return folder


def with_method(suite: Folder, text: str = METHOD) -> Folder:
    """A folder whose conftest.py adds a method."""
    conftest = suite.path / "conftest.py"
    conftest.write_text(text + conftest.read_text(encoding="utf-8"), encoding="utf-8")
    return suite


def plan(folder: Folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`resurgence plan` in a folder."""
    own = [f"--resurgence-base={folder.base}", f"--resurgence-store={folder.store}"]
    command = [python(), "-m", "resurgence_harness.cli", "plan", ".", *own, *arguments]
    return subprocess.run(command, cwd=folder.path, env=folder.env(), capture_output=True, text=True, timeout=900)


def test_a_method_without_preset_values_runs_with_its_own(suite: Folder) -> None:
    """It is collected, planned with its defaults, and one of its fields can be set like any other."""
    with_method(suite)
    only = "--resurgence-methods=shrink"
    assert collected(suite, "-n", "0", only) == ["shrink-1-lora"]
    planned = plan(suite, only)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "share 0.5" in planned.stdout
    assert "share 0.25" in plan(suite, only, "--resurgence-set=shrink.share=0.25").stdout


def test_a_finetuning_without_preset_values_runs_with_its_own(suite: Folder) -> None:
    """The same for a recipe of one's own."""
    text = """
    from dataclasses import dataclass
    from typing import ClassVar, final

    from resurgence_harness.diffusion.parameters import StrictKeyValue
    from resurgence_harness.finetuning import FineTuning
    from resurgence_harness.finetuning.contract import train_selected


    @dataclass(frozen=True, kw_only=True)
    class KeyValue(FineTuning):
        name: ClassVar[str] = "kv"
        version: ClassVar[int] = 1

        @property
        def moves(self):
            return StrictKeyValue()

        def apply(self, model, run):
            return train_selected(self, model, run)


    def pytest_resurgence_finetunings():
        return [KeyValue]


    """
    with_method(suite, dedent(text))
    assert collected(suite, "-n", "0", "--resurgence-methods=uce", "--resurgence-finetune=kv") == ["uce-1-kv"]


MISTAKES_IN_A_METHOD = {
    "no dataclass": ("@dataclass(frozen=True, kw_only=True)\n", "", 'The step of method "shrink" is no dataclass.'),
    "not frozen": ("frozen=True, ", "", 'The step of method "shrink" can be changed after it was made'),
    "no name": ('    name: ClassVar[str] = "shrink"\n', "", 'The step of method "shrink" has no name.'),
    "no version": ("    version: ClassVar[int] = 1\n", "", 'The step of method "shrink" has no version.'),
    "another's name": ('= "shrink"', '= "uce"', 'The step of method "shrink" is called "uce", as UCE is.'),
    "a fine-tuning's name": ('= "shrink"', '= "lora"', 'The step of method "shrink" is called "lora", as LoRA is.'),
    "no apply": ("def apply", "def aply", 'The step of method "shrink" does not define apply.'),
    "no base class": ("class Shrink(Unlearning)", "class Shrink", 'The step of method "shrink" is no Unlearning.'),
    "an instance": ("Method(Shrink,", "Method(Shrink(concepts=()),", 'The step of method "shrink" is no Unlearning.'),
    "not a Method": (
        'Method(Shrink, {}, 5, "shrink")',
        "Shrink(concepts=())",
        "An unlearning method is expected, not Shrink(concepts=(), share=0.5).",
    ),
    "the name of another": (
        'Method(Shrink, {}, 5, "shrink")',
        'Method(Shrink, {}, 5, "half"), Method(Shrink, {}, 6, "half")',
        'Two unlearning methods are called "half".',
    ),
    "fixes what is not there": ("{}, 5", '{"half": 1}, 5', 'Method "shrink" fixes half, which Shrink does not have.'),
    "a field without a value": ("= 0.5", "", 'The step of "shrink" has no value for share.'),
    "a word for folders": (
        '5, "shrink")',
        '5, "a/b")',
        "The method name 'a/b' cannot be used in node ids.",
    ),
    "no concepts": ("    concepts: tuple[Concept, ...]\n", "", 'The step of method "shrink" has no field concepts.'),
}


@pytest.mark.parametrize("what", MISTAKES_IN_A_METHOD)
def test_a_mistake_in_a_method_is_a_sentence(suite: Folder, what: str) -> None:
    """Before anything is planned."""
    old, new, said = MISTAKES_IN_A_METHOD[what]
    assert old in METHOD
    with_method(suite, METHOD.replace(old, new))
    asked = "uce" if "a/b" in new or "half" in new else "shrink"
    assert refused(suite, "-n", "0", f"--resurgence-methods={asked}").startswith(said)


def test_plan_says_the_same_of_a_method(suite: Folder) -> None:
    """`resurgence plan` ends with 4 and the sentence, without a traceback."""
    with_method(suite, METHOD.replace('= "shrink"', '= "uce"'))
    said = plan(suite, "--resurgence-methods=shrink")
    assert said.returncode == 4 and "Traceback" not in said.stderr + said.stdout
    assert 'The step of method "shrink" is called "uce", as UCE is.' in said.stderr + said.stdout


MISTAKES_IN_A_JUDGE = {
    "labels misspelled": ("labels = (", "lables = (", "Judge darkness does not declare labels."),
    "shows misspelled": ("def shows", "def show", "Judge darkness does not declare shows."),
    "given misspelled": ("given = ()", "give = ()", "Judge darkness does not declare given."),
    "check misspelled": ("def check", "def checks", "Judge darkness does not declare check."),
    "no digest": (
        'name, version, digest = "darkness", 1, "thirds of the grey scale"',
        'name, version = "darkness", 1',
        "Judge darkness does not declare digest.",
    ),
    "no name": (
        'name, version, digest = "darkness", 1, ',
        "version, digest = 1, ",
        "Judge Darkness does not declare name.",
    ),
    "one text as labels": (
        'labels = ("night", "dusk", "noon")',
        'labels = "night"',
        "The labels of judge darkness are no",
    ),
    "one text shown": (
        "return (answer,)",
        "return answer",
        "Judge darkness does not return a tuple from shows().",
    ),
    "a class": ("return [Darkness()]", "return [Darkness]", "The judge Darkness is a class, not an instance."),
    "no list": ("return [Darkness()]", "return Darkness()", "pytest_resurgence_judges did not return a list."),
    "two of a name": ("return [Darkness()]", "return [Darkness(), Darkness()]", 'Two judges are called "darkness".'),
    "another name than the task's": ('judges=("darkness",)', 'judges=("dark",)', 'There is no judge "dark".'),
}


@pytest.mark.parametrize("what", MISTAKES_IN_A_JUDGE)
def test_a_mistake_in_a_judge_is_a_sentence(night: Folder, what: str) -> None:
    """Before anything is drawn."""
    old, new, said = MISTAKES_IN_A_JUDGE[what]
    assert old in NIGHT[0][1]
    night.write("conftest.py", NIGHT[0][1].replace(old, new))
    assert refused(night, "-n", "0").startswith(said)


def test_a_mistake_in_a_judge_is_a_sentence_for_those_who_only_collect(night: Folder) -> None:
    """`resurgence plan` and pytest --collect-only."""
    night.write("conftest.py", NIGHT[0][1].replace("labels = (", "lables = ("))
    ran = night.run("--collect-only", "-q", "-n", "0")
    assert ran.code == 4 and "INTERNALERROR" not in ran.output + ran.errors
    assert "Judge darkness does not declare labels." in ran.output + ran.errors
    planned = plan(night)
    assert planned.returncode == 4 and planned.stderr.startswith("resurgence: Judge darkness does not declare labels.")


def test_a_name_that_the_judge_cannot_give_is_refused_by_the_plan(night: Folder) -> None:
    """Before somebody waits for a run."""
    night.write("conftest.py", NIGHT[0][1].replace('Concept(name="dusk")', 'Concept(name="tea")'))
    planned = plan(night)
    assert planned.returncode == 4 and 'has no answer for "tea"' in planned.stderr


def test_the_documented_test_of_the_judge_passes(night: Folder) -> None:
    """As it stands in the documentation; and it fails for counts and canaries that are written down."""
    night.write("test_darkness.py", CHECKED[0])
    assert night.run("-q", "-n", "0", "test_darkness.py").code == 0
    written = 'return {"grey": Calibration(recognised=400, subjects=400, false_alarms=0, others=400)}\n'
    night.write("conftest.py", re.sub(r"return \{\"grey\".*\n", written, NIGHT[0][1]))
    ran = night.run("-q", "-n", "0", "test_darkness.py")
    assert ran.code == 1 and "does not say whose answers were counted" in ran.output


def test_another_list_of_the_hook_is_refused(night: Folder) -> None:
    """A task alone, or something else in the list."""
    for new, said in (
        ("return NIGHT", "pytest_resurgence_tasks did not return a list."),
        ('return ["night"]', "A task is expected, not 'night'."),
    ):
        night.write("conftest.py", NIGHT[0][1].replace("return [NIGHT]", new))
        assert refused(night, "-n", "0").startswith(said)


def test_indented_suites_are_those_of_the_plugin() -> None:
    """The suite that methods are tried with makes a claim."""
    assert "claim.stays_erased()" in indent(dedent(SUITE), "")
