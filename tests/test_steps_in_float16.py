"""Every trained step in float16, beside itself in float32: the same tensors move the same way, under another key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from resurgence_harness.diffusion.half.training import PLAIN
from resurgence_harness.diffusion.model import StableDiffusion, difference, tensors
from resurgence_harness.errors import BuildError, SpecError
from resurgence_harness.storing.keys import key
from tests.finetuning.test_contract import STEPS as FINETUNINGS
from tests.finetuning.test_contract import drawn_once
from tests.two_models import load, model, v1, v2
from tests.unlearning.test_contract import STEPS as UNLEARNINGS

pytestmark = pytest.mark.slow

__all__ = ["load", "model", "v1", "v2"]

Load = Callable[[str], StableDiffusion]
METHODS = ("esd", "sdd", "erasediff", "mace", "salun", "shs")
STEPS: dict[str, Any] = {**FINETUNINGS, **{word: UNLEARNINGS[word] for word in METHODS}}
CASES = [*(("v1", word) for word in STEPS), ("v2", "lora"), ("v2", "esd"), ("v2", "mace")]


def changes(step: Any, base: StableDiffusion) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What the step added to each tensor that it changed, and what it recorded."""
    facts: dict[str, Any] = {}
    result = step.apply(base, drawn_once(base, record=facts.__setitem__))
    before = tensors(base)
    return {name: value - before[name] for name, value in difference(base, result).items()}, facts


@pytest.mark.parametrize(("style", "word"), CASES, ids=["-".join(case) for case in CASES])
def test_a_step_does_the_same_in_float16(load: Load, style: str, word: str) -> None:
    """Losses to a hundredth, and a change that points the same way.

    Adam's first updates are the signs of gradients, so a gradient near zero, which rounding turns, moves its weight by
    two updates: changes of a few steps are further apart than the gradients that they come from.
    """
    base, step = load(style), STEPS[word]

    wanted, exact = changes(step, base)
    found, facts = changes(replace(step, arithmetic="float16"), base)

    assert facts["computed in float16 by"] == [PLAIN] and "computed in float16 by" not in exact
    assert found.keys() == wanted.keys() and wanted
    for end in ("first", "last"):
        assert facts["loss"][end] == pytest.approx(exact["loss"][end], rel=0.01)
    ours, theirs = (torch.cat([value.flatten() for _, value in sorted(one.items())]) for one in (found, wanted))
    assert not torch.equal(ours, theirs)
    assert float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0)) > 0.9
    assert float(ours.norm()) == pytest.approx(float(theirs.norm()), rel=0.05)


@pytest.mark.parametrize("word", STEPS)
def test_the_key_holds_the_arithmetic(word: str) -> None:
    """float32, by default or written out, has the key of stored checkpoints; an unknown arithmetic is refused."""
    step = STEPS[word]

    assert key("step", replace(step, arithmetic="float32")) == key("step", step)
    assert key("step", replace(step, arithmetic="float16")) != key("step", step)
    with pytest.raises(SpecError, match="arithmetic is 'half'"):
        replace(step, arithmetic="half")


@pytest.mark.parametrize("word", ["salun", "shs"])
def test_a_saliency_beyond_the_range_is_not_stored(model: StableDiffusion, word: str) -> None:
    """Finite losses with infinite gradients would choose weights at random, and the mask would be found again."""
    changed = model.copy()
    with torch.no_grad():
        changed.unet.conv_out.weight.mul_(1e5)
        for value in changed.unet.conv_norm_out.parameters():
            value.mul_(1e-3)
    stored: list[str] = []

    def cached(kind: str, spec: object, build: Callable[[], Any]) -> Any:
        value = build()
        stored.append(kind)
        return value

    with pytest.raises(BuildError, match="saliency is beyond float16"):
        replace(STEPS[word], arithmetic="float16").apply(changed, drawn_once(model, cached=cached))
    assert not [kind for kind in stored if "mask" in kind or "salien" in kind]
