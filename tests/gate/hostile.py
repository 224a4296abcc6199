"""A corpus of hostile and broken model files, generated: each must be one sentence, and nothing else may happen.

    for case in corpus(base, folder): case.make() → the arguments of formats.materialise

Truncations, flipped bits, NaN and infinity, missing and additional tensors, wrong types and shapes, pickle bombs under
every name, header bombs, paths out of shard indexes, wrong encodings, links that lead outside, pipes, empty files and
directories in the place of files. The bombs write a marker file when they are unpickled.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.linking import linked
from tests.tiny import save_tiny_stable_diffusion_xl

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


class Bomb:
    """Writes a marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One hostile candidate."""

    name: str
    make: Callable[[Path], Path]
    """make(folder): write it into an empty folder; the path that a person would give."""


def corpus(base: Path, marker: Path, outside: Path) -> list[Case]:
    """Every case. `base` is a whole model to be broken, `marker` what a bomb writes, `outside` a file to lead to."""
    cases = [
        *_headers(),
        *_bytes(base),
        *_pickles(base, marker),
        *_directories(base, outside),
        *_loras(),
        *_numbers(base),
        *_two_encoders(),
    ]
    assert len({case.name for case in cases}) == len(cases)
    return cases


def _one(name: str, data: bytes, file: str = "model.safetensors") -> Case:
    def make(folder: Path) -> Path:
        (folder / file).write_bytes(data)
        return folder / file

    return Case(name=name, make=make)


def _header(name: str, header: Any, data: bytes = b"\0" * 8) -> Case:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return _one(f"header: {name}", len(text).to_bytes(8, "little") + text + data)


def _headers() -> Iterator[Case]:
    """Headers that lie, and bombs in them."""
    for length in (1, 100, 1 << 20, 1 << 31, 1 << 32, 1 << 62, (1 << 64) - 1):
        yield _one(f"header length {length}", length.to_bytes(8, "little"))
    for opening, words in ((b"[", "lists"), (b'{"a":', "objects"), (b'{"a":{"shape":' + b"[" * 5000, "shapes")):
        yield _header(f"deep {words}", opening * 200_000 if len(opening) < 9 else opening)
    yield _header(
        "many entries", {str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 4]} for n in range(50_000)}
    )
    yield _header("many names twice", b"{" + b",".join(b'"a":1' for _ in range(500_000)) + b"}")
    for shape in (
        [1 << 40],
        [1 << 61, 8],
        [1 << 31] * 4,
        [10**18] * 8,
        [2] * 64,
        [-1, -2],
        [0],
        [2.0],
        ["2"],
        None,
        "2",
    ):
        yield _header(f"shape {str(shape)[:40]}", {"a": F32 | {"shape": shape}})
    yield _header("shape of 4,000 digits", b'{"a":{"dtype":"F32","shape":[' + b"9" * 4000 + b'],"data_offsets":[0,8]}}')
    yield _header("shape of 5,000 digits", b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}')
    for offsets in ([8, 0], [-8, 0], [0, 1 << 62], [0], [0, 4, 8], [0.0, 8.0], [1, 9], None, "08", [True, 8]):
        yield _header(f"offsets {offsets}", {"a": F32 | {"data_offsets": offsets}})
    for dtype in ("F8_E4M3", "F4", "float32", "", None, 4, ["F32"], {"a": 1}, "O"):
        yield _header(f"type {dtype}", {"a": F32 | {"dtype": dtype}})
    yield _header("overlap", {"a": F32, "b": F32})
    yield _header("gap", {"a": F32, "b": F32 | {"data_offsets": [16, 24]}}, b"\0" * 24)
    yield _header("trailing bytes", {"a": F32}, b"\0" * 800)
    for value in (None, [], "a", 1, {}, {"a": None}, {"a": []}, {"a": {}}, {"__metadata__": {"a": 1}, "a": F32}):
        yield _header(f"JSON {str(value)[:40]}", value)
    for name in (
        "../../etc/passwd",
        "/etc/passwd",
        "a\0b",
        "\x1b[31mred",
        "<script>alert(1)</script>",
        "$(touch x)",
        "a" * 5000,
    ):
        yield _header(
            f"name {name[:20]!r}",
            {name: F32 | {"shape": [2, 1]}, f"{name}2": F32 | {"data_offsets": [8, 16]}},
            b"\0" * 16,
        )
    for words, data in (
        ("UTF-16", json.dumps({"a": F32}).encode("utf-16")),
        ("Latin-1", b'{"\xe4":' + json.dumps(F32).encode() + b"}"),
        ("a byte order mark", b"\xef\xbb\xbf" + json.dumps({"a": F32}).encode()),
        ("NaN for an offset", b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,NaN]}}'),
        ("unfinished", b'{"a":{"dtype":"F32"'),
        ("twice the same name", b'{"a":%s,"a":%s}' % ((json.dumps(F32).encode(),) * 2)),
    ):
        yield _header(words, data)


def _bytes(base: Path) -> Iterator[Case]:
    """A real file cut at many places, and with bits of its header flipped; other kinds of file altogether."""
    whole = (base / TEXT).read_bytes()
    length = int.from_bytes(whole[:8], "little")
    for place in (0, 1, 7, 8, 9, 100, length, length + 7, length + 8, length + 9, len(whole) // 2, len(whole) - 1):
        yield _one(f"cut at {place}", whole[:place])
    draw = random.Random(0)
    for number in range(12):  # in the length and in the structure of the first entries
        place, bit = (number % 3, 0) if number < 3 else (8 + draw.randrange(60), draw.randrange(7))
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        yield _one(f"bit {bit} of byte {place} flipped ({number})", bytes(flipped))
    yield _one("git-lfs pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    yield _one("HTML", b"<!doctype html><html><body>404</body></html>")
    yield _one("zeros", b"\0" * 4096)
    yield _one("text", "Ünïcödé".encode("utf-16"))


def _pickles(base: Path, marker: Path) -> Iterator[Case]:
    """Bombs under every name, bare and in torch's zip."""
    for protocol in (0, 2, 4, 5):
        data = pickle.dumps(Bomb(marker), protocol=protocol)
        for ending in ("safetensors", "ckpt", "bin", "pt", "pth", "pkl"):
            yield _one(f"pickle {protocol} as {ending}", data, f"model.{ending}")

    def zipped(file: str) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            with zipfile.ZipFile(folder / file, "w") as archive:
                archive.writestr("archive/data.pkl", pickle.dumps(Bomb(marker)))
                archive.writestr("archive/version", "3\n")
                archive.writestr("../../../outside", "x")
            return folder / file

        return make

    for ending in ("safetensors", "ckpt", "bin"):
        yield Case(name=f"zipped pickle as {ending}", make=zipped(f"model.{ending}"))

    def instead(file: str) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            model = _copy(base, folder)
            path = model / file
            path.unlink()
            path.with_suffix(".bin").write_bytes(pickle.dumps(Bomb(marker)))
            return model

        return make

    yield Case(name="directory with a pickled U-Net", make=instead(UNET))
    yield Case(name="directory with a pickled text encoder", make=instead(TEXT))

    def only(folder: Path) -> Path:
        (folder / "pytorch_lora_weights.bin").write_bytes(pickle.dumps(Bomb(marker)))
        return folder

    yield Case(name="directory with a pickled LoRA", make=only)


def _directories(base: Path, outside: Path) -> Iterator[Case]:
    """Whole models with one thing wrong."""

    def broken(name: str, change: Callable[[Path], object]) -> Case:
        def make(folder: Path) -> Path:
            model = _copy(base, folder)
            change(model)
            return model

        return Case(name=f"directory: {name}", make=make)

    def put(file: str, data: bytes) -> Callable[[Path], object]:
        return lambda model: _fresh(model / file).write_bytes(data)

    def setting(file: str, **values: Any) -> Callable[[Path], object]:
        def change(model: Path) -> None:
            found = json.loads((model / file).read_text())
            _fresh(model / file).write_text(json.dumps(found | values))

        return change

    def shards(places: Any) -> Callable[[Path], object]:
        index = "unet/diffusion_pytorch_model.safetensors.index.json"
        return lambda model: (model / index).write_text(json.dumps({"weight_map": places}))

    def link(file: str, target: str | Path) -> Callable[[Path], object]:
        return lambda model: _fresh(model / file).symlink_to(target)

    def folder_at(file: str) -> Callable[[Path], object]:
        return lambda model: _fresh(model / file).mkdir()

    def pipe_at(file: str) -> Callable[[Path], object]:
        return lambda model: os.mkfifo(_fresh(model / file))

    for file in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"):
        yield broken(f"no {file}", lambda model, file=file: (model / file).unlink())
        yield broken(f"{file} empty", put(file, b""))
        yield broken(f"{file} deep", put(file, b'{"a":' * 100_000))
        yield broken(f"{file} in UTF-16", put(file, '{"a": 1}'.encode("utf-16")))
        yield broken(f"{file} a list", put(file, b"[]"))
        yield broken(f"{file} a directory", folder_at(file))
        yield broken(f"{file} a link outside", link(file, outside))
    for file in (UNET, TEXT):
        yield broken(f"{file} vanished", lambda model, file=file: (model / file).unlink())
        yield broken(f"{file} empty", put(file, b""))
        yield broken(f"{file} a directory", folder_at(file))
        yield broken(f"{file} a pipe", pipe_at(file))
        yield broken(f"{file} a link outside", link(file, outside))
        yield broken(f"{file} a link to a device", link(file, "/dev/zero"))
        yield broken(f"{file} a link to itself", link(file, Path(file).name))
        yield broken(f"{file} a broken link", link(file, "nowhere"))
    for name in (
        "../../x.safetensors",
        "/etc/passwd",
        "..",
        "",
        "a/b.safetensors",
        "a\0.safetensors",
        "x.bin",
        "config.json",
    ):
        yield broken(f"shard {name!r}", shards({"conv_in.weight": name}))
    for places in (None, [], {}, "x", {"conv_in.weight": 1}, {"conv_in.weight": ["a"]}, {"conv_in.weight": None}):
        yield broken(f"shards {places}", shards(places))
    yield broken("class of SDXL", setting("model_index.json", _class_name="StableDiffusionXLPipeline"))
    yield broken("class a list", setting("model_index.json", _class_name=["StableDiffusionPipeline"]))
    yield broken("U-Net of its own code", setting("model_index.json", unet=["unet.my_code", "MyUNet"]))
    yield broken("U-Net a text", setting("model_index.json", unet="UNet2DConditionModel"))
    for value in ("sample", None, 3, {}):
        yield broken(f"prediction {value}", setting("scheduler/scheduler_config.json", prediction_type=value))
    yield broken("a billion channels", setting("unet/config.json", block_out_channels=[10**9] * 4))
    yield broken("a million layers", setting("text_encoder/config.json", num_hidden_layers=10**6))
    yield broken("a thousand blocks", setting("unet/config.json", down_block_types=["DownBlock2D"] * 1000))
    yield broken("a trillion words", setting("text_encoder/config.json", vocab_size=10**12))

    def tensors(file: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
        def rewrite(model: Path) -> None:
            found = load_file(model / file)
            change(found)
            save_file(found, _fresh(model / file))

        return rewrite

    yield broken("missing tensor", tensors(UNET, lambda found: found.pop("conv_in.bias")))
    yield broken("additional tensor", tensors(UNET, lambda found: found.update(x=np.ones(3, "f4"))))
    yield broken("other shape", tensors(UNET, lambda found: found.update({"conv_in.bias": np.ones(3, "f4")})))
    yield broken("one axis more", tensors(UNET, lambda found: found.update({"conv_in.bias": np.ones((2, 16), "f4")})))
    yield broken("whole numbers", tensors(UNET, lambda found: found.update({"conv_in.bias": np.ones(32, "i4")})))
    yield broken("all empty", tensors(UNET, lambda found: found.update({n: np.zeros(0, "f4") for n in found})))


def _two_encoders() -> Iterator[Case]:
    """Stable Diffusion XL, broken, or in the place of the base's family."""
    second = "text_encoder_2/model.safetensors"

    def broken(name: str, change: Callable[[Path], object]) -> Case:
        def make(folder: Path) -> Path:
            model = save_tiny_stable_diffusion_xl(folder / "model")
            change(model)
            return model

        return Case(name=f"XL directory: {name}", make=make)

    def setting(file: str, **values: Any) -> Callable[[Path], object]:
        def change(model: Path) -> None:
            found = json.loads((model / file).read_text(encoding="utf-8"))
            _fresh(model / file).write_text(json.dumps(found | values), encoding="utf-8")

        return change

    def gone(file: str) -> Callable[[Path], object]:
        return lambda model: (model / file).unlink()

    def copied(file: str, to: str) -> Callable[[Path], object]:
        return lambda model: shutil.copyfile(model / file, _fresh(model / to))

    def one(name: str, tensors: dict[str, np.ndarray]) -> Case:
        def make(folder: Path) -> Path:
            save_file(tensors, folder / "file.safetensors")
            return folder / "file.safetensors"

        return Case(name=f"XL: {name}", make=make)

    yield broken("no second text encoder", lambda model: shutil.rmtree(model / "text_encoder_2"))
    yield broken("its weights vanished", gone(second))
    yield broken("the first encoder's weights in its place", copied("text_encoder/model.safetensors", second))
    yield broken("its tokenizer vanished", gone("tokenizer_2/tokenizer.json"))
    yield broken("no such class", setting("model_index.json", text_encoder_2=["transformers", "T5EncoderModel"]))
    yield broken("zeros that are no boolean", setting("model_index.json", force_zeros_for_empty_prompt=[True]))
    yield broken("pooled text of another width", setting("text_encoder_2/config.json", projection_dim=1280))
    yield broken("no pooled text", setting("text_encoder_2/config.json", projection_dim=None))
    yield broken("sizes of another width", setting("unet/config.json", addition_time_embed_dim=256))
    yield broken("another embedding of conditions", setting("unet/config.json", addition_embed_type="image"))
    yield broken("a billion layers", setting("unet/config.json", transformer_layers_per_block=[1, 2, 10**9]))
    yield broken("as many layers as levels and one", setting("unet/config.json", transformer_layers_per_block=[1, 1]))
    yield broken("a VAE of SD", setting("vae/config.json", scaling_factor=0.18215))
    yield broken("a VAE of sixteen channels", setting("vae/config.json", latent_channels=16))
    yield broken("the index of SD", setting("model_index.json", _class_name="StableDiffusionPipeline"))
    yield broken("the whole, whose base is SD", lambda model: None)
    ones = np.ones((2, 2), "f4")
    yield one("a LoRA of the second text encoder", {"lora_te2_text_projection.lora_down.weight": ones})
    yield one("a refiner", {"conditioner.embedders.0.model.ln_final.weight": ones})
    yield one("a single file", {"conditioner.embedders.1.model.ln_final.weight": ones})
    yield one("an embedding", {"clip_g": ones, "clip_l": ones})


def _loras() -> Iterator[Case]:
    """LoRAs that fit nothing."""

    def lora(name: str, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> Case:
        def make(folder: Path) -> Path:
            save_file(tensors, folder / "lora.safetensors", metadata)
            return folder / "lora.safetensors"

        return Case(name=f"LoRA: {name}", make=make)

    def pair(layer: str, down: tuple[int, ...], up: tuple[int, ...]) -> dict[str, np.ndarray]:
        return {f"{layer}.lora_A.weight": np.ones(down, "f4"), f"{layer}.lora_B.weight": np.ones(up, "f4")}

    yield lora("no such layer", pair("unet.nowhere", (2, 48), (48, 2)))
    yield lora("the VAE", pair("vae.decoder.conv_in", (2, 48), (48, 2)))
    yield lora("rank 0", pair(LAYER, (0, 48), (48, 0)))
    yield lora("scalars", pair(LAYER, (), ()))
    yield lora("two ranks", pair(LAYER, (2, 48), (48, 3)))
    yield lora("another width", pair(LAYER, (2, 768), (48, 2)))
    yield lora("three axes", pair(LAYER, (2, 48, 48), (48, 2)))
    yield lora("one half", {f"{LAYER}.lora_A.weight": np.ones((2, 48), "f4")})
    yield lora("huge numbers", {n: v * np.float32(1e38) for n, v in pair(LAYER, (2, 48), (48, 2)).items()})
    yield lora("alpha of two numbers", pair(LAYER, (2, 48), (48, 2)) | {f"{LAYER}.alpha": np.ones(2, "f4")})
    yield lora("alpha NaN", pair(LAYER, (2, 48), (48, 2)) | {f"{LAYER}.alpha": np.array(np.nan, "f4")})
    for noted in ("{", "[]", '{"unet.lora_alpha": "8"}', '{"unet.lora_alpha": 1e99}', '{"unet.use_dora": true}'):
        yield lora(f"metadata {noted}", pair(LAYER, (2, 48), (48, 2)), {"lora_adapter_metadata": noted})
    for name, value in (
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", ["pissa"]),
        ("r", 3),
        ("r", 0),
        ("lora_alpha", 0),
        ("lora_alpha", True),
        ("modules_to_save", ["conv_out"]),
        ("a_later_setting", {}),
        ("rank_pattern", {"to_q": 3}),
        ("alpha_pattern", {".*.*.*.*.*x": 2}),
        ("alpha_pattern", {f"{'a' * 200}{n}": 2 for n in range(3000)}),
    ):
        noted = json.dumps({"unet.r": 2, "unet.lora_alpha": 2, f"unet.{name}": value})
        yield lora(f"{name} {str(value)[:40]}", pair(LAYER, (2, 48), (48, 2)), {"lora_adapter_metadata": noted})
    for name, value in (
        ("ss_base_model_version", "sd_v2_v"),
        ("modelspec.prediction_type", "v"),
        ("prediction_type", "\u202esample\n"),
        ("ss_network_dim", "3"),
        ("ss_network_alpha", "7"),
        ("ss_network_module", "networks.other"),
        ("ss_zero_terminal_snr", "True"),
    ):
        yield lora(f"note {name} {value!r}", pair(LAYER, (2, 48), (48, 2)), {name: value})
    yield lora("lengths that fit nothing", pair(LAYER, (2, 48), (48, 2)) | {f"{LAYER}.dora_scale": np.ones(3, "f4")})
    yield lora("lengths of 0", pair(LAYER, (2, 48), (48, 2)) | {f"{LAYER}.dora_scale": np.ones((0, 1), "f4")})
    evil = json.dumps({"unet.alpha_pattern": {"(a+)+$": 2}})
    yield lora("metadata with an endless pattern", pair(LAYER, (2, 48), (48, 2)), {"lora_adapter_metadata": evil})
    yield lora("metadata nested deeply", pair(LAYER, (2, 48), (48, 2)), {"lora_adapter_metadata": "[" * 100_000})


def _numbers(base: Path) -> Iterator[Case]:
    """Weights that are not numbers."""
    for value in (np.nan, np.inf, -np.inf):
        for dtype in ("f2", "f4", "f8"):

            def make(folder: Path, value: float = value, dtype: str = dtype) -> Path:
                found = {name: array.astype(dtype) for name, array in load_file(base / TEXT).items()}
                found["final_layer_norm.bias"][-1] = value
                save_file(found, folder / "text.safetensors")
                return folder / "text.safetensors"

            yield Case(name=f"{value} in {dtype}", make=make)

    def texts(name: str, change: Callable[[dict[str, Any]], object]) -> Case:
        def make(folder: Path) -> Path:
            found = load_file(base / TEXT)
            change(found)
            save_file(found, folder / "text.safetensors")
            return folder / "text.safetensors"

        return Case(name=f"text encoder: {name}", make=make)

    bias = "final_layer_norm.bias"
    yield texts("finite in float64 alone", lambda found: found.update({bias: np.full(32, 1e300)}))
    yield texts("one weight under two names", lambda found: found.update({f"text_model.{bias}": np.ones(32, "f4")}))
    yield texts("places that do not count", lambda found: found.update(position_ids=np.ones(24, "f4")))
    yield texts("whole numbers", lambda found: found.update({bias: np.ones(32, "i1")}))
    yield texts("averaged", lambda found: found.update({"model_ema.a": np.ones(3, "f4")}))

    def embedding(name: str, word: str, array: np.ndarray) -> Case:
        def make(folder: Path) -> Path:
            save_file({word: array}, folder / "word.safetensors")
            return folder / "word.safetensors"

        return Case(name=f"embedding: {name}", make=make)

    yield embedding("another width", "<x>", np.ones(7, "f4"))
    yield embedding("endless word", "x" * 500, np.ones(32, "f4"))
    yield embedding("no vector", "<x>", np.ones((0, 32), "f4"))
    yield embedding("NaN", "<x>", np.full(32, np.nan, "f4"))
    yield embedding("spaces", "a b", np.ones(32, "f4"))


def _copy(base: Path, folder: Path) -> Path:
    """A copy whose files share the base's bytes; `_fresh` before a file is changed."""
    return Path(shutil.copytree(base, folder / "model", copy_function=linked))


def _fresh(path: Path) -> Path:
    """The path with nothing there, so that what is written goes to no other file."""
    path.unlink(missing_ok=True)
    return path
