"""Reads and writes safetensors files. A file is used only after its header has been checked.

    8 bytes little-endian n │ n bytes JSON {name: {dtype, shape, data_offsets}} │ the numbers, name after name

Before anything is allocated, the header's length, names, types and shapes are checked, and that the tensors follow one
another and fill the file exactly. Values are then read one tensor at a time. Needs no torch: bfloat16, which numpy
lacks, is widened here.
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.errors import shown as shown  # re-exported for the readers of files

HEADER_LIMIT = 10_000_000
"""Largest header in bytes. The format allows 100 MB; Stable Diffusion's are under 1 MB, and parsing 100 MB of JSON
would take gigabytes."""
JSON_LIMIT = 50_000_000
"""Largest JSON file beside the weights, in bytes; the largest in use, a tokenizer's, has a few million."""
RANK_LIMIT, NAME_LIMIT = 8, 512
"""Most axes of a tensor, and most characters of its name."""
PICKLES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"})
"""Endings of files that are, or may hold, a pickle: reading one can run code."""
CONVERTER = 'python -c "from resurgence_harness.diffusion.convert import main; main()"'
"""The command that converts a pickle to safetensors: its arguments are the old and the new file."""
_AGAIN = "Copy or download the file again; a git-lfs pointer instead of the file also gives this error."
_FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
}
_OTHERS: dict[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
}
DTYPES = _FLOATS | _OTHERS
"""Supported types, as the format spells them → numpy's; BF16 and F8 values are read as integers of the same bits."""
_KNOWN = frozenset(
    {
        *("F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4", "F4_E2M1", "C64", "C128"),
        *("I4", "U4", "NF4", "MXFP4"),
    }
)
"""Types that the format has, or other programs write, and that are not supported here."""
INDEX = "position_ids"
"""A tensor of old text encoders with the positions 0, 1, 2 …, as integers or floats."""
_CHUNK = 1 << 22
"""How many values are checked at a time."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Type, shape and position of one tensor in its file."""

    name: str
    dtype: str
    """As the format spells it: "F32", "BF16", …"""
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the beginning of the file."""
    stop: int

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether its type is a floating-point one, as that of every weight."""
        return self.dtype in _FLOATS


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """A safetensors file whose header has been checked."""

    path: Path
    entries: dict[str, Entry]
    metadata: dict[str, str]
    """Text entries by its writer; used as hints only."""
    header: str = ""
    """sha256 of all bytes before the first tensor."""

    def raw(self, name: str) -> np.ndarray:
        """The values in the file's type, flat; BF16 as the uint16 of its bits.

        Read, not memory-mapped: truncating a mapped file would kill the process, and mapped pages would add up.
        """
        entry = self.entries[name]
        try:
            found = np.fromfile(self.path, dtype=DTYPES[entry.dtype], count=entry.size, offset=entry.start)
        except (OSError, ValueError) as problem:
            raise _broken(self.path, problem) from None
        if found.size != entry.size:
            raise _broken(self.path, "it became shorter while it was read")
        return found

    def values(self, name: str) -> np.ndarray:
        """The tensor with its shape: float64 if stored so, float32 for every shorter float."""
        entry = self.entries[name]
        return _widened(self.raw(name), entry.dtype).reshape(entry.shape)


def read_header(path: str | Path) -> TensorFile:
    """Open a safetensors file and check its header; UserError if it is malformed, truncated or not supported."""
    path = Path(path)
    refuse_pickle(path)
    size = 0
    try:
        size = regular_size(path)
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > size - 8:
                raise ValueError("the header is longer than the file")
            if length > HEADER_LIMIT:
                raise ValueError(f"a header of {length:,} bytes; at most {HEADER_LIMIT:,} are read")
            text = stream.read(length)
            header = json.loads(text.decode(), object_pairs_hook=_unique)
        entries, metadata = _entries(header, 8 + length)
    except UserError:
        raise
    except _Quantised as found:
        name, dtype = found.args
        raise UserError(
            sentence(
                f"The weights {path} are stored in a type that cannot be judged here.",
                first_tensor=f"{shown(name)}, {dtype}",
                supported=", ".join(_FLOATS),
                do="Give the weights in float32, float16 or bfloat16, as they were before they were quantised.",
            )
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise _broken(path, problem) from None
    end = max((entry.stop for entry in entries.values()), default=8 + length)
    if end > size:
        raise UserError(
            sentence(
                f"The weights {path} are truncated.",
                header_says=f"{end:,} bytes",
                file_has=f"{size:,} bytes",
                do="Copy or download the file again.",
            )
        )
    if end < size:
        raise _broken(path, f"{size - end:,} bytes after the last tensor")
    if not entries:
        raise UserError(sentence(f"The weights {path} hold no tensor.", do="Give the file with the weights."))
    seen = hashlib.sha256(length.to_bytes(8, "little") + text).hexdigest()
    return TensorFile(path=path, entries=entries, metadata=metadata, header=seen)


def reading(file: TensorFile, total: Any) -> Iterator[tuple[Entry, bytearray]]:
    """Every tensor's bytes in the order of the file, in one pass; `total` (a hash) is updated with the whole file.

    UserError unless the file still has the header that was checked, and the same length.
    """
    try:
        with file.path.open("rb") as stream:
            start = stream.read(min((entry.start for entry in file.entries.values()), default=0))
            total.update(start)
            if hashlib.sha256(start).hexdigest() != file.header:
                raise ValueError("it was replaced while it was read")
            for entry in sorted(file.entries.values(), key=lambda entry: (entry.start, entry.stop)):
                data = bytearray(entry.stop - entry.start)
                if stream.readinto(data) != len(data):
                    raise ValueError("it became shorter while it was read")
                total.update(data)
                yield entry, data
            if stream.read(1):
                raise ValueError("it became longer while it was read")
    except (OSError, ValueError) as problem:
        raise _broken(file.path, problem) from None


def check_finite(file: TensorFile) -> None:
    """UserError unless every weight in the file is finite in float32, and every position index is 0, 1, 2, …"""
    for name, entry in file.entries.items():
        if is_index(name):
            _check_index(file, name)
        if entry.floating and not is_finite(file.raw(name), dtype=entry.dtype):
            raise UserError(
                sentence(
                    f"The weights {file.path} hold NaN or infinity.",
                    first_tensor=shown(name) + (", as float32" if entry.dtype == "F64" else ""),
                    do="Such a model cannot draw images; give a checkpoint whose weights are finite.",
                )
            )


def is_finite(values: np.ndarray, *, dtype: str = "F32") -> bool:
    """Whether all are finite in float32, a few megabytes at a time. `dtype`: as the format spells it."""
    values = values.reshape(-1)
    return all(
        bool(np.isfinite(_narrowed(_widened(values[low : low + _CHUNK], dtype))).all())
        for low in range(0, len(values), _CHUNK)
    )


def is_index(name: str) -> bool:
    """Whether a tensor is an index of positions, which is not a weight."""
    return name == INDEX or name.endswith(f".{INDEX}")


def _check_index(file: TensorFile, name: str) -> None:
    entry = file.entries[name]
    values = file.values(name).reshape(-1) if entry.dtype != "BOOL" else np.zeros(0)
    if not entry.size or not np.array_equal(values, np.arange(entry.size)):
        raise UserError(
            sentence(
                f"The weights {file.path} have position_ids other than 0, 1, 2 and so on.",
                tensor=f"{shown(name)}, {entry.size} numbers, {entry.dtype}",
                do="Give a checkpoint with the position_ids of CLIP, or without any.",
            )
        )


def _widened(values: np.ndarray, dtype: str) -> np.ndarray:
    """Stored values as numbers: float64 stays, shorter floats become float32, integers stay."""
    if dtype == "BF16":
        return np.asarray((values.astype("<u4") << 16).view("<f4"))
    if dtype in _EIGHT_BITS:
        return np.asarray(_EIGHT_BITS[dtype][values])
    return values.astype("<f4") if dtype == "F16" else values


def _narrowed(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype("<f4", copy=False)


def _eight_bits(exponent: int, mantissa: int, bias: int, *, infinite: bool) -> np.ndarray:
    """The 256 numbers of an 8-bit float (OCP 8-bit floating point, 2023).

    `infinite`: the highest exponent encodes infinity and NaN; otherwise only its last mantissa encodes NaN.
    """
    bits = np.arange(256)
    power, part = (bits >> mantissa) & ((1 << exponent) - 1), bits & ((1 << mantissa) - 1)
    fraction = part / (1 << mantissa)
    found = np.where(power == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (power - bias))
    top = power == (1 << exponent) - 1
    if infinite:
        found = np.where(top, np.where(part == 0, np.inf, np.nan), found)
    else:
        found = np.where(top & (part == (1 << mantissa) - 1), np.nan, found)
    return np.asarray(np.where(bits >= 128, -found, found), np.float32)


_EIGHT_BITS = {
    "F8_E4M3": _eight_bits(4, 3, 7, infinite=False),
    "F8_E5M2": _eight_bits(5, 2, 15, infinite=True),
}


Described = tuple[str, str, tuple[int, ...]]
"""Name, dtype as the format spells it, and shape of a tensor to be written."""


def write_tensors(path: Path, tensors: Iterable[Described], values: Iterator[np.ndarray]) -> None:
    """Write tensors in this order, each with the next of `values`, so that one is in memory at a time.

    BF16 values are given as the uint16 of their bits. ValueError if an array does not fit its description.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, dtype, shape in (tensors := list(tensors)):
        stop = place + math.prod(shape) * DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, stop]}
        place = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers start at a multiple of 8, as safetensors' own files do
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for (name, dtype, shape), array in zip(tensors, values, strict=True):
            if array.size != math.prod(shape) or array.dtype.newbyteorder("<") != DTYPES[dtype]:
                raise ValueError(f"{name} is {array.dtype} {array.shape}, not {dtype} {shape}")
            np.ascontiguousarray(array).tofile(stream)


def refuse_pickle(path: Path) -> None:
    """UserError if a file's name has the ending of a pickle; it is not opened."""
    if path.suffix.lower() in PICKLES:
        raise _pickle(path)


def read_json(path: Path, *, missing: str = "") -> dict[str, Any]:
    """A JSON object from a regular file of at most JSON_LIMIT bytes; UserError otherwise. `missing`: see read_bytes."""
    return parse_json(read_bytes(path, limit=JSON_LIMIT, missing=missing), path)


def read_bytes(path: Path, *, limit: int, missing: str = "") -> bytes:
    """The bytes of a regular file of at most `limit` bytes; UserError otherwise, with the text `missing` if given."""
    try:
        size = regular_size(path)
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
        if max(size, len(data)) > limit:
            raise ValueError(f"it has more than {limit:,} bytes")
        return data
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(
            missing or sentence(f"There is no file {path}.", do="Give the directory that has it.")
        ) from None
    except (OSError, ValueError) as problem:
        raise UserError(
            sentence(
                f"{path} cannot be read.", problem=shown(str(problem)), do="Give the file that save_pretrained() wrote."
            )
        ) from None


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """A JSON object that all readers parse alike; UserError, naming the file, otherwise.

    Refused are duplicate names (readers take the first or the last), NaN and infinite numbers, which JSON does not
    have, a byte order mark, and invalid Unicode.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails for a lone surrogate
    except (ValueError, RecursionError) as problem:
        raise UserError(
            sentence(
                f"{path} cannot be read as JSON.",
                problem="it is nested too deeply" if isinstance(problem, RecursionError) else shown(str(problem)),
                do="Give the file that save_pretrained() wrote.",
            )
        ) from None
    if not isinstance(value, dict):
        raise UserError(sentence(f"{path} is not a JSON object.", do="Give the file that save_pretrained() wrote."))
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def regular_size(path: Path) -> int:
    """Size of a regular file in bytes; UserError for a directory, and for a pipe or device, which might never end."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} does not exist") from None
    except (OSError, ValueError) as problem:
        raise UserError(sentence(f"{path} cannot be read.", problem=problem, do="Give another path.")) from None
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise UserError(sentence(f"{path} is {kind}.", do="Give the file itself."))
    return found.st_size


def check_inside(path: Path, root: Path) -> None:
    """UserError if a file of a model is a symbolic link to a place outside the model's directory.

    A snapshot in a hub's cache consists of links into the blobs of the same repository; those are followed.
    """
    inside = root.resolve()
    try:
        real = path.resolve()
    except (OSError, RuntimeError, ValueError) as problem:  # RuntimeError: a loop of links, in older Pythons
        raise UserError(sentence(f"{path} cannot be resolved.", problem=problem, do="Give a plain copy.")) from None
    repository = _cached_repository(inside)
    if real.is_relative_to(inside) or (repository is not None and real.is_relative_to(repository / "blobs")):
        return
    raise UserError(
        sentence(
            f"The model at {root} has a link that leads outside it.",
            link=path.relative_to(root).as_posix(),
            leads_to=real,
            do="Copy the file into the directory; files outside it are not read.",
        )
    )


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f'the name "{shown(name)}" occurs twice')
        found[name] = value
    return found


def _entries(header: Any, data: int) -> tuple[dict[str, Entry], dict[str, str]]:
    """The header's entries in the order of the file, and its metadata; ValueError if they are malformed."""
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ does not map names to text")
    entries = [_entry(name, described, data) for name, described in header.items()]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    place = data
    for entry in entries:
        if entry.start != place:
            kind = "overlaps the one before" if entry.start < place else "leaves a gap before it"
            raise ValueError(f'the tensor "{shown(entry.name)}" {kind}')
        place = entry.stop
    return {entry.name: entry for entry in entries}, metadata


def _entry(name: str, described: Any, data: int) -> Entry:
    if not 0 < len(name) <= NAME_LIMIT or not name.isprintable():
        raise ValueError(f'a tensor has the name "{shown(name)}"')
    if not isinstance(described, dict) or described.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f'the tensor "{shown(name)}" is not described by dtype, shape and data_offsets')
    dtype, shape, offsets = described["dtype"], described["shape"], described["data_offsets"]
    problem = ""
    if isinstance(dtype, str) and dtype in _KNOWN:
        raise _Quantised(name, dtype)
    if not isinstance(dtype, str) or dtype not in DTYPES:
        problem = f"the type {shown(str(dtype))}; supported are {', '.join(DTYPES)}"
    elif not (_whole(shape) and _whole(offsets)):
        problem = "a shape or an offset that is not a list of whole numbers from 0"
    elif len(shape) > RANK_LIMIT or len(offsets) != 2:
        problem = f"{len(shape)} axes and {len(offsets)} offsets"
    elif offsets[1] - offsets[0] != math.prod(shape) * DTYPES[dtype].itemsize:
        problem = f"{offsets[1] - offsets[0]:,} bytes, which do not fit its shape {shape} of {dtype}"
    if problem:
        raise ValueError(f'the tensor "{shown(name)}" has {problem}')
    return Entry(name=name, dtype=dtype, shape=tuple(shape), start=data + offsets[0], stop=data + offsets[1])


class _Quantised(Exception):
    """A tensor of a known but unsupported type: (name, type)."""


def _whole(numbers: object) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)


def _broken(path: Path, problem: object) -> UserError:
    """The error for a file that is not a safetensors file."""
    if isinstance(problem, FileNotFoundError):
        return UserError(sentence(f"There is no file {path}.", do="Give the path of the weights."))
    if _looks_pickled(path):
        return _pickle(path)
    if _head(path) == b"GGUF":
        return UserError(
            sentence(
                f"The weights {path} are a GGUF file, whose values are quantised.",
                do="Give the weights in safetensors, in float32, float16 or bfloat16.",
            )
        )
    return UserError(
        sentence(
            f"The weights {path} are truncated or not a safetensors file.",
            problem="it is nested too deeply"
            if isinstance(problem, RecursionError)
            else shown(str(problem), limit=300),
            file_has=f"{path.stat().st_size:,} bytes" if path.is_file() else "nothing",
            do=_AGAIN,
        )
    )


def _looks_pickled(path: Path) -> bool:
    """Whether a file begins like a pickle or like the zip in which torch stores one."""
    head = _head(path)
    return head == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def _head(path: Path) -> bytes:
    """The first four bytes of a regular file."""
    try:
        with path.open("rb") as stream:
            return stream.read(4)
    except OSError:
        return b""


def _pickle(path: Path) -> UserError:
    return UserError(
        sentence(
            f"{path} is a pickle, which can run code when it is read.",
            do=f"Convert it, which runs no code in the file: {conversion(path)}",
        )
    )


def conversion(path: Path) -> str:
    """The command that converts a pickle, or a directory with pickles, to a new file or directory beside it."""
    path = path if path.name not in ("", "..") else path.resolve()
    found = path.with_name(f"{path.name}-safetensors") if path.is_dir() else path.with_suffix(".safetensors")
    if found.exists() or found == path:
        found = path.with_name(f"{path.stem}-converted{found.suffix}")
    return f"{CONVERTER} {quote(str(path))} {quote(str(found))}"


def _cached_repository(inside: Path) -> Path | None:
    """The directory models--owner--name, for a path models--owner--name/snapshots/<revision>[/…] in a hub's cache."""
    for place in (inside, *inside.parents):
        if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
            return place.parent.parent
    return None
