"""The bench: builds missing artifacts once, and loads present ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.bench.building import apply, intermediate
from resurgence_harness.bench.files import (
    ANSWERS,
    CANARIES,
    LOSSES,
    check_images,
    draws_nothing,
    read_evidence,
    read_images,
    write_images,
    write_judgments,
)
from resurgence_harness.bench.judged import judgments
from resurgence_harness.bench.making import Making, Observer, Progress
from resurgence_harness.bench.model_cache import ModelCache
from resurgence_harness.bench.provenance import BY, arithmetic_of, provenance
from resurgence_harness.diffusion.devices import never_spin
from resurgence_harness.errors import BuildError, JudgeError, ReadOnly, SpecError, UserError, sentence
from resurgence_harness.finetuning.given import GivenSet
from resurgence_harness.judging.contract import Judge, ask
from resurgence_harness.planning import (
    JudgeSpec,
    Work,
    answers_key,
    canaries_key,
    checkpoint_key,
    describe_images,
    describe_recipe,
    drawing,
    images_key,
    judging,
    judgments_key,
    losses_key,
    parent_probes_of,
    probes_of,
    step_prefixes,
)
from resurgence_harness.specs import Base, Recipe, SampleRequest
from resurgence_harness.storing import Artifact, Store, content_of

if TYPE_CHECKING:
    import numpy as np

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.statistics import Evidence, Losses


class Bench:
    """Builds and loads the artifacts of one base, in one store, on one device."""

    def __init__(
        self,
        store: Store,
        *,
        base_location: Base | None = None,
        device: str = "cpu",
        progress: Progress | None = None,
    ) -> None:
        """`base_location` gives the directory of the weights, for recipes whose base has none. Loads no model."""
        never_spin()
        self.store = store
        self.device = device
        self.model_cache = ModelCache(device, base_location)
        self.making = Making(store)
        self._progress: Progress = progress or (lambda stage, done, total, loss: None)
        self._drawn_one_way = False

    def set_progress(self, progress: Progress) -> None:
        """Report progress to this function from now on."""
        self._progress = progress

    def observe(self, observer: Observer | None) -> None:
        """Report the beginning and the end of every build from now on."""
        self.making.observer = observer

    # Checkpoints

    def checkpoint(self, recipe: Recipe) -> Artifact:
        """The tensors that the recipe's last step changed, with the facts of the build. SpecError for a base."""
        if not recipe.steps:
            raise SpecError(sentence("A base model is not built, so it has no checkpoint.", base=recipe.base.name))
        made = self.store.current(checkpoint_key(recipe)) or self._build(recipe)
        for steps in intermediate(recipe.steps[-1]):
            self.checkpoint(recipe.before.then(steps))
        return made

    def model(self, recipe: Recipe) -> StableDiffusion:
        """The model, loaded on the device with a separate copy of the U-Net. The last few are kept in memory."""
        return self.model_cache.model(recipe, self._chain(recipe))

    def losses(self, recipe: Recipe) -> Losses | None:
        """Held-out benign losses before and after the recipe's last step; None if that is not a fine-tuning.

        Stored separately from the checkpoint, so that they remain available when the weights are removed.
        """
        from resurgence_harness.finetuning import FineTuning
        from resurgence_harness.statistics import Losses

        if not recipe.steps or not isinstance(recipe.steps[-1], FineTuning):
            return None
        place = losses_key(recipe)
        made = self.store.current(place)
        if made is None:
            checkpoint = self.checkpoint(recipe)

            def build(folder: Path) -> dict[str, Any]:
                (folder / LOSSES).write_text(json.dumps(checkpoint.facts["benign losses"], allow_nan=False))
                return {}

            inputs = {**checkpoint.inputs, checkpoint.key: checkpoint.digest}
            label = f"benign losses of {describe_recipe(recipe)}"
            made = self.store.make(place, kind="losses", label=label, inputs=inputs, build=build)
        read = json.loads(content_of(made, LOSSES))
        return Losses(before=tuple(read["before"]), after=tuple(read["after"]))

    # Images

    def draw_one_way(self) -> None:
        """From now on, float16 images that were computed otherwise than this process computes them count as absent.

        Whether Triton or plain modules computed them is not in their key, since it depends on the machine and on the
        loaded model. So the store may hold images of one model by Triton when another's are drawn by plain modules, and
        these two cannot be paired.
        """
        self._drawn_one_way = True

    def images(self, recipe: Recipe, probe: SampleRequest) -> np.ndarray:
        """The images of a probe: uint8 [n, height, width, 3], in the order of `probe.rows()`."""
        return read_images(self.drawn(recipe, probe), probe)

    # Judgments

    def evidence(self, recipe: Recipe, probe: SampleRequest, judge: Judge) -> Evidence:
        """The judgments of these images, in their order."""
        made, stale = self.store.current(judgments_key(recipe, probe, judge)), self._otherwise(recipe, probe)
        if made is None or stale(made):
            made = self._judge(recipe, probe, judge, stale)
        return read_evidence(made, recipe, probe, judge)

    def answers(self, data: GivenSet, judge: Judge) -> list[str]:
        """The judge's answer on every image of a given set, in the order of its rows; judged once and stored."""
        label = f"{judge.name} on {len(data.folder)} given images"

        def build(folder: Path) -> dict[str, Any]:
            found: list[str] = []
            for images in data.images(data.folder.rows):
                self._progress(f"judging {label}", len(found), len(data.folder), None)
                found += ask(judge, images, self.device)[0]
            (folder / ANSWERS).write_text(json.dumps({"judge": judge.name, "answers": found}), encoding="utf-8")
            return provenance(self.device, Work(f"judge {judge.name}", len(found)))

        place = answers_key(data, judge)
        made = self.store.current(place) or self.making.make(place, "answers", label, {}, build)
        answers: list[str] = json.loads(content_of(made, ANSWERS))["answers"]
        if len(answers) != len(data.folder):
            raise JudgeError(sentence(f"The answers of {label} are not those of its images.", key=place))
        return answers

    def known(self, recipe: Recipe, probe: SampleRequest, judge: JudgeSpec) -> Evidence | None:
        """The judgments if they are stored, else None; builds nothing."""
        made = self.store.current(judgments_key(recipe, probe, judge))
        return read_evidence(made, recipe, probe, judge) if made is not None else None

    def has_controls(self, recipe: Recipe, judges: Sequence[JudgeSpec]) -> bool:
        """Whether the fine-tuning's effect and the judges' canaries are stored; builds nothing."""
        places = [losses_key(recipe), *(canaries_key(judge) for judge in judges)]
        return all(self.store.current(place) is not None for place in places)

    def busy(self, recipe: Recipe, probe: SampleRequest) -> bool:
        """Whether another process is building the model or the images now, so that requesting them would block."""
        places = [images_key(recipe, probe), *(checkpoint_key(part) for part in step_prefixes(recipe))]
        return any(self.store.busy(place) for place in places)

    def canaries(self, judge: Judge) -> tuple[int, int]:
        """(passed, total) of the judge's canaries, its stored images with known labels; measured once and stored."""

        def build(folder: Path) -> dict[str, Any]:
            (folder / CANARIES).write_text(json.dumps({"passed": int(passed), "total": int(total)}))
            return provenance(self.device, None)

        place = canaries_key(judge)
        made = self.store.current(place)
        if made is None:
            passed, total = judge.canaries()
            if total == 0:
                return 0, 0  # not stored, so that canaries added later are judged
            label = f"canaries of {judge.name}"
            made = self.store.make(place, kind="canaries", label=label, inputs={}, build=build)
        read = json.loads(content_of(made, CANARIES))
        return read["passed"], read["total"]

    def release(self) -> None:
        """Release every loaded model and the device's memory."""
        self.model_cache.release()

    # Building a checkpoint

    def _check_may_build(self, label: str, place: str) -> None:
        """ReadOnly, before any model is loaded, if the store was opened for reading only."""
        if self.store.read_only:
            raise ReadOnly(
                sentence(
                    f"{label} is not in the store, which was opened for reading only.", store=self.store.name, key=place
                )
            )

    def _build(self, recipe: Recipe) -> Artifact:
        self._check_may_build(describe_recipe(recipe), checkpoint_key(recipe))
        step, parent = recipe.steps[-1], recipe.before
        chain = self._chain(parent)
        inputs = {artifact.key: artifact.digest for artifact in chain}
        for probe in probes_of(step):
            self.drawn(Recipe(recipe.base), probe)
        for probe in parent_probes_of(step):
            self.drawn(parent, probe)
        self.model_cache.base(recipe)  # loaded first, so that its time does not count as build time

        def build(folder: Path) -> dict[str, Any]:
            return apply(self, recipe, chain, inputs, folder, self._progress)

        return self.making.make(checkpoint_key(recipe), "checkpoint", describe_recipe(recipe), inputs, build)

    # Sampling and judging

    def drawn(self, recipe: Recipe, probe: SampleRequest) -> Artifact:
        """The stored images of a probe; sampled first if they are missing."""
        place, label = images_key(recipe, probe), describe_images(recipe, probe)
        stale = self._otherwise(recipe, probe)
        if (made := self.store.current(place)) is not None and not stale(made):
            return made
        self._check_may_build(label, place)
        chain = self._chain(recipe)
        self.model_cache.base(recipe)

        def build(folder: Path) -> dict[str, Any]:
            from resurgence_harness.sampling import NotInFloat16, sample

            def progress(done: int, total: int) -> None:
                self._progress(f"drawing {label}", done, total, None)

            progress(0, len(probe))
            cache = self.model_cache
            model = cache.load(recipe, chain)
            try:
                images = sample(model, probe, progress=progress, replays=cache.replays(), halves=cache.halves())
            except BuildError as problem:
                if recipe.steps:
                    raise
                if isinstance(problem, NotInFloat16):
                    raise UserError(str(problem)) from None
                raise draws_nothing(recipe.base, problem) from None
            check_images(images, probe, label=label)
            write_images(images, folder)
            return {**provenance(self.device, drawing(probe)), **arithmetic_of(model, probe.sampler)}

        inputs = {artifact.key: artifact.digest for artifact in chain}
        return self.making.make(place, "images", label, inputs, build, stale)

    def _otherwise(self, recipe: Recipe, probe: SampleRequest) -> Callable[[Artifact], bool]:
        """Whether stored images or judgments of this probe were computed otherwise than this process would."""
        if not self._drawn_one_way or probe.sampler.arithmetic == "float32":
            return lambda made: False
        own = arithmetic_of(self.model_cache.base(recipe), probe.sampler)[BY]
        return lambda made: made.facts.get(BY) != own

    def _judge(self, recipe: Recipe, probe: SampleRequest, judge: Judge, stale: Callable[[Artifact], bool]) -> Artifact:
        label = f"{judge.name} on {describe_images(recipe, probe)}"
        self._check_may_build(label, judgments_key(recipe, probe, judge))
        drawn = self.drawn(recipe, probe)

        def build(folder: Path) -> dict[str, Any]:
            self._progress(f"judging {label}", 0, len(probe), None)
            found = judgments(judge, read_images(drawn, probe), probe, device=self.device)
            write_judgments(found, folder, judge=judge, drawn=drawn)
            self._progress(f"judging {label}", len(probe), len(probe), None)
            by = {BY: drawn.facts[BY]} if BY in drawn.facts else {}
            return {**provenance(self.device, judging(judge, probe)), **by}

        inputs = {**drawn.inputs, drawn.key: drawn.digest}
        return self.making.make(judgments_key(recipe, probe, judge), "judgments", label, inputs, build, stale)

    # Models

    def _chain(self, recipe: Recipe) -> list[Artifact]:
        """Every checkpoint from the first step to the recipe's last; built if missing."""
        return [self.store.current(checkpoint_key(part)) or self._build(part) for part in step_prefixes(recipe)]
