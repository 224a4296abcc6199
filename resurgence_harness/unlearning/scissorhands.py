"""SHS, Scissorhands: reinitialise the weights most sensitive to the forget images, then repair the model.

Wu, Harandi. Scissorhands: Scrub Data Influence via Connection Sensitivity in Networks. ECCV 2024.
https://arxiv.org/abs/2401.06187

    trim      s = |θ| Σ_b |∇_θ L_b|  over batches b of forget images,   τ = the `sparsity` quantile of all s
              θ_i with s_i > τ inside the scope is reinitialised ("cut"); biases become 0
    repair    L(θ) = L_r + λ L_f     `Redirect`: L_f = ‖ f_θ(x_t, t, c) − sg( f_θ(x_t, t, c') ) ‖²
              L(θ) = L_r − λ L_u     `Ascend`: L_u = ‖ f_θ(x_t, t, c) − y_t ‖² of forget, L_r of retain images
    project   m = ∇(−L_u) at the trimmed model;   g = ∇L,  g' = g + v m,   v = 0 if ⟨g, m⟩ ≥ 0,
              else max( γ, −⟨g, m⟩ / (‖m‖² + ρ) ):   no step undoes the forgetting (projection.py)

Notation     f_θ, c, c', y_t as in redirection.py (errors weighted by a_t² for v-models)     L_b saliency
             λ forget_weight     γ margin, ρ ridge of GradientMemory
Recipes      The defaults are the authors' for nudity; theirs for one Imagenette class is saliency=Guided(),
             repair=Ascend(), redraw=TruncatedNormal(), sparsity=.999, batch=8, iterations=79, learning_rate=2e-5.
             Ascend has no lower bound and gets worse with more steps.
Scope        All of the UNet is ranked, weights of two self-attentions are cut (1.0 % of SD), everything is trained in
             the repair, as in the authors' code. The number of cut weights depends on the data and is recorded; none is
             an error. With `ranked` equal to `scope`, exactly the share 1 − sparsity of the scope is cut.
Projection   `GradientMemory` is the paper's; `NoProjection` is what the authors' Stable Diffusion code does, whose
             projection option is never used.
Several      The forget set is the union of the concepts' images. The trim and m use each concept equally often (± 1),
             `trim_batches × batch` images in all, at least one of each concept.
Iterations   max(iterations, iterations_per_concept × n) optimiser steps for n concepts, each on `batch` forget and
             `batch` retain images, in seeded random orders that use every image once before any repeats. The authors
             publish snapshots of 79 (class) and 89 to 109 (nudity) steps.
Departures   from Scissorhands 73ae065 (2024-10-16): c' replaces the name in the image's own text (`TextReplaced` gives
             their single text); m from as many images as the trim; GEM's ρ = 1e-3, for its solver, is 0 (with it a
             gradient of norm below .03 would violate the constraint); images drawn by the base, all of them used
             (theirs: the first batch only); x_t the same for c and c'; everything seeded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import floor
from typing import TYPE_CHECKING, Any, ClassVar, final

from resurgence_harness.diffusion.examples import Examples, drawn_examples
from resurgence_harness.diffusion.parameters import AnyOf, Everything, Parameters, TwoSelfAttentions, selected
from resurgence_harness.diffusion.ranges import at_least, positive, whole
from resurgence_harness.diffusion.training import descend, gradients
from resurgence_harness.errors import BuildError, SpecError, sentence
from resurgence_harness.specs import ADDED, Arithmetic, Concept, Probe, check_arithmetic
from resurgence_harness.unlearning.contract import Unlearning, check_concepts, check_pictures
from resurgence_harness.unlearning.projection import GradientMemory, NoProjection
from resurgence_harness.unlearning.redirection import (
    NameReplaced,
    TextReplaced,
    Weights,
    denoising_losses,
    pseudo_texts,
    redirected,
    redirection_losses,
)
from resurgence_harness.unlearning.saliency import Denoising, Guided, add_gradients, balanced, kth_largest, sensitivity

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@final
@dataclass(frozen=True)
class KaimingUniform:
    """U(−√(6 / n), √(6 / n)), n the fan-in: PyTorch's for ReLU, a = 0."""

    name: ClassVar[str] = "kaiming-uniform"

    def fill(self, weight: Tensor, generator: Generator) -> None:
        """Draw a weight of at least two dimensions, in place."""
        import torch

        torch.nn.init.kaiming_uniform_(weight, a=0, nonlinearity="relu", generator=generator)


@final
@dataclass(frozen=True, kw_only=True)
class TruncatedNormal:
    """N(0, std²), truncated at ±2 as in PyTorch: at std .02, effectively not truncated."""

    name: ClassVar[str] = "truncated-normal"

    std: float = 0.02
    """Standard deviation, > 0."""

    def __post_init__(self) -> None:
        """SpecError for a value out of range."""
        positive("TruncatedNormal", std=self.std)

    def fill(self, weight: Tensor, generator: Generator) -> None:
        """Draw a weight, in place."""
        import torch

        torch.nn.init.trunc_normal_(weight, std=self.std, generator=generator)


@final
@dataclass(frozen=True)
class Redirect:
    """Repair by L_r + λ L_f: forget images are denoised as for their pseudo prompts. Bounded below."""

    name: ClassVar[str] = "redirect"


@final
@dataclass(frozen=True)
class Ascend:
    """Repair by L_r − λ L_u: gradient ascent on the denoising loss of forget images, unbounded. Needs no anchor."""

    name: ClassVar[str] = "ascend"


@final
@dataclass(frozen=True, kw_only=True)
class SHS(Unlearning):
    """Erase concepts by reinitialising the most sensitive weights, then repair the model."""

    name: ClassVar[str] = "shs"
    version: ClassVar[int] = 1

    concepts: tuple[Concept, ...]
    """The erase set, cut and repaired together."""
    forget: Probe
    """Prompts and seeds of the forget images, drawn by the base: every erased concept, and no other."""
    retain: Probe
    """Prompts and seeds of the retain images, drawn by the base: no erased concept."""
    anchor: str = ""
    """The text that replaces an erased name; "" means each concept's own kind ("a celebrity"). Not used by Ascend."""
    pseudo: NameReplaced | TextReplaced = field(default=NameReplaced())
    """How the anchor becomes a pseudo prompt."""
    saliency: Denoising | Guided = field(default=Denoising())
    """L_b, the loss whose gradient ranks the weights."""
    sparsity: float = 0.995
    """Share of the ranked weights below the cut threshold τ, 0 ≤ sparsity < 1."""
    ranked: Parameters = field(default=Everything())
    """The UNet's parameters that are ranked, to compute τ."""
    scope: Parameters = field(default=TwoSelfAttentions())
    """Those of them in which weights are cut."""
    redraw: KaimingUniform | TruncatedNormal = KaimingUniform()
    """The distribution from which cut weights are drawn."""
    trim_batches: int = 10
    """Batches of forget images for the trim, and for the memory, ≥ 1."""
    repair: Redirect | Ascend = Redirect()
    """The loss of the repair."""
    projection: GradientMemory | NoProjection = field(default=GradientMemory())
    """The projection of its gradients."""
    subset: Parameters = field(default=Everything())
    """The UNet's parameters trained in the repair."""
    forget_weight: float = 0.1
    """λ ≥ 0."""
    iterations: int = 100
    """Minimum optimiser steps of the repair, ≥ 1."""
    iterations_per_concept: int = 0
    """Minimum optimiser steps per concept, ≥ 0; 0: the total does not grow with the erase set."""
    batch: int = 16
    """Images of each set per optimiser step, and per batch of the trim, ≥ 1."""
    learning_rate: float = 1e-5
    """Adam's, without weight decay, schedule or clipping; > 0."""
    seed: int = 0
    """Seed of the new weights, the order of the images, the timesteps and the noise."""
    arithmetic: Arithmetic = field(default="float32", metadata=ADDED)
    """Of the passes whose gradients are taken."""

    def __post_init__(self) -> None:
        """SpecError for contradictory sets, missing anchors, and values out of range."""
        check_arithmetic("SHS", self.arithmetic)
        check_concepts("SHS", self.concepts)
        check_pictures("SHS", self.concepts, forget=self.forget, retain=self.retain)
        if isinstance(self.repair, Redirect):
            self._pseudo_texts()
        if not 0 <= self.sparsity < 1:
            raise SpecError(
                sentence(
                    f"SHS.sparsity must be at least 0 and below 1, got {self.sparsity}.", do="At 1 nothing is cut."
                )
            )
        at_least("SHS", 0, forget_weight=self.forget_weight)
        whole("SHS", 0, seed=self.seed, iterations_per_concept=self.iterations_per_concept)
        whole("SHS", 1, trim_batches=self.trim_batches, iterations=self.iterations, batch=self.batch)
        positive("SHS", learning_rate=self.learning_rate)

    @property
    def moves(self) -> Parameters:
        """The subset of the repair, and the scope of the trim."""
        return AnyOf((self.subset, self.scope))

    @property
    def updates(self) -> int:
        """Optimiser steps taken."""
        return max(self.iterations, self.iterations_per_concept * len(self.concepts))

    @property
    def looks(self) -> int:
        """Number of forget images used by the trim, and by the memory."""
        return max(self.trim_batches * self.batch, len(self.concepts))

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """Trim a copy of the model, then repair it."""
        import torch

        with gradients(model, self.arithmetic, run):
            forget, retain = drawn_examples(model, run, self.forget), drawn_examples(model, run, self.retain)
            generator = torch.Generator("cpu").manual_seed(self.seed)
            rows = balanced([prompt.concept for prompt, _ in self.forget.rows()], self.looks, generator=generator)
            changed = model.copy()
            named: dict[str, Any] = {f"unet.{name}": value for name, value in changed.unet.named_parameters()}
            names = selected(self.subset, named)
            # 1. Trim.
            run.record("entries cut", self._trim(changed, named, forget, rows, generator))
            # 2. Trained parameters, and m.
            trained = [named[name].requires_grad_(True) for name in names]
            adam = torch.optim.Adam(trained, lr=self.learning_rate, fused=True)
            projected: list[float] = []
            if isinstance(self.projection, GradientMemory):
                add_gradients("SHS", changed, forget, rows, loss=Denoising(), batch=self.batch, generator=generator)
                memory = [parameter.grad.neg_() for parameter in trained]
                adam.zero_grad(set_to_none=True)
                project = self.projection.project
                adam.register_step_pre_hook(lambda *_: projected.append(project([p.grad for p in trained], memory)))

            # 3. One forward and one backward pass per step, and with Redirect a forward pass for the target.
            losses = self._losses(changed, forget, retain, generator)
            loss = descend("SHS", adam, losses, steps=self.updates, progress=run.progress)
            changed.unet.requires_grad_(False)
        run.record("steps projected", sum(v > 0 for v in projected))
        run.record("forget images", len(forget.mean))
        run.record("retain images", len(retain.mean))
        run.record("samples seen", 2 * self.updates * self.batch)
        run.record("loss", loss._asdict())
        return changed

    def _pseudo_texts(self) -> tuple[str, ...]:
        """c' of each forget prompt."""
        return pseudo_texts("SHS", self.concepts, self.forget, anchor=self.anchor, pseudo=self.pseudo)

    def _trim(
        self, model: StableDiffusion, named: Mapping[str, Any], forget: Examples, rows: Tensor, generator: Generator
    ) -> int:
        """Rank by s and cut in place; returns the number cut, BuildError for 0. Memory: Σ_b |∇L_b| of the ranked."""
        weights = {name: named[name] for name in selected(self.ranked, named)}
        sums = sensitivity(
            "SHS", model, weights, forget, rows, loss=self.saliency, batch=self.batch, generator=generator
        )
        tau = threshold(weights, sums, self.sparsity)
        scope = {name: weights[name] for name in selected(self.scope, named) if name in weights}
        cut = trim(scope, sums, tau, redraw=self.redraw, generator=generator)
        if not cut:
            raise BuildError(
                sentence(
                    f'SHS cut nothing in "{self.scope.name}": none of its weights is among the most sensitive.',
                    in_scope=f"{sum(weight.numel() for weight in scope.values()):,} weights",
                    ranked=f"{sum(weight.numel() for weight in weights.values()):,} weights",
                    sparsity=self.sparsity,
                    do="Lower the sparsity, or rank the scope alone.",
                )
            )
        return cut

    def _losses(
        self, model: StableDiffusion, forget: Examples, retain: Examples, generator: Generator
    ) -> Iterator[Iterable[Tensor]]:
        """Endless steps of the repair, each as the terms of L on one batch of each set."""
        if isinstance(self.repair, Redirect):
            pseudo = redirected(model, self.forget, self._pseudo_texts())
            weights = Weights(forget=self.forget_weight, retain=1.0)
            return redirection_losses(
                model, forget, retain, pseudo, weights=weights, batch=self.batch, generator=generator
            )
        weights = Weights(forget=-self.forget_weight, retain=1.0)
        return denoising_losses(model, forget, retain, weights=weights, batch=self.batch, generator=generator)


def threshold(weights: Mapping[str, Tensor], sums: Mapping[str, Tensor], sparsity: float) -> float:
    """τ, the ⌊sparsity · P⌋-th smallest s of all P weights; −1 if that number is 0."""
    total = sum(weight.numel() for weight in weights.values())
    under = floor(sparsity * total)
    if not under:
        return -1.0
    return kth_largest(lambda: (weights[name].abs() * sums[name] for name in weights), total - under + 1).value


def trim(
    scope: Mapping[str, Any],
    sums: Mapping[str, Tensor],
    tau: float,
    *,
    redraw: KaimingUniform | TruncatedNormal,
    generator: Generator,
) -> int:
    """Reinitialise the entries with s > τ in place and return their number; biases become 0, scales of norms 1."""
    import torch

    cut = 0
    with torch.no_grad():
        for name, weight in scope.items():
            fresh = torch.full(weight.shape, 1.0 if name.endswith(".weight") else 0.0)
            if weight.ndim > 1:
                redraw.fill(fresh, generator)
            mask = weight.abs() * sums[name] > tau
            weight.copy_(torch.where(mask, fresh.to(weight.device), weight))
            cut += int(mask.sum())
    return cut
