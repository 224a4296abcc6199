"""ESD, Erased Stable Diffusion: train the model towards negative guidance away from a concept.

Gandikota, Materzyńska, Fiotto-Kaufman, Bau. Erasing Concepts from Diffusion Models. ICCV 2023.
https://arxiv.org/abs/2303.07345

    L(θ) = E_{t, x_t, c}  w_t ‖ f_θ(x_t, t, c) − sg( f*(x_t, t, c_0) − η [ f*(x_t, t, c) − f*(x_t, t, c_0) ] ) ‖²

x_t lies on a trajectory that the frozen model f* draws from the prompt c with guidance 3.

Notation     f_θ the model being trained     f* the given model, frozen     c text states of the concept
             c_0 those of the empty text     η away     w_t = 1 for ε-models, a_t² for v-models
Conventions  `away` is the η above: that of the paper and of the authors' 2023 code. Their 2025 code starts from f*(c)
             instead of f*(c_0): f*(c) − η' [f*(c) − f*(c_0)], so that η' = η + 1. Its default 2 is this file's 1; its 1
             is the plain unconditional target, this file's 0.
v-models     At a fixed x_t, v = ε/a_t − (s_t/a_t) x_t, and the target's coefficients sum to 1, so the formula is the
             same for v. ‖Δv‖² = ‖Δε‖²/a_t²; w_t = a_t² makes the loss the ε-loss.
Iterations   max(iterations, iterations_per_concept × n) optimiser steps for n concepts, each on `batch` samples mixed
             across concepts; `samples` in all. The pool of samples is balanced over concepts and traversed in a seeded
             random order, each sample once before any repeats.
Departures   from erasing a2189e9 (2023) and 25613d2 (2025): x_t from the frozen model (as 2025), all steps of every
             trajectory are used, with f*(c) and f*(c_0) stored from the guided sampling, which computes both anyway;
             x_t is paired with its exact t (2023 pairs it with a noisier one); batches; float32 throughout (2025:
             bfloat16 weights); the model's image size (2025: 1024 px); everything seeded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.parameters import CrossAttention, Parameters, selected
from resurgence_harness.diffusion.ranges import at_least, positive, whole
from resurgence_harness.diffusion.training import batches, descend, gradients
from resurgence_harness.specs import ADDED, Arithmetic, Concept, check_arithmetic
from resurgence_harness.unlearning.contract import Unlearning, check_concepts, check_templates
from resurgence_harness.unlearning.trajectories import Trajectories, draw

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@final
@dataclass(frozen=True, kw_only=True)
class ESD(Unlearning):
    """Erase concepts by negative guidance."""

    name: ClassVar[str] = "esd"
    version: ClassVar[int] = 1

    concepts: tuple[Concept, ...]
    """The erase set, trained together."""
    subset: Parameters = field(default=CrossAttention())
    """The UNet's trained parameters."""
    away: float = 1.0
    """η, the negative guidance beyond the unconditional prediction, ≥ 0; 1 is the paper's."""
    guidance: float = 3.0
    """Guidance scale of the trajectories that x_t is taken from."""
    iterations: int = 1_000
    """Minimum optimiser steps, ≥ 1."""
    iterations_per_concept: int = 0
    """Minimum optimiser steps per concept, ≥ 0; 0: the total does not grow with the erase set, as theirs."""
    batch: int = 1
    """Samples (x_t, t, c) per optimiser step, ≥ 1."""
    learning_rate: float = 1e-5
    """Adam's, without weight decay, schedule or clipping; > 0."""
    trajectories: int = 32
    """Total number of trajectories, at least one per text, ≥ 1."""
    trajectory_steps: int = 50
    """DDIM steps of a trajectory; all are kept as training samples, ≥ 1."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts c; "{}" is the name. The bare name by default, as the authors'."""
    seed: int = 0
    """Seed of the trajectories' noise and the order of the samples."""
    arithmetic: Arithmetic = field(default="float32", metadata=ADDED)
    """Of the passes whose gradients are taken."""

    def __post_init__(self) -> None:
        """SpecError for empty or repeated sets and values out of range."""
        check_arithmetic("ESD", self.arithmetic)
        check_concepts("ESD", self.concepts)
        check_templates("ESD", self.templates)
        at_least("ESD", 0, away=self.away, guidance=self.guidance)
        whole("ESD", 0, seed=self.seed, iterations_per_concept=self.iterations_per_concept)
        whole("ESD", 1, iterations=self.iterations, batch=self.batch)
        whole("ESD", 1, trajectories=self.trajectories, trajectory_steps=self.trajectory_steps)
        positive("ESD", learning_rate=self.learning_rate)

    @property
    def moves(self) -> Parameters:
        """The subset."""
        return self.subset

    @property
    def updates(self) -> int:
        """Optimiser steps taken."""
        return max(self.iterations, self.iterations_per_concept * len(self.concepts))

    @property
    def samples(self) -> int:
        """Samples seen in training, over all concepts."""
        return self.updates * self.batch

    @property
    def texts(self) -> tuple[str, ...]:
        """Every prompt c, concepts outermost."""
        return tuple(template.format(concept.name) for concept in self.concepts for template in self.templates)

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """Train a copy of the model; the model itself is f*."""
        import torch

        with gradients(model, self.arithmetic, run):
            pool = self._pool(model, run)
            # 1. c, and the fixed target.
            states = moves.conditions(model, self.texts)
            aim = esd_target(pool["empty"], pool["prompted"], away=self.away)
            weight = moves.noise_weight(model, pool["t"])
            # 2. Trained parameters.
            changed = model.copy()
            named = {f"unet.{name}": parameter for name, parameter in changed.unet.named_parameters()}
            trained = [named[name].requires_grad_(True) for name in selected(self.subset, named)]
            adam = torch.optim.Adam(trained, lr=self.learning_rate, fused=True)

            # 3. One forward and one backward pass per step.
            def losses() -> Iterator[Tensor]:
                for order in batches(len(aim), self.batch, generator=torch.Generator("cpu").manual_seed(self.seed)):
                    rows = moves.on_device(order, model.device)
                    predicted = moves.predict(changed, pool["x_t"][rows], pool["t"][rows], states[pool["text"][rows]])
                    error = (predicted - aim[rows]) ** 2
                    yield (error if weight is None else weight[rows] * error).mean()

            loss = descend("ESD", adam, losses(), steps=self.updates, progress=run.progress)
            changed.unet.requires_grad_(False)
        run.record("samples in pool", len(aim))
        run.record("samples seen", self.samples)
        run.record("loss", loss._asdict())
        return changed

    def _pool(self, model: StableDiffusion, run: Run) -> dict[str, Tensor]:
        """x_t, t, text (index of c), prompted f*(c) and empty f*(c_0) of every step of every trajectory.

        The key does not contain subset, away, learning rate and iterations, so runs that differ in these share it.
        """
        spec = Trajectories(
            model=run.parent_digest,
            texts=self.texts,
            each=ceil(self.trajectories / len(self.texts)),
            steps=self.trajectory_steps,
            guidance=self.guidance,
            seed=self.seed,
            arithmetic=self.arithmetic,
        )
        pool = run.cached("trajectories", spec, lambda: draw(model, spec))
        return {name: value.to(model.device) for name, value in pool.items()}


def esd_target(empty: Tensor, prompted: Tensor, *, away: float) -> Tensor:
    """f*(c_0) − η [ f*(c) − f*(c_0) ], any shape."""
    return empty - away * (prompted - empty)
