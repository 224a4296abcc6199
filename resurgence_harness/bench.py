"""The only place where specs meet the store: what is missing is made, once, and what is there is read.

    Recipe ──build──▶ Checkpoint ──sample──▶ Images ──judge──▶ Judgments
    checkpoint()      tensors that differ    images()          evidence()
                      from the parent's

A warm store answers `evidence` without torch. On a cold one the base is loaded once and one further U-Net takes the
weights of one recipe after another. Every artifact records what it was made from, with what, on what, and how long it
took.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import platform
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import resurgence_harness
from resurgence_harness.diffusion.training import fast_products
from resurgence_harness.errors import BuildError, Corrupt, JudgeError, SpecError, UserError, sentence
from resurgence_harness.judging.contract import ABSTENTIONS, Judge, ask, shown_by
from resurgence_harness.planning import (
    JudgeSpec,
    Work,
    canaries_key,
    checkpoint_key,
    drawing,
    held_out_probe,
    images_key,
    images_words,
    judging,
    judgments_key,
    lineage,
    losses_key,
    probes_of,
    training,
    words_of,
)
from resurgence_harness.specs import Asked, Base, Probe, Recipe, Step
from resurgence_harness.storing import Artifact, Store, key

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.replaying import Replays
    from resurgence_harness.statistics import Evidence, Judgment, Losses

DELTA, TENSORS, IMAGES, JUDGMENTS, CANARIES, LOSSES = (
    "delta.safetensors",
    "tensors.safetensors",
    "images.safetensors",
    "judgments.json",
    "canaries.json",
    "losses.json",
)
LOADED = 2
"""Models that `model()` keeps loaded beside the base."""
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy")
"""Their versions are recorded: other versions may give other bytes."""
DRAWING = ("torch", "diffusers", "transformers")
"""Those that compute an image: models are compared on images that were drawn with the same ones."""

Progress = Callable[[str, int, int, float | None], None]
"""progress(stage in words, done, total, loss): loss is None where there is none."""


class Bench:
    """Makes what is asked of one base, in one store, on one device."""

    def __init__(
        self,
        store: Store,
        *,
        base_location: Base | None = None,
        device: str = "cpu",
        progress: Progress | None = None,
    ) -> None:
        """Nothing is loaded yet. `base_location` says where the weights lie, for recipes that do not say it."""
        self.store = store
        self.device = device
        self._where = base_location
        self._progress: Progress = progress or (lambda stage, done, total, loss: None)
        self._base: tuple[str, StableDiffusion] | None = None
        self._worn: tuple[StableDiffusion, frozenset[str], str] | None = None
        self._loaded: OrderedDict[str, StableDiffusion] = OrderedDict()
        self._replaying: Replays | None = None
        self._elsewhere = [0.0]

    def tell(self, progress: Progress) -> None:
        """Tell somebody else from now on."""
        self._progress = progress

    # Checkpoints

    def checkpoint(self, recipe: Recipe) -> Artifact:
        """What the recipe's last step made of its parent: the tensors that differ, and the facts of their making."""
        if not recipe.steps:
            raise SpecError(sentence("A base model is not built, so it has no checkpoint.", base=recipe.base.name))
        made = self.store.current(checkpoint_key(recipe)) or self._build(recipe)
        for steps in self._intermediate(recipe.steps[-1]):
            self.checkpoint(recipe.before.then(steps))
        return made

    def model(self, recipe: Recipe) -> StableDiffusion:
        """The model, loaded on the device; its U-Net is a copy of its own. The last few are kept."""
        chain = self._chain(recipe)
        place = _chain_digest(recipe.base, chain)
        if place not in self._loaded:
            from resurgence_harness.diffusion.model import load_difference

            delta = _merged(chain)
            while len(self._loaded) >= LOADED:
                self._loaded.popitem(last=False)
            self._loaded[place] = load_difference(self._base_model(recipe), delta)
        self._loaded.move_to_end(place)
        return self._loaded[place]

    def losses(self, recipe: Recipe) -> Losses | None:
        """Held-out benign losses before and after the recipe's last step; None where that is no fine-tuning.

        Kept beside the checkpoint, so that a verdict still has them when the weights were cleared away.
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
            words = f"benign losses of {words_of(recipe)}"
            made = self.store.make(place, kind="losses", words=words, inputs=inputs, build=build)
        read = json.loads((made.path / LOSSES).read_text())
        return Losses(before=tuple(read["before"]), after=tuple(read["after"]))

    # Images

    def images(self, recipe: Recipe, probe: Asked) -> np.ndarray:
        """What the model draws: uint8 [n, height, width, 3], in the order of `probe.rows()`."""
        return _read_images(self._drawn(recipe, probe), probe)

    # Judgments

    def evidence(self, recipe: Recipe, probe: Asked, judge: Judge) -> Evidence:
        """Every judgment of these images, in their order."""
        made = self.store.current(judgments_key(recipe, probe, judge)) or self._judge(recipe, probe, judge)
        return _read_evidence(made, recipe, probe, judge)

    def known(self, recipe: Recipe, probe: Asked, judge: JudgeSpec) -> Evidence | None:
        """The judgments if they are there already; nothing is made."""
        made = self.store.current(judgments_key(recipe, probe, judge))
        return _read_evidence(made, recipe, probe, judge) if made is not None else None

    def has_controls(self, recipe: Recipe, judges: Sequence[JudgeSpec]) -> bool:
        """Whether the fine-tuning's effect and the judges' canaries are there already; nothing is made."""
        places = [losses_key(recipe), *(canaries_key(judge) for judge in judges)]
        return all(self.store.current(place) is not None for place in places)

    def busy(self, recipe: Recipe, probe: Asked) -> bool:
        """Whether another process is making the model or the images now, so that asking for them would be waiting."""
        places = [images_key(recipe, probe), *(checkpoint_key(part) for part in lineage(recipe))]
        return any(self.store.busy(place) for place in places)

    def canaries(self, judge: Judge) -> tuple[int, int]:
        """How many of the judge's stored images it answers correctly, of how many; asked once and kept."""

        def build(folder: Path) -> dict[str, Any]:
            (folder / CANARIES).write_text(json.dumps({"passed": int(passed), "total": int(total)}))
            return self._provenance(None)

        place = canaries_key(judge)
        made = self.store.current(place)
        if made is None:
            passed, total = judge.canaries()
            if total == 0:
                return 0, 0  # nothing was asked: not kept, so that canaries given later are shown to the judge
            words = f"canaries of {judge.name}"
            made = self.store.make(place, kind="canaries", words=words, inputs={}, build=build)
        read = json.loads((made.path / CANARIES).read_text())
        return read["passed"], read["total"]

    def release(self) -> None:
        """Let go of every loaded model, and of the device's memory."""
        self._base = self._worn = self._replaying = None
        self._loaded.clear()
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    # Building a checkpoint

    def _build(self, recipe: Recipe) -> Artifact:
        step, parent = recipe.steps[-1], recipe.before
        chain = self._chain(parent)
        inputs = {artifact.key: artifact.digest for artifact in chain}
        for probe in probes_of(step):
            self._drawn(Recipe(recipe.base), probe)
        self._base_model(recipe)  # loaded before the clock of this build starts

        def build(folder: Path) -> dict[str, Any]:
            return self._apply(recipe, chain, inputs, folder)

        return self._make(checkpoint_key(recipe), "checkpoint", words_of(recipe), inputs, build)

    def _apply(self, recipe: Recipe, chain: list[Artifact], inputs: dict[str, str], folder: Path) -> dict[str, Any]:
        from resurgence_harness.diffusion.run import Run

        step, before, words = recipe.steps[-1], self._wear(recipe.before, chain), words_of(recipe)
        recorded: dict[str, Any] = {}
        used: dict[str, str] = {}
        effect = _Effect(self, recipe, before, used)

        def images(probe: Probe) -> tuple[np.ndarray, list[str]]:
            artifact = self._drawn(Recipe(recipe.base), probe)
            used[artifact.key] = artifact.digest
            return _read_images(artifact, probe), [prompt.text for prompt, _ in probe.rows()]

        def cached(kind: str, spec: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
            artifact = self._tensors(kind, spec, build, words=f"{kind} for {words}")
            used[artifact.key] = artifact.digest
            return _read_tensors(artifact, TENSORS)

        def facts(changed: StableDiffusion, folder: Path, work: Work | None) -> dict[str, Any]:
            delta = _write_difference(changed, before, folder / DELTA, words=words)
            return {
                **self._provenance(work),
                "tensors moved": len(delta),
                "numbers moved": sum(delta.values()),
                "benign losses": effect.losses(changed),
                "recorded": dict(recorded),
                "made with": dict(used),
            }

        def save(done: int, changed: StableDiffusion) -> None:
            part = _stopped(step, done)
            if part is None:
                return  # the end of the training is this very checkpoint
            self._make(
                checkpoint_key(recipe.before.then(part)),
                "checkpoint",
                f"{words}, stopped at {done}",
                inputs,
                lambda folder: facts(changed, folder, None),  # the training's time is the whole checkpoint's
            )

        run = Run(
            base=self._base_model(recipe),
            base_digest=recipe.base.digest,
            parent_digest=_chain_digest(recipe.base, chain),
            device=self.device,
            images=images,
            cached=cached,
            progress=lambda done, total, loss: self._progress(f"building {words}", done, total, loss),
            record=recorded.__setitem__,
            save=save,
        )
        self._progress(f"building {words}", 0, training(step).units, None)
        with fast_products(before):
            changed = step.apply(before, run)  # type: ignore[attr-defined]
        return facts(changed, folder, training(step))

    def _tensors(self, kind: str, spec: object, build: Callable[[], dict[str, Tensor]], *, words: str) -> Artifact:
        def write(folder: Path) -> dict[str, Any]:
            from safetensors.torch import save_file

            tensors = {name: value.detach().cpu().contiguous().clone() for name, value in build().items()}
            save_file(tensors, folder / TENSORS)
            return self._provenance(None)

        place = key(kind, spec)
        return self.store.current(place) or self.store.make(place, kind=kind, words=words, inputs={}, build=write)

    def _intermediate(self, step: Step) -> Iterator[Step]:
        for done in getattr(step, "save_at", ()):
            part = _stopped(step, done)
            if part is not None:
                yield part

    # Drawing and judging

    def _drawn(self, recipe: Recipe, probe: Asked) -> Artifact:
        place, words = images_key(recipe, probe), images_words(recipe, probe)
        if (made := self.store.current(place)) is not None:
            return made
        chain = self._chain(recipe)
        self._base_model(recipe)

        def build(folder: Path) -> dict[str, Any]:
            import numpy as np
            from safetensors.numpy import save_file

            from resurgence_harness.sampling import sample

            def progress(done: int, total: int) -> None:
                self._progress(f"drawing {words}", done, total, None)

            progress(0, len(probe))
            images = sample(self._wear(recipe, chain), probe, progress=progress, replays=self._replays())
            _check_images(images, probe, words=words)
            # safetensors writes memory as it lies: rows of a permuted array, as a GPU's images are, came out scrambled.
            save_file({"images": np.ascontiguousarray(images)}, folder / IMAGES)
            return self._provenance(drawing(probe))

        return self._make(place, "images", words, {artifact.key: artifact.digest for artifact in chain}, build)

    def _judge(self, recipe: Recipe, probe: Asked, judge: Judge) -> Artifact:
        drawn = self._drawn(recipe, probe)
        words = f"{judge.name} on {images_words(recipe, probe)}"

        def build(folder: Path) -> dict[str, Any]:
            self._progress(f"judging {words}", 0, len(probe), None)
            found = _judgments(judge, _read_images(drawn, probe), probe, device=self.device)
            rows = [[one.concept, one.prompt, one.seed, one.outcome.value, one.score, one.answer] for one in found]
            shows = {one.answer: one.shows for one in found if one.shows is not None}
            told = {
                "judge": judge.name,
                "judgments": rows,
                "shows": shows,
                "images": drawn.digest,
                "drawn with": _means(drawn),
            }
            text = json.dumps(told, ensure_ascii=False, allow_nan=False)
            (folder / JUDGMENTS).write_bytes(text.encode())
            self._progress(f"judging {words}", len(probe), len(probe), None)
            return self._provenance(judging(judge, probe))

        inputs = {**drawn.inputs, drawn.key: drawn.digest}
        return self._make(judgments_key(recipe, probe, judge), "judgments", words, inputs, build)

    # Models

    def _chain(self, recipe: Recipe) -> list[Artifact]:
        """Every checkpoint from the first step to the recipe's last, made where missing."""
        return [self.store.current(checkpoint_key(part)) or self._build(part) for part in lineage(recipe)]

    def _base_model(self, recipe: Recipe) -> StableDiffusion:
        """The unmodified base. Loaded once, never changed."""
        wanted = recipe.base
        if self._base is None or self._base[0] != wanted.digest:
            from resurgence_harness.diffusion.base_files import digest_of
            from resurgence_harness.diffusion.model import StableDiffusion

            location = wanted.location
            if self._where is not None and self._where.digest == wanted.digest:
                location = self._where.location or location
            name = wanted.name or wanted.digest[:8]
            if not location:
                raise UserError(sentence(f"Nobody said where the base {name} lies.", digest=wanted.digest))
            if (found := digest_of(location)) != wanted.digest:
                raise UserError(
                    sentence(
                        f"The base at {location} is not {name}.",
                        wanted=wanted.digest,
                        found=found,
                        do="Its files were changed or replaced; name the base anew.",
                    )
                )
            self.release()
            self._base = wanted.digest, StableDiffusion.load(location, self.device)
        return self._base[1]

    def _wear(self, recipe: Recipe, chain: list[Artifact]) -> StableDiffusion:
        """The recipe's model in the one U-Net that changes clothes; valid until the next call."""
        base = self._base_model(recipe)
        if not chain:
            return base
        place = _chain_digest(recipe.base, chain)
        if self._worn is not None and self._worn[2] == place:
            return self._worn[0]  # block after block: half a gigabyte at SD's size is not read again
        import torch

        from resurgence_harness.diffusion.model import tensors

        delta = _merged(chain)
        worn, differing, _ = self._worn or (base.copy(), frozenset(), "")
        if worn.text_encoder is base.text_encoder and any(name.startswith("text_encoder.") for name in delta):
            worn = replace(worn, text_encoder=copy.deepcopy(base.text_encoder))
        self._worn = None  # half-dressed until all tensors are in place
        places, original = tensors(worn), tensors(base)
        with torch.no_grad():
            for name in differing - delta.keys():
                places[name].copy_(original[name])
            for name, value in delta.items():
                if name not in places or places[name].shape != value.shape:
                    raise Corrupt(sentence(f"A checkpoint holds {name}, which the base does not.", model=recipe.words))
                places[name].copy_(value)
        self._worn = worn, frozenset(delta), place
        return worn

    def _replays(self) -> Replays:
        """Captured samplings of the base and of the U-Net that changes clothes, whose weights never move."""
        if self._replaying is None:
            from resurgence_harness.diffusion.replaying import Replays

            self._replaying = Replays()
        return self._replaying

    # The store

    def _make(
        self, place: str, kind: str, words: str, inputs: Mapping[str, str], build: Callable[[Path], dict[str, Any]]
    ) -> Artifact:
        """`store.make`, with the time that went into other artifacts on the way kept apart."""

        def timed(folder: Path) -> dict[str, Any]:
            self._elsewhere.append(0.0)
            try:
                facts = build(folder)
            finally:
                elsewhere = self._elsewhere.pop()
            return {**facts, "seconds elsewhere": round(elsewhere, 3)}

        start = time.monotonic()
        made = self.store.make(place, kind=kind, words=words, inputs=inputs, build=timed)
        self._elsewhere[-1] += time.monotonic() - start
        return made

    def _provenance(self, work: Work | None) -> dict[str, Any]:
        """With what and on what something was made."""
        import torch

        facts: dict[str, Any] = {
            "device": self.device,
            "hardware": torch.cuda.get_device_name(self.device)
            if self.device.startswith("cuda")
            else platform.machine(),
            "threads": torch.get_num_threads(),
            "versions": {
                "python": platform.python_version(),
                "resurgence-harness": resurgence_harness.__version__,
                **{name: found for name in LIBRARIES if (found := _version(name))},
            },
        }
        return {**facts, "work": work._asdict()} if work is not None else facts


class _Effect:
    """Whether a fine-tuning did anything: the denoising loss of benign images that it never saw, before and after."""

    def __init__(self, bench: Bench, recipe: Recipe, before: StableDiffusion, used: dict[str, str]) -> None:
        """Measure `before`, where the recipe's last step is a fine-tuning."""
        from resurgence_harness.finetuning import FineTuning, held_out

        self._before: list[float] | None = None
        step = recipe.steps[-1]
        if not isinstance(step, FineTuning):
            return
        probe = held_out_probe(step.data.probe)
        drawn = bench._drawn(Recipe(recipe.base), probe)
        used[drawn.key] = drawn.digest
        texts = [prompt.text for prompt, _ in probe.rows()]
        self._latents, self._states = held_out(before, _read_images(drawn, probe), texts)
        self._seed = probe.seeds[0]
        self._before = self._measure(before)

    def losses(self, changed: StableDiffusion) -> dict[str, list[float]] | None:
        """Per image, paired by image, noise and timestep; None for a step that is no fine-tuning."""
        if self._before is None:
            return None
        return {"before": self._before, "after": self._measure(changed)}

    def _measure(self, model: StableDiffusion) -> list[float]:
        from resurgence_harness.finetuning import benign_losses

        return benign_losses(model, self._latents, self._states, seed=self._seed)


def _stopped(step: Step, done: int) -> Step | None:
    """The step that ends after `done` optimiser steps; None where that is the step itself."""
    return step.at(done) if done < getattr(step, "steps", 0) else None  # type: ignore[attr-defined]


def _merged(chain: list[Artifact]) -> dict[str, Tensor]:
    """Deltas applied one after another: the last word on each tensor."""
    merged: dict[str, Tensor] = {}
    for artifact in chain:
        merged |= _read_tensors(artifact, DELTA)
    return merged


def _chain_digest(base: Base, chain: list[Artifact]) -> str:
    """What the model at the end of a chain is; the base's own digest where the chain is empty."""
    if not chain:
        return base.digest
    return hashlib.sha256("\n".join([base.digest, *(artifact.digest for artifact in chain)]).encode()).hexdigest()


def _write_difference(changed: StableDiffusion, before: StableDiffusion, path: Path, *, words: str) -> dict[str, int]:
    """Write the tensors that moved; their names and how many numbers each holds."""
    from safetensors.torch import save_file

    from resurgence_harness.diffusion.model import difference

    delta = difference(changed, before)
    if not delta:
        raise BuildError(
            sentence(
                f"The last step of {words} moved no tensor.",
                do="A step that changes nothing is no step: check its learning rate, its subset and its concepts.",
            )
        )
    save_file(delta, path)
    return {name: value.numel() for name, value in delta.items()}


def _read_tensors(artifact: Artifact, name: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(artifact.path / name)


def _check_images(images: np.ndarray, probe: Asked, *, words: str) -> None:
    expected = (len(probe), probe.sampler.height, probe.sampler.width, 3)
    if images.shape != expected or images.dtype != "uint8":
        raise BuildError(sentence(f"{words} have the shape {images.shape} of {images.dtype}.", expected=expected))


def _read_images(artifact: Artifact, probe: Asked) -> np.ndarray:
    from safetensors.numpy import load_file

    images = load_file(artifact.path / IMAGES)["images"]
    _check_images(images, probe, words=artifact.words)
    return images


def _judgments(judge: Judge, images: np.ndarray, probe: Asked, *, device: str) -> list[Judgment]:
    """Each answer against the concept that was asked for. Who answers less often than asked is not believed at all."""
    from resurgence_harness.statistics import Judgment, Outcome

    answers, scores = ask(judge, images, device)
    found = []
    for (prompt, seed), answer, score in zip(probe.rows(), answers, scores, strict=True):
        shown = shown_by(judge, answer)
        outcome = Outcome.HIT if prompt.concept in shown else Outcome.CLEAR
        found.append(
            Judgment(
                concept=prompt.concept,
                prompt=prompt.text,
                seed=seed,
                outcome=Outcome.ABSTAINED if answer in ABSTENTIONS else outcome,
                score=float(score),
                answer=answer,
                shows=None if shown == (answer,) or answer in ABSTENTIONS else shown,
            )
        )
    return found


def _read_evidence(artifact: Artifact, recipe: Recipe, probe: Asked, judge: JudgeSpec) -> Evidence:
    from resurgence_harness.statistics import Evidence, Judgment, Outcome

    read = json.loads((artifact.path / JUDGMENTS).read_bytes())
    rows, shows = read["judgments"], {answer: tuple(shown) for answer, shown in read["shows"].items()}
    asked = [(prompt.concept, prompt.text, seed) for prompt, seed in probe.rows()]
    if [tuple(row[:3]) for row in rows] != asked:
        raise JudgeError(
            sentence(f"The judgments of {artifact.words} are not those of the probe's rows.", key=artifact.key)
        )
    judgments = tuple(
        Judgment(
            concept=concept,
            prompt=prompt,
            seed=seed,
            outcome=Outcome(outcome),
            score=score,
            answer=answer,
            shows=shows.get(answer),
        )
        for concept, prompt, seed, outcome, score, answer in rows
    )
    return Evidence(
        judgments=judgments,
        planned=len(probe),
        recipe=recipe.words,
        judge=judge.name,
        images=(read["images"],),
        drawn_with=frozenset([read["drawn with"]]),
    )


def _means(drawn: Artifact) -> str:
    """What could make two drawings by one model differ: the kind of device, and the libraries that compute."""
    versions = drawn.facts["versions"]
    device = "cpu" if drawn.facts["device"] == "cpu" else drawn.facts["hardware"]
    return ", ".join([device, *(f"{name} {versions[name]}" for name in DRAWING if name in versions)])


@lru_cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
