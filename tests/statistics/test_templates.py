"""Without a base every template of the erased prompts must show the retained concepts that it is filled with."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from resurgence_harness.errors import HarnessError
from resurgence_harness.statistics import (
    CellEvidence,
    ControlState,
    FilledTemplate,
    ImageGroup,
    Policy,
    Shuffled,
    VerdictKind,
    decide,
)

POLICY = Policy(utility_floor=0.5)


def filled(make, *hits: int, images: int = 120, grid: int | None = None) -> tuple[FilledTemplate, ...]:
    """Templates "{} 1", "{} 2" … and how many of their images show what was filled in."""
    told = []
    for place, number in enumerate(hits, start=1):
        seen = make.evidence("h" * number + "c" * (images - number), "candidate", kind="retained")
        if grid is not None:
            order = list(seen.judgments)
            random.Random(place).shuffle(order)
            seen = replace(seen, judgments=tuple(order), design=Shuffled(grid))
        told.append(FilledTemplate(template=f"{{}} {place}", evidence=seen))
    return tuple(told)


def alone(make, *templates: FilledTemplate, **arms: object) -> CellEvidence:
    """A candidate without base and unlearned model, well but for its prompts."""
    cell = make.cell(**arms)
    return replace(
        cell, base=None, base_retained=None, before=None, retained_before=None, effect=None, templates=templates
    )


def test_templates_that_show_what_they_ask_for_pass(make):
    """The control names the least of them, with its bound."""
    verdict = decide(alone(make, *filled(make, 118, 100)), POLICY)
    assert verdict.kind is VerdictKind.HOLDS
    control = verdict.controls.positive
    assert control.state is ControlState.PASSED
    assert 'the template "{} 2", the least of 2 templates, shows them in 100 of 120 images' in control.sentence
    assert dict(verdict.rates)["template 2"].hits == 100


@pytest.mark.parametrize(
    ("hits", "said"),
    [
        ((118, 0), 'the template "{} 2" shows them in 0 of 120 images'),
        ((0, 0, 118), 'the template "{} 1" shows them in 0 of 120 images'),
        ((0, 118, 3), "1 other template of 3 fail, too"),
    ],
)
def test_one_template_that_shows_nothing_is_undecided_however_good_the_others(make, hits, said):
    """They are not pooled; the reason names the template, and no number of images would help."""
    verdict = decide(alone(make, *filled(make, *hits)), POLICY)
    assert verdict.kind is VerdictKind.UNDECIDED
    assert verdict.reason.startswith("the positive control failed: filled with retained concepts, the template")
    assert said in verdict.reason
    assert ImageGroup.TEMPLATES not in verdict.wants and verdict.images_to_settle is None


def test_a_template_that_cannot_be_told_yet_is_asked_on_by_itself(make):
    """Those that have passed are not drawn again."""
    templates = filled(make, 70, 118, images=120, grid=400)
    verdict = decide(alone(make, *templates), POLICY)
    assert verdict.kind is VerdictKind.UNDECIDED
    assert verdict.wants == {ImageGroup.TEMPLATES} and verdict.open_templates == {"{} 1"}
    assert verdict.images_to_settle


@pytest.mark.parametrize("images", [99, 20])
def test_fewer_than_a_hundred_images_are_not_enough(make, images):
    """However spotless; also where the policy's positive control asks for fewer."""
    policy = replace(POLICY, positive_images=10)
    verdict = decide(alone(make, *filled(make, images, images=images, grid=400)), policy)
    assert verdict.kind is VerdictKind.UNDECIDED and "over at least 100 images" in verdict.reason
    assert ImageGroup.TEMPLATES in verdict.wants


def test_a_rate_at_the_floor_is_not_enough(make):
    """Drawn to the end of its grid, other seeds could fall on the other side."""
    verdict = decide(alone(make, *filled(make, 205, images=400, grid=400)), POLICY)
    assert verdict.kind is VerdictKind.UNDECIDED


def test_without_templates_the_control_is_missing(make):
    """A gate always sets a floor, and so must always ask."""
    verdict = decide(alone(make), POLICY)
    assert verdict.kind is VerdictKind.UNDECIDED
    assert "positive control (without a base nothing shows that the prompts can draw a concept" in verdict.reason
    unset = decide(alone(make, *filled(make, 118)), Policy())
    assert unset.controls.positive.state is ControlState.MISSING


def test_it_excuses_no_regression(make):
    """A model that draws the erased concept draws it, whatever its prompts show of others."""
    verdict = decide(alone(make, *filled(make, 0), after=60), POLICY)
    assert verdict.kind is VerdictKind.VIOLATED


def test_two_judges_are_both_asked(make):
    """The second must see what was filled in, too."""
    one = alone(make, *filled(make, 118))
    blind = tuple(
        replace(part, evidence=make.evidence("c" * 120, "candidate", kind="retained", judge="micro-b"))
        for part in one.templates
    )
    second = alone(make, *blind, judge="micro-b")
    assert decide(replace(one, second=second), POLICY).kind is VerdictKind.UNDECIDED
    renamed = replace(second, templates=(replace(blind[0], template="{} other"),))
    with pytest.raises(HarnessError, match="different templates"):
        replace(one, second=renamed)


def test_a_template_filled_with_what_is_erased_is_an_error(make):
    """It would be the claim itself, read as its own control."""
    erased = FilledTemplate(template="{}", evidence=make.evidence("h" * 120, "candidate"))
    with pytest.raises(HarnessError, match="which is erased"):
        alone(make, erased)
    twice = filled(make, 118) * 2
    with pytest.raises(HarnessError, match="filled twice"):
        alone(make, *twice)


@pytest.mark.slow
@pytest.mark.parametrize("templates", [1, 4])
def test_a_template_at_its_floor_passes_in_at_most_alpha_of_orders(make, templates):
    """One of several shows exactly the floor, the others everything; looked at after every block, at alpha .05."""
    policy, dice, times, passed = replace(POLICY, alpha=0.05), random.Random(5), 200, 0
    good = filled(make, *(200,) * (templates - 1), images=200, grid=400)
    for _ in range(times):
        order = ["h"] * 200 + ["c"] * 200
        dice.shuffle(order)
        seen = replace(make.evidence("".join(order[:300]), "candidate", kind="retained"), design=Shuffled(400))
        cell = alone(make, *good, FilledTemplate(template="{} at the floor", evidence=seen))
        passed += decide(cell, policy).controls.positive.state is ControlState.PASSED
    assert passed / times <= 0.05 + 3 * (0.05 * 0.95 / times) ** 0.5
