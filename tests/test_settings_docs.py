"""docs/settings.md is the code's own table: complete, generated, and every value in it has an origin."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from resurgence_harness.presets import METHODS, PRESETS, SEVEN
from resurgence_harness.presets.choices import owners
from resurgence_harness.presets.describing import settings_page
from resurgence_harness.presets.finetune_recipes import FINETUNE_RECIPES
from resurgence_harness.presets.origins import lines_of, shown
from resurgence_harness.presets.recipes import RECIPES, Recipe

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
EVERY = [
    *((method, task, recipe) for method in SEVEN for task, recipe in RECIPES[method].items()),
    *((step, "any", recipe) for step, recipe in FINETUNE_RECIPES.items()),
]


def test_the_page_is_what_the_code_says() -> None:
    """Written anew by `python -m resurgence_harness.presets > docs/settings.md`."""
    made = subprocess.run(
        [sys.executable, "-m", "resurgence_harness.presets"],
        capture_output=True,
        text=True,
        check=True,
        cwd=PAGE.parent,
    ).stdout
    assert made == settings_page() == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("step", "task", "recipe"), EVERY, ids=[f"{step}-{task}" for step, task, _ in EVERY])
def test_every_field_of_every_step_has_a_value_and_an_origin(step: str, task: str, recipe: Recipe) -> None:
    """No field is left out, and none without where it is from."""
    lines = list(lines_of(step, recipe))
    assert [line.field for line in lines] == [one.name for one in fields(owners()[step])]
    assert all(line.value and line.origin for line in lines)
    kinds = {line.field: line.origin for line in lines}
    assert all(kinds[name].startswith("ours: ") for name in recipe.ours)
    assert {kinds[name] for name in set(recipe.values) - set(recipe.ours)} == {"code"}


def test_every_word_value_and_difference_stands_on_the_page() -> None:
    """Words of methods, sources, the microworld's values, and where paper and code differ."""
    page = settings_page()
    for word, method in METHODS.items():
        assert f"`{word}`" in page or f"### {word}\n" in page, word
        assert f"### {method.step.name}\n" in page
    for _, _, recipe in EVERY:
        assert str(recipe.source) in page and recipe.title in page and recipe.nearest in page
        assert all(difference in page for difference in recipe.differs)
    for group, values in PRESETS["micro"].items():
        assert f"| {group} | " + ", ".join(f"{name} {shown(value)}" for name, value in values.items()) in page


def test_every_setting_of_the_preset_is_on_the_page() -> None:
    """Sampler, pictures and benign sets too."""
    page = settings_page()
    for group in ("sampler", "benign", "pictures"):
        assert all(f"{group}.{name}" in page for name in PRESETS["sd"][group])
