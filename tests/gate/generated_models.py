"""Model files and directories that are generated: one thing changed in each, in every place where it can be.

    for row in files(base) + directories(base, outside): path = row.make(folder)

What may become of a row is one of three: "refused" in a sentence; "noticed": refused, or taken for another model than
`base`, never for the same; "same": taken for the same, since nothing that is loaded was changed. Loading what was taken
must work, or be refused in a sentence too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.gate.generated_policies import HIDDEN, UNSEEN
from tests.gate.hostile import LAYER
from tests.linking import linked

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
SETTINGS = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/tokenizer.json",
)
INDEX = "model_index.json"
WRONG: tuple[Any, ...] = (-1, "x\u202e", [], 10**9, {}, True, 1e308, "../../etc/passwd", None, [[]], "", 0)
"""Values for a setting, one after the other."""
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "U16": 2, "U32": 4}
DTYPES |= {"U64": 8, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F6_E2M3": 1, "F4": 1, "C64": 8}
REDIRECTIONS = (
    {"transformers_weights": "other.safetensors"},
    {"auto_map": {"AutoModel": "evil.Model"}},
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    {"_class_name": "EvilModel"},
    {"_class_name": ["evil", "Model"]},
    {"architectures": ["EvilModel"]},
    {"model_type": "evil"},
    {"gguf_file": "x.gguf"},
    {"adapter_name_or_path": "../outside"},
    {"weight_map": {"conv_in.weight": "../x.safetensors"}},
    {"use_safetensors": False},
    {"variant": "fp16"},
    {"subfolder": ".."},
)
"""Settings by which a library could be led to other weights or other code."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One candidate."""

    name: str
    make: Callable[[Path], Path]
    """make(folder): write it into an empty folder; the path that a person would give."""
    expected: str = "noticed"


def files(base: Path) -> list[Row]:
    """Single files: headers, types, names, metadata of LoRAs."""
    return _named([*_headers(), *_names(base), *_metadata(), *_parts(base)])


def directories(base: Path, outside: Path) -> list[Row]:
    """Whole models: settings, tokenizers, indices, links, what is there twice."""
    return _named(
        [*_settings(base), *_text(base), *_tokenizers(base), *_twice(base), *_links(base, outside), *_beside(base)]
    )


def _named(rows: list[Row]) -> list[Row]:
    """With names that differ."""
    return [replace(row, name=f"{number}: {row.name}") for number, row in enumerate(rows)]


def _file(name: str, data: bytes, expected: str = "refused") -> Row:
    def make(folder: Path) -> Path:
        (folder / "model.safetensors").write_bytes(data)
        return folder / "model.safetensors"

    return Row(name=name, make=make, expected=expected)


def _safetensors(entries: Any, data: bytes) -> bytes:
    header = json.dumps(entries).encode("utf-8", "surrogatepass")
    return len(header).to_bytes(8, "little") + header + data


def _headers() -> Iterator[Row]:
    """Every type with too many and too few bytes, and in a file that is none of a model."""
    for dtype, size in DTYPES.items():
        for words, length in (("fit", 4 * size), ("are too many", 4 * size + 1), ("are too few", 4 * size - 1)):
            entry = {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, length]}
            yield _file(f"{dtype} whose bytes {words}", _safetensors({"x": entry}, b"\0" * length))
        down = {"dtype": dtype, "shape": [1, 48], "data_offsets": [0, 48 * size]}
        up = {"dtype": dtype, "shape": [48, 1], "data_offsets": [48 * size, 96 * size]}
        pair = {f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}
        yield _file(f"a LoRA in {dtype}", _safetensors(pair, b"\x3f" * 96 * size), "noticed")


def _names(base: Path) -> Iterator[Row]:
    """Tensors whose names hide characters, alone and in a real file."""
    for code in (*HIDDEN, *UNSEEN, 0xD800, ord("а"), ord("Ａ")):
        entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
        yield _file(f"tensor name with U+{code:04X}", _safetensors({f"conv{chr(code)}in": entry}, b"\0" * 4))
    for name in (
        "conv_in.bias ",
        "unet.conv_in.bias",
        "CONV_IN.BIAS",
        "conv_in..bias",
        "model.conv_in.bias",
        "__metadata__ ",
    ):

        def make(folder: Path, name: str = name) -> Path:
            found = load_file(base / WEIGHTS["unet"])
            save_file({**found, name: np.ones(3, "f4")}, folder / "unet.safetensors")
            return folder / "unet.safetensors"

        yield Row(name=f"a U-Net with {name!r} too", make=make, expected="refused")


def _pair(layer: str = LAYER, rank: int = 2) -> dict[str, np.ndarray]:
    return {f"{layer}.lora_A.weight": np.ones((rank, 48), "f4"), f"{layer}.lora_B.weight": np.ones((48, rank), "f4")}


def _lora(name: str, metadata: dict[str, str] | None, beside: Any = None, tensors: Any = None) -> Row:
    def make(folder: Path) -> Path:
        save_file(tensors or _pair(), folder / "pytorch_lora_weights.safetensors", metadata)
        if beside is None:
            return folder / "pytorch_lora_weights.safetensors"
        text = beside if isinstance(beside, str) else json.dumps(beside)
        (folder / "adapter_config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        return folder

    return Row(name=f"LoRA: {name}", make=make)


def _metadata() -> Iterator[Row]:
    """What a LoRA says of itself, within the file and beside it."""
    values: dict[str, tuple[Any, ...]] = {
        "r": (0, -1, "2", None, 10**9, True, [2], 3),
        "lora_alpha": (-8, "8", None, 1e308, True, [8], {"a": 1}, 8),
        "alpha_pattern": (
            {"to_q": -1},
            {"(a+)+$": 2},
            {"[": 1},
            {"to_q": "8"},
            [],
            "x",
            {"": 4},
            {"a" * 5000: 1},
            {"to_q": 4},
        ),
        "rank_pattern": ({"to_q": 0}, {"to_q": 3}, {"(": 1}, [], {"to_q": None}),
        "use_rslora": (1, "true", None, [], True),
        "use_dora": (True, 1, "yes", None),
        "init_lora_weights": ("pissa", "olora", "corda", "loftq", "eva", False, 3, []),
        "peft_type": ("LOHA", "IA3", "evil", None, 3),
        "bias": ("all", "lora_only", 3, None),
        "fan_in_fan_out": (True, "x"),
        "modules_to_save": (["conv_in"], "x", 3),
        "layers_to_transform": ([0], "x"),
        "base_model_name_or_path": ("../../etc/passwd", "x\u202e", 3),
        "auto_mapping": ({"base_model_class": "Evil"},),
        "target_modules": ("(a+)+$", ["to_q\u202e"], None),
    }
    for key, several in values.items():
        for value in several[:: 1 if "alpha" in key else 2]:
            words = json.dumps({f"unet.{key}": value})
            yield _lora(f"metadata unet.{key} {value!s:.30}", {"lora_adapter_metadata": words})
        said = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, key: several[0]}
        yield _lora(f"adapter_config {key} {several[0]!s:.30}", None, said)
    for key, value in (
        ("ss_network_alpha", "-1"),
        ("ss_network_alpha", "nan"),
        ("ss_network_alpha", "1" * 5000),
        ("ss_network_dim", "0"),
        ("ss_network_module", "evil"),
        ("ss_v2", "True"),
        ("modelspec.prediction_type", "v"),
        ("modelspec.prediction_type", "evil\u202e"),
        ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora"),
        ("ss_base_model_version", "sdxl_base_v1-0"),
        ("lora_adapter_metadata", "{" * 50_000),
        ("lora_adapter_metadata", "\ud7ff\u202e"),
        ("lora_adapter_metadata", '{"unet.r": 1, "unet.r": 2}'),
        ("lora_adapter_metadata", '{"unet.lora_alpha": NaN}'),
        ("lora_adapter_metadata", "null"),
    ):
        yield _lora(f"metadata {key} {value[:20]!a}", {key: value})
    for words in ("", "{", "null", "[]", '"x"', "{" * 50_000, '{"r": 1, "r": 2}', "\ufeff{}", '{"lora_alpha": NaN}'):
        yield _lora(f"adapter_config {words[:20]!a}", None, words)


def _parts(base: Path) -> Iterator[Row]:
    """One tensor changed, in every part and in every way; each is another model."""
    for part, file in WEIGHTS.items():
        for words, change in {
            "a bit": lambda array: (array.view("u4").ravel().__setitem__(0, array.view("u4").ravel()[0] ^ 1), array)[1],
            "NaN": lambda array: np.full_like(array, np.nan),
            "infinity": lambda array: np.full_like(array, np.inf),
            "a row less": lambda array: array[1:].copy(),
            "an axis more": lambda array: array[None].copy(),
            "whole numbers": lambda array: array.astype("i8"),
            "nothing": lambda array: array[:0].copy(),
        }.items():

            def make(folder: Path, file: str = file, change: Any = change) -> Path:
                model = copy(base, folder)
                found = load_file(model / file)
                first = min(name for name in found if found[name].dtype == np.float32 and found[name].size > 1)
                changed = change(found[first].copy())
                fresh(model / file)
                save_file({**found, first: changed}, model / file)
                return model

            yield Row(name=f"{part} with {words}", make=make)


def _changed(base: Path, name: str, change: Callable[[Path], object], expected: str = "noticed") -> Row:
    def make(folder: Path) -> Path:
        model = copy(base, folder)
        change(model)
        return model

    return Row(name=name, make=make, expected=expected)


def _put(file: str, data: bytes) -> Callable[[Path], object]:
    def change(model: Path) -> None:
        (model / file).parent.mkdir(exist_ok=True)
        fresh(model / file).write_bytes(data)

    return change


def _json(base: Path, file: str, **values: Any) -> bytes:
    return json.dumps({**json.loads((base / file).read_text(encoding="utf-8")), **values}).encode()


def _settings(base: Path) -> Iterator[Row]:
    """Every setting of every component with another value, or left out; settings that lead elsewhere."""
    turn = 0
    for file in SETTINGS:
        said = json.loads((base / file).read_text(encoding="utf-8"))
        for key in said:
            if key.startswith("_") or key in ("transformers_version", "torch_dtype", "dtype"):
                continue
            value, turn = WRONG[turn // 3 % len(WRONG)], turn + 1
            if value != said[key] and (turn % 3 == 0 or part_of(file) not in ("unet", "vae")):
                yield _changed(base, f"{file}: {key} is {value!s:.20}", _put(file, _json(base, file, **{key: value})))
        for values in REDIRECTIONS if part_of(file) in ("unet", "text_encoder") else ():
            yield _changed(base, f"{file}: {values}"[:90], _put(file, _json(base, file, **values)))
    for key, value in (
        ("_class_name", "DiffusionPipeline"),
        ("_class_name", None),
        ("unet", ["diffusers", "UNet2DModel"]),
        ("unet", None),
        ("unet", ["evil", "UNet2DConditionModel"]),
        ("text_encoder", ["transformers", "CLIPTextModelWithProjection"]),
        ("text_encoder", [None, None]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
        ("scheduler", ["diffusers", "../../evil"]),
        ("scheduler", ["diffusers", "FlowMatchEulerDiscreteScheduler"]),
        ("vae", "AutoencoderKL"),
        ("vae", ["diffusers", "AutoencoderTiny"]),
    ):
        yield _changed(base, f"{INDEX}: {key} is {value}", _put(INDEX, _json(base, INDEX, **{key: value})), "refused")


def _text(base: Path) -> Iterator[Row]:
    """Files that are no JSON, or JSON that two readers read differently."""
    for file in (*SETTINGS, INDEX):
        whole = (base / file).read_bytes()
        for words, data in {
            "with a repeated key": b'{"a": 1, "a": 2,' + whole.lstrip()[1:],
            "with NaN": b'{"own": NaN,' + whole.lstrip()[1:],
            "cut": whole[: len(whole) // 2],
            "with more behind": whole + b"{}",
            "a text": json.dumps(whole.decode()).encode(),
            "null": b"null",
            "in UTF-32": whole.decode().encode("utf-32"),
            "of bytes": bytes(range(256)),
            "with a lone surrogate": b'{"\\ud800": 1,' + whole.lstrip()[1:],
        }.items():
            expected = (
                "refused"
                if words not in ("with NaN", "with a lone surrogate")
                else "any"
                if file == INDEX
                else "noticed"
            )
            yield _changed(base, f"{file}: {words}", _put(file, data), expected)


def _tokenizers(base: Path) -> Iterator[Row]:
    """Tokens exchanged, added or taken away; normalizers and files of a tokenizer that change what is read."""
    file = "tokenizer/tokenizer.json"
    said = json.loads((base / file).read_text(encoding="utf-8"))
    vocabulary = said["model"]["vocab"]
    first, second, *_ = (token for token in vocabulary if token.endswith("</w>") and len(token) > 6)
    model = said["model"]

    def with_model(**values: Any) -> bytes:
        return _json(base, file, model={**model, **values})

    def replacing(content: str, times: int) -> dict[str, Any]:
        one = {"type": "Replace", "pattern": {"Regex": "(.*)"}, "content": content}
        return {"type": "Sequence", "normalizers": [one] * times}

    added = {"id": 10**6, "content": "x", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    for words, data in {
        "two tokens exchanged": with_model(vocab={**vocabulary, first: vocabulary[second], second: vocabulary[first]}),
        "a token gone": with_model(vocab={token: place for token, place in vocabulary.items() if token != first}),
        "an id beyond": with_model(vocab={**vocabulary, first: 10**6}),
        "a negative id": with_model(vocab={**vocabulary, first: -1}),
        "an id as text": with_model(vocab={**vocabulary, first: "1"}),
        "no merges": with_model(merges=[]),
        "merges the other way": with_model(merges=model["merges"][::-1]),
        "a merge of strangers": with_model(merges=[*model["merges"], ["strange", "er"]]),
        "another model": with_model(type="WordLevel"),
        "an own model": with_model(type="Evil"),
        "an unknown token": with_model(unk_token="strange"),
        "a token added": _json(base, file, added_tokens=[*said["added_tokens"], {**added, "special": False}]),
        "a special token added": _json(base, file, added_tokens=[*said["added_tokens"], {**added, "special": True}]),
        "a normalizer that forgets": _json(
            base, file, normalizer={"type": "Replace", "pattern": {"String": "ada"}, "content": ""}
        ),
        "a normalizer that grows": _json(base, file, normalizer=replacing("\\1\\1\\1\\1" * 4, 3)),
        "a normalizer without end": _json(base, file, normalizer=replacing("x" * 1000, 4)),
        "no normalizer": _json(base, file, normalizer=None),
        "no way to split": _json(base, file, pre_tokenizer=None),
        "a slow pattern": _json(
            base,
            file,
            pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
        ),
        "a template of strangers": _json(
            base, file, post_processor={"type": "BertProcessing", "sep": ["x", 1], "cls": ["y", 2]}
        ),
        "cut at one token": _json(
            base, file, truncation={"max_length": 1, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
        ),
    }.items():
        yield _changed(base, f"tokenizer: {words}", _put(file, data))
    for name, data in {
        "added_tokens.json": b'{"zzz": 5}',
        "special_tokens_map.json": b'{"eos_token": "a"}',
        "vocab.json": b'{"a": 0}',
        "merges.txt": b"#version: 0.2\na b\n",
        "chat_template.jinja": b"{{ 1/0 }}",
    }.items():
        expected = "noticed" if not name.endswith("jinja") else "any"
        yield _changed(base, f"tokenizer: {name} too", _put(f"tokenizer/{name}", data), expected)
    yield _changed(base, "tokenizer: no file at all", lambda model: shutil.rmtree(model / "tokenizer"), "refused")


def _twice(base: Path) -> Iterator[Row]:
    """Weights that are there twice, or in another form beside the one that is read."""
    for part, file in WEIGHTS.items():
        stem = Path(file).name.removesuffix(".safetensors")
        folder = str(Path(file).parent)
        whole = (base / file).read_bytes()
        shards = f"{stem}-00001-of-00002.safetensors"
        index = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(load_file(base / file), shards)}).encode()
        empty = json.dumps({"metadata": {}, "weight_map": {}}).encode()
        for words, beside in {
            "an index of nothing": {f"{stem}.safetensors.index.json": empty},
            "an index and its shard": {f"{stem}.safetensors.index.json": index, shards: whole},
            "an index of itself": {
                f"{stem}.safetensors.index.json": index.replace(shards.encode(), f"{stem}.safetensors".encode())
            },
            "a pickle": {f"{stem}.bin": b"\x80\x04."},
            "another stem": {("model" if stem != "model" else "diffusion_pytorch_model") + ".safetensors": whole},
            "half precision": {f"{stem}.fp16.safetensors": whole},
            "a variant that is not asked for": {f"{stem}.non_ema.safetensors": whole},
            "capitals": {f"{stem.upper()}.safetensors": whole},
            "Flax's": {"flax_model.msgpack": b"\x80"},
            "TensorFlow's": {"tf_model.h5": b"\x89HDF"},
            "quantized": {f"{stem}.gguf": b"GGUF"},
        }.items():

            def add(model: Path, beside: dict[str, bytes] = beside, folder: str = folder) -> None:
                for name, data in beside.items():
                    fresh(model / folder / name).write_bytes(data)

            yield _changed(base, f"{part}: {words} beside", add, "any")
    yield _changed(base, "a whole model in one file beside", _put("model.safetensors", b"\0" * 100), "any")


def _links(base: Path, outside: Path) -> Iterator[Row]:
    """Links, pipes and folders in the place of every file."""
    for file in (*SETTINGS, INDEX, *WEIGHTS.values()):
        for words, change in {
            "a link outside": lambda model, file=file: fresh(model / file).symlink_to(outside / file),
            "a link to nothing": lambda model, file=file: fresh(model / file).symlink_to("nowhere"),
            "a pipe": lambda model, file=file: os.mkfifo(fresh(model / file)),
            "a folder": lambda model, file=file: fresh(model / file).mkdir(),
            "gone": lambda model, file=file: fresh(model / file),
        }.items():
            yield _changed(base, f"{file}: {words}", change, "refused")
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):

        def linked(model: Path, part: str = part) -> None:
            shutil.rmtree(model / part)
            (model / part).symlink_to(outside / part)

        yield _changed(base, f"{part}: a linked folder outside", linked, "refused")
        yield _changed(base, f"{part}: gone", lambda model, part=part: shutil.rmtree(model / part), "refused")
        yield _changed(base, f"{part}: a file", lambda model, part=part: _as_file(model / part), "refused")


def _beside(base: Path) -> Iterator[Row]:
    """Files that nothing loads."""
    for name in ("README.md", "LICENSE", ".gitattributes", "images/a.png", "unet/README.md", "requirements.txt"):
        yield _changed(base, f"beside: {name}", _put(name, b"x"), "same")


def part_of(file: str) -> str:
    """ "unet" of "unet/config.json"."""
    return file.partition("/")[0]


def copy(base: Path, folder: Path) -> Path:
    """A copy whose files share the base's bytes; `fresh` before a file is changed."""
    return Path(shutil.copytree(base, folder / "model", copy_function=linked))


def fresh(path: Path) -> Path:
    """The path with nothing there, so that what is written goes to no other file."""
    path.unlink(missing_ok=True)
    return path


def _as_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"x")
