"""Converts a pickled checkpoint to safetensors, and checks the result before it gets its final name.

    python -m resurgence_harness.diffusion.convert model.ckpt model.safetensors
    python -m resurgence_harness.diffusion.convert model-with-bin-files/ model-safetensors/

Accepts Lightning checkpoints (weights under "state_dict"), state dicts, LoRAs, embeddings of diffusers and of web
interfaces, and directories in diffusers' layout. Entries that are not tensors are left out and listed. No code in the
file is run (see `pickles`). A result that is not of a supported format is removed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.diffusion.formats import Cover, Source, recognise
from resurgence_harness.diffusion.pickles import Left, read_pickle
from resurgence_harness.diffusion.tensor_files import PICKLES, check_inside, read_json, shown
from resurgence_harness.errors import UserError, sentence

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = ("state_dict", "model_state_dict", "model", "module", "params", "net")
"""Keys under which checkpoints keep their weights; the first one present is used."""
RENAMED = {"pytorch_model": "model", "adapter_model": "adapter_model"}
"""Stem of a pickled weight file → stem of its safetensors file."""


def convert(source: str | Path, out: str | Path) -> str:
    """Convert one file or directory; returns a sentence that describes the result. UserError if that is impossible."""
    source, out = Path(source), Path(out)
    if out.exists() or out.is_symlink():
        raise UserError(sentence(f"{out} already exists.", do="Give another path for the converted weights."))
    if not source.exists():
        raise UserError(sentence(f"There is no checkpoint at {source}.", do="Give the file that is to be converted."))
    if not source.is_dir() and out.suffix != ".safetensors":
        raise UserError(sentence(f"{shown(out.name)} is no safetensors file.", do="Name it *.safetensors."))
    try:
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=out.parent) as folder:
            made = Path(folder, out.name)
            try:
                left = _directory(source, made) if source.is_dir() else _file(source, made)
                found = _kind(made)
            except UserError as problem:  # its message names a temporary file that is about to be removed
                raise UserError(str(problem).replace(str(made), f"{source}, converted,")) from None
            os.rename(made, out)
    except OSError as problem:
        raise UserError(
            sentence(
                f"{out} cannot be written.", problem=problem, do="Give a path in an existing folder with free space."
            )
        ) from None
    return f"Written: {out}: {found}." + (f" Left out, as not weights: {', '.join(left)}." if left else "")


def main(arguments: list[str] | None = None) -> None:
    """The command line; exit code 4 and one sentence for a file that cannot be converted."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot encode must not raise
    try:
        if len(given) != 2:
            raise UserError(
                sentence(
                    f"Two paths are needed, and {len(given)} were given.",
                    do="Give the checkpoint, then the path of the result: model.ckpt model.safetensors.",
                )
            )
        print(convert(*given))
    except UserError as error:
        print(f"resurgence: {error}", file=sys.stderr)
        raise SystemExit(4) from None


def _kind(made: Path) -> str:
    """The format's label; UserError unless the converted file is of a supported format."""
    from resurgence_harness.diffusion.base_files import check_base

    found = recognise(Source(path=made, cover=Cover.SOME))
    if not isinstance(found, Path):
        return found.label
    check_base(found)
    return "a directory in diffusers' layout"


def _file(source: Path, out: Path) -> list[str]:
    """Write the tensors of one file; returns the names of the entries left out."""
    tensors, left = _tensors(read_pickle(source), source)
    _save(tensors, out)
    return left


def _directory(source: Path, out: Path) -> list[str]:
    """Copy the directory with its pickled weights as safetensors; returns the names of the entries left out."""
    left: list[str] = []
    out.mkdir()
    for path in sorted(source.rglob("*")):
        place = out / path.relative_to(source)
        check_inside(path, source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        elif path.name.endswith(".index.json") and path.name.removesuffix(".index.json").endswith(tuple(PICKLES)):
            _save(_shards(path, left), _renamed(place.with_name(path.name.removesuffix(".index.json"))))
        elif path.suffix.lower() not in PICKLES:
            if path.is_file():
                shutil.copyfile(path, place)
        elif not _beside(path, source) and "-of-" not in path.stem:
            tensors, more = _tensors(read_pickle(path), path)
            left += more
            _save(tensors, _renamed(place))
    return sorted(set(left))


def _beside(path: Path, source: Path) -> bool:
    """True if the weights exist as safetensors already, or belong to a component that has no effect on images."""
    return _renamed(path).exists() or path.relative_to(source).parts[0] in ("safety_checker", "feature_extractor")


def _renamed(path: Path) -> Path:
    stem, dot, variant = path.stem.partition(".")
    return path.with_name(f"{RENAMED.get(stem, stem)}{dot}{variant}.safetensors")


def _shards(index: Path, left: list[str]) -> dict[str, Tensor]:
    """All tensors of a sharded checkpoint."""
    places = read_json(index).get("weight_map")
    names = set(places.values()) if isinstance(places, dict) else set()
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise UserError(sentence(f"{index} does not list plain file names.", do="Give the directory as it was saved."))
    found: dict[str, Tensor] = {}
    for name in sorted(names):
        tensors, more = _tensors(read_pickle(index.parent / name), index.parent / name)
        found |= tensors
        left += more
    return found


def _tensors(content: Any, source: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors in the loaded content, by name, and the names of the other entries."""
    import torch

    content = _open(content)
    if not isinstance(content, dict):
        raise _empty(source, f"a {type(content).__name__}")
    if "string_to_param" in content:
        return _embedding(content, source)
    left: list[str] = []
    while not any(torch.is_tensor(value) for value in content.values()):
        inner = {name: _open(value) for name, value in content.items()}
        held = {name: value for name, value in inner.items() if isinstance(value, dict) and _holds_tensors(value)}
        name = next((name for name in WEIGHTS if name in held), None)
        if name is None and len(held) != 1:
            raise _empty(source, ", ".join(shown(str(one)) for one in (held or content)) or "nothing")
        name = name if name is not None else next(iter(held))
        left += [shown(str(one)) for one in content if one != name]
        content = held[name]
    if isinstance(inside := _open(content.get("state_dict")), dict) and _holds_tensors(inside):
        left += [shown(str(one)) for one in content if one != "state_dict"]
        content = inside
    found: dict[str, Tensor] = {}
    for name, value in content.items():
        if torch.is_tensor(value) and isinstance(name, str):
            found[name] = value
        elif isinstance(name, str) and name.endswith("alpha") and isinstance(value, int | float):
            found[name] = torch.tensor(float(value))  # a LoRA's alpha, which sets its scale
        else:
            left.append(shown(str(name)))
    return found, left


def _embedding(content: dict[str, Any], source: Path) -> tuple[dict[str, Tensor], list[str]]:
    """A web interface's embedding; the file's name is its token."""
    import torch

    vectors = _open(content["string_to_param"])
    values = [value for value in vectors.values() if torch.is_tensor(value)] if isinstance(vectors, dict) else []
    if len(values) != 1:
        raise _empty(source, f"an embedding of {len(values)} tokens")
    return {"emb_params": values[0]}, [shown(str(name)) for name in content if name != "string_to_param"]


def _open(value: Any) -> Any:
    """A mapping as a dict, or the parameters of a module that was read as `Left`; any other value unchanged."""
    if isinstance(value, Left):
        state = getattr(value, "state", None)
        return state.get("_parameters", state) if isinstance(state, dict) else None
    return dict(value) if isinstance(value, Mapping) else value


def _holds_tensors(value: dict[Any, Any]) -> bool:
    import torch

    return any(isinstance(name, str) and torch.is_tensor(one) for name, one in value.items())


def _save(tensors: dict[str, Tensor], out: Path) -> None:
    import torch
    from safetensors.torch import save_file

    if not tensors:
        raise _empty(out, "nothing")
    for name, value in tensors.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_complex():
            raise _empty(out, f"{shown(name)}, which is sparse, quantised or complex")
    plain = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    save_file(plain, out, {"format": "pt"})


def _empty(source: Path, found: str) -> UserError:
    return UserError(
        sentence(
            f"{source} holds no weights that can be identified.",
            found=shown(found, limit=200),
            expected="a dictionary of tensors, or one under " + ", ".join(json.dumps(name) for name in WEIGHTS),
            do="Save the state dict of the model that is to be judged, and give that file.",
        )
    )


if __name__ == "__main__":
    main()
