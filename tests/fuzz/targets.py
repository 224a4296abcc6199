"""What a fuzzer calls with any bytes: each reader either gives a value that keeps its promises, or one sentence.

    header(data)     diffusion.tensor_files.read_header, and every tensor that it promises
    entries(data)    the same, data being the header's JSON alone: its length and the numbers are put around it
    policy(data)     gate.release_policy.load_policy and resolve, beside a list of names

Anything else than a UserError in the house's shape is a finding. What the header's reader accepts, the reference reader
must accept too: two readers that disagree about a file judge one model and publish another.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

from resurgence_harness.diffusion.tensor_files import DTYPES, check_finite, read_header
from resurgence_harness.errors import UserError
from resurgence_harness.gate.policy import PolicyEntry
from resurgence_harness.gate.release_policy import PolicyFile, load_policy, resolve
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


TARGETS: Mapping[str, Callable[[bytes], bool]] = {"header": header, "entries": entries, "policy": policy}
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
}
"""What a fuzzer should put in."""


def seeds(target: str, folder: Path) -> Iterator[bytes]:
    """Inputs to begin with: the hostile corpora of the tests, and one that is accepted. `folder` is written to."""
    from tests.gate import hostile, hostile_policies
    from tests.tiny import save_tiny_stable_diffusion

    outside = folder / "outside"
    outside.write_bytes(b"")
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
