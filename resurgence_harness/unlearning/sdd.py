"""SDD, Safe self-Distillation Diffusion: train the model to predict for a concept what it predicts for the empty text.

Kim, Jung, Kim, Choi, Shin, Lee. Towards Safe Self-Distillation of Internet-Scale Text-to-Image Diffusion Models.
ICML 2023 workshop on Challenges in Deployable Generative AI. https://arxiv.org/abs/2307.05977

    L(θ) = E_{t, x_t, c}  w_t ‖ f_θ(x_t, t, c) − sg( f_θ(x_t, t, c_0) ) ‖²          θ̄ ← m θ̄ + (1 − m) θ  after each step

x_t lies on a trajectory that the teacher f_θ̄ draws from the same prompt c with guidance 3. The target is the student's
own prediction: no term ties f_θ(c_0) to the given model, and its deviation is recorded as "empty-text drift".

Notation     f_θ the student     f_θ̄ the teacher, an exponential moving average (EMA) of the students, θ̄ = θ at first
             m ema     c text states of one concept     c_0 those of the empty text     w_t = 1 for ε-models, a_t² for
             v-models (the formula then is that of ε, as in esd.py)
Output       The teacher, as the authors save it. It lags: a share m^k of the given weights remains in it after k steps
             (.999^1500 = .22). `StudentOutput` is the trained model.
Iterations   max(iterations, iterations_per_concept × n) optimiser steps for n concepts, each on `batch` samples. The
             prompts are used in cyclic order, sample by sample (the authors' "iterative"), so none repeats before all
             were used; each time with a random step of a random trajectory of that prompt.
Departures   from safe-diffusion a2e820c (2023): x_t is drawn from the trained concept, not from all names joined into
             one prompt, of which CLIP reads the first 23 of 100. Whole trajectories are stored and drawn in advance,
             not one per step: first for all prompts by the given model (ESD's set, if settings agree), then
             `trajectories` of them again by the teacher every `refresh` steps, cyclically. x_t is paired with its exact
             t (theirs: with one up to 20 away, and a clean latent with t ≥ 980 once in 50); the model's latent size;
             everything seeded. Their README describes the opposite of their code (x_t from one concept, c the joined
             prompt).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions
from resurgence_harness.diffusion.parameters import CrossAttention, Parameters, selected
from resurgence_harness.diffusion.ranges import at_least, positive, whole
from resurgence_harness.diffusion.training import descend, gradients
from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.specs import ADDED, Arithmetic, Concept, check_arithmetic
from resurgence_harness.unlearning.contract import Unlearning, check_concepts, check_templates
from resurgence_harness.unlearning.trajectories import Trajectories, draw

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.999), 1e-4, 1.0
"""AdamW's settings, and the maximum norm of the joint gradient."""


@final
@dataclass(frozen=True)
class TeacherOutput:
    """Return the moving average, as the authors save it."""

    name: ClassVar[str] = "teacher"

    def of(self, *, teacher: StableDiffusion, student: StableDiffusion) -> StableDiffusion:
        """The teacher."""
        return teacher


@final
@dataclass(frozen=True)
class StudentOutput:
    """Return the trained model, without the average's lag."""

    name: ClassVar[str] = "student"

    def of(self, *, teacher: StableDiffusion, student: StableDiffusion) -> StableDiffusion:
        """The student."""
        return student


@final
@dataclass(frozen=True, kw_only=True)
class SDD(Unlearning):
    """Erase concepts by self-distillation towards the empty text."""

    name: ClassVar[str] = "sdd"
    version: ClassVar[int] = 1

    concepts: tuple[Concept, ...]
    """The erase set, trained cyclically."""
    subset: Parameters = field(default=CrossAttention())
    """The UNet's parameters that are trained and averaged."""
    output: TeacherOutput | StudentOutput = TeacherOutput()
    """Which of the two models is returned."""
    ema: float = 0.999
    """m, decay of the teacher per step, 0 ≤ m < 1. Shorter trainings need a smaller one: see Output above."""
    guidance: float = 3.0
    """Guidance scale of the trajectories that x_t is taken from, ≥ 0."""
    iterations: int = 1_500
    """Minimum optimiser steps, ≥ 1."""
    iterations_per_concept: int = 15
    """Minimum optimiser steps per concept, ≥ 0; 15 is the authors' 1,500 steps over 100 concepts."""
    batch: int = 1
    """Samples (x_t, t, c) per optimiser step, ≥ 1."""
    learning_rate: float = 1e-5
    """AdamW's (weight decay 1e-4, gradients clipped to norm 1), constant, > 0."""
    refresh: int = 50
    """Optimiser steps between renewals of trajectories by the teacher, ≥ 1."""
    trajectories: int = 2
    """Trajectories drawn at each renewal, ≥ 1; each prompt has at least one from the beginning."""
    trajectory_steps: int = 50
    """DDIM steps of a trajectory; all are kept as training samples, ≥ 1."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts c; "{}" is the name. The bare name by default, as the authors'."""
    seed: int = 0
    """Seed of the trajectories' noise and of the selected steps."""
    arithmetic: Arithmetic = field(default="float32", metadata=ADDED)
    """Of the passes whose gradients are taken."""

    def __post_init__(self) -> None:
        """SpecError for empty or repeated sets and values out of range."""
        check_arithmetic("SDD", self.arithmetic)
        check_concepts("SDD", self.concepts)
        check_templates("SDD", self.templates)
        at_least("SDD", 0, guidance=self.guidance, ema=self.ema)
        if self.ema >= 1:
            raise SpecError(sentence(f"SDD.ema must be below 1, got {self.ema}.", do="At 1 the teacher never changes."))
        whole("SDD", 0, seed=self.seed, iterations_per_concept=self.iterations_per_concept)
        whole("SDD", 1, iterations=self.iterations, batch=self.batch, refresh=self.refresh)
        whole("SDD", 1, trajectories=self.trajectories, trajectory_steps=self.trajectory_steps)
        positive("SDD", learning_rate=self.learning_rate)

    @property
    def moves(self) -> Parameters:
        """The subset."""
        return self.subset

    @property
    def updates(self) -> int:
        """Optimiser steps taken."""
        return max(self.iterations, self.iterations_per_concept * len(self.concepts))

    @property
    def texts(self) -> tuple[str, ...]:
        """Every prompt c, concepts outermost."""
        return tuple(template.format(concept.name) for concept in self.concepts for template in self.templates)

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """Train a student and its EMA teacher; return one of them."""
        import torch

        with gradients(model, self.arithmetic, run):
            # 1. Trajectories of the teacher, which initially is the given model.
            spec = self._trajectories(run.parent_digest)
            first = run.cached("trajectories", spec, lambda: draw(model, spec))
            x_t, t = (rows.to(model.device) for rows in by_text(first, len(spec.texts)))
            states, empty = moves.conditions(model, spec.texts), moves.conditions(model, [""])
            # 2. Trained parameters of the student, and their averages in the teacher.
            student, teacher = model.copy(), model.copy()
            named = {f"unet.{name}": parameter for name, parameter in student.unet.named_parameters()}
            averaged = {f"unet.{name}": parameter for name, parameter in teacher.unet.named_parameters()}
            names = selected(self.subset, named)
            trained = [named[name].requires_grad_(True) for name in names]
            adam = torch.optim.AdamW(trained, lr=self.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)

            # 3. Two forward passes and one backward pass per step.
            def losses() -> Iterator[Tensor]:
                for places in in_turn(t.shape[0], t.shape[1], self.batch, seed=self.seed):
                    text, moment = (moves.on_device(place, model.device) for place in places)
                    at, when = x_t[text, moment], t[text, moment]
                    with torch.no_grad():
                        aim = moves.predict(student, at, when, empty.expand(self.batch))
                    predicted = moves.predict(student, at, when, states[text])
                    yield moves.noise_errors(student, predicted, aim, when).mean()

            def after(done: int) -> None:
                follow([averaged[name] for name in names], trained, ema=self.ema)
                if done % self.refresh == 0 and done < self.updates:
                    rows, turn = renewal(spec, done // self.refresh - 1, trajectories=self.trajectories)
                    x_t[rows], t[rows] = (new.to(model.device) for new in by_text(draw(teacher, turn), len(rows)))

            loss = descend("SDD", adam, losses(), steps=self.updates, clip=CLIP, progress=run.progress, after=after)
            student.unet.requires_grad_(False)
            result = self.output.of(teacher=teacher, student=student)
            run.record("empty-text drift", drift(result, model, first, empty))
        run.record("samples seen", self.updates * self.batch)
        run.record("loss", loss._asdict())
        return result

    def _trajectories(self, digest: str) -> Trajectories:
        """The initial ones. The key contains no training settings, so runs that differ in these, and ESD, share it."""
        return Trajectories(
            model=digest,
            texts=self.texts,
            each=ceil(self.trajectories / len(self.texts)),
            steps=self.trajectory_steps,
            guidance=self.guidance,
            seed=self.seed,
            arithmetic=self.arithmetic,
        )


def in_turn(texts: int, moments: int, batch: int, *, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (text [batch], moment [batch]): texts in cyclic order, each with a random trajectory step."""
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    for taken in count(step=batch):
        yield torch.arange(taken, taken + batch) % texts, torch.randint(moments, (batch,), generator=generator)


def follow(teacher: Sequence[Any], student: Sequence[Any], *, ema: float) -> None:
    """θ̄ ← m θ̄ + (1 − m) θ, in place; exact where the two are equal."""
    import torch

    with torch.no_grad():
        for ours, theirs in zip(teacher, student, strict=True):
            ours.lerp_(theirs, 1 - ema)


def renewal(first: Trajectories, index: int, *, trajectories: int) -> tuple[list[int], Trajectories]:
    """The index-th renewal by the teacher: rows of the next prompts, and the spec of their trajectories (new noise)."""
    total = len(first.texts)
    turn = min(total, ceil(trajectories / first.each))
    rows = [(index * turn + place) % total for place in range(turn)]
    texts = tuple(first.texts[row] for row in rows)
    return rows, replace(first, texts=texts, seed=first.seed + (total + index * turn) * first.each)


def by_text(drawn: dict[str, Tensor], texts: int) -> tuple[Tensor, Tensor]:
    """x_t [texts, moments, 4, h, w] and t [texts, moments] of trajectories, grouped by text."""
    order = drawn["text"].argsort(stable=True)
    x_t, t = drawn["x_t"][order], drawn["t"][order]
    return x_t.reshape(texts, -1, *x_t.shape[1:]), t.reshape(texts, -1)


def drift(model: StableDiffusion, given: StableDiffusion, drawn: dict[str, Tensor], empty: Conditions) -> float:
    """‖f(c_0) − f*(c_0)‖ / ‖f*(c_0)‖ over 16 steps spread over the trajectories drawn by `given`, f*."""
    import torch

    rows = torch.linspace(0, len(drawn["t"]) - 1, 16).long()
    x_t, t = drawn["x_t"][rows].to(model.device), drawn["t"][rows].to(model.device)
    with torch.no_grad():
        ours, theirs = (moves.predict(m, x_t, t, empty.expand(len(rows))) for m in (model, given))
    return float((ours - theirs).norm() / theirs.norm())
