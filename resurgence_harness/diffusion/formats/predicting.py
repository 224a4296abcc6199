"""What a file says that its network predicts, and on which noise schedule: held against the base's scheduler.

    modelspec.prediction_type · …parameterization · v_pred                    noise or velocity
    modelspec.architecture · ss_base_model_version, where they end in "v"      velocity
    ss_zero_terminal_snr · ztsnr                                               the schedule ends in pure noise

Notes of trainers are believed where they contradict the base: with another prediction the same weights draw another
image. A file without notes is the base's kind.
"""

from __future__ import annotations

from collections.abc import Iterator

from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.tensor_files import TensorFile, shown
from resurgence_harness.errors import UserError, sentence

V, EPSILON = "v_prediction", "epsilon"
_KINDS = {
    **dict.fromkeys(("v", "v_prediction", "v_pred", "vpred", "velocity", "v_param", "v_parameterization"), V),
    **dict.fromkeys(("epsilon", "eps", "e", "noise", "eps_prediction", "epsilon_prediction"), EPSILON),
}
_KEYS = ("prediction_type", "predictiontype", "prediction")
"""How a note's name ends that names the prediction."""
_FLAGS = ("v_parameterization", "v_prediction", "v_pred")
"""How a note's name ends that is true for velocity and false for noise."""
_UNSAID = ("", "none", "null", "unknown", "auto", "default")
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def check_prediction(file: TensorFile, parent: ModelFiles) -> None:
    """UserError where the file's notes contradict the parent's scheduler, or one another."""
    settings = parent.description.config("scheduler")
    base = settings.get("prediction_type", EPSILON)
    said = list(_said(file))
    for where, kind in said:
        if kind != base:
            raise UserError(
                sentence(
                    f"{file.path} does not predict what the base predicts.",
                    file_says=shown(f"{kind}, by {where}"),
                    base=base,
                    do="Give the base of its kind: sd21 predicts velocity, sd14 and sd21-base predict noise.",
                )
            )
    where = zero_snr(file)
    if where and not settings.get("rescale_betas_zero_snr"):
        raise UserError(
            sentence(
                f"{file.path} has another noise schedule than the base.",
                file_says=f"it ends in pure noise (zero SNR), by {where}",
                base="rescale_betas_zero_snr is not set in its scheduler_config.json",
                do="Give its own model in diffusers' layout, whose scheduler says what the schedule is.",
            )
        )


def zero_snr(file: TensorFile) -> str:
    """Which note or tensor says that the schedule ends at zero SNR; empty where none does."""
    if "ztsnr" in file.entries:
        return "the tensor ztsnr"
    for name, value in file.metadata.items():
        if _short(name).endswith(("zero_terminal_snr", "ztsnr", "rescale_betas_zero_snr")) and _word(value) in _TRUE:
            return f"the note {shown(name)}"
    return ""


def _said(file: TensorFile) -> Iterator[tuple[str, str]]:
    """(where, "epsilon" or "v_prediction" or the unknown word) of every note; a base's name only where no note is."""
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
        if word in _UNSAID:
            continue
        if short.endswith(_FLAGS) and word in (*_TRUE, *_FALSE):
            yield where, V if word in _TRUE else EPSILON
        elif short.endswith((*_KEYS, *_FLAGS, "parameterization")):
            yield where, _KINDS.get(word, word)


def _short(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def _word(value: str) -> str:
    return value.strip().strip('"').lower().replace("-", "_").replace(" ", "_")
