"""Compares the metadata that kohya's and similar trainers write into a LoRA ("ss_…") with its tensors.

The merge uses the tensors alone: each layer's scale is its alpha / rank. If the metadata has an alpha or a rank that no
layer has, the tensors or the metadata were changed after training, and the scale used in training is unknown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

from resurgence_harness.diffusion.tensor_files import TensorFile, shown
from resurgence_harness.errors import UserError, sentence

MODULES = frozenset(
    {"networks.lora", "networks.lora_fa", "networks.dylora", "lycoris.kohya", "lycoris", "locon.locon_kohya"}
)
"""Trainer modules whose LoRAs are merged as W + alpha / rank · B A."""
ALGORITHMS = frozenset({"", "lora", "locon", "dora"})
"""LyCORIS's names for the same; loha, lokr and others combine their matrices in other ways."""
CLOSE = 0.01
"""Relative tolerance of an alpha, for half precision."""


def check_notes(file: TensorFile, ranks: Iterable[int], alphas: Iterable[float]) -> None:
    """UserError if the metadata names another method, or an alpha or a rank that no layer has.

    `ranks`, `alphas`: those of the layers' tensors; without alphas every scale is 1.
    """
    notes = file.metadata
    module = notes.get("ss_network_module", "").strip()
    if module and module not in MODULES and module.lower() != "none":
        raise _other(file, f"ss_network_module = {module}")
    algorithm = _arguments(file).get("algo", "")
    if str(algorithm).lower() not in ALGORITHMS:
        raise _other(file, f"ss_network_args: algo = {algorithm}")
    found = sorted(set(ranks))
    rank = _number(notes.get("ss_network_dim", ""))
    if rank is not None and not any(rank == one for one in found):
        raise _contradicted(file, f"ss_network_dim = {rank:g}", f"ranks {_listed(found)}")
    alpha = _number(notes.get("ss_network_alpha", ""))
    if not alpha:  # trainers read 0, too, as alpha = rank
        return
    have = sorted(set(alphas)) or [float(one) for one in found]
    if not any(math.isclose(alpha, one, rel_tol=CLOSE) for one in have):
        raise _contradicted(file, f"ss_network_alpha = {alpha:g}", f"alphas {_listed(have)}")


def _arguments(file: TensorFile) -> dict[str, object]:
    try:
        found = json.loads(file.metadata.get("ss_network_args", "") or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(text: str) -> float | None:
    """A metadata value as a number; None for other text, such as "Dynamic", the rank of a resized file."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _listed(numbers: list[int] | list[float]) -> str:
    return ", ".join(f"{one:g}" for one in numbers[:5]) + ("…" if len(numbers) > 5 else "")


def _other(file: TensorFile, note: str) -> UserError:
    return UserError(
        sentence(
            f"The LoRA {file.path} was trained with another method than the ones judged here.",
            metadata=shown(note),
            do="Merge it into the model with its trainer's own script, and give the merged model.",
        )
    )


def _contradicted(file: TensorFile, note: str, tensors: str) -> UserError:
    return UserError(
        sentence(
            f"The metadata of the LoRA {file.path} contradicts its tensors, so its scale is unknown.",
            metadata=shown(note),
            tensors=tensors,
            do="Give the file as its trainer wrote it, or merge it into the model and give the merged model.",
        )
    )
