"""Compares a file's metadata about its prediction type and noise schedule with the base's scheduler.

    modelspec.prediction_type · …parameterization · v_pred                    noise or velocity
    modelspec.architecture · ss_base_model_version, where they end in "v"      velocity
    ss_zero_terminal_snr · ztsnr                                               the schedule ends in pure noise

Metadata that contradicts the base is an error: with another prediction type the same weights draw another image. A file
without such metadata is taken to match the base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.tensor_files import TensorFile, shown
from resurgence_harness.errors import UserError, sentence

V, EPSILON = "v_prediction", "epsilon"
_KINDS = {
    **dict.fromkeys(("v", "v_prediction", "v_pred", "vpred", "velocity", "v_param", "v_parameterization"), V),
    **dict.fromkeys(("epsilon", "eps", "e", "noise", "eps_prediction", "epsilon_prediction"), EPSILON),
}
_KEYS = ("prediction_type", "predictiontype", "prediction")
"""Endings of the names of metadata whose value is the prediction type."""
_FLAGS = ("v_parameterization", "v_prediction", "v_pred")
"""Endings of the names of metadata that are true for velocity and false for noise."""
_UNSPECIFIED = ("", "none", "null", "unknown", "auto", "default")
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def stated_prediction(file: TensorFile) -> str:
    """What the file says that it predicts: "epsilon", "v_prediction", or "" if it says nothing or is not clear."""
    kinds = {kind for _, kind in _stated(file)}
    return kinds.pop() if len(kinds) == 1 and kinds <= {V, EPSILON} else ""


def check_prediction(file: TensorFile, parent: ModelFiles, *, own: Mapping[str, Any] = MappingProxyType({})) -> None:
    """UserError if the file's metadata contradicts the parent's scheduler, or the file's own settings of it."""
    settings = {**parent.description.config("scheduler"), **own}
    base = settings.get("prediction_type", EPSILON)
    for where, kind in _stated(file):
        if kind != base:
            raise UserError(
                sentence(
                    f"{file.path} does not predict what the base predicts.",
                    file_says=shown(f"{kind}, by {where}"),
                    base=base,
                    do="Give the base of its kind: sd21 predicts velocity; sd14, sd21-base and sdxl predict noise.",
                )
            )
    where = zero_snr(file)
    if where and not settings.get("rescale_betas_zero_snr"):
        raise UserError(
            sentence(
                f"{file.path} has another noise schedule than the base.",
                file_says=f"it ends in pure noise (zero SNR), by {where}",
                base="rescale_betas_zero_snr is not set in its scheduler_config.json",
                do="Give its own model in diffusers' layout, whose scheduler config defines the schedule.",
            )
        )


def zero_snr(file: TensorFile) -> str:
    """The metadata or tensor that states a schedule ending at zero SNR; empty if there is none."""
    if "ztsnr" in file.entries:
        return "the tensor ztsnr"
    for name, value in file.metadata.items():
        if _short(name).endswith(("zero_terminal_snr", "ztsnr", "rescale_betas_zero_snr")) and _word(value) in _TRUE:
            return f"the metadata {shown(name)}"
    return ""


def _stated(file: TensorFile) -> Iterator[tuple[str, str]]:
    """(where, "epsilon", "v_prediction" or an unknown value) of every entry that states the prediction type.

    The name of a base model that does not end in "v" counts only if no other entry exists.
    """
    explicit = list(_explicit(file))
    yield from explicit
    version = _word(file.metadata.get("ss_base_model_version", ""))
    architecture = _word(file.metadata.get("modelspec.architecture", "")).partition("/")[0]
    for where, word in (("ss_base_model_version", version), ("modelspec.architecture", architecture)):
        if word.endswith("_v"):
            yield f"{where} = {word}", V
        elif word in ("sd_v1", "sd_v2", "stable_diffusion_v2_512") and not explicit:  # a name without its "_v"
            yield f"{where} = {word}", EPSILON


def _explicit(file: TensorFile) -> Iterator[tuple[str, str]]:
    if "v_pred" in file.entries:
        yield "the tensor v_pred", V
    for name, value in file.metadata.items():
        short, word = _short(name), _word(value)
        where = f"{name} = {value}"
        if word in _UNSPECIFIED:
            continue
        if short.endswith(_FLAGS) and word in (*_TRUE, *_FALSE):
            yield where, V if word in _TRUE else EPSILON
        elif short.endswith((*_KEYS, *_FLAGS, "parameterization")):
            yield where, _KINDS.get(word, word)


def _short(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def _word(value: str) -> str:
    return value.strip().strip('"').lower().replace("-", "_").replace(" ", "_")
