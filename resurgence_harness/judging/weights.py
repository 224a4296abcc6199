"""Weights that the user must provide: file name, sha256 and location. Only `resurgence fetch` downloads any.

A file is searched in the directory named by RESURGENCE_WEIGHTS, else in ~/.cache/resurgence/weights, unless its path
is given. Only safetensors are read, since a pickle can run code. Convert a pickle once, with a loader for tensors only:

    python -m resurgence_harness.judging convert model.bin model.safetensors

A pinned sha256 is the digest without reading the file, so a run from the cache needs no weights; the file is compared
with it before its first tensor is used. Without a pin, the digest is that of the file found.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.judging.digesting import NO_ANSWER
from resurgence_harness.specs import not_in_key

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "RESURGENCE_WEIGHTS"
"""Environment variable with the directory of weights."""
CONVERT = "python -m resurgence_harness.judging convert"
"""Command that converts a pickle of tensors to safetensors."""
PICKLES = frozenset({".bin", ".ckpt", ".p", ".pickle", ".pkl", ".pt", ".pth"})


def directory() -> Path:
    """The directory in which weights are searched."""
    given = os.environ.get(VARIABLE, "").strip()
    return Path(given).expanduser() if given else Path.home() / ".cache" / "resurgence" / "weights"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One weights file, or one model folder, that the user must obtain. Creating this value reads nothing."""

    file: str = field(metadata=NO_ANSWER)
    """Its name in the directory of weights: "q16-vit-l-14.safetensors"; for a folder, the folder's name. Only a
    location: `digest` is that of the content."""
    sha256: str = ""
    """The pin; empty if none is published. For a folder: `digest_of`."""
    source: str = not_in_key("")
    """Where to get it, as text."""
    licence: str = not_in_key("")
    convert: str = not_in_key("")
    """The command that makes it from the published pickle; empty for `CONVERT`."""
    path: str = not_in_key("")
    """Its path, if not in the directory of weights."""
    package: str = not_in_key("")
    """The module of a package that contains the file: it is read there, and never copied."""

    def __post_init__(self) -> None:
        if self.sha256 and (len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")):
            raise UserError(
                sentence(
                    f"The pin of {self.file} is not a sha256.",
                    pin=self.sha256,
                    do="Give 64 hexadecimal digits in lower case, as sha256sum prints them, or none.",
                )
            )

    @property
    def place(self) -> Path:
        """The path at which it is expected; that of an installed package is found without importing it."""
        if self.package and not self.path and (inside := _folder_of(self.package)) is not None:
            return inside / self.file
        return Path(self.path).expanduser() if self.path else directory() / self.file

    @property
    def digest(self) -> str:
        """The pin, else the sha256 of the file or folder found."""
        return self.sha256 or digest_of(self.found())

    def found(self) -> Path:
        """Its path; UserError if it is missing. The content is not checked."""
        place = self.place
        if place.exists():
            return place
        facts = {
            "expected_at": place,
            "sha256": self.sha256 or "none is pinned: the one found is recorded",
            **({"source": self.source} if self.source else {}),
            **({"licence": self.licence} if self.licence else {}),
        }
        raise UserError(
            sentence(
                f"The weights {self.file} are missing.",
                do=f"Install {self.source}."
                if self.package
                else f"Put them there, or set {VARIABLE}; `resurgence fetch` lists where they come from.",
                **facts,
            )
        )

    def verified(self) -> Path:
        """Its path; UserError if it is missing, contains a pickle, or differs from the pin."""
        place = self.found()
        for path in files_of(place):
            if is_pickle(path):
                command = self.convert or f"{CONVERT} {path} {path.with_suffix('.safetensors')}"
                raise UserError(
                    sentence(
                        f"The weights {path} are a pickle, which can run code when it is read.",
                        do=f"Convert it once and give the result: {command}",
                    )
                )
        if self.sha256 and (found := digest_of(place)) != self.sha256:
            raise UserError(
                sentence(
                    f"The weights {place} are not the pinned ones.",
                    found=found,
                    pinned=self.sha256,
                    **({"source": self.source} if self.source else {}),
                    do="Get the file again; other weights would make a different judge.",
                )
            )
        return place

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the verified file, on the CPU, all finite."""
        return read_tensors(self.verified())


def _folder_of(package: str) -> Path | None:
    """The folder of an installed package; None if there is none."""
    found = find_spec(package)
    places = found.submodule_search_locations if found is not None else None
    return Path(places[0]) if places else None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; UserError if it is truncated, empty, or holds NaN or infinity."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as problem:
        raise UserError(
            sentence(
                f"The weights {path} cannot be read as safetensors.",
                problem=problem,
                do="Get the file again; a git-lfs pointer instead of the file looks like this too.",
            )
        ) from None
    if not tensors:
        raise UserError(sentence(f"The weights {path} hold no tensor.", do="Get the file again."))
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(
                sentence(
                    f"The weights {path} hold NaN or infinity.",
                    first_tensor=name,
                    do="Get the file again; it is damaged.",
                )
            )
    return tensors


def digest_of(path: str | Path) -> str:
    """sha256 of a file; of a folder, over the sorted list of (file, sha256). Cached until size or time changes."""
    path = Path(path)
    if path.is_file():
        return _file_digest(path)
    total = hashlib.sha256()
    for file in files_of(path):
        total.update(f"{file.relative_to(path).as_posix()} {_file_digest(file)}\n".encode())
    return total.hexdigest()


def files_of(path: Path) -> list[Path]:
    """The file, or all files of a folder sorted by name, without hidden ones; UserError for an empty folder."""
    if path.is_file():
        return [path]
    files = [file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path))]
    if not files:
        raise UserError(sentence(f"The folder of weights {path} is empty.", do="Put the model's files there."))
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


def is_pickle(path: Path) -> bool:
    """Whether the file is a pickle, a torch archive or TorchScript, by its suffix or its first bytes."""
    if path.suffix in PICKLES:
        return True
    with path.open("rb") as stream:
        start = stream.read(4)
    # A pickle of protocol 2 or later starts with 0x80 and its protocol. safetensors start with a length, whose low
    # byte may be 0x80 as well, and then "{" as their ninth byte.
    return start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[1:2] <= b"\x05" and not _braced(path))


def convert(source: str | Path, target: str | Path) -> list[str]:
    """Write the tensors of a torch pickle as safetensors, nested names joined by "."; returns the names left out.

    The pickle is read by torch's weights-only loader, which refuses everything except tensors and plain containers.
    UserError for a missing file, TorchScript, other content, or no tensor.
    """
    import torch
    from safetensors.torch import save_file

    source, target = Path(source), Path(target)
    if not source.is_file():
        raise UserError(sentence(f"There is no file {source}.", do="Name the pickle that was published."))
    try:
        archive = zipfile.is_zipfile(source) and any(
            name.endswith("constants.pkl") for name in zipfile.ZipFile(source).namelist()
        )
        if archive:
            raise UserError(
                sentence(
                    f"{source} is TorchScript: a program, not a table of tensors.",
                    do="Get the safetensors of the same model; for OpenAI's CLIP: open_clip_model.safetensors.",
                )
            )
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as problem:  # the loader's refusals have no common type
        raise UserError(
            sentence(
                f"{source} holds more than tensors, or is truncated, so it was not read.",
                problem=str(problem).splitlines()[0] if str(problem) else type(problem).__name__,
                do="Get a safetensors version of these weights; nothing in the file was run.",
            )
        ) from None
    tensors: dict[str, Tensor] = {}
    left_out: list[str] = []
    _flatten(loaded, "", tensors, left_out)
    if not tensors:
        raise UserError(sentence(f"{source} holds no tensor.", do="Name the pickle of the weights."))
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target)
    return left_out


def _flatten(value: Any, name: str, tensors: dict[str, Tensor], left_out: list[str]) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        # Cloned: safetensors refuses tensors that share memory.
        tensors[name or "tensor"] = value.detach().clone().contiguous()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _flatten(item, f"{name}.{key}" if name else str(key), tensors, left_out)
    else:
        left_out.append(name)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _braced(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(9)[8:9] == b"{"


def _file_digest(path: Path) -> str:
    facts = path.stat()
    return _hashed(str(path.resolve()), facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=4096)
def _hashed(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
