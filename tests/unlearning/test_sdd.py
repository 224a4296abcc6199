"""SDD: the teacher's recurrence, the student's own target, prompts in turn, trajectories that follow the teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, product
from string import ascii_lowercase
from typing import Any

import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import conditions_of
from resurgence_harness.diffusion.model import StableDiffusion, difference, tensors
from resurgence_harness.diffusion.parameters import CrossAttention, Everything, Parameters
from resurgence_harness.errors import BuildError, SpecError, UserError
from resurgence_harness.specs import Concept
from resurgence_harness.storing.keys import key
from resurgence_harness.unlearning import ESD, SDD, StudentOutput, TeacherOutput, sdd
from resurgence_harness.unlearning.sdd import by_text, drift, follow, in_turn, renewal
from resurgence_harness.unlearning.trajectories import Trajectories, draw
from tests.tiny import NAMES, tiny_run

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]

ADA, BRAM, STONE = (Concept(name=name) for name in NAMES[:3])
STEP = SDD(
    concepts=(ADA, BRAM, STONE),
    iterations=3,
    iterations_per_concept=0,
    batch=4,
    learning_rate=3e-4,
    ema=0.75,
    refresh=2,
    trajectories=2,
    trajectory_steps=3,
)
STUDENT = replace(STEP, output=StudentOutput())
OUTPUTS: tuple[Any, ...] = (TeacherOutput(), StudentOutput())


def _spec(step: SDD) -> Trajectories:
    """The trajectories that the step asks the store for."""
    return Trajectories(
        model="tiny",
        texts=step.texts,
        each=-(-step.trajectories // len(step.texts)),
        steps=step.trajectory_steps,
        guidance=step.guidance,
        seed=step.seed,
    )


def test_the_teacher_is_the_moving_average_of_the_students(model: StableDiffusion) -> None:
    """(a) θ̄_k = m θ̄_{k−1} + (1 − m) θ_k from θ̄_0 = the given weights, on every tensor, through a renewal."""
    students = [tensors(replace(STUDENT, iterations=k).apply(model, tiny_run(model))) for k in (1, 2, 3)]
    teacher = tensors(STEP.apply(model, tiny_run(model)))

    for name, value in tensors(model).items():
        expected = value.double()
        for student in students:
            expected = 0.75 * expected + 0.25 * student[name].double()
        torch.testing.assert_close(teacher[name].double(), expected, rtol=0, atol=1e-6)
        assert torch.equal(teacher[name], value) == torch.equal(students[-1][name], value), name


def test_without_memory_the_teacher_is_the_student(model: StableDiffusion) -> None:
    """(a) At m = 0 the two outputs are one, bit for bit."""
    teacher, student = (replace(step, ema=0.0).apply(model, tiny_run(model)) for step in (STEP, STUDENT))

    assert difference(teacher, student) == {}


def test_a_share_of_the_given_weights_is_left_in_the_teacher() -> None:
    """m^k: .223 after the authors' 1,500 steps."""
    teacher, student = [torch.ones(1)], [torch.zeros(1)]
    for _ in range(1_500):
        follow(teacher, student, ema=0.999)

    assert teacher[0].item() == pytest.approx(0.223, abs=1e-3)


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_the_first_step_is_the_formulas(load: Load, style: str) -> None:
    """(b) Loss and weights after one step are those of w_t ‖f(c) − sg(f(c_0))‖²; without sg they would be others."""
    model = load(style)
    seen: list[float] = []
    step = replace(STUDENT, iterations=1, batch=2)

    ours = tensors(step.apply(model, tiny_run(model, progress=lambda done, total, loss: seen.append(loss))))

    x_t, t = by_text(draw(model, _spec(step)), 3)
    text, moment = next(in_turn(3, 3, 2, seed=0))
    at, when = x_t[text, moment], t[text, moment]
    states, empty = moves.encode_texts(model, STEP.texts)[text], moves.encode_texts(model, ["", ""])
    weight = moves.signal(model, when) ** 2 if style == "v2" else 1.0
    for detached in (True, False):
        copied = model.copy()
        named = {f"unet.{n}": p.requires_grad_(True) for n, p in copied.unet.named_parameters() if ".attn2." in n}
        aim = moves.predict(copied, at, when, empty)
        error = moves.predict(copied, at, when, states) - (aim.detach() if detached else aim)
        loss = (weight * error**2).mean()
        adam = torch.optim.AdamW(named.values(), lr=step.learning_rate, weight_decay=1e-4)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        adam.step()
        assert seen[0] == pytest.approx(loss.item(), rel=1e-4)
        # A first step of Adam is the sign of the gradient, where that is not nearly zero.
        same = torch.cat([((ours[n] - p.detach()).abs() < 1e-6).flatten() for n, p in named.items()])
        assert bool(same.float().mean() > 0.99) == detached


def test_neither_model_keeps_a_gradient(model: StableDiffusion) -> None:
    """(b) What is returned is a plain frozen model, and the two are different ones."""
    teacher, student = (step.apply(model, tiny_run(model)) for step in (STEP, STUDENT))

    for returned in (teacher, student):
        assert all(p.grad is None and not p.requires_grad for p in returned.unet.parameters())
    assert difference(teacher, student)


def test_the_concepts_come_to_be_heard_as_the_empty_text(model: StableDiffusion) -> None:
    """(c) ‖f(c) − f(c_0)‖ at fixed (x_t, t) falls for student and teacher, for the teacher later."""
    pool = draw(model, replace(_spec(STEP), seed=77))
    states, empty = moves.encode_texts(model, STEP.texts), moves.encode_texts(model, [""])

    def gap(changed: StableDiffusion) -> float:
        with torch.no_grad():
            said = moves.predict(changed, pool["x_t"], pool["t"], states[pool["text"]])
            aim = moves.predict(changed, pool["x_t"], pool["t"], empty.expand(len(pool["t"]), -1, -1))
        return float((said - aim).square().mean())

    longer = replace(STEP, iterations=20, refresh=10, ema=0.9)
    teacher, student = (gap(replace(longer, output=output).apply(model, tiny_run(model))) for output in OUTPUTS)

    assert student < teacher < gap(model)
    assert student < 0.6 * gap(model)


def test_a_hundred_names_are_a_hundred_prompts(model: StableDiffusion) -> None:
    """(d) Joined they would need 300 tokens where this model reads 22; each has its own prompt and its own x_t."""
    names = [" ".join(pair) for pair in islice(product(ascii_lowercase, repeat=2), 100)]
    asked: list[Any] = []

    def cached(kind: str, spec: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        asked.append((spec, build()))
        return asked[0][1]  # type: ignore[no-any-return]

    step = replace(STEP, concepts=tuple(Concept(name=name) for name in names), trajectory_steps=1)
    changed = step.apply(model, tiny_run(model, cached=cached))

    spec, drawn = asked[0]
    assert len(difference(changed, model)) == 80
    assert spec.texts == tuple(names) and spec.each == 1
    assert drawn["text"].bincount().tolist() == [1] * 100
    assert replace(step, iterations_per_concept=15).updates == 1_500


def test_a_name_that_does_not_fit_is_a_users_error(model: StableDiffusion) -> None:
    """(d) What CLIP would cut off without a word is refused."""
    step = replace(STEP, concepts=(Concept(name=" ".join(NAMES * 2)),))

    with pytest.raises(UserError, match="does not fit the base model"):
        step.apply(model, tiny_run(model))


def test_prompts_come_in_turn_at_random_moments() -> None:
    """Any n samples in a row hold n different prompts, whatever the batch; moments are seeded and all are met."""
    drawn = list(islice(in_turn(5, 4, 3, seed=1), 40))
    texts = torch.cat([text for text, _ in drawn]).tolist()

    assert texts == [place % 5 for place in range(120)]
    assert set(torch.cat([moment for _, moment in drawn]).tolist()) == {0, 1, 2, 3}
    assert all(torch.equal(a[1], b[1]) for a, b in zip(drawn, in_turn(5, 4, 3, seed=1), strict=False))
    assert any(not torch.equal(a[1], b[1]) for a, b in zip(drawn, in_turn(5, 4, 3, seed=2), strict=False))


def test_trajectories_are_whole_and_sorted_by_prompt(model: StableDiffusion) -> None:
    """(e) Each prompt's row holds all moments of its trajectories and no other's, each x_t with its own t."""
    spec = replace(_spec(STEP), each=2)
    drawn = draw(model, spec, batch=4)

    x_t, t = by_text(drawn, 3)

    assert x_t.shape == (3, 6, 4, 8, 8) and t.shape == (3, 6)
    for row in t.tolist():
        assert sorted(row) == sorted(2 * moves.timesteps(model, 3))
    for text, row in enumerate(x_t):
        noise = moves.initial_noise(model, [2 * text, 2 * text + 1], height=64, width=64)
        assert torch.equal(row[t[text] == t.max()], noise)
    for place in range(len(drawn["t"])):
        row = (x_t[drawn["text"][place]] == drawn["x_t"][place]).flatten(1).all(1)
        assert t[drawn["text"][place]][row].tolist() == [drawn["t"][place].item()]


def test_the_teacher_draws_the_next_prompts_anew(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `refresh` steps, in turn, never with noise that was used, by the teacher as it then is; not at the end."""
    drawn: list[tuple[StableDiffusion, Trajectories]] = []

    def spy(drawing: StableDiffusion, spec: Trajectories) -> dict[str, Tensor]:
        drawn.append((drawing.copy(), spec))
        return draw(drawing, spec)

    monkeypatch.setattr(sdd, "draw", spy)
    changed = replace(STEP, iterations=6).apply(model, tiny_run(model))
    monkeypatch.undo()

    assert [spec.texts for _, spec in drawn] == [NAMES[:3], NAMES[:2], (NAMES[2], NAMES[0])]
    seeds = [spec.seed + index for _, spec in drawn for index in range(len(spec.texts) * spec.each)]
    assert seeds == list(range(7))
    assert difference(drawn[0][0], model) == {}
    for iterations, (teacher, _) in zip((2, 4), drawn[1:], strict=True):
        assert difference(teacher, replace(STEP, iterations=iterations).apply(model, tiny_run(model))) == {}
    assert difference(changed, drawn[2][0])


def test_renewed_trajectories_are_trained_on(model: StableDiffusion) -> None:
    """Up to the first renewal the losses are those without any; after it they are others."""
    losses: dict[int, list[float]] = {1: [], 50: []}
    for refresh, seen in losses.items():
        run = tiny_run(model, progress=lambda done, total, loss, seen=seen: seen.append(loss))
        replace(STEP, concepts=(ADA,), refresh=refresh, iterations=3, trajectories=1).apply(model, run)

    assert losses[1][0] == losses[50][0]
    assert losses[1][1] != losses[50][1]


@pytest.mark.parametrize(
    ("texts", "trajectories", "each", "rows"), [(1, 4, 4, [0]), (3, 2, 1, [2, 0]), (2, 3, 2, [0, 1])]
)
def test_a_renewal_draws_as_many_as_asked(texts: int, trajectories: int, each: int, rows: list[int]) -> None:
    """At least `trajectories` in all, whole prompts; the second turn goes on where the first ended."""
    first = Trajectories(
        model="tiny", texts=NAMES[:texts], each=-(-trajectories // texts), steps=2, guidance=3.0, seed=10
    )

    again, spec = renewal(first, 1, trajectories=trajectories)

    assert first.each == each and again == rows
    assert len(rows) * each >= trajectories
    assert spec.seed == 10 + (texts + len(rows)) * each


def test_the_first_trajectories_are_esds(model: StableDiffusion) -> None:
    """Where texts, steps, guidance and seed agree, the store has one set for both; the training is not in its key."""
    asked: list[str] = []

    def cached(kind: str, spec: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        asked.append(key(kind, spec))
        return build()

    short = replace(STEP, iterations=1)
    ESD(concepts=STEP.concepts, iterations=1, trajectories=3, trajectory_steps=3).apply(
        model, tiny_run(model, cached=cached)
    )
    for step in (short, replace(short, ema=0.0, learning_rate=1e-6, output=StudentOutput(), refresh=9, batch=1)):
        step.apply(model, tiny_run(model, cached=cached))
    short.apply(model, tiny_run(model, cached=cached, parent_digest="elsewhere"))

    assert asked[0] == asked[1] == asked[2] != asked[3]


def test_stored_trajectories_are_not_written_over(model: StableDiffusion) -> None:
    """Renewals change the step's own rows; what the store handed out stays."""
    kept = draw(model, _spec(STEP))
    copies = {name: value.clone() for name, value in kept.items()}

    replace(STEP, refresh=1).apply(model, tiny_run(model, cached=lambda kind, spec, build: kept))

    assert all(torch.equal(kept[name], copies[name]) for name in copies)


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_the_empty_texts_drift_is_recorded_and_small(load: Load, style: str) -> None:
    """(f) Nothing anchors f(c_0): how far it went is told; 0 for the model itself, more for the student than behind."""
    model = load(style)
    facts: list[dict[str, Any]] = [{}, {}]
    for output, recorded in zip(OUTPUTS, facts, strict=True):
        step = replace(STEP, output=output, iterations=6, learning_rate=3e-5)
        step.apply(model, tiny_run(model, record=recorded.__setitem__))

    teacher, student = (recorded["empty-text drift"] for recorded in facts)
    assert drift(model, model, draw(model, _spec(STEP)), conditions_of(moves.encode_texts(model, [""]))) == 0.0
    assert 0 < teacher < student < 0.05
    assert facts[0]["samples seen"] == 24


def test_eighty_tensors_move_in_cross_attention(model: StableDiffusion) -> None:
    """By default attn2 as a whole, 80 tensors; everything on request, and nothing else is averaged."""
    full: Parameters = Everything()

    assert STEP.subset == SDD(concepts=(ADA,)).subset == CrossAttention()
    assert len(difference(STEP.apply(model, tiny_run(model)), model)) == 80
    assert len(difference(replace(STEP, subset=full).apply(model, tiny_run(model)), model)) == 686


def test_updates_follow_the_erase_set() -> None:
    """The authors' 1,500 steps, which are 15 for each of 100 concepts; more concepts get more steps."""
    many = tuple(Concept(name=f"name {index}") for index in range(120))

    assert SDD(concepts=(ADA,)).updates == SDD(concepts=many[:100]).updates == 1_500
    assert SDD(concepts=many).updates == 1_800
    assert replace(STEP, templates=("{}", "a sketch of {}")).texts[:3] == (
        NAMES[0],
        f"a sketch of {NAMES[0]}",
        NAMES[1],
    )


def test_divergence_is_a_build_error(model: StableDiffusion) -> None:
    """An absurd learning rate ends in a sentence that names the step, never in a stored NaN."""
    with pytest.raises(BuildError, match="SDD's training diverged at step"):
        replace(STEP, learning_rate=1e30).apply(model, tiny_run(model))


def test_parameters_that_select_nothing_are_refused(model: StableDiffusion) -> None:
    """A rule without tensors would train nothing and call it unlearned."""

    class Nothing(Parameters):
        name = "nothing"

        def selects(self, name: str) -> bool:
            return False

    with pytest.raises(SpecError, match='"nothing" select none'):
        replace(STEP, subset=Nothing()).apply(model, tiny_run(model))


@pytest.mark.parametrize(
    "bad",
    [
        {"iterations": 0},
        {"batch": 2.5},
        {"learning_rate": 0.0},
        {"ema": 1.0},
        {"ema": -0.1},
        {"refresh": 0},
        {"trajectories": 0},
        {"guidance": -1.0},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    """Each is a SpecError that names the field."""
    with pytest.raises(SpecError, match=f"SDD.{next(iter(bad))} must be"):
        replace(STEP, **bad)


def test_two_seeds_give_two_models(model: StableDiffusion) -> None:
    """The seed reaches the trajectories and the moments that are taken."""
    assert difference(STEP.apply(model, tiny_run(model)), replace(STEP, seed=1).apply(model, tiny_run(model)))
