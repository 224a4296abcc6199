"""SalUn: its mask and what it leaves alone, its target, its order of images, and that it forgets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import Noised, drawn_examples
from resurgence_harness.diffusion.model import StableDiffusion, difference, tensors
from resurgence_harness.diffusion.parameters import Parameters, StrictKeyValue
from resurgence_harness.errors import BuildError, SpecError
from resurgence_harness.specs import Concept
from resurgence_harness.storing.keys import key
from resurgence_harness.unlearning import Denoising, MostSalient, SalUn, TextReplaced, Unmasked, redirection
from resurgence_harness.unlearning.redirection import Weights, redirected, redirection_losses
from resurgence_harness.unlearning.saliency import Guided, add_gradients, ones, unpacked
from tests.tiny import NAMES, portraits, tiny_run

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]

ADA, BRAM = (Concept(name=name, kind="a celebrity") for name in NAMES[:2])
STEP = SalUn(
    concepts=(ADA, BRAM),
    forget=portraits(NAMES[:2]),
    retain=portraits(NAMES[3:6]),
    iterations=2,
    batch=2,
    learning_rate=1e-4,
)


class Kept:
    """A cache that tells what was asked and gives back what was built."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, object]] = []
        self.tensors: dict[str, dict[str, Tensor]] = {}
        self.built: list[str] = []

    def __call__(self, kind: str, spec: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """As Run.cached."""
        place = key(kind, spec)
        self.asked.append((kind, spec))
        if place not in self.tensors:
            self.built.append(kind)
            self.tensors[place] = {name: value.clone() for name, value in build().items()}
        return self.tensors[place]

    def masks(self) -> list[str]:
        """Keys of the masks that were asked for."""
        return [key(kind, spec) for kind, spec in self.asked if kind == "saliency"]


def _unet(model: StableDiffusion) -> dict[str, Tensor]:
    return {name: value for name, value in tensors(model).items() if name.startswith("unet.")}


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_entries_outside_the_mask_keep_their_bits(load: Load, style: str) -> None:
    """(a, b) Exactly half of all entries may move, nearly all of them do, in every tensor; no other does."""
    model, kept = load(style), Kept()
    facts: dict[str, Any] = {}

    changed = STEP.apply(model, tiny_run(model, cached=kept, record=facts.__setitem__))

    bits = kept.tensors[kept.masks()[0]]
    before, after = _unet(model), _unet(changed)
    total = sum(value.numel() for value in before.values())
    assert bits.keys() == before.keys()
    assert ones(bits.values()) == round(total / 2) == facts["entries in mask"]
    moved = {name: before[name] != after[name] for name in before}
    for name, mask in moved.items():
        assert not mask[unpacked(bits[name], mask.shape) == 0].any(), name
    assert 0.45 * total < sum(int(mask.sum()) for mask in moved.values()) <= total / 2 + 1
    assert {name for name, mask in moved.items() if mask.any()} == {name for name in bits if bits[name].any()}
    assert sum(bool(mask.any()) for mask in moved.values()) > 0.9 * len(before)


def test_the_mask_is_of_the_largest_summed_gradients(model: StableDiffusion) -> None:
    """The half that a sort of |Σ ∇| over all forget images finds, whichever loss it is."""
    for loss in (Guided(), Denoising()):
        kept = Kept()
        replace(STEP, iterations=1, mask=MostSalient(loss=loss)).apply(model, tiny_run(model, cached=kept))
        bits = kept.tensors[kept.masks()[0]]

        copied = model.copy()
        copied.unet.requires_grad_(True)
        data = drawn_examples(model, tiny_run(model), STEP.forget)
        generator = torch.Generator().manual_seed(STEP.seed)
        add_gradients("SalUn", copied, data, torch.arange(4), loss=loss, batch=2, generator=generator)
        named = {f"unet.{name}": value.grad for name, value in copied.unet.named_parameters()}
        flat = torch.cat([gradient.abs().flatten() for gradient in named.values()])
        expected = torch.zeros(len(flat), dtype=torch.uint8)
        expected[flat.sort(descending=True, stable=True).indices[: round(len(flat) / 2)]] = 1
        assert torch.equal(
            torch.cat([unpacked(bits[name], (value.numel(),)) for name, value in named.items()]), expected
        )


def test_a_full_mask_is_no_mask(model: StableDiffusion) -> None:
    """(d) fraction 1 and Unmasked give the same bits, and half a mask does not."""
    full = replace(STEP, mask=MostSalient(fraction=1.0)).apply(model, tiny_run(model))
    unmasked = replace(STEP, mask=Unmasked()).apply(model, tiny_run(model))

    assert difference(full, unmasked) == {}
    assert difference(STEP.apply(model, tiny_run(model)), unmasked)
    assert sum(name.startswith("unet.") for name in difference(unmasked, model)) == len(_unet(model))


def test_a_mask_is_made_once_for_all_trainings(model: StableDiffusion) -> None:
    """Its key holds the model, the images, the loss and the seed; learning rate, steps, subset and α do not matter."""
    kept = Kept()
    run = tiny_run(model, cached=kept)
    first = STEP.apply(model, run)
    again = STEP.apply(model, run)
    subset: Parameters = StrictKeyValue()
    other = replace(STEP, learning_rate=1e-5, iterations=1, retain_weight=1.0, retain=portraits(NAMES[4:6]))
    replace(other, subset=subset, pseudo=TextReplaced()).apply(model, run)

    assert difference(first, again) == {}
    assert kept.built.count("saliency") == 1
    for step in (replace(STEP, seed=1), replace(STEP, mask=MostSalient(fraction=0.4))):
        step.apply(model, run)
    STEP.apply(model, tiny_run(model, cached=kept, parent_digest="elsewhere"))
    assert len(set(kept.masks())) == 4


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_the_target_is_the_students_at_the_same_x_t_without_a_gradient(
    load: Load, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(g) One pass for the target, under c' and without graph; one for both losses, on the same x_t."""
    model = load(style)
    calls: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    predict = moves.predict

    def watched(seen: StableDiffusion, x_t: Tensor, t: Any, states: Tensor) -> Tensor:
        said = predict(seen, x_t, t, states)
        calls.append((x_t, t, states, said))
        return said

    noises: list[Noised] = []
    noised = redirection.noised

    def noisy(*args: Any, **kwargs: Any) -> Noised:
        noises.append(noised(*args, **kwargs))
        return noises[-1]

    run = tiny_run(model)
    forget, retain = (drawn_examples(model, run, probe) for probe in (STEP.forget, STEP.retain))
    trained = model.copy()
    trained.unet.requires_grad_(True)
    monkeypatch.setattr(redirection, "noised", noisy)
    pseudo = redirected(model, STEP.forget, ("a portrait of a celebrity", "a photo"))
    monkeypatch.setattr(moves, "predict", watched)
    weights, generator = Weights(forget=2.0, retain=0.5), torch.Generator().manual_seed(0)
    losses = redirection_losses(trained, forget, retain, pseudo, weights=weights, batch=4, generator=generator)
    (loss,) = next(losses)

    (x_t, t, states, aim), (both, times, texts, said) = calls
    assert not aim.requires_grad and said.requires_grad
    assert torch.equal(both[:4], x_t) and torch.equal(times[:4], t)
    of = {text: moves.encode_texts(model, [text])[0] for text in ("a portrait of a celebrity", "a photo")}
    own = {name: moves.encode_texts(model, [f"a portrait of {name}"])[0] for name in NAMES[:2]}
    for state, text in zip(states.states, texts.states[:4], strict=True):
        place = 0 if torch.allclose(text, own[NAMES[0]], atol=1e-5) else 1
        torch.testing.assert_close(text, own[NAMES[place]], rtol=0, atol=1e-5)
        torch.testing.assert_close(state, list(of.values())[place], rtol=0, atol=1e-5)
    weight = moves.signal(model, times) ** 2 if style == "v2" else torch.ones(8, 1, 1, 1)
    forgotten = (weight[:4] * (said[:4] - aim) ** 2).mean()
    kept = 2 * (loss - 2 * forgotten)
    (drawn,) = [one for one in noises if not torch.equal(one.x_t, x_t)]
    torch.testing.assert_close(kept, (weight[4:] * (said[4:] - drawn.aim) ** 2).mean(), rtol=1e-4, atol=1e-5)


def test_every_image_is_seen_once_before_any_comes_again(
    model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(f) In two steps of 2 all four forget images, in four all again; the retain images likewise."""
    seen: list[list[int]] = []
    noised = redirection.noised

    def watched(model: StableDiffusion, data: Any, rows: Tensor, *, generator: torch.Generator) -> Any:
        seen.append(rows.tolist())
        return noised(model, data, rows, generator=generator)

    monkeypatch.setattr(redirection, "noised", watched)
    replace(STEP, iterations=4, mask=Unmasked()).apply(model, tiny_run(model))

    forgotten = [row for rows in seen[:8:2] for row in rows]
    assert sorted(forgotten[:4]) == sorted(forgotten[4:]) == [0, 1, 2, 3]
    assert sorted(row for rows in seen[1:6:2] for row in rows) == [0, 1, 2, 3, 4, 5]


def test_it_forgets_and_retains(model: StableDiffusion) -> None:
    """(e) On fixed noise the forget loss falls by half; the retain loss rises by less than 5 %, without α by more."""
    run = tiny_run(model)
    forget, retain = (drawn_examples(model, run, probe) for probe in (STEP.forget, STEP.retain))
    pseudo = redirected(model, STEP.forget, STEP._pseudo_texts())

    def loss(changed: StableDiffusion, weights: Weights) -> float:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            terms = redirection_losses(changed, forget, retain, pseudo, weights=weights, batch=4, generator=generator)
            return float(sum(sum(next(terms)) for _ in range(4)))

    def losses(changed: StableDiffusion) -> list[float]:
        return [loss(changed, Weights(forget=1.0, retain=0.0)), loss(changed, Weights(forget=0.0, retain=1.0))]

    step = replace(STEP, iterations=25, batch=4, retain_weight=0.1)
    before, after = losses(model), losses(step.apply(model, run))
    careless = losses(replace(step, retain_weight=0.0).apply(model, run))

    assert after[0] < 0.5 * before[0] and careless[0] < 0.5 * before[0]
    assert after[1] < 1.05 * before[1] < careless[1]


def test_a_run_is_the_beginning_of_a_longer_one(model: StableDiffusion) -> None:
    """Training longer passes through the same losses; updates are max(iterations, iterations_per_concept × n)."""
    losses: dict[int, list[float]] = {2: [], 3: []}
    for iterations, seen in losses.items():
        run = tiny_run(model, progress=lambda done, total, loss, seen=seen: seen.append(loss))
        replace(STEP, iterations=iterations, mask=Unmasked()).apply(model, run)

    assert losses[3][:2] == losses[2]
    assert replace(STEP, iterations_per_concept=30).updates == 60


def test_a_hundred_concepts_are_checked_at_once() -> None:
    """500 forget prompts against 100 names take no time, and every one has its pseudo prompt."""
    names = [f"first{place % 25} last{place // 4}" for place in range(100)]
    others = [f"first{place % 25} last{place // 4 + 1}" for place in range(50)]
    concepts = tuple(Concept(name=name, kind="a celebrity") for name in names)
    prompts = [portraits(names, template=f"{{}} in style {number}") for number in range(5)]
    forget = replace(prompts[0], prompts=tuple(prompt for probe in prompts for prompt in probe.prompts))

    start = time.process_time()
    step = SalUn(concepts=concepts, forget=forget, retain=portraits(sorted(set(others) - set(names))))

    assert time.process_time() - start < 1
    assert len(step._pseudo_texts()) == 500 and len(set(step._pseudo_texts())) == 5


def test_a_mask_that_leaves_nothing_is_a_build_error(model: StableDiffusion) -> None:
    """The whole mask may lie outside the subset."""

    def nothing(kind: str, spec: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        built = build()
        return {name: torch.zeros_like(value) for name, value in built.items()} if kind == "saliency" else built

    with pytest.raises(BuildError, match=r'mask leaves nothing to train in "everything"'):
        STEP.apply(model, tiny_run(model, cached=nothing))


def test_parameters_that_select_nothing_are_refused(model: StableDiffusion) -> None:
    """A rule without tensors would train nothing and call it unlearned."""

    class Nothing(Parameters):
        name = "nothing"

        def selects(self, name: str) -> bool:
            return False

    with pytest.raises(SpecError, match='"nothing" select none'):
        replace(STEP, subset=Nothing()).apply(model, tiny_run(model))


def test_divergence_is_a_build_error(model: StableDiffusion) -> None:
    """An absurd learning rate ends in a sentence that names the step, never in a stored NaN."""
    with pytest.raises(BuildError, match="SalUn's training diverged at step"):
        replace(STEP, learning_rate=1e30).apply(model, tiny_run(model))


@pytest.mark.parametrize(
    "bad",
    [
        {"iterations": 0},
        {"batch": 2.5},
        {"learning_rate": 0.0},
        {"retain_weight": -1.0},
        {"iterations_per_concept": -1},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    """Each is a SpecError that names the field."""
    with pytest.raises(SpecError, match=f"SalUn.{next(iter(bad))} must be"):
        replace(STEP, **bad)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_an_empty_or_impossible_mask_is_refused(fraction: float) -> None:
    """A share of entries is above 0 and at most 1."""
    with pytest.raises(SpecError, match=r"MostSalient.fraction must be"):
        MostSalient(fraction=fraction)
    with pytest.raises(SpecError, match=r"Guided.guidance must be"):
        Guided(guidance=-1.0)
