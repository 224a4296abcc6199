"""Weights that people give: missing, changed, pickled and damaged ones are one sentence each."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from resurgence_harness.errors import UserError
from resurgence_harness.judging import Weights
from resurgence_harness.judging.weights import VARIABLE, convert, digest_of, is_pickle
from resurgence_harness.storing import key

pytestmark = pytest.mark.slow


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of weights with one good file."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    save_file({"a": torch.arange(6.0)}, tmp_path / "good.safetensors")
    return tmp_path


def test_a_missing_file_says_which_one_which_sha256_and_where_to_put_it(given: Path) -> None:
    """Everything a person needs, in one message."""
    wanted = Weights(file="gone.safetensors", sha256="ab" * 32, source="somewhere", licence="MIT")
    with pytest.raises(UserError) as caught:
        wanted.tensors()
    first, *facts = str(caught.value).splitlines()

    assert first == "The weights gone.safetensors are missing."
    for part in (str(given / "gone.safetensors"), "ab" * 32, "somewhere", "MIT", VARIABLE):
        assert part in "\n".join(facts)


def test_the_digest_is_the_pin_without_a_look_at_the_file(given: Path) -> None:
    """A warm run needs no weights."""
    assert Weights(file="gone.safetensors", sha256="ab" * 32).digest == "ab" * 32


def test_without_a_pin_the_digest_is_that_of_the_file(given: Path) -> None:
    """Whatever people put there is recorded; a changed file has another digest."""
    path = given / "good.safetensors"
    before = Weights(file="good.safetensors").digest
    assert before == hashlib.sha256(path.read_bytes()).hexdigest()

    save_file({"a": torch.arange(7.0)}, path)
    assert Weights(file="good.safetensors").digest == hashlib.sha256(path.read_bytes()).hexdigest() != before


def test_without_a_pin_and_a_file_there_is_no_digest(given: Path) -> None:
    """Nothing is a judge of nothing."""
    with pytest.raises(UserError, match=r"gone\.safetensors are missing"):
        _ = Weights(file="gone.safetensors").digest


def test_good_weights_are_read(given: Path) -> None:
    """With a pin and by path as well."""
    path = given / "good.safetensors"
    pinned = Weights(file="other name", sha256=digest_of(path), path=str(path))

    assert pinned.tensors()["a"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_hash_mismatch_is_refused(given: Path) -> None:
    """Both hashes are told."""
    with pytest.raises(UserError, match="are not the pinned ones") as caught:
        Weights(file="good.safetensors", sha256="0" * 64).tensors()

    assert "0" * 64 in str(caught.value) and digest_of(given / "good.safetensors") in str(caught.value)


@pytest.mark.parametrize("pin", ["abc", "AB" * 32, "zz" * 32])
def test_a_pin_that_is_no_sha256_is_refused(pin: str) -> None:
    """A mistyped pin would compare with nothing."""
    with pytest.raises(UserError, match="is not a sha256"):
        Weights(file="x", sha256=pin)


@pytest.mark.parametrize("name", ["weights.bin", "weights.safetensors"])
def test_a_pickle_is_refused_whatever_it_is_called(given: Path, name: str) -> None:
    """The command that converts it is told."""
    torch.save({"a": torch.zeros(2)}, given / name)
    with pytest.raises(UserError, match=r"are a pickle(.|\n)*judging convert"):
        Weights(file=name).tensors()


def test_a_bare_pickle_is_refused(given: Path) -> None:
    """Also one that no torch wrote."""
    (given / "bare.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="are a pickle"):
        Weights(file="bare.safetensors").tensors()


def test_safetensors_whose_length_starts_like_a_pickle_are_none(tmp_path: Path) -> None:
    """A header of 0x180 bytes begins with the bytes of a pickle's protocol."""
    path = tmp_path / "long.safetensors"
    for padding in range(400):
        save_file({"a": torch.zeros(1)}, path, metadata={"x": "y" * padding})
        if path.read_bytes()[:2] == b"\x80\x01":
            break
    assert path.read_bytes()[:2] == b"\x80\x01"

    assert not is_pickle(path)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"\xff" * 40])
def test_a_file_that_is_cut_off_is_refused(given: Path, content: bytes) -> None:
    """Empty, a pointer to elsewhere, or noise."""
    (given / "cut.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        Weights(file="cut.safetensors").tensors()


@pytest.mark.parametrize(("tensors", "words"), [({}, "hold no tensor"), ({"a": torch.tensor([1.0, torch.nan])}, "NaN")])
def test_weights_that_mean_nothing_are_refused(given: Path, tensors: dict[str, torch.Tensor], words: str) -> None:
    """None at all, or not numbers."""
    save_file(tensors, given / "odd.safetensors")
    with pytest.raises(UserError, match=words):
        Weights(file="odd.safetensors").tensors()


def test_a_folder_has_a_digest_of_all_its_files(given: Path) -> None:
    """A model in several files is one weight; hidden files are not part of it."""
    folder = given / "model"
    (folder / ".cache").mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    before = Weights(file="model").digest
    (folder / ".cache" / "x").write_text("x")
    assert Weights(file="model").digest == before

    (folder / "config.json").write_text('{"a": 1}')
    assert Weights(file="model").digest != before

    (folder / "extra.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"extra\.bin are a pickle"):
        Weights(file="model").verified()


def test_an_empty_folder_is_refused(given: Path) -> None:
    """It would have the digest of nothing."""
    (given / "model").mkdir()
    with pytest.raises(UserError, match="is empty"):
        _ = Weights(file="model").digest


def test_where_it_lies_is_not_part_of_a_key(tmp_path: Path) -> None:
    """Two machines ask the same question."""
    here, there = (Weights(file="x", sha256="ab" * 32, path=path) for path in ("/here", "/there"))

    assert key("x", here) == key("x", there) and here == there


def test_conversion_keeps_every_tensor(tmp_path: Path) -> None:
    """Nested tables are joined by dots, shared memory is copied, and what is no tensor is told."""
    shared = torch.arange(4.0)
    torch.save({"epoch": 3, "state_dict": {"w": shared, "v": shared[:2]}}, tmp_path / "model.pt")
    left_out = convert(tmp_path / "model.pt", tmp_path / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")

    assert left_out == ["epoch"]
    assert {name: value.tolist() for name, value in found.items()} == {
        "state_dict.w": [0, 1, 2, 3],
        "state_dict.v": [0, 1],
    }


class Trap:
    """Leaves a mark when it is unpickled by a careless reader."""

    def __init__(self, mark: Path) -> None:
        """`mark` is the file it would write."""
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        """What a pickle can do."""
        return Path.touch, (self.mark,)  # type: ignore[return-value]


def test_conversion_runs_nothing(tmp_path: Path) -> None:
    """A pickle that would write a file is refused, and writes none."""
    mark = tmp_path / "ran"
    torch.save({"a": torch.zeros(1), "trap": Trap(mark)}, tmp_path / "trap.pt")
    with pytest.raises(UserError, match="holds more than tensors"):
        convert(tmp_path / "trap.pt", tmp_path / "out.safetensors")

    assert not mark.exists() and not (tmp_path / "out.safetensors").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    """OpenAI's own CLIP files are programs."""
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "clip.pt")
    with pytest.raises(UserError, match="is TorchScript"):
        convert(tmp_path / "clip.pt", tmp_path / "out.safetensors")


def test_the_command_says_one_sentence_and_exits_with_4(tmp_path: Path) -> None:
    """Without a traceback."""
    command = [sys.executable, "-m", "resurgence_harness.judging", "convert", str(tmp_path / "no.bin"), "x.safetensors"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ran.returncode == 4
    assert "There is no file" in ran.stderr and "Traceback" not in ran.stderr and "Warning" not in ran.stderr
