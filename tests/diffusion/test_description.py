"""One description of a model's files: what can change an image is in it, anything else is not, and doubt is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from resurgence_harness.diffusion.architecture import expected
from resurgence_harness.diffusion.base_files import check_base, check_settings
from resurgence_harness.diffusion.description import SETTINGS, WEIGHTS, describe, digest_of_files
from resurgence_harness.diffusion.settings import resolved
from resurgence_harness.diffusion.texts import check_texts
from resurgence_harness.errors import UserError
from resurgence_harness.microworld import weights
from tests.linking import linked

pytestmark = pytest.mark.slow

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
CONFIGS = tuple(f"{part}/{SETTINGS[part][0]}" for part in SETTINGS if part != "tokenizer")
TOKENS, WORDS = "tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json"


@pytest.fixture
def model(v1: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be broken."""
    return Path(shutil.copytree(v1, tmp_path / "model"))


def change(model: Path, file: str, **values: Any) -> None:
    """Set keys of a JSON file of the model."""
    found = json.loads((model / file).read_text(encoding="utf-8"))
    (model / file).write_text(json.dumps(found | values), encoding="utf-8")


def tokens(model: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    """Alter the parsed tokenizer.json."""
    found = json.loads((model / WORDS).read_text(encoding="utf-8"))
    alter(found)
    (model / WORDS).write_text(json.dumps(found), encoding="utf-8")


def separate(model: Path) -> None:
    """The tokenizer as vocab.json and merges.txt beside tokenizer.json."""
    found = json.loads((model / WORDS).read_text(encoding="utf-8"))["model"]
    (model / "tokenizer/vocab.json").write_text(json.dumps(found["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in found["merges"]]
    (model / "tokenizer/merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n")


def index(model: Path, places: dict[str, str], file: str = "diffusion_pytorch_model.safetensors.index.json") -> None:
    """A shard index of the U-Net."""
    (model / "unet" / file).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def shards(model: Path) -> dict[str, str]:
    """The U-Net in two shards, without an index; tensor → shard."""
    found = load_file(model / UNET)
    places = {name: f"diffusion_pytorch_model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(found)}
    for file in set(places.values()):
        save_file({name: found[name] for name in found if places[name] == file}, model / "unet" / file)
    (model / UNET).unlink()
    return places


def test_the_embedded_base_keeps_its_digest() -> None:
    """Shipped acceptances are bound to it."""
    digest = describe(weights.directory()).digest

    assert digest == "58e54d2bd4c8f1430666d6c94adc0812d651cf534d54577c4edfd02cb62bf86e"


def test_every_file_that_can_change_an_image_is_described(model: Path) -> None:
    """And no other."""
    (model / "tokenizer/added_tokens.json").write_text("{}")

    names = set(describe(model).hashes)

    assert names == {*CONFIGS, TOKENS, WORDS, "tokenizer/added_tokens.json", UNET, TEXT, UNET.replace("unet", "vae")}


OTHERS: dict[str, Callable[[Path], object]] = {
    "a README": lambda m: (m / "README.md").write_text("words"),
    "a safety checker": lambda m: (m / "safety_checker").mkdir(),
    "pickled weights beside": lambda m: (m / "unet/diffusion_pytorch_model.bin").write_bytes(b"\x80\x04."),
    "half precision beside": lambda m: shutil.copy(m / UNET, m / "unet/diffusion_pytorch_model.fp16.safetensors"),
    "another variant beside": lambda m: shutil.copy(m / UNET, m / "unet/diffusion_pytorch_model.non_ema.safetensors"),
    "flax beside": lambda m: (m / "text_encoder/flax_model.msgpack").write_bytes(b"x"),
    "a version in the index": lambda m: change(m, "model_index.json", _diffusers_version="0.0.1"),
    "a safety checker in the index": lambda m: change(m, "model_index.json", safety_checker=["x", "Y"]),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_files_change_nothing(model: Path, other: str) -> None:
    """What the libraries do not read is no part of what the model is."""
    before = describe(model).hashes

    OTHERS[other](model)

    assert check_base(model).hashes == before


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_byte_of_a_described_file_counts(v1: Path, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Flip one bit of any file that can change an image: another digest, or a refusal."""
    model = tmp_path_factory.mktemp("flipped") / "model"
    shutil.copytree(v1, model, copy_function=linked)
    whole = describe(v1)
    file = data.draw(st.sampled_from(whole.files))
    content = bytearray((model / file.name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (model / file.name).unlink()
    (model / file.name).write_bytes(content)

    try:
        hashes = check_base(model).hashes
    except UserError:
        return
    finally:
        shutil.rmtree(model)

    assert digest_of_files(hashes) != whole.digest
    assert {name for name, digest in hashes.items() if whole.hashes[name] != digest} == {file.name}


def _half(model: Path) -> None:
    (model / UNET).rename(model / "unet/diffusion_pytorch_model.fp16.safetensors")


AMBIGUOUS: dict[str, Callable[[Path], object]] = {
    "one file and an index": lambda m: index(m, dict.fromkeys(load_file(m / UNET), Path(UNET).name)),
    "one half file and an index": lambda m: (
        _half(m),
        index(m, {"conv_in.bias": "a.safetensors"}, "diffusion_pytorch_model.safetensors.index.fp16.json"),
    ),
    "shards without an index": lambda m: shards(m),
    "shards beside one file": lambda m: shutil.copy(
        m / UNET, m / "unet/diffusion_pytorch_model-00001-of-00002.safetensors"
    ),
    "an index that leaves a shard out": lambda m: index(
        m, {name: file for name, file in shards(m).items() if "00001" in file}
    ),
    "an index that leaves a tensor out": lambda m: index(m, dict(list(shards(m).items())[2:])),
    "an index that exchanges shards": lambda m: index(
        m, dict(zip(found := shards(m), [*list(found.values())[1:], found["conv_in.bias"]], strict=True))
    ),
    "an adapter beside the weights": lambda m: (m / "text_encoder/adapter_config.json").write_text("{}"),
    "another case": lambda m: shutil.copy(m / UNET, m / "unet/Diffusion_PyTorch_Model.safetensors"),
    "another case of a config": lambda m: shutil.copy(m / CONFIGS[0], m / "unet/CONFIG.json"),
    "another case of a component": lambda m: (m / "UNet").mkdir(),
    "a full-width letter": lambda m: shutil.copy(m / WORDS, m / "tokenizer/ｔokenizer.json"),
    "another kind of vocabulary": lambda m: (m / "tokenizer/tokenizer.model").write_bytes(b"x"),
    "two vocabularies": lambda m: (
        separate(m),
        (m / "tokenizer/merges.txt").write_text("#version: 0.2\n"),
    ),
    "a vocabulary of one half": lambda m: (separate(m), (m / "tokenizer/merges.txt").unlink()),
    "a link outside": lambda m: (
        shutil.move(m / CONFIGS[1], m.parent / "config.json"),
        (m / CONFIGS[1]).symlink_to(m.parent / "config.json"),
    ),
    "only an average": lambda m: (m / UNET).rename(m / "unet/diffusion_pytorch_model.ema.safetensors"),
    "code of its own": lambda m: change(m, "model_index.json", unet=["unet.my_code", "UNet2DConditionModel"]),
}


@pytest.mark.parametrize("doubt", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused(model: Path, doubt: str) -> None:
    """One sentence, whatever either library would have taken."""
    AMBIGUOUS[doubt](model)

    with pytest.raises(UserError) as caught:
        check_base(model)

    first, *_, last = str(caught.value).splitlines()
    assert first.endswith(".") and last.startswith("  ")


def test_shards_and_two_spellings_of_one_vocabulary_are_taken(model: Path) -> None:
    """Nothing is in doubt where all agree."""
    index(model, shards(model))
    separate(model)

    assert len(check_base(model).weights("unet")) == 2


@pytest.mark.parametrize("file", [*CONFIGS, TOKENS, WORDS, "model_index.json"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("{", '{"a": 1, "a": 2, ', 1),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("{", '{"a": NaN, ', 1),
        lambda text: text.replace("{", '{"a": 1e999, ', 1),
        lambda text: text.replace("{", '{"a": "\\ud800", ', 1),
        lambda text: "[" + text + "]",
        lambda text: text + " " * 30_000_000,
    ],
    ids=["twice the same name", "a byte order mark", "NaN", "infinity", "no text", "a list", "endless"],
)
def test_json_that_readers_take_differently_is_refused(model: Path, file: str, spoil: Callable[[str], str]) -> None:
    """In every small file of a model."""
    (model / file).write_text(spoil((model / file).read_text(encoding="utf-8")), encoding="utf-8")

    with pytest.raises(UserError):
        check_base(model)


ODD: list[Any] = [None, 0, -1, 10**12, 0.5, "x", [], [None], {}, {"a": 1}, True, [0], ["x"] * 4, [10**9] * 4]


@pytest.mark.parametrize("file", CONFIGS)
def test_any_value_of_any_setting_is_taken_or_refused_in_one_sentence(model: Path, file: str) -> None:
    """And what is taken can be built by the libraries, and is what the weights are."""
    from resurgence_harness.diffusion.loading import load_parts

    part, told = file.partition("/")[0], json.loads((model / file).read_text(encoding="utf-8"))
    taken = []
    for name in told:
        for value in ODD:
            if told[name] == value and type(told[name]) is type(value):
                continue
            (model / file).write_text(json.dumps(told | {name: value}), encoding="utf-8")
            try:
                description = describe(model)
                check_settings(description)
                check_shapes(description, part)
            except UserError as refused:
                assert str(refused).splitlines()[0].endswith("."), (name, value)
            else:
                taken.append({name: value})
    together: dict[str, Any] = {}
    for one in taken:
        together |= one
    (model / file).write_text(json.dumps(told | together), encoding="utf-8")
    if taken:
        load_parts(model)


def check_shapes(description: Any, part: str) -> None:
    """Whether the weights are those that the config speaks of."""
    from resurgence_harness.diffusion.base_files import check_tensors

    if part in WEIGHTS:
        found = resolved(part, description.config(part), part)
        check_tensors(part, description.open_part(part), found, description.directory)


REDIRECTIONS = {
    "transformers_weights": "other.safetensors",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "auto_map": {"AutoModel": "code.Model"},
    "per_layer_config": {"0": {"hidden_act": "relu"}},
    "pruned_heads": {"0": [0]},
    "peft_config": {"default": {}},
    "dtype": "bogus",
    "_attn_implementation": "flash_attention_2",
    "model_type": "clip",
    "sliding_window": 2,
    "hidden_act": "no such",
}


@pytest.mark.parametrize("name", REDIRECTIONS)
def test_a_text_encoder_cannot_be_led_elsewhere(model: Path, name: str) -> None:
    """Keys that redirect transformers, or that it makes attributes without our knowing them, are refused."""
    change(model, "text_encoder/config.json", **{name: REDIRECTIONS[name]})

    with pytest.raises(UserError, match="a setting that no Stable Diffusion has"):
        check_base(model)


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_diffusers_ignores_what_it_does_not_know_and_so_do_we(model: Path, part: str) -> None:
    """Keys that an averaging of weights leaves in a config."""
    change(model, f"{part}/config.json", decay=0.9999, optimization_step=12, use_ema_warmup=False)

    check_base(model)


TOKENIZERS: dict[str, Callable[[Path], object]] = {
    "another model": lambda m: tokens(m, lambda t: t["model"].update(type="WordLevel")),
    "no model": lambda m: tokens(m, lambda t: t.pop("model")),
    "random merges": lambda m: tokens(m, lambda t: t["model"].update(dropout=0.5)),
    "a normalizer that grows": lambda m: tokens(
        m,
        lambda t: t.update(
            normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "x" * 1000}] * 1000}
        ),
    ),
    "a normalizer that replaces": lambda m: tokens(
        m,
        lambda t: t["normalizer"]["normalizers"].append(
            {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}
        ),
    ),
    "no normalizer": lambda m: tokens(m, lambda t: t.update(normalizer=None)),
    "a pattern of its own": lambda m: tokens(
        m, lambda t: t["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": "(a+)+$"})
    ),
    "a template": lambda m: tokens(
        m,
        lambda t: t.update(
            post_processor={"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}
        ),
    ),
    "another end": lambda m: tokens(m, lambda t: t["post_processor"].update(sep=["<|endoftext|>", 1])),
    "padding of a billion": lambda m: tokens(m, lambda t: t.update(padding={"strategy": {"Fixed": 10**9}})),
    "a number twice": lambda m: tokens(m, lambda t: t["model"]["vocab"].update({"a": t["model"]["vocab"]["b"]})),
    "a huge number": lambda m: tokens(m, lambda t: t["model"]["vocab"].update({"a": 2**40})),
    "a merge of nothing": lambda m: tokens(m, lambda t: t["model"]["merges"].append(["zz", "zzz"])),
    "a million added words": lambda m: tokens(
        m, lambda t: t.update(added_tokens=[t["added_tokens"][0] | {"id": 10**6 + n} for n in range(10_000)])
    ),
    "an empty added word": lambda m: tokens(m, lambda t: t["added_tokens"][0].update(content="")),
    "no length": lambda m: change(m, TOKENS, model_max_length="x"),
    "another class": lambda m: change(m, TOKENS, tokenizer_class="T5Tokenizer"),
    "a vocabulary in the settings": lambda m: change(m, TOKENS, vocab={"a": 0}),
    "arguments in the settings": lambda m: change(m, TOKENS, init_inputs=[{"a": 0}]),
    "another file": lambda m: change(m, TOKENS, fast_tokenizer_files=["tokenizer.4.0.0.json"]),
    "padded to the left": lambda m: change(m, TOKENS, padding_side="left"),
    "kept in capitals": lambda m: change(m, TOKENS, do_lower_case=False),
    "code of its own": lambda m: change(m, TOKENS, auto_map={"AutoTokenizer": ["code.T", None]}),
    "a token that is a list": lambda m: change(m, TOKENS, pad_token=["a"]),
    "no settings": lambda m: (m / TOKENS).unlink(),
    "words without a row": lambda m: (m / "tokenizer/added_tokens.json").write_text('{"<x>": 190, "<y>": 191}'),
}


@pytest.mark.parametrize("fault", TOKENIZERS)
def test_a_tokenizer_that_is_not_clips_is_refused(model: Path, fault: str) -> None:
    """Before anything of it is built."""
    TOKENIZERS[fault](model)

    with pytest.raises(UserError):
        check_base(model)
    with pytest.raises(UserError):
        check_texts(model, ["ada quill"])


def test_a_pair_of_files_reads_like_the_one(model: Path) -> None:
    """vocab.json and merges.txt, as Stable Diffusion 1 has them."""
    separate(model)
    (model / WORDS).unlink()

    assert check_texts(model, ["a portrait of ada quill"]) == (0, 24)
    with pytest.raises(UserError, match="cannot represent"):
        check_texts(model, ["ada quill ž"])


SD: dict[str, tuple[str, dict[str, Any], int]] = {
    "the U-Net of SD 1": ("unet", {"cross_attention_dim": 768, "layers_per_block": 2}, 859_520_964),
    "the U-Net of SD 2": (
        "unet",
        {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
        865_910_724,
    ),
    "the text encoder of SD 1": (
        "text_encoder",
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        123_060_480,
    ),
    "the VAE": (
        "vae",
        {
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "layers_per_block": 2,
        },
        83_653_863,
    ),
}


@pytest.mark.parametrize("name", SD)
def test_the_published_models_have_as_many_weights_as_is_known(name: str) -> None:
    """The reckoned tensors, and those that the libraries build, name for name and shape for shape."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    part, config, count = SD[name]
    found = resolved(part, config, name)
    kinds: dict[str, Any] = {"unet": UNet2DConditionModel.from_config, "vae": AutoencoderKL.from_config}
    with torch.device("meta"):
        built = CLIPTextModel(CLIPTextConfig(**found)) if part == "text_encoder" else kinds[part](found)

    shapes = expected(part, found)

    assert shapes == {name: tuple(value.shape) for name, value in built.state_dict().items()}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == count
