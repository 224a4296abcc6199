"""A base model as files: what it is (`digest_of`) and whether it can be used at all (`check_base`). No torch.

A base is a directory in diffusers' layout, the components' weights in safetensors, sharded or not:

    model_index.json · unet · vae · text_encoder · tokenizer · scheduler
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from resurgence_harness.errors import UserError, sentence

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""Component → stem of its weight files."""
SETTINGS = {
    "unet": ("config.json",),
    "vae": ("config.json",),
    "text_encoder": ("config.json",),
    "scheduler": ("scheduler_config.json",),
    "tokenizer": ("tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt", "special_tokens_map.json"),
}
"""Component → files beside the weights that change what the model computes."""
_DOWNLOAD = "Give a local directory in diffusers' layout with safetensors weights, e.g. one saved by save_pretrained()."
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


def variant_of(directory: str | Path, component: str) -> str | None:
    """ "fp16" where a component's weights come only in that variant, else None for the plain ones."""
    return _weights(Path(directory), component)[0]


def weight_files(directory: str | Path, component: str) -> list[Path]:
    """The safetensors files of one component, shards in the order of their names."""
    return _weights(Path(directory), component)[1]


def digest_of(directory: str | Path) -> str:
    """What this base is: sha256 over the sorted list of (file, sha256) of its weights and their settings."""
    directory = Path(directory)
    files = [path for component in WEIGHTS for path in weight_files(directory, component)]
    files += [path for part, names in SETTINGS.items() for name in names if (path := directory / part / name).is_file()]
    total = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.relative_to(directory).as_posix()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{path.relative_to(directory).as_posix()} {digest}\n".encode())
    return total.hexdigest()


def check_base(directory: str | Path) -> None:
    """Raise a one-sentence UserError unless the directory holds a whole, finite Stable Diffusion."""
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(sentence(f"There is no base model at {directory}.", do=_DOWNLOAD))
    index = _json(directory / "model_index.json", directory)
    kind = index.get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise UserError(
            sentence(
                f"The base at {directory} is not a Stable Diffusion.",
                model_index=f"_class_name is {kind!r}",
                expected="'StableDiffusionPipeline' (v1.x or v2.x)",
                do="Give a Stable Diffusion v1 or v2 model; SDXL, SD 3 and Flux have other text encoders.",
            )
        )
    for component, names in SETTINGS.items():
        if component != "tokenizer":
            settings = _json(directory / component / names[0], directory)
            predicted = settings.get("prediction_type", "epsilon")
            if component == "scheduler" and predicted not in ("epsilon", "v_prediction"):
                raise UserError(
                    sentence(
                        f"The base at {directory} predicts what no method here can train: {predicted!r}.",
                        expected="'epsilon' or 'v_prediction' in scheduler/scheduler_config.json",
                        do="Give a Stable Diffusion v1 or v2 model.",
                    )
                )
        elif not any((directory / component / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            raise UserError(sentence(f"The base at {directory} has no tokenizer vocabulary.", do=_DOWNLOAD))
    for component in WEIGHTS:
        for path in weight_files(directory, component):
            _check_finite(path)


def _json(path: Path, directory: Path) -> dict[str, Any]:
    """A JSON object, or a UserError that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        name = path.relative_to(directory).as_posix()
        raise UserError(
            sentence(f"The base at {directory} is not a Stable Diffusion: {name} is missing.", do=_DOWNLOAD)
        ) from None
    except (OSError, ValueError) as problem:
        raise UserError(sentence(f"{path} cannot be read as JSON.", problem=problem, do=_DOWNLOAD)) from None
    if not isinstance(value, dict):
        raise UserError(sentence(f"{path} is not a JSON object.", do=_DOWNLOAD))
    return value


def _weights(directory: Path, component: str) -> tuple[str | None, list[Path]]:
    """(variant, files) of a component; plain files are preferred to the half-precision variant."""
    folder, stem = directory / component, WEIGHTS[component]
    for variant, dotted in ((None, ""), ("fp16", ".fp16")):
        # The shards' index is spelled <stem>.safetensors.index[.fp16].json or <stem>[.fp16].safetensors.index.json.
        for name in (f"{stem}.safetensors.index{dotted}.json", f"{stem}{dotted}.safetensors.index.json"):
            if (folder / name).is_file():
                shards = sorted(set(_json(folder / name, directory).get("weight_map", {}).values()))
                for shard in shards:
                    if not (folder / shard).is_file():
                        raise UserError(
                            sentence(f"The base at {directory} lacks the shard {component}/{shard}.", do=_DOWNLOAD)
                        )
                return variant, [folder / shard for shard in shards]
        if (folder / f"{stem}{dotted}.safetensors").is_file():
            return variant, [folder / f"{stem}{dotted}.safetensors"]
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in {".bin", ".ckpt", ".pt", ".pth"})
    if pickles:
        raise UserError(
            sentence(
                f"The base at {directory} has only pickled weights in {component}/.",
                found=", ".join(pickles),
                do="Convert it with save_pretrained(safe_serialization=True): a pickle can run code when it is read.",
            )
        )
    raise UserError(
        sentence(f"The base at {directory} is not a Stable Diffusion: it has no weights in {component}/.", do=_DOWNLOAD)
    )


def _check_finite(path: Path) -> None:
    """Raise unless the safetensors file is as long as its header says and every number in it is finite."""
    size = path.stat().st_size
    header, start = _header(path, size)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0) + start
    if end > size:
        raise UserError(
            sentence(
                f"The weights {path} are truncated.",
                header_says=f"{end:,} bytes",
                file_has=f"{size:,} bytes",
                do="Copy or download the file again.",
            )
        )
    for name, entry in header.items():
        low, high = entry["data_offsets"]
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None or high == low:
            continue
        values = np.memmap(path, dtype=dtype, mode="r", offset=start + low, shape=((high - low) // dtype.itemsize,))
        if not _finite(values, bfloat=entry["dtype"] == "BF16"):
            raise UserError(
                sentence(
                    f"The weights {path} hold NaN or infinity.",
                    first_tensor=name,
                    do="Such a model draws nothing; give a checkpoint whose weights are finite.",
                )
            )


def _header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The entries of a safetensors header and where the data start."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            if size < 8 or length > size - 8:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            for entry in header.values():
                low, high = entry["data_offsets"]
                if not 0 <= low <= high:
                    raise ValueError("an offset is negative")
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise UserError(
                sentence(
                    f"The weights {path} are truncated or not a safetensors file.",
                    problem=problem,
                    file_has=f"{size:,} bytes",
                    do="Copy or download the file again; a git-lfs pointer instead of the file looks like this too.",
                )
            ) from None
    return header, 8 + length


def _finite(values: np.ndarray, *, bfloat: bool) -> bool:
    """Whether all are finite, a few megabytes at a time; a bfloat16 is not finite when its exponent is all ones."""
    chunk = 1 << 22
    for low in range(0, len(values), chunk):
        part = values[low : low + chunk]
        if not (((part & 0x7F80) != 0x7F80).all() if bfloat else np.isfinite(part).all()):
            return False
    return True
