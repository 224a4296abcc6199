"""The files of artifacts, as the bench writes and reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resurgence_harness.bench.provenance import render_environment
from resurgence_harness.errors import BuildError, JudgeError, UserError, sentence, shown
from resurgence_harness.planning import JudgeSpec, version_of
from resurgence_harness.specs import Base, Recipe, SampleRequest
from resurgence_harness.storing import Artifact, content_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.statistics import Evidence, Judgment

DELTA, TENSORS, IMAGES, JUDGMENTS, ANSWERS, CANARIES, LOSSES = (
    "delta.safetensors",
    "tensors.safetensors",
    "images.safetensors",
    "judgments.json",
    "answers.json",
    "canaries.json",
    "losses.json",
)


def write_tensors(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write named tensors, from any device."""
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, folder / TENSORS)


def write_difference(changed: StableDiffusion, before: StableDiffusion, path: Path, *, label: str) -> dict[str, int]:
    """Write the changed tensors; returns tensor name → number of elements. BuildError if none changed."""
    from safetensors.torch import save_file

    from resurgence_harness.diffusion.model import difference

    delta = difference(changed, before)
    if not delta:
        raise BuildError(
            sentence(
                f"The last step of {label} changed no tensor.",
                do="Check its learning rate, its parameter subset and its concepts.",
            )
        )
    save_file(delta, path)
    return {name: value.numel() for name, value in delta.items()}


def read_tensors(artifact: Artifact, name: str) -> dict[str, Tensor]:
    """The tensors of one of an artifact's files, on the CPU."""
    from safetensors.torch import load_file

    return load_file(artifact.path / name)


def draws_nothing(base: Base, problem: BuildError) -> UserError:
    """The error for a base that gives NaN: here the user's weights are at fault, not a step."""
    return UserError(
        sentence(
            f"The model {shown(base.name)} gives no valid images.",
            model=shown(base.location or base.digest),
            problem=str(problem).splitlines()[0],
            do="Its weights are finite and too large, or its scheduler is not the one it was trained with: "
            "give a model that works in float32.",
        )
    )


def check_images(images: np.ndarray, probe: SampleRequest, *, label: str) -> None:
    """BuildError unless they are uint8 [n, height, width, 3] with the probe's number and size of images."""
    expected = (len(probe), probe.sampler.height, probe.sampler.width, 3)
    if images.shape != expected or images.dtype != "uint8":
        raise BuildError(sentence(f"{label} have the shape {images.shape} of {images.dtype}.", expected=expected))


def read_images(artifact: Artifact, probe: SampleRequest) -> np.ndarray:
    """uint8 [n, height, width, 3], in the order of the probe's rows."""
    from safetensors.numpy import load

    images = load(content_of(artifact, IMAGES))["images"]
    check_images(images, probe, label=artifact.label)
    return images


def read_drawn(artifact: Artifact) -> np.ndarray:
    """uint8 [n, height, width, 3], in the order drawn, whatever they were requested for."""
    from safetensors.numpy import load

    images: np.ndarray = load(content_of(artifact, IMAGES))["images"]
    return images


def write_images(images: np.ndarray, folder: Path) -> None:
    """Write uint8 [n, height, width, 3]."""
    import numpy as np
    from safetensors.numpy import save_file

    # safetensors writes memory in its layout: a permuted array, such as a GPU's images, would be scrambled.
    save_file({"images": np.ascontiguousarray(images)}, folder / IMAGES)


def write_judgments(found: Sequence[Judgment], folder: Path, *, judge: JudgeSpec, drawn: Artifact) -> None:
    """Write a judge's judgments of the images of an artifact."""
    content = {
        "judge": judge.name,
        "judgments": [[one.concept, one.prompt, one.seed, one.outcome.value, one.score, one.answer] for one in found],
        "shows": {one.answer: one.shows for one in found if one.shows is not None},
        "images": drawn.digest,
        "drawn with": render_environment(drawn),
    }
    (folder / JUDGMENTS).write_bytes(json.dumps(content, ensure_ascii=False, allow_nan=False).encode())


class StoredJudgments(NamedTuple):
    """The content of stored judgments."""

    judge: str
    judgments: tuple[Judgment, ...]
    """In the order drawn."""
    images: str
    """Digest of the judged images."""
    drawn_with: str
    """Device and library versions with which they were drawn."""


def read_judgments(artifact: Artifact) -> StoredJudgments:
    """Stored judgments, whatever they were requested for. Corrupt if a file is not the one that was written."""
    from resurgence_harness.statistics import Judgment, Outcome

    read = json.loads(content_of(artifact, JUDGMENTS))
    shows = {answer: tuple(shown) for answer, shown in read["shows"].items()}
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
        for concept, prompt, seed, outcome, score, answer in read["judgments"]
    )
    return StoredJudgments(read["judge"], judgments, read["images"], read["drawn with"])


def read_evidence(artifact: Artifact, recipe: Recipe, probe: SampleRequest, judge: JudgeSpec) -> Evidence:
    """Stored judgments as evidence; JudgeError if their rows are not those of the probe."""
    from resurgence_harness.statistics import Evidence

    read = read_judgments(artifact)
    expected = [(prompt.concept, prompt.text, seed) for prompt, seed in probe.rows()]
    if [(one.concept, one.prompt, one.seed) for one in read.judgments] != expected:
        raise JudgeError(
            sentence(f"The judgments of {artifact.label} are not those of the probe's rows.", key=artifact.key)
        )
    return Evidence(
        judgments=read.judgments,
        planned=len(probe),
        recipe=recipe.label,
        judge=judge.name,
        images=(read.images,),
        drawn_with=frozenset([read.drawn_with]),
        stored=(artifact.key,),
        judge_version=version_of(judge),
    )
