"""What a fuzzer calls with any bytes: each reader either gives a value that keeps its promises, or one sentence.

    header(data)     diffusion.tensor_files.read_header, and every tensor that it promises
    entries(data)    the same, data being the header's JSON alone: its length and the numbers are put around it
    policy(data)     gate.release_policy.load_policy and resolve, beside a list of names
    directory(data)  diffusion.base_files.check_base and texts.check_texts, one settings file of a model being this
    lora(data)       diffusion.formats.recognise and its changes of a small base, by a header and an adapter_config.json

Anything else than a UserError in the house's shape is a finding. What the header's reader accepts, the reference reader
must accept too: two readers that disagree about a file judge one model and publish another.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from resurgence_harness.diffusion.base_files import check_base, digest_of
from resurgence_harness.diffusion.formats import Source
from resurgence_harness.diffusion.formats.recognising import recognise
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.tensor_files import DTYPES, check_finite, read_header
from resurgence_harness.diffusion.texts import check_texts
from resurgence_harness.errors import UserError
from resurgence_harness.gate.release_policy import PolicyFile, load_policy, resolve
from resurgence_harness.limits.limits_file import PolicyEntry
from resurgence_harness.tasks import TASKS


def header(data: bytes) -> bool:
    """Read a safetensors file; True where it is accepted."""
    from safetensors import SafetensorError, deserialize

    path = _folder() / "model.safetensors"
    path.write_bytes(data)
    try:
        file = read_header(path)
    except UserError as error:
        _check_sentence(error)
        return False
    try:
        theirs = dict(deserialize(data))
    except SafetensorError as error:
        raise AssertionError(f"the reference reader refuses what was accepted: {error}") from error
    assert theirs.keys() == file.entries.keys()
    for name, entry in file.entries.items():
        assert list(entry.shape) == theirs[name]["shape"] and entry.dtype == theirs[name]["dtype"], name
        assert file.raw(name).tobytes() == bytes(theirs[name]["data"]), name
        assert file.values(name).shape == entry.shape, name
    try:
        check_finite(file)
    except UserError as error:
        _check_sentence(error)
    return True


def entries(data: bytes) -> bool:
    """Read a file whose header is this JSON, with as many numbers behind it as the header says, up to `MOST`."""
    said = [int(number) for number in re.findall(rb"\d{1,8}(?=\s*\])", data)]
    return header(len(data).to_bytes(8, "little") + data + bytes(min(max(said, default=0), MOST)))


def policy(data: bytes) -> bool:
    """Read a policy and its lists; True where it is accepted."""
    folder = _folder()
    (folder / "erased.txt").write_text("Alba Drummond\n", encoding="utf-8")
    path = folder / "policy.yaml"
    path.write_bytes(data)
    try:
        file, beside = load_policy(path)
        found = resolve(file, beside, tasks=TASKS, path=str(path))
    except UserError as error:
        _check_sentence(error)
        return False
    assert found.erased and found.retained and len(found.digest) == 64
    assert sum(len(group.concepts) for group in found.groups) == len(found.erased)
    for group in found.groups:
        limits = group.policy
        assert group.concepts and 0 < limits.alpha < 0.5 and 0 <= limits.level <= 1 and 0 <= limits.delta <= 1
        assert found.prompts(group.concepts)
    assert found.retained_prompts()
    return True


def directory(data: bytes) -> bool:
    """Check a whole model in which the first byte chooses a file of settings, and the others are what stands in it."""
    model, whole, own = _model()
    file = SETTINGS[data[0] % len(SETTINGS)] if data else SETTINGS[0]
    (model / file).write_bytes(data[1:])
    try:
        check_base(model)
        check_texts(model, ("a portrait of ada quill",))
        decides = file != "model_index.json" and data[1:] != whole[file]
        assert not decides or digest_of(model) != own, f"{file} was changed, and the model is called the same"
    except UserError as error:
        _check_sentence(error)
        return False
    finally:
        (model / file).write_bytes(whole[file])
    return True


def lora(data: bytes) -> bool:
    """Read the header of a LoRA, before `BESIDE`, and its adapter_config.json, behind it; change a small base by it."""
    model, _, _ = _model()
    folder = _folder() / "lora"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    head, _, beside = data.partition(BESIDE)
    said = [int(number) for number in re.findall(rb"\d{1,8}(?=\s*\])", head)]
    numbers = b"\x3c" * min(max(said, default=0), MOST)
    (folder / "pytorch_lora_weights.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + numbers)
    if beside:
        (folder / "adapter_config.json").write_bytes(beside)
    try:
        found = recognise(Source(path=folder))
        assert not isinstance(found, Path), "a LoRA is called a whole model"
        parent = ModelFiles(model)
        changes = found.changes(parent)
        assert changes, "a LoRA that changes nothing was accepted"
        for name, edit in changes.items():
            before = parent[name].values()
            with np.errstate(all="ignore"):
                after = edit.apply(np.asarray(before, np.float32))
            assert after.shape[1:] == before.shape[1:] and len(after) == len(before) + edit.rows, name
    except UserError as error:
        _check_sentence(error)
        return False
    return True


@cache
def _model() -> tuple[Path, dict[str, bytes], str]:
    """A whole model, its settings and its digest."""
    from tests.tiny import save_tiny_stable_diffusion

    model = save_tiny_stable_diffusion(_folder() / "model")
    return model, {file: (model / file).read_bytes() for file in SETTINGS}, digest_of(model)


TARGETS: Mapping[str, Callable[[bytes], bool]] = {
    "header": header,
    "entries": entries,
    "policy": policy,
    "directory": directory,
    "lora": lora,
}
SETTINGS = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/tokenizer.json",
)
"""The files of a model of which one is changed."""
BESIDE = b"\0\0beside\0\0"
"""What parts a LoRA's header from its adapter_config.json."""
MOST = 1 << 16
"""Bytes of numbers behind a header."""
WORDS: Mapping[str, tuple[str, ...]] = {
    "header": ("__metadata__", "dtype", "shape", "data_offsets", '":{"', '":[0,', '],"', *DTYPES),
    "policy": (
        *PolicyFile.model_fields,
        *PolicyEntry.model_fields,
        "erased",
        "retained",
        "Alba Drummond",
        ".nan",
        "!!",
    ),
    "directory": (
        "_class_name",
        "prediction_type",
        "v_prediction",
        "normalizer",
        "Replace",
        "pattern",
        "vocab",
        "null",
        "[]",
    ),
    "lora": ("__metadata__", "lora_adapter_metadata", "alpha_pattern", "rank_pattern", "lora_alpha", "r", "use_rslora"),
}
"""What a fuzzer should put in."""
LONGEST: Mapping[str, int] = {"directory": 32_768}
"""Bytes of an input, 4,096 for the other targets: what goes wrong with long ones goes wrong with short ones, sooner."""


def seeds(target: str, folder: Path) -> Iterator[bytes]:
    """Inputs to begin with: the hostile corpora of the tests, and one that is accepted. `folder` is written to."""
    from tests.gate import generated_models, hostile, hostile_policies
    from tests.tiny import save_tiny_stable_diffusion

    outside = folder / "outside"
    outside.write_bytes(b"")
    if target == "directory":
        _, whole, _ = _model()
        yield from (bytes([place]) + whole[file] for place, file in enumerate(SETTINGS))
        yield from (
            bytes([place]) + text for place in range(len(SETTINGS)) for text in (b"", b"{}", b"[]", b"null", b"{")
        )
        rows, settings = generated_models.directories(_model()[0], outside), range(len(SETTINGS))
        for number, row in enumerate(rows):
            made = row.make(_empty(folder / str(number)))
            for place in settings:
                file = made / SETTINGS[place]
                if file.is_file() and file.read_bytes() != whole[SETTINGS[place]]:
                    yield bytes([place]) + file.read_bytes()
        return
    if target == "lora":
        for number, row in enumerate(one for one in generated_models.files(_model()[0]) if "LoRA" in one.name):
            made = row.make(_empty(folder / str(number)))
            file = made / "pytorch_lora_weights.safetensors" if made.is_dir() else made
            beside = made / "adapter_config.json"
            data = file.read_bytes()
            head = data[8 : 8 + int.from_bytes(data[:8], "little")]
            yield head + (BESIDE + beside.read_bytes() if made.is_dir() else b"")
        return
    if target == "policy":
        yield hostile_policies.GOOD.encode()
        yield (Path(hostile.__file__).parents[2] / "resurgence_harness/gate/policy-template.yaml").read_bytes()
        cases, name = hostile_policies.corpus(outside), "policy.yaml"
    else:
        import numpy as np
        from safetensors.numpy import save

        good = save({"a": np.zeros(2, "float32"), "b": np.ones((1, 3), "float16")}, {"format": "pt"})
        yield good[8:-14] if target == "entries" else good
        cases, name = hostile.corpus(save_tiny_stable_diffusion(folder / "base"), folder / "marker", outside), ""
    for number, case in enumerate(cases):
        place = folder / str(number)
        place.mkdir()
        made = case.make(place)
        file = place / name if name else made
        if isinstance(file, Path) and file.is_file() and not file.is_symlink():
            data = file.read_bytes()
            yield data[8 : 8 + int.from_bytes(data[:8], "little")] if target == "entries" else data


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


@cache
def _own() -> tempfile.TemporaryDirectory[str]:
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="resurgence-fuzz-", dir=memory if memory.is_dir() else None)


def _folder() -> Path:
    """A folder for this process, in memory where there is such a place; gone when the process ends."""
    return Path(_own().name)


def _check_sentence(error: UserError) -> None:
    """The first line is a sentence, the last says what to do, nothing in it moves a terminal's cursor."""
    text = str(error)
    first, *others = text.splitlines()
    assert first.endswith("."), text
    assert others and others[-1].startswith("  "), text
    assert text.replace("\n", "").isprintable(), repr(text)
    assert max(map(len, text.splitlines())) <= 1000, text
