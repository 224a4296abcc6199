"""Reads the tensors in a pickle without running its code: for converting old checkpoints, never for judging.

torch's own safe loader (weights_only=True) is tried first. It rejects a checkpoint that holds any other class, such as
the callbacks that Lightning stored in the original Stable Diffusion. The file is then read again by an unpickler that
resolves only tensors, their storages and ordered dictionaries; every other name in the file becomes an empty `Left`,
which accepts any arguments and does nothing. In neither case can the file import or call anything else.
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
"""Bytes by which a zip's contents may exceed the zip: torch stores them uncompressed, a zip bomb does not."""


class Left:
    """A placeholder for any object in a pickle that is not a tensor or a container of tensors."""

    dump_patches = False
    """An attribute that torch reads for old files that hold a module."""

    def __new__(cls, *_: object, **__: object) -> Left:
        """Accepts any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Ignores its arguments."""

    def __call__(self, *_: object, **__: object) -> Left:
        """The result of any call in the file is another placeholder."""
        return Left()

    def __setstate__(self, state: object) -> None:
        """Keeps the state: old web interfaces stored parameters in a module."""
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Does nothing."""

    def append(self, value: object) -> None:
        """Does nothing."""

    def extend(self, values: object) -> None:
        """Does nothing."""

    add = append


def read_pickle(path: Path) -> Any:
    """The file's content: dictionaries, lists, tensors on the CPU, and `Left` for anything else.

    UserError if it is not a pickle written by torch, is truncated, or grows when it is unpacked.
    """
    import torch

    _check_size(path)
    try:
        with path.open("rb") as file, warnings.catch_warnings():  # torch reads a path *.safetensors as such
            warnings.simplefilter("ignore")
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:
                file.seek(0)
                return torch.load(file, map_location="cpu", weights_only=False, pickle_module=_restricted())
    except UserError:
        raise
    except Exception as problem:  # a malformed pickle can raise anything
        raise _unreadable(path, problem) from None


def _restricted() -> Any:
    """torch.load's `pickle_module`: an unpickler that resolves the names of tensors and nothing else."""
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
    """UserError if the file is not a regular one, or is a zip whose contents are larger than itself."""
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
