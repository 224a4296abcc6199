"""A base model as files: what it is (`digest_of`) and whether it can be used at all (`check_base`). No torch.

A base is a directory in diffusers' layout, the components' weights in safetensors, sharded or not:

    model_index.json · unet · vae · text_encoder · tokenizer · scheduler
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from resurgence_harness.diffusion.schedules import check_schedule
from resurgence_harness.diffusion.tensor_files import (
    PICKLES,
    TensorFile,
    check_finite,
    check_inside,
    conversion,
    read_header,
    read_json,
    sha256_of,
    shown,
)
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
CLASSES = {
    "unet": {"UNet2DConditionModel"},
    "vae": {"AutoencoderKL"},
    "text_encoder": {"CLIPTextModel"},
    "tokenizer": {"CLIPTokenizer", "CLIPTokenizerFast"},
}
"""Component → the classes that model_index.json may name; another would be the model's own code, or another model."""
INDEX = "position_ids"
"""The one tensor that may hold whole numbers: older text encoders number their places in it."""
WIDEST, DEEPEST, LONGEST = 10**6, 128, 64
"""Absurd values of a config.json: a number, a count of layers, a list. Stable Diffusion has 49,408, 24 and 4."""


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
        total.update(f"{path.relative_to(directory).as_posix()} {sha256_of(path)}\n".encode())
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
    for component, allowed in CLASSES.items():
        named = index.get(component, [None, *allowed])
        if not isinstance(named, list) or len(named) != 2 or named[1] not in allowed:
            raise UserError(
                sentence(
                    f"The base at {directory} has a {component} of another class.",
                    model_index=shown(str(named)),
                    expected=" or ".join(sorted(allowed)),
                    do="Give a Stable Diffusion v1 or v2 model; code that comes with a model is never run.",
                )
            )
    for component, names in SETTINGS.items():
        for name in names:
            check_inside(directory / component / name, directory)
        if component != "tokenizer":
            settings = _json(directory / component / names[0], directory)
            _check_sane(settings, directory / component / names[0])
            if component == "scheduler":
                check_schedule(settings, directory / component / names[0])
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
        else:
            for name in names:
                if name.endswith(".json") and (directory / component / name).is_file():
                    _json(directory / component / name, directory)
    for component in WEIGHTS:
        for file in tensor_files(directory, component):
            whole = [name for name, entry in file.entries.items() if not entry.floating and not name.endswith(INDEX)]
            if whole:
                raise UserError(
                    sentence(
                        f"The weights {file.path} are whole numbers.",
                        first_tensor=f"{shown(whole[0])}, {file.entries[whole[0]].dtype}",
                        do="Give weights in float32, float16 or bfloat16; quantised ones cannot be judged here.",
                    )
                )
            check_finite(file)


def tensor_files(directory: str | Path, component: str) -> list[TensorFile]:
    """The opened weight files of one component; no tensor lies in two of them."""
    directory = Path(directory)
    files = [read_header(path) for path in weight_files(directory, component)]
    seen: set[str] = set()
    for file in files:
        if twice := seen & file.entries.keys():
            raise UserError(
                sentence(
                    f"The base at {directory} has a tensor of its {component} twice.",
                    tensor=shown(min(twice)),
                    second_time_in=file.path.name,
                    do=_DOWNLOAD,
                )
            )
        seen |= file.entries.keys()
    return files


def _json(path: Path, directory: Path) -> dict[str, Any]:
    """A JSON object of a base, or a UserError that names the file."""
    name = path.relative_to(directory).as_posix()
    check_inside(path, directory)
    return read_json(
        path,
        missing=sentence(f"The base at {directory} is not a Stable Diffusion: {name} is missing.", do=_DOWNLOAD),
    )


def _check_sane(settings: dict[str, Any], path: Path) -> None:
    """Raise where a number or a list in a config is beyond anything that a Stable Diffusion has, before it is built."""
    for name, value in settings.items():
        numbers = value if isinstance(value, list) else [value]
        most = DEEPEST if "layers" in name else WIDEST
        wrong = [n for n in numbers if isinstance(n, int | float) and not -WIDEST <= n <= most]
        if wrong or (len(numbers) > LONGEST and name != "trained_betas"):
            raise UserError(
                sentence(
                    f"{path} has a setting that no Stable Diffusion has.",
                    setting=shown(f"{name} = {value}"),
                    do="Give the config.json that save_pretrained() wrote for these weights.",
                )
            )


def _weights(directory: Path, component: str) -> tuple[str | None, list[Path]]:
    """(variant, files) of a component."""
    return weights_at(directory / component, directory, WEIGHTS[component])


def weights_at(folder: Path, directory: Path, stem: str) -> tuple[str | None, list[Path]]:
    """(variant, files) in a folder of a model; plain files are preferred to the half-precision variant."""
    component = folder.name
    for variant, dotted in ((None, ""), ("fp16", ".fp16")):
        # The shards' index is spelled <stem>.safetensors.index[.fp16].json or <stem>[.fp16].safetensors.index.json.
        for name in (f"{stem}.safetensors.index{dotted}.json", f"{stem}{dotted}.safetensors.index.json"):
            if (folder / name).is_file():
                return variant, _shards(folder / name, directory)
        if (folder / f"{stem}{dotted}.safetensors").exists():
            check_inside(folder / f"{stem}{dotted}.safetensors", directory)
            return variant, [folder / f"{stem}{dotted}.safetensors"]
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix.lower() in PICKLES)
    if pickles:
        raise UserError(
            sentence(
                f"The base at {directory} has only pickled weights in {component}/.",
                found=shown(", ".join(pickles)),
                do=f"Convert it, which reads it with torch's weights_only=True: {conversion(directory)}",
            )
        )
    raise UserError(
        sentence(f"The base at {directory} is not a Stable Diffusion: it has no weights in {component}/.", do=_DOWNLOAD)
    )


def _shards(index: Path, directory: Path) -> list[Path]:
    """The files that a shard index names, sorted: plain names beside it, each there, none leading elsewhere."""
    places = _json(index, directory).get("weight_map")
    names = set(places.values()) if isinstance(places, dict) and _texts(places.values()) else set()
    odd = sorted(name for name in names if not name.isprintable() or name != Path(name).name)
    if odd or not names or any(not name.endswith(".safetensors") for name in names):
        raise UserError(
            sentence(
                f"The shard index {index} names no plain safetensors files.",
                names=shown(", ".join(odd or sorted(names)) or "nothing"),
                do="A shard is a file beside its index, e.g. diffusion_pytorch_model-00001-of-00002.safetensors.",
            )
        )
    for name in sorted(names):
        if not (index.parent / name).is_file():
            raise UserError(
                sentence(f"The base at {directory} lacks the shard {index.parent.name}/{name}.", do=_DOWNLOAD)
            )
        check_inside(index.parent / name, directory)
    return [index.parent / name for name in sorted(names)]


def _texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)
