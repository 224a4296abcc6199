"""Contract tests of unlearnings and fine-tunings: `check_unlearning(step, model)`, `check_finetuning`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.finetuning.contract import FineTuning
from resurgence_harness.storing.keys import key
from resurgence_harness.testing.mutating import changed_field, constants
from resurgence_harness.testing.surroundings import other_randomness
from resurgence_harness.unlearning.contract import Unlearning

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

SEEDED = "Draw from a generator seeded by a field."
WITH_GRADIENTS = "Wrap it in torch.inference_mode(False) and torch.enable_grad()."

MakeRun = Callable[..., "Run"]
"""Makes the Run of a step on a model: `run_on`, or your own function with the same parameters."""


def run_on(model: StableDiffusion, **surroundings: Any) -> Run:
    """A Run without a store: images are sampled from the model itself, and cached tensors are computed anew."""
    from resurgence_harness.diffusion.run import Run
    from resurgence_harness.sampling import sample

    def images(probe: Any) -> Any:
        return sample(model, probe), [prompt.text for prompt, _ in probe.rows()]

    usual: dict[str, Any] = {"base": model, "base_digest": "base", "parent_digest": "base", "images": images}
    usual["parent_images"] = images
    return Run(**(usual | surroundings))


def check_unlearning(step: Unlearning, model: StableDiffusion, *, run: MakeRun = run_on) -> None:
    """Test an unlearning's contract on a model; AssertionError names the tensor or the field that violates it."""
    _require(isinstance(step, Unlearning), f"{type(step).__name__} is not an Unlearning.", do="Derive from Unlearning.")
    check_step(step, model, run=run)


def check_finetuning(step: FineTuning, model: StableDiffusion, *, run: MakeRun = run_on) -> None:
    """Test a fine-tuning's contract on a model; AssertionError names the tensor or the field that violates it."""
    _require(isinstance(step, FineTuning), f"{type(step).__name__} is not a FineTuning.", do="Derive from FineTuning.")
    made = check_step(step, model, run=run)
    check_intermediate(step, model, made=made, run=run)


def check_step(step: Any, model: StableDiffusion, *, run: MakeRun = run_on) -> StableDiffusion:
    """Test what unlearnings and fine-tunings both promise; returns the model that the step makes.

    The step is applied few times: the same bytes for any random state and under inference mode are tested at once, and
    one by one only where they differ, to say which of the two is violated.
    """
    import torch

    check_key(step)
    made = check_surroundings(step, model, run=run)
    _check_moved(step, made, model)
    with other_randomness(), torch.inference_mode():
        again = _applied(step, model, run)
    if _differs(made, again):
        check_repeatable(step, model, run=run)
        check_grad_mode(step, model, run=run)
        _same_bytes(made, again, f"{_named(step)} made other bytes the second time.", SEEDED)
    _check_trainable(step, again)
    check_left_out_of_key(step, model, made=made, run=run)
    return made


def check_repeatable(step: Any, model: StableDiffusion, *, run: MakeRun = run_on) -> None:
    """The same spec gives the same bytes for any global random state."""
    first = _applied(step, model, run)
    with other_randomness():
        second = _applied(step, model, run)
    _same_bytes(first, second, f"{_named(step)} made other bytes the second time.", SEEDED)


def check_moves(step: Any, model: StableDiffusion, *, run: MakeRun = run_on) -> None:
    """At least one tensor changes, only tensors within `moves` change, and the other parts are the input's objects."""
    _check_moved(step, _applied(step, model, run), model)


def _check_moved(step: Any, out: StableDiffusion, model: StableDiffusion) -> None:
    import torch

    from resurgence_harness.diffusion.model import difference, tensors

    name = _named(step)
    moved, before, after = difference(out, model), tensors(model), tensors(out)
    for what, lost in (("lacks", before.keys() - after.keys()), ("has", after.keys() - before.keys())):
        _require(not lost, f"{name} made a model that {what} a tensor.", tensors=_some(lost))
    outside = [tensor for tensor in moved if not step.moves.selects(tensor)]
    _require(
        not outside,
        f"{name} moved {outside[0] if outside else ''}, which is outside its moves.",
        moves=type(step.moves).__name__,
        moved=f"{len(outside)} outside, {len(moved) - len(outside)} within: {_some(outside)}",
        do="Declare what it moves in `moves`, or leave these tensors alone.",
    )
    declared = [tensor for tensor in before if step.moves.selects(tensor)]
    _require(
        moved,
        f"{name} moved no tensor.",
        moves=f"{type(step.moves).__name__}: {len(declared)} tensors, {_some(declared)}",
        do="Change a copy of the model and return it.",
    )
    declares_text = any(not tensor.startswith("unet.") for tensor in declared)
    for part in ("vae",) if declares_text else ("vae", *model.family.encoders):
        _require(
            getattr(out, part) is getattr(model, part), f"{name} replaced the {part}.", do="Steps change the U-Net."
        )
    kinds = {tensor: value.dtype for tensor, value in after.items() if value.dtype != torch.float32}
    _require(not kinds, f"{name} left {_first(kinds)} in another precision.", tensors=_some(kinds), expected="float32")
    left = [
        parameter
        for parameter, value in _parameters(out)
        if value.requires_grad or getattr(value, "grad", None) is not None
    ]
    _require(
        not left, f"{name} left {_first(left)} in training.", parameters=_some(left), do="unet.requires_grad_(False)"
    )


def check_surroundings(step: Any, model: StableDiffusion, *, run: MakeRun = run_on) -> StableDiffusion:
    """Input model, global random state, grad mode, default dtype and diffusers' classes stay unchanged.

    Returns the model that the step made.
    """
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    name = _named(step)
    weights = {tensor: value.clone() for tensor, value in _every_weight(model).items()}
    modules = _modules(model)
    classes = {kind: dict(vars(kind)) for kind in (StableDiffusionPipeline, UNet2DConditionModel)}
    random, training = torch.get_rng_state(), model.unet.training
    with torch.no_grad():
        made = _applied(step, model, run)
        grad = torch.is_grad_enabled()
    changed = [
        tensor
        for tensor, value in _every_weight(model).items()
        if tensor in weights and not torch.equal(value, weights[tensor])
    ]
    _require(
        not changed,
        f"{name} changed {_first(changed)} of its input model.",
        tensors=_some(changed),
        do="Change the U-Net of model.copy(); text encoder and VAE are shared with the copy and must not change.",
    )
    wanting = [one for one, value in _parameters(model) if value.requires_grad or value.grad is not None]
    _require(not wanting, f"{name} left a gradient at {_first(wanting)} of its input model.")
    found = _modules(model)
    others = [one for one in modules.keys() | found.keys() if modules.get(one) is not found.get(one)]
    _require(not others, f"{name} replaced the module {_first(others)} of its input model.")
    _require(model.unet.training == training, f"{name} changed the training mode of its input U-Net.")
    _require(torch.equal(random, torch.get_rng_state()), f"{name} drew from torch's global random state.")
    _require(not grad, f"{name} left gradients switched on.")
    _require(torch.get_default_dtype() == torch.float32, f"{name} left another default dtype.")
    for kind, was in classes.items():
        now = dict(vars(kind))
        other = [one for one in was.keys() | now.keys() if was.get(one) is not now.get(one)]
        _require(not other, f"{name} replaced {kind.__name__}.{_first(other)} of diffusers.")
    return made


def check_grad_mode(step: Any, model: StableDiffusion, *, run: MakeRun = run_on) -> None:
    """Inference mode changes no byte of the result, and the result can be trained further."""
    import torch

    plain = _applied(step, model, run)
    with torch.inference_mode():
        inside = _applied(step, model, run)
    _same_bytes(plain, inside, f"{_named(step)} makes other bytes under inference mode.", WITH_GRADIENTS)
    _check_trainable(step, inside)


def _check_trainable(step: Any, made: StableDiffusion) -> None:
    """What was made under inference mode can be trained further."""
    stuck = [one for one, value in _parameters(made) if value.is_inference()]
    _require(not stuck, f"{_named(step)} left {_first(stuck)} as an inference tensor.", do=WITH_GRADIENTS)


def check_key(step: Any) -> None:
    """Equal specs have one key; every field not declared `not_in_key` changes it, and all settings are fields."""
    name = _named(step)
    _require(is_dataclass(step) and not isinstance(step, type), f"{type(step).__name__} is not a dataclass.")
    for member, kind in (("name", str), ("version", int)):
        _require(
            isinstance(getattr(type(step), member, None), kind),
            f"{type(step).__name__} has no {member}.",
            do=f"Write {member}: ClassVar[{kind.__name__}] = …",
        )
    try:
        own, same = key("step", step), key("step", replace(step))
        hash(step)
    except SpecError as mistake:
        raise AssertionError(str(mistake)) from None
    except TypeError as mistake:
        raise AssertionError(
            sentence(
                f"{name} is not an immutable value.",
                problem=mistake,
                do="Use @dataclass(frozen=True, kw_only=True), and tuples instead of lists.",
            )
        ) from None
    _require(own == same and replace(step) == step, f"Two equal specs of {name} have two keys.")
    for one in fields(step):
        if one.metadata.get("key", True):
            other = copy.copy(step)
            object.__setattr__(other, one.name, "a value that it never has")
            _require(key("step", other) != own, f"The key of {name} does not contain {one.name}.")
    for setting, value in constants(type(step)).items():
        _require(
            False,
            f"The key of {name} does not contain {setting}, which is not a field.",
            value=repr(value)[:80],
            do=f"Annotate it, {setting}: {type(value).__name__} = …; or as ClassVar, if it cannot be set.",
        )


def check_left_out_of_key(
    step: Any, model: StableDiffusion, *, made: StableDiffusion | None = None, run: MakeRun = run_on
) -> None:
    """A field that is not in the key changes no byte. `made`: the step's model, if it was applied before."""
    plain = made
    for one in fields(step):
        if one.metadata.get("key", True):
            continue
        other = changed_field(step, one.name)
        if other is None:
            continue
        plain = plain or _applied(step, model, run)
        _same_bytes(
            plain,
            _applied(other, model, run),
            f"The key of {_named(step)} does not contain {one.name}, which changes the model.",
            "Make it an ordinary field; not_in_key() is for locations and labels.",
        )


def check_intermediate(
    step: FineTuning, model: StableDiffusion, *, made: StableDiffusion | None = None, run: MakeRun = run_on
) -> None:
    """The model saved at step k equals the result of `at(k)` bit for bit; saving does not change the final model.

    `made`: the step's model, if it was applied before.
    """
    saved: dict[int, StableDiffusion] = {}
    steps = tuple(sorted({1, max(step.steps - 1, 1), step.steps}))
    end = replace(step, save_at=steps).apply(model, run(model, save=saved.__setitem__))
    plain, name = made or _applied(step, model, run), _named(step)
    _require(tuple(saved) == steps, f"{name} did not save the models of its steps.", expected=steps, saved=tuple(saved))
    for number in steps:
        _same_bytes(
            saved[number],
            plain if step.at(number) == step else _applied(step.at(number), model, run),
            f"The model that {name} saved after step {number} is not that of a run of {number} steps.",
            "Save a copy in plain weights, and draw every random number from the step's own generator.",
        )
    _same_bytes(end, plain, f"Saving changes what {name} makes.", "")


def _applied(step: Any, model: StableDiffusion, run: MakeRun) -> StableDiffusion:
    out: StableDiffusion = step.apply(model, run(model))
    _require(type(out) is type(model), f"{_named(step)} returned {type(out).__name__}.", do="Return the changed model.")
    return out


def _differs(first: StableDiffusion, second: StableDiffusion) -> bool:
    from resurgence_harness.diffusion.model import difference

    return bool(difference(second, first))


def _same_bytes(first: StableDiffusion, second: StableDiffusion, what: str, do: str) -> None:
    from resurgence_harness.diffusion.model import difference, tensors

    if other := difference(second, first):
        name = _first(other)
        before: Mapping[str, Tensor] = tensors(first)
        far = (other[name].double() - before[name].double()).abs().max().item()
        raise AssertionError(
            sentence(what, first_tensor=name, largest_difference=f"{far:.3g}", tensors=_some(other), do=do)
        )


def _every_weight(model: StableDiffusion) -> dict[str, Tensor]:
    """U-Net, text encoder and VAE, by name."""
    from resurgence_harness.diffusion.model import tensors

    return {**tensors(model), **{f"vae.{name}": value for name, value in model.vae.state_dict().items()}}


def _parameters(model: StableDiffusion) -> Iterator[tuple[str, Any]]:
    """Parameters of the U-Net, and of the text encoders as "text_encoder.…"."""
    yield from model.unet.named_parameters()
    for part in model.family.encoders:
        yield from ((f"{part}.{name}", value) for name, value in getattr(model, part).named_parameters())


def _modules(model: StableDiffusion) -> dict[str, type]:
    """Types of the modules of U-Net and text encoder, and of the attention processors, by name."""
    found: dict[str, type] = {name: type(module) for name, module in model.unet.named_modules()}
    for part in model.family.encoders:
        found |= {f"{part}.{name}": type(module) for name, module in getattr(model, part).named_modules()}
    return found | {name: type(one) for name, one in model.unet.attn_processors.items()}


def _named(step: Any) -> str:
    return str(getattr(step, "name", type(step).__name__))


def _first(names: Iterable[str]) -> str:
    return next(iter(names), "")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return f"{len(names)}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"


def _require(fits: object, first: str, /, *, do: str = "", **facts: object) -> None:
    if not fits:
        raise AssertionError(sentence(first, do=do, **facts))
