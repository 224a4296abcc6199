"""Every trained step in float16, beside itself in float32: the same tensors move the same way, under another key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from resurgence_harness.diffusion.half.training import PLAIN
from resurgence_harness.diffusion.model import StableDiffusion, tensors
from resurgence_harness.errors import BuildError, SpecError
from resurgence_harness.storing.keys import key
from tests.finetuning.test_contract import STEPS as FINETUNINGS
from tests.finetuning.test_contract import drawn_once
from tests.tiny import save_tiny_stable_diffusion
from tests.unlearning.test_contract import STEPS as UNLEARNINGS

pytestmark = pytest.mark.slow

METHODS = ("esd", "sdd", "erasediff", "mace", "salun", "shs")
STEPS: dict[str, Any] = {
    **{word: replace(step, steps=2, batch=2) for word, step in FINETUNINGS.items()},
    **{word: replace(UNLEARNINGS[word], iterations=2) for word in METHODS},
}
"""Every step that is trained, with two updates."""
CASES = [*(("epsilon", word) for word in STEPS if word not in ("xattn", "dreambooth")), ("v_prediction", "esd")]
"""Those two train as "full" does."""
_MIDDLE = "unet.mid_block.attentions.0.transformer_blocks.0.attn1"
SINGLE = (f"{_MIDDLE}.to_q", f"{_MIDDLE}.to_k")
"""Attention over a single position: its gradients are 0, up to rounding, which Adam makes as large as any other."""


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], StableDiffusion]:
    """A narrow base of each prediction type: float16 is slow on a CPU."""

    @cache
    def read(prediction: str) -> StableDiffusion:
        folder = tmp_path_factory.mktemp(prediction)
        save_tiny_stable_diffusion(folder, prediction_type=prediction, widths=(8, 8, 16, 16))
        return StableDiffusion.load(folder)

    return read


@pytest.fixture
def model(load: Callable[[str], StableDiffusion]) -> StableDiffusion:
    """The one that predicts noise."""
    return load("epsilon")


def changes(step: Any, base: StableDiffusion) -> tuple[torch.Tensor, dict[str, Any]]:
    """What the step added to all weights together, and what it recorded."""
    facts: dict[str, Any] = {}
    result, before = tensors(step.apply(base, drawn_once(base, record=facts.__setitem__))), tensors(base)
    return torch.cat(
        [(result[name] - value).flatten() for name, value in before.items() if not name.startswith(SINGLE)]
    ), facts


@pytest.mark.parametrize(("style", "word"), CASES, ids=["-".join(case) for case in CASES])
def test_a_step_does_the_same_in_float16(load: Callable[[str], StableDiffusion], style: str, word: str) -> None:
    """Losses to a hundredth, and a change that points the same way.

    Adam's first updates are the signs of gradients, so a gradient near zero, which rounding turns, moves its weight by
    two updates: changes of a few steps are further apart than the gradients that they come from.
    """
    base, step = load(style), STEPS[word]

    theirs, exact = changes(step, base)
    ours, facts = changes(replace(step, arithmetic="float16"), base)

    assert facts["computed in float16 by"] == [PLAIN] and "computed in float16 by" not in exact
    for end in ("first", "last"):
        assert facts["loss"][end] == pytest.approx(exact["loss"][end], rel=0.01)
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
