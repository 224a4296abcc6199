"""Which devices this machine has, found from files alone, and how torch's threads wait; torch is not imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from resurgence_harness.errors import UserError, sentence, shown


def visible_gpus(environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> tuple[str, ...]:
    """CUDA devices by the names that CUDA_VISIBLE_DEVICES takes, found without importing torch.

    If CUDA_VISIBLE_DEVICES is set, its entries are returned: indices, GPU-… or MIG-… names.
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


def resolved_device(requested: str) -> str:
    """ "auto" becomes "cuda" if there is a GPU and torch was built for CUDA, else "cpu"; other names are unchanged."""
    if requested != "auto":
        return requested
    return "cuda" if visible_gpus() and torch_has_cuda() else "cpu"


def slow_on(requested: str, arithmetic: str) -> str:
    """A note if images in this arithmetic are slow on this device; else empty."""
    if arithmetic != "float16" or resolved_device(requested) != "cpu":
        return ""
    return "Images are drawn in float16 on a CPU, several times slower than in float32: sampler.arithmetic=float32."


def check_device_name(requested: str) -> None:
    """UserError for a name that is not a device's; this machine's devices are not checked."""
    kind, colon, index = requested.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise UserError(
            sentence(f'There is no device "{shown(requested)}".', do="Give auto, cpu, cuda, or cuda:0, cuda:1 …")
        )


def check_device(requested: str) -> None:
    """UserError for a name that is not a device's, and for a GPU that does not exist here."""
    check_device_name(requested)
    gpus = visible_gpus() if torch_has_cuda() else ()
    kind, _, index = requested.partition(":")
    if kind == "cuda" and int(index or 0) >= len(gpus):
        raise UserError(
            sentence(
                f'There is no device "{requested}" here.',
                GPUs=len(gpus),
                torch="built for CUDA" if torch_has_cuda() else "built without CUDA",
                do="Omit the device to use what is available, or install a torch for your GPU.",
            )
        )


def never_spin(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let torch's threads sleep while they wait for one another; the user's own OMP_WAIT_POLICY has precedence.

    By default they spin, which on a core that another process needs stops the thread that is waited for: beside four
    busy processes on two cores, ten passes of the microworld's U-Net took 33 and 41 s, asleep 3 and 11 s. OpenMP reads
    the variable when torch is imported; afterwards this does nothing.
    """
    if "torch" not in sys.modules:
        environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
