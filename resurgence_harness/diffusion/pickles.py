"""The numbers in a pickle, without running what else it holds: for converting old checkpoints, never for judging.

torch's own safe loader (weights_only=True) is asked first. It stops at a checkpoint that holds any other class, such as
the callbacks that Lightning noted in the original Stable Diffusion. The file is then read again by an unpickler that
knows tensors, their storages and ordered dictionaries alone; every other name in the file becomes an empty `Left`,
which takes what it is given and does nothing. Nothing is imported or called on the file's word in either way.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from resurgence_harness.diffusion.tensor_files import regular_size, shown
from resurgence_harness.errors import UserError, sentence

SLACK = 1 << 20
"""Bytes that a zip's contents may have more than the zip: torch stores them as they are, a bomb does not."""


class Left:
    """What stands for an object of any class that is not numbers."""

    dump_patches = False
    """torch looks for it in old files that hold a module."""

    def __new__(cls, *_: object, **__: object) -> Left:
        """Whatever the arguments are."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Nothing is done with them."""

    def __call__(self, *_: object, **__: object) -> Left:
        """Called by the file."""
        return Left()

    def __setstate__(self, state: object) -> None:
        """Kept, for the parameters that old web interfaces stored in a module."""
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Left out."""

    def append(self, value: object) -> None:
        """Left out."""

    def extend(self, values: object) -> None:
        """Left out."""

    add = append


def read_pickle(path: Path) -> Any:
    """What the file holds: dictionaries, lists, tensors on the CPU, and `Left` for anything else.

    UserError where it is no pickle of torch's, is truncated, or grows when it is unpacked.
    """
    import torch

    _check_size(path)
    try:
        with path.open("rb") as file, warnings.catch_warnings():  # a path that ends in .safetensors is read as one
            warnings.simplefilter("ignore")
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:
                file.seek(0)
                return torch.load(file, map_location="cpu", weights_only=False, pickle_module=_restricted())
    except UserError:
        raise
    except Exception as problem:  # a pickle may ask for anything, and fail in any way
        raise _unreadable(path, problem) from None


def _restricted() -> Any:
    """torch.load's `pickle_module`: an unpickler that finds tensors' names and nothing else."""
    import torch

    allowed: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        ("torch", "Size"): torch.Size,
    }
    for name in dir(torch):
        if name.endswith("Storage") and isinstance(getattr(torch, name), type):
            allowed["torch", name] = getattr(torch, name)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str, /) -> Any:
            return allowed.get((module, name), Left)

    def load(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    return SimpleNamespace(
        Unpickler=Unpickler, load=load, UnpicklingError=pickle.UnpicklingError, __name__="restricted pickle"
    )


def _check_size(path: Path) -> None:
    """Raise where the file is no regular one, or a zip whose contents are larger than it is."""
    size = regular_size(path)
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            whole = sum(one.file_size for one in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as problem:
        raise _unreadable(path, problem) from None
    if whole > size + SLACK:
        raise _unreadable(path, ValueError(f"its contents have {whole:,} bytes, the file {size:,}"))


def _unreadable(path: Path, problem: BaseException) -> UserError:
    first = next(iter(str(problem).strip().splitlines()), "") or type(problem).__name__
    return UserError(
        sentence(
            f"{path} cannot be read as a checkpoint of torch.",
            problem=shown(first, limit=200),
            do="Copy or download the file again, or convert it with the program that wrote it.",
        )
    )
