"""--resurgence-recipe and recipes in a settings file: whole runs through several stages, and the recipes refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.reporting import verdict_json
from resurgence_harness.storing import Store
from tests.plugin.conftest import SUITE, Folder, Ran, conftest_for
from tests.plugin.test_given_data import write_data
from tests.plugin.test_mistakes import refused

pytestmark = pytest.mark.slow

FEW = ("--resurgence-engine=fixed", "--resurgence-seeds=64")
"""128 images of two names: enough for every control."""
LONG = "--resurgence-recipe=uce(1) > lora > uce(+1) > lora"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, gallery: Path, shared_store: Path) -> Ran:
    """One run of two recipes: one that erases, and one whose first stage erases nothing."""
    path = tmp_path_factory.mktemp("lives")
    (path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    suite = Folder(path, tiny_base, shared_store)
    suite.write("conftest.py", conftest_for(gallery))
    suite.write("test_tiny.py", SUITE)
    suite.write("limits.yaml", "policy: {incidental: 0.2}")  # 64 images of retained names cannot show less than 5 %
    return suite.run("-n", "0", *FEW, LONG, "--resurgence-recipe=fails: esd(2) > lora")


def by_id(ran: Ran) -> dict[str, Any]:
    """The cells of verdict.json."""
    return {cell["id"]: cell for cell in ran.verdicts["cells"]}


def test_every_stage_is_measured_and_the_last_is_decided_on(ran: Ran) -> None:
    """The last stage's rates are the verdict's; each stage has its model, and what it erases."""
    verdict_json.read(ran.folder / "reports/out/verdict.json")
    cell = by_id(ran)["uce1-lora-uce1more-lora-2-lora"]
    assert (cell["verdict"], cell["outcome"]) == ("HOLDS", "unlearned"), ran.output + ran.errors
    stages = cell["by_stage"]
    assert [(stage["stage"], stage["step"], stage["kind"]) for stage in stages] == [
        (1, "uce", "unlearning"),
        (2, "lora", "fine-tuning"),
        (3, "uce", "unlearning"),
        (4, "lora", "fine-tuning"),
    ]
    assert [stage["erases"] for stage in stages] == [["cleo marsh"], [], ["finn marsh"], []]
    assert stages[-1]["erased"] == cell["after"] and stages[-1]["retained"] == cell["retained_after"]
    assert stages[-1]["model"] == cell["models"]["tuned"] and stages[2]["model"] == cell["models"]["unlearned"]
    assert [stage["waiting"] is None for stage in stages] == [False, False, True, True]
    assert stages[0]["erased"]["rate"] == 0.0 and stages[0]["state"] == "within"
    assert not any(stage["came_back"] or stage["not_erased"] for stage in stages)
    assert (cell["method"], cell["concepts"], cell["finetuning"]) == ("uce1-lora-uce1more-lora", 2, "lora")


def test_a_stage_that_erased_nothing_is_not_unlearned(ran: Ran) -> None:
    """By the order of decision it is a regression here, since the erased rate is above its limit: never exit code 4."""
    assert ran.code == 1
    cell = by_id(ran)["fails-2-lora"]
    assert (cell["verdict"], cell["outcome"]) == ("VIOLATED", "not unlearned")
    first, last = cell["by_stage"]
    assert first["not_erased"] and first["drawn"]["cleo marsh"][0] > 0 and not last["came_back"]


def test_the_terminal_says_at_which_stage(ran: Ran) -> None:
    """One line per cell below the table."""
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in ran.output.splitlines() if "stage" in line}
    assert lines["fails-2-lora"].startswith(
        "above 10.0 %: not erased by stage 1 of 2 (esd): cleo marsh in 64 of 64, finn marsh in 64 of 64"
    )
    assert "none above" in lines["uce1-lora-uce1more-lora-2-lora"]
    assert ran.verdicts["selection"]["choices"]["recipes"] == {
        "uce1-lora-uce1more-lora": "uce(1) > lora > uce(+1) > lora",
        "fails": "esd(2) > lora",
    }


def test_the_page_shows_the_stages_and_how_to_reproduce_them(ran: Ran) -> None:
    """The curve, its table, and a command line with the recipe."""
    (result,) = [one for one in ran.results if "fails-2-lora" in one["name"]]
    assert "Stage by stage" in result["descriptionHtml"] and "image/svg+xml" in result["descriptionHtml"]
    assert "not erased" in result["descriptionHtml"]
    (source,) = [one["source"] for one in result["attachments"] if one["name"].startswith("provenance")]
    page = (ran.folder / "reports/out/allure-results" / source).read_text(encoding="utf-8")
    assert "--resurgence-recipe=fails: esd(2) &gt; lora" in page and "--resurgence-methods" not in page


def test_a_longer_recipe_begins_with_stored_stages(ran: Ran, suite: Folder) -> None:
    """A marker's recipe whose first stages another run has built: only what is new is built, and then nothing."""
    before = {artifact.key for artifact in Store(suite.store).ls()}
    recipes = '{"night": "uce(1) > lora > full", "day": "esd > lora"}'
    suite.write("test_tiny.py", SUITE.replace('task="tiny"', f'task="tiny", recipes={recipes}'))
    again = suite.run("-n", "0", *FEW, "--resurgence-methods=uce")
    code = again.code
    assert code == 10, again.output + again.errors  # one name has 64 images, too few for the positive control
    assert [cell["id"] for cell in again.verdicts["cells"]] == ["night-1-full"]  # the other is not of these methods
    new = [artifact for artifact in Store(suite.store).ls() if artifact.key not in before]
    assert [artifact.label for artifact in new if artifact.kind == "checkpoint"] == [
        f"{suite.base.name} → uce(1) → lora → full"
    ]
    before |= {artifact.key for artifact in new}
    assert suite.run("-n", "0", *FEW, "--resurgence-methods=uce").code == code
    assert {artifact.key for artifact in Store(suite.store).ls()} == before


def test_a_settings_file_gives_recipes(ran: Ran, suite: Folder, gallery: Path) -> None:
    """Concepts by name, data and a value for one stage, with two workers; the command that reproduces it names the
    file."""
    write_data(suite.path / "customer", gallery)
    suite.write(
        "settings.yaml",
        """
        recipes:
          named:
            - {unlearning: uce, concepts: [finn marsh]}
            - {finetuning: lora, data: customer, settings: {steps: 1}}
        """,
    )
    found = suite.run("-n", "2", "--resurgence-settings=settings.yaml")
    assert found.code == 0, found.output + found.errors
    (cell,) = found.verdicts["cells"]
    assert (cell["id"], cell["erased"]) == ("named-1-lora", ["finn marsh"])
    notes = " ".join(found.verdicts["selection"]["notes"])
    assert "16 of 20 given images" in notes and "detects an erased concept in 0 of 20 given images" in notes
    (result,) = found.results
    (source,) = [one["source"] for one in result["attachments"] if one["name"].startswith("provenance")]
    page = (suite.path / "reports/out/allure-results" / source).read_text(encoding="utf-8")
    assert "--resurgence-settings=settings.yaml" in page and "steps 1" in page


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (
            ["--resurgence-recipe=uce > lroa"],
            'Stage 2 of the recipe is "lroa", which is neither an unlearning method nor',
        ),
        (["--resurgence-recipe=uce > > lora"], "Stage 2 of the recipe is empty."),
        (["--resurgence-recipe=lora"], "The recipe has no unlearning"),
        (["--resurgence-recipe=uce > lora > uce"], "The recipe ends with an unlearning"),
        (["--resurgence-recipe=uce > lora"] * 2, 'Two recipes are called "uce-lora".'),
        (
            ["--resurgence-recipe=uce(3) > lora"],
            "Stage 1 of the recipe uce3-lora erases more concepts than task tiny has.",
        ),
        (
            ["--resurgence-recipe=uce(1) > lora", "--resurgence-finetune=full"],
            "--resurgence-finetune has no meaning for",
        ),
        (
            ["--resurgence-recipe=x: uce(1) > " + " > ".join(["lora"] * 3), "--resurgence-seeds=30"],
            "The recipe has too many stages for its images: 4 stages need 64 images each.",
        ),
    ],
)
def test_recipes_that_mean_nothing_are_refused(folder: Folder, gallery: Path, arguments: list[str], first: str) -> None:
    """Exit code 4, one sentence, nothing left."""
    (folder.path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    folder.write("conftest.py", conftest_for(gallery))
    folder.write("test_tiny.py", SUITE)
    assert refused(folder, "-n", "2", *arguments).startswith(first)


def test_a_markers_recipe_is_checked_when_it_is_collected(suite: Folder) -> None:
    """With its position, and no plan is made."""
    for recipes, first in (
        ('{"a": "uce > nothing"}', 'Stage 2 of the recipe is "nothing"'),
        ('["uce > lora"]', "The recipes of test_tiny.py::test_stays_erased are no mapping of names to stages."),
    ):
        suite.write("test_tiny.py", SUITE.replace('task="tiny"', f'task="tiny", recipes={recipes}'))
        found = suite.run("-n", "0")
        assert found.code == 4 and f"ERROR: {first}" in found.output + found.errors, found.output + found.errors
        assert not (suite.path / "reports/out/verdict.json").exists()
