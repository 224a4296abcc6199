"""A model that somebody else unlearned, as a step of a recipe.

    base ──given──▶ unlearned ──fine-tuning──▶ tuned

Nothing is computed: the U-Net and the text encoder of the base are replaced by those of the given model. Its tokenizer,
scheduler and VAE must be the base's, which `given_models.read_unlearned` checks, together with its lineage, before a
step is made. The key holds the digest of the model's files and `version`, that of the loader; never a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion.parameters import Everything, Parameters
from resurgence_harness.errors import SpecError, UserError, sentence, shown
from resurgence_harness.specs import Concept, not_in_key
from resurgence_harness.unlearning.contract import Unlearning, check_concepts

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@final
@dataclass(frozen=True, kw_only=True)
class GivenModel:
    """An unlearned model in a directory that can be loaded."""

    digest: str
    """sha256 over the sorted list of (file, sha256) of its weights and their settings."""
    name: str = not_in_key("")
    """Its name in node ids and tables."""
    location: str = not_in_key("")
    """A local directory in diffusers' layout."""
    label: str = not_in_key("")
    """What was given: "a LoRA × 0.8 on sd14"."""
    notes: tuple[str, ...] = not_in_key(())
    """Remarks for reports: its distance from the base, what was not read."""

    def __post_init__(self) -> None:
        """SpecError for a model without a digest, which would have the key of any other."""
        if not self.digest:
            raise SpecError(sentence("A given model has no digest.", name=self.name, do="Give that of its files."))

    @property
    def description(self) -> str:
        """The model in one line, for reports."""
        text = f'Unlearned model "{self.name}": {self.label or "given"}, digest {self.digest[:12]}'
        return "; ".join([text, *self.notes])


@final
@dataclass(frozen=True, kw_only=True)
class Given(Unlearning):
    """The U-Net and the text encoder of a given model, in place of the base's."""

    name: ClassVar[str] = "given"
    version: ClassVar[int] = 1

    concepts: tuple[Concept, ...]
    """The erase set, as the user names it. In the key: an acceptance is bound to it."""
    model: GivenModel

    def __post_init__(self) -> None:
        """SpecError for an empty or repeated erase set."""
        check_concepts("given", self.concepts)

    @property
    def moves(self) -> Parameters:
        """The whole U-Net; unlike an unlearning of this package, a given model may have another text encoder, too."""
        return Everything()

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """A copy of `model` with the given weights. UserError if the files are gone or are not those that were read."""
        import torch

        from resurgence_harness.diffusion.loading import Exchanged
        from resurgence_harness.diffusion.model import StableDiffusion, tensors

        try:
            given = StableDiffusion.load(self.model.location, digest=self.model.digest)
        except Exchanged as problem:
            raise UserError(
                sentence(
                    f'The unlearned model "{self.model.name}" was changed while it was used.',
                    wanted=self.model.digest,
                    found=problem.found,
                    do="Run again with the model as it is now.",
                )
            ) from None
        with torch.inference_mode(False), torch.no_grad():
            changed = model.copy(texts=True)
            places, values = tensors(changed), tensors(given)
            for name, place in places.items():
                value = values.get(name)
                if value is None or value.shape != place.shape or len(values) != len(places):
                    raise UserError(
                        sentence(
                            f'The unlearned model "{self.model.name}" does not fit the base.',
                            tensor=shown(name),
                            base=tuple(place.shape),
                            given="no such tensor" if value is None else tuple(value.shape),
                            do="Give the base that it was made from.",
                        )
                    )
                place.copy_(value)
        run.record("given model", {"digest": self.model.digest, "label": self.model.label})
        return changed
