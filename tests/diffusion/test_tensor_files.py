"""A safetensors file is believed after its header was checked, and written so that the format's own reader agrees."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from resurgence_harness.diffusion.tensor_files import (
    HEADER_LIMIT,
    check_finite,
    check_inside,
    read_header,
    read_json,
    shown,
    write_tensors,
)
from resurgence_harness.errors import UserError

pytestmark = pytest.mark.slow

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def put(path: Path, header: object, data: bytes = b"\0" * 8) -> Path:
    """Write a file with this header, a value or its JSON, and these data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a file may be written."""
    return tmp_path / "model.safetensors"


BROKEN: dict[str, tuple[object, bytes, str]] = {
    "overlap": ({"a": F32, "b": F32}, b"\0" * 8, "overlaps the one before"),
    "gap": ({"a": F32 | {"data_offsets": [4, 12]}}, b"\0" * 12, "leaves a gap"),
    "gap between": ({"a": F32, "b": F32 | {"data_offsets": [12, 20]}}, b"\0" * 20, "leaves a gap"),
    "trailing bytes": ({"a": F32}, b"\0" * 9, "1 bytes after the last tensor"),
    "truncated": ({"a": F32}, b"\0" * 7, "are truncated"),
    "unknown type": ({"a": F32 | {"dtype": "F9"}}, b"\0" * 8, "the type F9"),
    "type that is not judged": ({"a": F32 | {"dtype": "F8_E8M0"}}, b"\0" * 8, "a type that cannot be judged here"),
    "shorter type": ({"a": F32 | {"dtype": "F8_E4M3"}}, b"\0" * 8, "do not fit its shape"),
    "type is a list": ({"a": F32 | {"dtype": ["F32"]}}, b"\0" * 8, "the type"),
    "size mismatch": ({"a": F32 | {"shape": [3]}}, b"\0" * 8, "do not fit its shape"),
    "overflow": ({"a": F32 | {"shape": [1 << 61, 1 << 61]}}, b"\0" * 8, "do not fit its shape"),
    "huge number": (b'{"a":{"dtype":"F32","shape":[1' + b"0" * 5000 + b'],"data_offsets":[0,8]}}', b"", "truncated or"),
    "negative": ({"a": F32 | {"shape": [-2]}}, b"\0" * 8, "whole numbers"),
    "fraction": ({"a": F32 | {"shape": [2.0]}}, b"\0" * 8, "whole numbers"),
    "truth": ({"a": F32 | {"shape": [True, 2]}}, b"\0" * 8, "whole numbers"),
    "reversed": ({"a": F32 | {"data_offsets": [8, 0]}}, b"\0" * 8, "do not fit its shape"),
    "three offsets": ({"a": F32 | {"data_offsets": [0, 8, 8]}}, b"\0" * 8, "3 offsets"),
    "many axes": ({"a": F32 | {"shape": [1] * 9 + [2]}}, b"\0" * 8, "10 axes"),
    "other field": ({"a": F32 | {"code": "x"}}, b"\0" * 8, "is not described by"),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8, "is not described by"),
    "twice": (f'{{"a":{json.dumps(F32)},"a":{json.dumps(F32)}}}'.encode(), b"\0" * 8, "occurs twice"),
    "control character": ({"a\n": F32}, b"\0" * 8, "has the name"),
    "long name": ({"a" * 600: F32}, b"\0" * 8, "has the name"),
    "list": ([1], b"", "not a JSON object"),
    "metadata": ({"__metadata__": {"a": 1}, "a": F32}, b"\0" * 8, "__metadata__"),
    "metadata list": ({"__metadata__": [], "a": F32}, b"\0" * 8, "__metadata__"),
    "deep": (b"[" * 100_000, b"", "nested too deeply"),
    "not UTF-8": (b'{"\xff":1}', b"", "truncated or"),
    "no tensor": ({}, b"", "hold no tensor"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_false_header_is_refused_in_one_sentence(path: Path, kind: str) -> None:
    """Each lie of a header is a UserError that names the file in its first line and ends with a remedy."""
    header, data, words = BROKEN[kind]

    with pytest.raises(UserError) as caught:
        read_header(put(path, header, data))

    first, *_, last = str(caught.value).splitlines()
    assert words in str(caught.value)
    assert str(path) in first and first.endswith(".")
    assert last.strip().split()[0] in {"Give", "Copy", "Convert"}


def test_lengths_are_checked_before_anything_is_read(path: Path) -> None:
    """A header longer than the file, and one longer than the limit, are told from 8 bytes."""
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match="longer than the file"):
        read_header(path)

    with path.open("wb") as stream:
        stream.write((HEADER_LIMIT + 1).to_bytes(8, "little"))
        stream.truncate(HEADER_LIMIT + 100)
    with pytest.raises(UserError, match="at most 10,000,000 are read"):
        read_header(path)


def test_every_truncation_of_a_file_is_noticed(path: Path, tmp_path: Path) -> None:
    """There is no length at which a cut file passes."""
    save_file({"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(2, "f2")}, path)
    data = path.read_bytes()
    cut = tmp_path / "cut.safetensors"

    for length in range(len(data)):
        cut.write_bytes(data[:length])
        with pytest.raises(UserError):
            read_header(cut)

    assert set(read_header(path).entries) == {"a", "b"}


def test_values_are_those_of_the_formats_own_reader(path: Path) -> None:
    """All float types come out widened and equal to what torch reads."""
    import torch
    from safetensors.torch import save_file as save

    numbers = torch.linspace(-3, 3, 12).reshape(3, 4)
    types = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
    save({name: numbers.to(kind) for name, kind in types.items()}, path)
    file = read_header(path)
    check_finite(file)

    for name, kind in types.items():
        assert file.entries[name].dtype == name
        assert np.array_equal(file.values(name), numbers.to(kind).to(torch.float64).numpy())


def test_an_empty_tensor_and_a_scalar_are_allowed(path: Path) -> None:
    """An axis of length 0 takes no bytes; a scalar has no axis."""
    save_file({"none": np.zeros((0, 3), "f4"), "alpha": np.array(4, "f4")}, path)
    file = read_header(path)

    assert file.values("none").shape == (0, 3)
    assert file.values("alpha").item() == 4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_numbers_that_are_not_finite_are_named(path: Path, value: float, dtype: str) -> None:
    """The tensor that holds one is in the sentence."""
    save_file({"fine": np.ones(3, dtype), "odd": np.array([1, value], dtype)}, path)

    with pytest.raises(UserError, match=r"NaN or infinity.\n.*odd"):
        check_finite(read_header(path))


def test_what_is_written_is_read_by_the_formats_own_reader(path: Path) -> None:
    """Names, types, shapes and bytes."""
    arrays = {"b": np.arange(6, dtype="f4").reshape(2, 3), "a": np.arange(3, dtype="i8")}
    described = [("b", "F32", (2, 3)), ("a", "I64", (3,)), ("h", "BF16", (2,))]
    write_tensors(path, described, iter([*arrays.values(), np.array([0x3F80, 0xC000], "u2")]))

    with safe_open(path, "pt") as file:
        assert {name: file.get_tensor(name).tolist() for name in ("a", "b", "h")} == {
            "a": [0, 1, 2],
            "b": [[0, 1, 2], [3, 4, 5]],
            "h": [1, -2],
        }
    assert set(read_header(path).entries) == {"a", "b", "h"}


def test_what_was_not_promised_is_not_written(path: Path) -> None:
    """Another shape or type than described is a ValueError."""
    for wrong in (np.zeros(3, "f4"), np.zeros(2, "f8")):
        with pytest.raises(ValueError, match="not F32"):
            write_tensors(path, [("a", "F32", (2,))], iter([wrong]))


@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "model.pt", "model.PTH", "model.safetensors"])
def test_a_pickle_is_not_opened_and_its_conversion_told(tmp_path: Path, name: str) -> None:
    """By its ending, or by its first bytes; the command quotes the name for the shell."""
    import torch

    path = tmp_path / f"a b {name}"
    torch.save({"a": torch.ones(1)}, path)

    with pytest.raises(UserError, match="is a pickle") as caught:
        read_header(path)

    assert f"'{path}'" in str(caught.value) and "which runs no code in the file" in str(caught.value)


def test_the_conversion_that_is_told_works(tmp_path: Path) -> None:
    """The command, run as it is printed, makes a file that is read."""
    import subprocess
    import sys

    import torch

    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": torch.arange(3.0)}, "epoch": 3}, path)
    with pytest.raises(UserError) as caught:
        read_header(path)
    command = str(caught.value).splitlines()[-1].partition(": python ")[2]

    subprocess.run(f"{sys.executable} {command}", shell=True, cwd=tmp_path, check=True)

    assert load_file(tmp_path / "model.safetensors")["a"].tolist() == [0, 1, 2]


def test_a_pipe_or_a_directory_is_no_file(tmp_path: Path) -> None:
    """Reading a pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()

    with pytest.raises(UserError, match="not a regular file"):
        read_header(tmp_path / "pipe.safetensors")
    with pytest.raises(UserError, match="is a directory"):
        read_header(tmp_path / "folder.safetensors")
    with pytest.raises(UserError, match="There is no file"):
        read_header(tmp_path / "nothing.safetensors")


def test_links_are_followed_within_the_model_and_within_a_hubs_cache(tmp_path: Path) -> None:
    """A snapshot's link into the blobs of its repository is fine; any other link that leaves is not."""
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0f"
    blobs, other = tmp_path / "models--a--b" / "blobs", tmp_path / "models--c--d" / "blobs"
    for folder in (snapshot, blobs, other):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    (snapshot / "good").symlink_to("../../blobs/file")
    (snapshot / "near").symlink_to("file")
    (snapshot / "bad").symlink_to("../../../models--c--d/blobs/file")
    (snapshot / "loop").symlink_to("loop")
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "bad").symlink_to(blobs / "file")

    check_inside(snapshot / "good", snapshot)
    check_inside(snapshot / "near", snapshot)
    for path in (snapshot / "bad", plain / "bad"):
        with pytest.raises(UserError, match="leads outside it"):
            check_inside(path, path.parent)


def test_json_is_an_object_of_a_sane_size(tmp_path: Path) -> None:
    """A list, a deep nest, another encoding and a vanished file each have their sentence."""
    path = tmp_path / "config.json"
    for data, words in (
        (b"[]", "is not a JSON object"),
        (b'{"a":' * 100_000, "nested too deeply"),
        ('{"a": "ä"}'.encode("utf-16"), "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=words):
            read_json(path)
    path.unlink()
    with pytest.raises(UserError, match="There is no file"):
        read_json(path)


def test_names_out_of_files_are_shown_on_one_printable_line() -> None:
    """No line break, no terminal colour, no endless name."""
    assert shown("a\n\x1b[31mb") == "a\\n\\x1b[31mb"
    assert len(shown("a" * 1000)) == 100


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "I64", "BOOL"]) | JSON,
        "shape": st.lists(st.integers(0, 3), max_size=3) | JSON,
        "data_offsets": st.tuples(st.integers(0, 40), st.integers(0, 40)).map(list) | JSON,
    }
)


@given(header=st.dictionaries(st.text(max_size=4), ENTRY | JSON, max_size=4) | JSON, data=st.binary(max_size=60))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_header_says_it_is_true_or_a_user_error(path: Path, header: object, data: bytes) -> None:
    """No other exception for any JSON, and what passes can be read to the last number."""
    try:
        file = read_header(put(path, header, data))
    except UserError:
        return
    assert sum(entry.stop - entry.start for entry in file.entries.values()) == len(data)
    for name, entry in file.entries.items():
        assert file.values(name).shape == entry.shape


@given(data=st.binary(max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_are_anything_but_a_file_or_a_user_error(path: Path, data: bytes) -> None:
    """The same for bytes that are no header at all."""
    path.write_bytes(data)
    with pytest.raises(UserError):
        read_header(path)
