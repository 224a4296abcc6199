"""How fast this machine draws with a base: a few images in a few steps, and the plan's estimate scaled by the result.

The plan's default times are those of one CPU core on the microworld, in proportion to pixels and sampler steps. They
are multiplied by measured / declared for drawing; training is assumed to scale alike.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from resurgence_harness.planning import Plan
from resurgence_harness.planning import declared_seconds as declared
from resurgence_harness.presets.settings import settings_of
from resurgence_harness.specs import Base, Probe, Sampler
from resurgence_harness.tasks import Task

IMAGES, STEPS = 4, 2
"""Size of the measurement."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """A measurement."""

    device: str
    seconds_per_image: float
    """With the sampler's own number of steps."""
    factor: float
    """Measured / declared."""
    took: float
    """Seconds of the measurement, loading included."""

    def of(self, planned: Plan) -> float:
        """Expected seconds of a plan for one worker: learned times as they are, default times scaled."""
        return sum(action.seconds * (1 if action.learned else self.factor) for action in planned.needed)


def measure(base: Base, task: Task, *, device: str) -> Pace:
    """Draw `IMAGES` images in `STEPS` and twice as many steps; the difference is the time of the steps."""
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.sampling import sample

    begun = time.perf_counter()
    sampler = Sampler(**settings_of(base, task=task.name)["sampler"])
    model = StableDiffusion.load(base.location, device=device)
    prompts, seeds = task.retained_prompts(task.held_out[:1], least=1)[:1], tuple(range(1, IMAGES + 1))

    def seconds(steps: int) -> float:
        probe = Probe(prompts=prompts, seeds=seeds, sampler=replace(sampler, steps=steps, batch=IMAGES))
        start = time.perf_counter()
        sample(model, probe)
        return time.perf_counter() - start

    seconds(1)  # first use: kernels are chosen, memory is taken
    few, more = seconds(STEPS), seconds(2 * STEPS)
    step = max(more - few, 0) / STEPS
    each = (max(few - STEPS * step, 0) + sampler.steps * step) / IMAGES
    return Pace(
        device=device,
        seconds_per_image=each,
        factor=each / declared(sampler),
        took=time.perf_counter() - begun,
    )
