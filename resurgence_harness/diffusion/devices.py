"""Where models can run on this machine: found from files alone, without importing torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from resurgence_harness.errors import UserError, sentence, shown


def visible_gpus(environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> tuple[str, ...]:
    """CUDA devices by the names that CUDA_VISIBLE_DEVICES takes, found without importing torch.

    An existing CUDA_VISIBLE_DEVICES is kept to: its entries may be indices, GPU-… or MIG-… names.
    """
    if "CUDA_VISIBLE_DEVICES" in environ:
        names = [name.strip() for name in environ["CUDA_VISIBLE_DEVICES"].split(",")]
        return tuple(name for name in names if name and name != "-1")
    try:
        numbers = sorted(int(path.name[6:]) for path in devices.glob("nvidia[0-9]*") if path.name[6:].isdecimal())
    except OSError:
        return ()
    return tuple(str(index) for index in range(len(numbers)))


def torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA; read from its files, not by importing it."""
    from importlib.util import find_spec

    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return False
    line = next((line for line in text.splitlines() if line.startswith("cuda")), "")
    return bool(line) and not line.rstrip().endswith("None")


def resolved_device(asked: str) -> str:
    """ "auto" as "cuda" where a GPU and a torch for it are there, else "cpu"; other words as they are."""
    if asked != "auto":
        return asked
    return "cuda" if visible_gpus() and torch_has_cuda() else "cpu"


def check_device_name(asked: str) -> None:
    """UserError for what names no device, whatever this machine has."""
    kind, colon, index = asked.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise UserError(
            sentence(f'There is no device "{shown(asked)}".', do="Give auto, cpu, cuda, or cuda:0, cuda:1 …")
        )


def check_device(asked: str) -> None:
    """UserError for what names no device, and for a GPU that is not there."""
    check_device_name(asked)
    gpus = visible_gpus() if torch_has_cuda() else ()
    kind, _, index = asked.partition(":")
    if kind == "cuda" and int(index or 0) >= len(gpus):
        raise UserError(
            sentence(
                f'There is no device "{asked}" here.',
                GPUs=len(gpus),
                torch="built for CUDA" if torch_has_cuda() else "built without CUDA",
                do="Leave the device out to use what there is, or install a torch for your GPU.",
            )
        )
