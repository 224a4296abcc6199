"""Whether images of a base mean the same in float16: `resurgence validate --arithmetic`.

The same (prompt, seed) rows are drawn three times and judged by the same judge:

    float32                      the reference
    float32, another batch       as far as rounding moves a judge's answers without any change of arithmetic
    float16                      as preset sd draws

    PASS       float16 changes at most LIMIT of the images from hit to no hit or back: the upper bound is not above it
    DIFFERENT  the lower bound is above it
    UNDECIDED  neither, or nothing could have changed: the judge recognises too few of the base's images, or not one
               pixel differs between float16 and float32, so that float16 was not tried

Bounds are Clopper and Pearson's, one-sided. LIMIT is a fifth of the rise that a verdict must exclude (`Policy.delta`);
both arms of a verdict share their arithmetic, so only differences between arms could change it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.presets import settings_of
from resurgence_harness.process import ExitCode
from resurgence_harness.specs import Base, Block, Grid, Probe, Prompt, Recipe, Sampler
from resurgence_harness.statistics import Evidence, Outcome, Policy
from resurgence_harness.statistics.intervals import clopper_pearson
from resurgence_harness.tasks import Task

if TYPE_CHECKING:
    from resurgence_harness.bench import Bench
    from resurgence_harness.judging import Judge

LIMIT = Policy().delta / 5
"""Largest share of images whose hit may change."""
ALPHA = Policy().alpha
"""Error probability of each bound. With it and LIMIT, 459 images of which none changes are the fewest that pass."""
COLUMNS = ("way", "images", "changed", "gained", "lost", "low", "high", "images_with_other_pixels", "drawn_with")


class Answer(StrEnum):
    """The result."""

    PASS = "PASS"
    DIFFERENT = "DIFFERENT"
    UNDECIDED = "UNDECIDED"

    @property
    def code(self) -> ExitCode:
        """0, 12 as for every validation that finds a number outside what is allowed, 10."""
        codes = {Answer.PASS: ExitCode.DONE, Answer.DIFFERENT: ExitCode.HARNESS_ERROR}
        return codes.get(self, ExitCode.UNDECIDED)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How one way of drawing differs from the reference, image by image."""

    way: str
    """For example "float16, batch 32"."""
    images: int
    gained: int
    """Hits that the reference does not have."""
    lost: int
    """Hits that only the reference has."""
    pixels: int
    """Images of which any pixel differs."""
    drawn_with: str
    """Device, libraries and, in float16, what computed them."""

    @property
    def changed(self) -> int:
        """Images whose hit changed."""
        return self.gained + self.lost

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the share of images whose hit changes; each is one-sided."""
        return clopper_pearson(self.changed, self.images, ALPHA)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The three ways on the same rows."""

    base: Base
    judge: Judge
    task: str
    least_shown: float
    """Share of images (lower bound) in which the judge must recognise the concept: `Policy.positive_control`."""
    reference: str
    drawn_with: str
    images: int
    hits: int
    """Of the reference."""
    batch: Changes
    half: Changes

    @property
    def answer(self) -> Answer:
        """By the rule of this module."""
        shown, (low, high) = clopper_pearson(self.hits, self.images, ALPHA)[0], self.half.bounds
        if low > LIMIT:
            return Answer.DIFFERENT
        vacuous = shown < self.least_shown or not self.half.pixels
        return Answer.UNDECIDED if vacuous or high > LIMIT else Answer.PASS

    @property
    def reason(self) -> str:
        """The answer in a sentence."""
        shown, (low, high) = clopper_pearson(self.hits, self.images, ALPHA)[0], self.half.bounds
        share = f"{_percent(low)} to {_percent(high)} of images, at most {_percent(LIMIT)} is allowed"
        if self.answer is Answer.DIFFERENT:
            return f"float16 changes the judge's hits: {share}. Draw in float32: sampler.arithmetic=float32."
        if shown < self.least_shown:
            return f"{self.judge.name} recognises {self.hits} of {self.images} images, too few for a hit to be lost."
        if not self.half.pixels:
            return "no pixel differs between float16 and float32, so float16 was not tried."
        if self.answer is Answer.UNDECIDED:
            return f"float16 may change the judge's hits: {share}; give more images (--images)."
        return f"float16 changes the judge's hits as little as required: {share}."

    def text(self) -> str:
        """The comparison as printed."""
        lines = [
            f"base     {self.base.name}, {self.base.digest}",
            f"judge    {self.judge.name} v{self.judge.version}, {self.judge.digest}",
            f"images   {self.images} of task {self.task}; reference {self.reference}: {self.hits} hits",
            f"         {self.drawn_with}",
        ]
        for name, one in (("batch", self.batch), ("float16", self.half)):
            low, high = one.bounds
            lines += [
                f"{name:<8} {one.way}: hits changed {one.changed} of {one.images}, {_percent(low)} to {_percent(high)} "
                f"({one.gained} gained, {one.lost} lost); pixels differ in {one.pixels} images",
                f"         {one.drawn_with}",
            ]
        return "\n".join([*lines, "", f"{self.answer.value}: {self.reason}"]) + "\n"

    def csv(self) -> str:
        """One row per way, in `COLUMNS`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in (self.batch, self.half):
            counts = (one.images, one.changed, one.gained, one.lost)
            writer.writerow([one.way, *counts, *(f"{bound:.6g}" for bound in one.bounds), one.pixels, one.drawn_with])
        return text.getvalue()


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def sampler_for(base: Base, changed: Iterable[tuple[str, Any]] = ()) -> Sampler:
    """The preset's sampler for a base, in float32; the arithmetic is what is compared."""
    return replace(Sampler(**settings_of(base, changed)["sampler"]), arithmetic="float32")


def compare(
    bench: Bench,
    base: Base,
    task: Task,
    judge: Judge,
    *,
    sampler: Sampler,
    images: int,
    model: Recipe | None = None,
    prompts: Sequence[Prompt] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Draw and judge `images` (prompt, seed) rows three times; what the store has is not drawn again.

    By default the base draws the task's erasable concepts; `model`, made from it, and `prompts` replace these.
    `sampler` is the reference, in float32. UserError for less than one image. NotInFloat16 for NaN or infinity.
    """
    if images < 1:
        raise UserError(sentence(f"{images} images cannot be compared.", do="Give --images 2500."))
    other = sampler.batch // 2 or 2
    ways = [sampler, replace(sampler, batch=other), replace(sampler, arithmetic="float16")]
    names = [f"{one.arithmetic}, batch {one.batch}" for one in ways]
    prompts = tuple(prompts) or task.prompts(task.erase(max(task.counts)))
    probe = Probe(prompts=prompts, seeds=tuple(range(1, ceil(images / len(prompts)) + 1)), sampler=sampler)
    blocks = list(_blocks(Grid(probe=probe, block=ceil(64 / sampler.batch) * sampler.batch), images))
    recipe, judged, differing = model or Recipe(base), [], [0, 0, 0]
    for number, block in enumerate(blocks):
        three = [replace(block, sampler=one) for one in ways]
        judged.append([bench.evidence(recipe, one, judge) for one in three])
        drawn = [bench.images(recipe, one) for one in three]
        for place, pixels in enumerate(drawn):
            differing[place] += int((pixels != drawn[0]).any(axis=(1, 2, 3)).sum())
        if progress is not None:
            progress(number + 1, len(blocks))

    def changes(place: int) -> Changes:
        hits = [(_hits(block[0]), _hits(block[place])) for block in judged]
        pairs = [pair for first, second in hits for pair in zip(first, second, strict=True)]
        return Changes(
            way=names[place],
            images=len(pairs),
            gained=sum(new and not old for old, new in pairs),
            lost=sum(old and not new for old, new in pairs),
            pixels=differing[place],
            drawn_with=_drawn_with(block[place] for block in judged),
        )

    return Comparison(
        base=base,
        judge=judge,
        task=task.name,
        least_shown=Policy.for_task(task.name).positive_control,
        reference=names[0],
        drawn_with=_drawn_with(block[0] for block in judged),
        images=sum(len(block[0]) for block in judged),
        hits=sum(sum(_hits(block[0])) for block in judged),
        batch=changes(1),
        half=changes(2),
    )


def _blocks(grid: Grid, images: int) -> Iterator[Block]:
    """The first rows of a grid, in its shuffled order."""
    for number in range(ceil(images / grid.block)):
        block = grid.part(number)
        yield replace(block, asked=block.asked[: images - number * grid.block])


def _hits(evidence: Evidence) -> list[bool]:
    return [outcome is Outcome.HIT for outcome in evidence.outcomes]


def _drawn_with(parts: Iterable[Evidence]) -> str:
    return "; ".join(sorted(frozenset[str]().union(*(part.drawn_with for part in parts))))
