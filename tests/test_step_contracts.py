"""The contracts of steps name what breaks them: the tensor, the module or the field. Each step breaks one promise."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

from resurgence_harness.diffusion.parameters import StrictKeyValue
from resurgence_harness.finetuning import FineTuning
from resurgence_harness.finetuning.contract import train_selected
from resurgence_harness.specs import Concept, not_in_key
from resurgence_harness.testing import check_finetuning, check_unlearning
from resurgence_harness.unlearning import Unlearning
from tests.finetuning.test_contract import DATA
from tests.tiny import tiny_run
from tests.two_models import load, model, v1, v2, xl

pytestmark = pytest.mark.slow

__all__ = ["load", "model", "v1", "v2", "xl"]
VALUE = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.weight"
QUERY = VALUE.replace("to_v", "to_q")


@dataclass(frozen=True, kw_only=True)
class Shrink(Unlearning):
    """A stranger's method: keys and values of cross-attention become smaller."""

    name: ClassVar[str] = "shrink"
    version: ClassVar[int] = 1
    concepts: tuple[Concept, ...] = (Concept(name="ada quill"),)
    share: float = 0.5

    @property
    def moves(self) -> StrictKeyValue:
        """Keys and values."""
        return StrictKeyValue()

    def apply(self, model: Any, run: Any) -> Any:
        """Smaller."""
        changed = model.copy()
        for name, parameter in changed.unet.named_parameters():
            if self.moves.selects(f"unet.{name}"):
                parameter.data.mul_(self.share)
        return changed


def broken(apply: Callable[[Any, Any, Any], Any] | None = None, **members: Any) -> Any:
    """The method with another `apply`, or other members."""
    own = {"apply": apply} if apply is not None else {}
    annotations = members.pop("annotations", {})
    kind: Any = type("Shrink", (Shrink,), {"__annotations__": annotations, **own, **members})
    return dataclass(frozen=True, kw_only=True)(kind)()


def parameter_of(model: Any, name: str) -> Any:
    """A parameter by its whole name."""
    return dict(model.unet.named_parameters())[name.removeprefix("unet.")]


def moves_another(step: Any, model: Any, run: Any) -> Any:
    """A query as well."""
    changed = Shrink.apply(step, model, run)
    parameter_of(changed, QUERY).data.mul_(2)
    return changed


def changes_its_input(step: Any, model: Any, run: Any) -> Any:
    """The copy is made first, and then the wrong model is changed."""
    changed = Shrink.apply(step, model, run)
    parameter_of(model, VALUE).data.mul_(1.5)
    return changed


def changes_the_vae(step: Any, model: Any, run: Any) -> Any:
    """It is shared with the copy."""
    changed = Shrink.apply(step, model, run)
    next(iter(changed.vae.parameters())).data.mul_(1.5)
    return changed


def throws_dice(step: Any, model: Any, run: Any) -> Any:
    """A generator of its own, seeded by the clock; the global state is left alone."""
    changed = Shrink.apply(step, model, run)
    generator = torch.Generator()
    generator.seed()
    value = parameter_of(changed, VALUE)
    value.data += torch.rand(value.shape, generator=generator)
    return changed


def draws_globally(step: Any, model: Any, run: Any) -> Any:
    """torch.rand without a generator."""
    torch.rand(1)
    return Shrink.apply(step, model, run)


def stays_in_training(step: Any, model: Any, run: Any) -> Any:
    """Gradients are still wanted."""
    changed = Shrink.apply(step, model, run)
    parameter_of(changed, VALUE).requires_grad_(True)
    return changed


def marks_its_input(step: Any, model: Any, run: Any) -> Any:
    """Gradients are wanted of the input."""
    parameter_of(model, VALUE).requires_grad_(True)
    return Shrink.apply(step, model, run)


def switches_gradients_on(step: Any, model: Any, run: Any) -> Any:
    """For everybody."""
    torch.set_grad_enabled(True)
    return Shrink.apply(step, model, run)


def patches_diffusers(step: Any, model: Any, run: Any) -> Any:
    """For everybody."""
    from diffusers import UNet2DConditionModel

    UNet2DConditionModel.smaller = True
    return Shrink.apply(step, model, run)


def halves(step: Any, model: Any, run: Any) -> Any:
    """In half precision."""
    changed = Shrink.apply(step, model, run)
    parameter_of(changed, VALUE).data = parameter_of(changed, VALUE).data.half()
    return changed


def depends_on_grad_mode(step: Any, model: Any, run: Any) -> Any:
    """Other bytes under inference mode."""
    changed = Shrink.apply(step, model, run)
    parameter_of(changed, VALUE).data.mul_(1.0 if not torch.is_inference_mode_enabled() else 0.9)
    return changed


def uses_its_comment(step: Any, model: Any, run: Any) -> Any:
    """A field that is left out of the key."""
    changed = Shrink.apply(step, model, run)
    parameter_of(changed, VALUE).data.mul_(1 + len(step.comment))
    return changed


BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "moves another tensor": (lambda: broken(moves_another), f"shrink moved {QUERY}, which is outside its moves."),
    "moves nothing": (lambda: broken(lambda step, model, run: model.copy()), "shrink moved no tensor."),
    "changes its input": (
        lambda: broken(changes_its_input),
        f"shrink changed {VALUE} of its input model.",
    ),
    "changes the shared VAE": (
        lambda: broken(changes_the_vae),
        "shrink changed vae.encoder.conv_in.weight of its input model.",
    ),
    "throws dice": (
        lambda: broken(throws_dice),
        f"shrink made other bytes the second time.\n  first tensor        {VALUE}",
    ),
    "draws globally": (lambda: broken(draws_globally), "shrink drew from torch's global random state."),
    "stays in training": (
        lambda: broken(stays_in_training),
        f"shrink left {VALUE.removeprefix('unet.')} in training.",
    ),
    "marks its input": (
        lambda: broken(marks_its_input),
        f"shrink left a gradient at {VALUE.removeprefix('unet.')} of its input model.",
    ),
    "switches gradients on": (lambda: broken(switches_gradients_on), "shrink left gradients switched on."),
    "patches diffusers": (
        lambda: broken(patches_diffusers),
        "shrink replaced UNet2DConditionModel.smaller of diffusers.",
    ),
    "half precision": (lambda: broken(halves), f"shrink left {VALUE} in another precision."),
    "depends on the grad mode": (
        lambda: broken(depends_on_grad_mode),
        "shrink makes other bytes under inference mode.",
    ),
    "returns nothing": (lambda: broken(lambda step, model, run: None), "shrink returned NoneType."),
    "a setting that is no field": (
        lambda: broken(margin=0.1),
        "The key of shrink does not contain margin, which is not a field.",
    ),
    "a comment that counts": (
        lambda: broken(uses_its_comment, annotations={"comment": "str"}, comment=not_in_key("")),
        "The key of shrink does not contain comment, which changes the model.",
    ),
    "a list": (
        lambda: broken(annotations={"names": "list"}, names=None) and replace_names(),
        "shrink is not an immutable value.\n  problem  unhashable type: 'list'",
    ),
    "a value without a key": (
        lambda: broken(annotations={"chosen": "object"}, chosen=len),
        "Shrink.chosen is a builtin_function_or_method, which cannot be part of a key.",
    ),
    "no name": (lambda: broken(name=None), "Shrink has no name."),
    "no unlearning": (lambda: object(), "object is not an Unlearning."),
}


def replace_names() -> Any:
    """A step that holds a list."""
    return replace(broken(annotations={"names": "object"}, names=None), names=["ada"])


@pytest.fixture(autouse=True)
def restored(model: Any) -> Any:
    """The steps here break what others use: it is put back."""
    from diffusers import UNet2DConditionModel

    parts = (model.unet, model.vae)
    weights = [{name: value.detach().clone() for name, value in part.named_parameters()} for part in parts]
    yield
    for part, kept in zip(parts, weights, strict=True):
        for name, value in part.named_parameters():
            value.requires_grad_(False)
            value.data = kept[name]
    if "smaller" in vars(UNet2DConditionModel):
        del UNet2DConditionModel.smaller
    torch.set_grad_enabled(True)


def test_an_honest_method_keeps_the_contract(model: Any) -> None:
    """Also one whose field beside the key changes nothing."""
    check_unlearning(Shrink(), model)
    check_unlearning(broken(annotations={"comment": "str"}, comment=not_in_key("")), model, run=tiny_run)


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_promise_is_named(model: Any, what: str) -> None:
    """The first line has the tensor, the module or the field."""
    make, said = BROKEN[what]
    with pytest.raises(AssertionError, match=f"^{re.escape(said)}"):
        check_unlearning(make(), model, run=tiny_run)


@dataclass(frozen=True, kw_only=True)
class Training(FineTuning):
    """A stranger's recipe: keys and values of cross-attention are trained."""

    name: ClassVar[str] = "training"
    version: ClassVar[int] = 1

    @property
    def moves(self) -> StrictKeyValue:
        """Keys and values."""
        return StrictKeyValue()

    def apply(self, model: Any, run: Any) -> Any:
        """As the package's own."""
        return train_selected(self, model, run)


@dataclass(frozen=True, kw_only=True)
class Deaf(Training):
    """Saves nothing on its way."""

    def apply(self, model: Any, run: Any) -> Any:
        """Without its steps to save."""
        return train_selected(replace(self, save_at=()), model, run)


@dataclass(frozen=True, kw_only=True)
class Early(Training):
    """Saves the finished model as that of every step."""

    def apply(self, model: Any, run: Any) -> Any:
        """Train to the end, and then save."""
        done = train_selected(replace(self, save_at=()), model, run)
        for step in self.save_at:
            run.save(step, done)
        return done


def test_a_finetuning_is_held_to_its_intermediate_models(model: Any) -> None:
    """An honest one passes; one that saves nothing, or another model, is named with the step."""
    values: dict[str, Any] = {"data": DATA, "steps": 3, "batch": 2, "learning_rate": 1e-3}
    check_finetuning(Training(**values), model, run=tiny_run)
    with pytest.raises(AssertionError, match=r"^training did not save the models of its steps"):
        check_finetuning(Deaf(**values), model, run=tiny_run)
    with pytest.raises(AssertionError, match=r"^The model that training saved after step 1 is not"):
        check_finetuning(Early(**values), model, run=tiny_run)
