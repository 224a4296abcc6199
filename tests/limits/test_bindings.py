"""An acceptance counts for the values it was recorded with, and says so where it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.finetuning import BenignSet, LoRA
from resurgence_harness.limits.bindings import settings_digest
from resurgence_harness.limits.limits_file import load_limits
from resurgence_harness.selection import Selection, cells, plan_cell, resolve_base
from resurgence_harness.specs import Cell, Concept, Probe, Prompt
from resurgence_harness.tasks import CELEBRITY
from resurgence_harness.unlearning import ESD
from tests.limits.test_limits import ACCEPTANCE, BASE, CELL, STEPS

SUITE = Path(__file__).parents[2] / "suites" / "celebrity"
ERASE = ESD(concepts=(Concept(name="ada quill"),))
TUNE = LoRA(
    data=BenignSet(probe=Probe(prompts=(Prompt(text="bram stone", concept="bram stone"),), seeds=(1,)), forbidden=())
)
HERE, THERE = "0" * 12, "1" * 12


def entry(settings: str, level: float = 0.62) -> str:
    """One acceptance that is bound to these settings; to none where they are empty."""
    named = f", settings: '{settings}'" if settings else ""
    bound = f"    bound_to: {{base: '{BASE}', steps: {{esd: 2, lora: 1}}{named}}}\n"
    return ACCEPTANCE.removeprefix("acceptances:\n").replace("0.62", str(level)) + bound


def test_any_value_of_any_step_counts() -> None:
    """A number, a concept, an image that is learned from, the order of steps: each makes other settings."""
    others = [
        (replace(ERASE, iterations=7), TUNE),
        (replace(ERASE, concepts=(Concept(name="ada stone"),)), TUNE),
        (ERASE, replace(TUNE, learning_rate=0.5)),
        (ERASE, replace(TUNE, data=replace(TUNE.data, probe=replace(TUNE.data.probe, seeds=(2,))))),
        (TUNE, ERASE),
        (ERASE,),
    ]
    assert len({settings_digest(steps) for steps in [(ERASE, TUNE), *others]}) == len(others) + 1


def test_a_training_seed_does_not_count() -> None:
    """Runs of one cell have one digest, which is the same on every machine."""
    assert settings_digest((replace(ERASE, seed=4), replace(TUNE, seed=4))) == settings_digest((ERASE, TUNE))
    assert settings_digest((ERASE, TUNE)) == "4b54de4eedf9"


def test_the_shipped_ceilings_are_of_the_present_preset() -> None:
    """Whoever changes a preset's number must record its ceilings anew: those of the old one would pass for it."""
    limits, base = load_limits(SUITE / "limits.yaml"), resolve_base("micro")
    bound = {(one.method, one.count, one.finetuning): one for one in limits.acceptances}
    assert bound
    for changed, applies in (((), True), ((("lora.steps", 99),), False)):
        selection = Selection(counts=(1, 10), runs=2, changed=changed)
        for cell in cells(CELEBRITY, selection):
            plan = plan_cell(cell, base, task=CELEBRITY, selection=selection)
            if (accepted := bound.get((cell.method, cell.count, cell.finetuning))) is not None:
                assert accepted.recorded_for(settings_digest(plan.tuned.steps)) is applies, cell.id


def test_the_one_for_these_settings_is_found(tmp_path: Path) -> None:
    """Among several; else one of other settings is given, so that the verdict can say why it does not count."""
    (tmp_path / "limits.yaml").write_text("acceptances:\n" + entry(HERE, 0.5) + entry(THERE, 0.7) + entry("", 0.8))
    limits = load_limits(tmp_path / "limits.yaml")
    for settings, level in ((HERE, 0.5), (THERE, 0.7), ("", 0.8)):
        found = limits.acceptance_for(CELL, BASE, STEPS, settings)
        assert found is not None and found.level == level and found.recorded_for(settings)
    other = limits.acceptance_for(CELL, BASE, STEPS, "2" * 12)
    assert other is not None and not other.recorded_for("2" * 12)
    assert limits.acceptance_for(CELL, "00" * 32, STEPS, HERE) is None
    assert limits.acceptance_for(Cell(**{**vars(CELL), "count": 1}), BASE, STEPS, HERE) is None


def test_one_without_a_binding_counts_for_any_settings(tmp_path: Path) -> None:
    """It lasts until it expires, even beside one that was recorded for others."""
    unbound = ACCEPTANCE.removeprefix("acceptances:\n") + "    expires: 2027-01-31\n"
    (tmp_path / "limits.yaml").write_text("acceptances:\n" + entry(THERE, 0.7) + unbound)
    found = load_limits(tmp_path / "limits.yaml").acceptance_for(CELL, BASE, STEPS, HERE)
    assert found is not None and found.level == 0.62 and found.recorded_for(HERE)


@pytest.mark.parametrize("settings", ["'12'", "123456789012", "'0123456789AB'", "[]"])
def test_settings_that_are_no_digest_are_a_mistake(tmp_path: Path, settings: str) -> None:
    """Twelve hexadecimal digits, in quotation marks, since YAML would read some as numbers."""
    (tmp_path / "limits.yaml").write_text(
        "acceptances:\n" + entry(HERE).replace(f"settings: '{HERE}'", f"settings: {settings}")
    )
    with pytest.raises(UserError, match=r"acceptances\.0\.bound_to\.settings"):
        load_limits(tmp_path / "limits.yaml")
