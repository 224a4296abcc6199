"""--resurgence-unlearned and `resurgence stress`: whole runs on models that somebody else unlearned."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import save_file

from resurgence_harness.bench import Bench
from resurgence_harness.presets import parse_change
from resurgence_harness.reporting import verdict_json
from resurgence_harness.selection import Selection, plan_cell, resolve_base
from resurgence_harness.specs import Cell
from resurgence_harness.storing import Store
from tests.plugin.conftest import INSTALLED, ROOT, Folder, Ran, conftest_for
from tests.plugin.gallery import SEEDS, SETTINGS, TINY
from tests.plugin.test_mistakes import refused
from tests.warm_python import python

pytestmark = pytest.mark.slow

ALONE = ("-o", "resurgence_methods=")
"""Without the methods of the folder's pytest.ini."""
LISTED = "--resurgence-concepts=erased.txt"


@pytest.fixture(scope="module")
def erased(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A name unlearned with UCE, as a U-Net file and as a whole model; with ESD, whose two steps erase nothing."""
    folder = tmp_path_factory.mktemp("erased")
    selection = Selection(changed=tuple(map(parse_change, SETTINGS)))
    bench, files = Bench(Store(folder / "store")), {}
    for method in ("uce", "esd"):
        cell = Cell(task="tiny", method=method, count=1, finetuning="lora")
        plan = plan_cell(cell, resolve_base(str(tiny_base)), task=TINY, selection=selection)
        files[method] = folder / {"uce": "uce.safetensors", "esd": "weak.safetensors"}[method]
        weights = bench.model(plan.unlearned).unet.state_dict()
        save_file({name: value.contiguous() for name, value in weights.items()}, files[method])
    files["whole"] = Path(shutil.copytree(tiny_base, folder / "whole"))
    shutil.copyfile(files["uce"], files["whole"] / "unet/diffusion_pytorch_model.safetensors")
    return files


@pytest.fixture
def listed(suite: Folder) -> Folder:
    """A suite beside a list with the name that was erased."""
    suite.write("erased.txt", "# ours\nCleo Marsh\n")
    return suite


def test_given_models_and_methods_in_one_table(listed: Folder, erased: dict[str, Path]) -> None:
    """With two workers: a cell for each, verdicts by the same rules, one table; afterwards nothing is made again."""
    models = listed.path / "models"
    models.mkdir()
    shutil.copyfile(erased["uce"], models / "uce.safetensors")
    shutil.copytree(erased["whole"], models / "whole")
    given = ["--resurgence-unlearned=mine=models/whole", "--resurgence-unlearned=file=models/uce.safetensors"]

    ran = listed.run(*given, LISTED, "--resurgence-methods=uce", "-n", "2")

    assert ran.code == 0, ran.output + ran.errors
    verdicts = verdict_json.read(listed.path / "reports/out/verdict.json")
    found = {cell.id: cell for cell in verdicts.cells}
    assert {name: cell.verdict for name, cell in found.items()} == dict.fromkeys(
        ["mine-1-lora", "file-1-lora", "uce-1-lora"], "HOLDS"
    )
    same = [{"before": cell.before, "after": cell.after, "erased": cell.erased} for cell in found.values()]
    assert same[0] == same[1] == same[2]  # the same weights by three ways
    assert found["mine-1-lora"].models["unlearned"].recipe.endswith("→ given")
    assert verdicts.selection.choices["concepts"] == ["Cleo Marsh"]  # as written
    assert set(verdicts.selection.choices["unlearned"]) == {"mine", "file"}
    assert str(listed.path) not in json.dumps(verdicts.model_dump())
    assert "The suite declares 3 cells." in ran.output
    assert 'Unlearned model "file": weights of one part' in " ".join(ran.output.split())
    (result,) = [one for one in ran.results if one["name"].endswith("[mine-1-lora]")]
    (source,) = [one["source"] for one in result["attachments"] if one["name"].startswith("provenance")]
    page = (listed.path / "reports/out/allure-results" / source).read_text(encoding="utf-8")
    assert "--resurgence-unlearned=mine=models/whole" in page and LISTED in page

    before = {artifact.key for artifact in Store(listed.store).ls()}
    models.rename(listed.path / "moved")
    again = listed.run("--resurgence-unlearned=mine=moved/whole", LISTED, *ALONE, "-n", "0")
    assert again.code == 0, again.output + again.errors
    assert [cell["id"] for cell in again.verdicts["cells"]] == ["mine-1-lora"]
    assert {artifact.key for artifact in Store(listed.store).ls()} == before


def test_what_is_not_one_of_ours_is_refused(listed: Folder, erased: dict[str, Path], tiny_base: Path) -> None:
    """Exit 4, one sentence, nothing written, before any worker starts."""
    mine = f"--resurgence-unlearned=mine={erased['uce']}"
    for options, sentence in (
        ((mine,), 'Which concepts were erased from "mine" is not known.'),
        ((mine, mine, LISTED), 'Two unlearned models are called "mine".'),
        ((f"--resurgence-unlearned=mine={tiny_base}", LISTED), "The unlearned model equals the base"),
        ((mine, LISTED, "--resurgence-counts=1"), "Both a list of erased concepts and numbers of them were given."),
    ):
        assert refused(listed, *options, "-n", "2").startswith(sentence)
    listed.write("erased.txt", "Nobody Known\n")
    assert refused(listed, mine, LISTED, "-n", "2") == 'Task tiny has no concept "Nobody Known".'


# resurgence stress


def stress(folder: Folder, gallery: Path, *arguments: object) -> Ran:
    """The command in an otherwise empty folder; task and judge come from a plugin, as those of a package would."""
    folder.write("own.py", conftest_for(gallery))
    path = os.pathsep.join([str(folder.path), str(ROOT)])
    plugins = ",".join(["own", *([] if INSTALLED else ["resurgence_harness.pytest_plugin"])])
    env = {**folder.env(), "PYTHONPATH": path, "PYTEST_PLUGINS": plugins}
    own = ["--base", folder.base, "--store", folder.store, "--seeds", SEEDS, "--task", "tiny"]
    own += [part for setting in SETTINGS for part in ("--set", setting)]
    command = [python(), "-m", "resurgence_harness.cli", "stress", *own, *arguments]
    done = subprocess.run(
        list(map(str, command)), cwd=folder.path, env=env, capture_output=True, text=True, timeout=900
    )
    return Ran(done.returncode, done.stdout, done.stderr, folder.path)


def test_stress_gives_a_verdict_per_fine_tuning_and_the_curve(
    folder: Folder, gallery: Path, erased: dict[str, Path]
) -> None:
    """Without a suite, whatever settings lie around: two models by two fine-tunings, alpha shared by eight steps."""
    folder.write("erased.txt", "cleo marsh\n")
    folder.write("pytest.ini", "[pytest]\nresurgence_methods = nonsense\n")
    given = ["--unlearned", f"keeps={erased['whole']}", "--unlearned", erased["whole"].with_name("weak.safetensors")]

    ran = stress(
        folder, gallery, *given, "-n", 2, "--concepts", "erased.txt", "--finetune", "lora,full", "--steps", "1,2"
    )

    assert ran.code == 1, ran.output + ran.errors
    verdicts = verdict_json.read(folder.path / "reports/stress/verdict.json")
    found = {cell.id: cell for cell in verdicts.cells}
    assert {name: cell.verdict for name, cell in found.items()} == {
        "keeps-1-lora": "HOLDS",
        "keeps-1-full": "HOLDS",
        "weak-1-lora": "VIOLATED",
        "weak-1-full": "VIOLATED",
    }
    for cell in found.values():
        assert cell.along is not None and (cell.along.claims, cell.along.alpha) == (8, pytest.approx(cell.alpha / 16))
        assert [one.step for one in cell.along.rates] == [0, 1, 2]
        assert cell.nodeid.startswith("test_cells.py::")
    keeps, weak = found["keeps-1-lora"], found["weak-1-lora"]
    assert keeps.along is not None and keeps.along.first is None
    # Two steps of ESD erase nothing: a regression by the order of decision, and no mistake of the user.
    assert (weak.outcome, weak.along is not None and weak.along.first) == ("not unlearned", 1)
    said = " ".join(ran.output.split())
    assert "the limit is first shown to be passed after 1 of 2 steps of the fine-tuning" in said
    assert "the limit is not shown to be passed at any of the steps 1, 2" in said
    assert list((folder.path / "reports/stress/allure-results").glob("*-result.json"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--steps", "20,10", "--unlearned", "x", "--concepts", "y"), "The steps 20,10 are not rising."),
        (("--unlearned", "x"), "resurgence stress needs --concepts."),
        (("--demo", "--unlearned", "x"), "--demo takes no --unlearned."),
    ],
)
def test_a_wrong_command_is_refused(folder: Folder, gallery: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """Exit 4, one sentence, no reports."""
    ran = stress(folder, gallery, *arguments)
    assert ran.code == 4 and f"resurgence: {sentence}" in ran.errors, ran.output + ran.errors
    assert not (folder.path / "reports").exists()
