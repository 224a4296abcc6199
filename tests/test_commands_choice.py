"""Commands in a settings file: what is read, what its key depends on, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.finetuning import FINETUNINGS, BenignSet
from resurgence_harness.presets import METHODS, choice, read_settings, register_commands
from resurgence_harness.presets.stepping import check_steps
from resurgence_harness.process.commands import environment, holds_secret, is_secret
from resurgence_harness.registry import entries, given_parts, temporary
from resurgence_harness.selection import Selection
from resurgence_harness.specs import Concept, Probe, Prompt
from resurgence_harness.storing.keys import key

TEXT = """\
esd: {iterations: 7}
finetunings:
  mine:
    command: [accelerate, launch, train.py, --model, "{model}", --data, "{data}", "--out={out}", --steps, 20]
    files: [train.py, own/]
    timeout: 7200
    environment: [WANDB_MODE]
unlearnings:
  ours: {command: ["{python}", "{model}", "{concepts}", "{out}", "{seed}"]}
"""
DATA = BenignSet(probe=Probe(prompts=(Prompt(text="a b", concept="b"),), seeds=(1,)))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a settings file and what it names."""
    (tmp_path / "own" / "__pycache__").mkdir(parents=True)
    (tmp_path / "own" / "loss.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "own" / "__pycache__" / "loss.pyc").write_bytes(b"compiled")
    (tmp_path / "train.py").write_text("print(1)\n", encoding="utf-8")
    (tmp_path / "settings.yaml").write_text(TEXT, encoding="utf-8")
    return tmp_path


def test_a_file_declares_commands_beside_values(place: Path) -> None:
    """Read in full, and registered by their names, with the file as their origin; a second file takes their place."""
    found = read_settings(place / "settings.yaml")
    mine, ours = found.commands
    assert found.changed == (("esd.iterations", 7),)
    assert mine.command.words[-2:] == ("--steps", "20") and mine.command.timeout == 7200.0
    assert [name for name, _ in mine.command.files] == ["train.py", "own/loss.py"]
    assert (ours.kind, ours.command.files, ours.command.timeout) == ("unlearning", (), 3600.0)
    with temporary():
        register_commands(found.commands, "settings.yaml", found.digest)
        check_steps()
        assert Selection(methods=("ours",), finetunings=("lora", "mine")).finetunings == ("lora", "mine")
        (entry,) = given_parts([("finetuning", "mine"), ("finetuning", "lora")])
        assert entry.as_dict() == {
            "kind": "finetuning",
            "name": "mine",
            "origin": "settings",
            "package": "settings.yaml",
            "version": "",
            "source": found.digest,
            "replaces": "",
        }
        assert METHODS["ours"].step(concepts=(Concept(name="a"),)).name == "ours"
        with pytest.raises(UserError, match=r'There is no setting "mine\.steps"'):
            choice("mine.steps", 5)
        register_commands((), "", "")
        assert not {"mine", "ours"} & {one.name for kind in ("finetuning", "unlearning") for one in entries(kind)}


def test_a_changed_file_is_another_key(place: Path) -> None:
    """Of the script, and of one in a declared folder; not a compiled one, and not the time limit."""

    def own() -> str:
        found = read_settings(place / "settings.yaml")
        with temporary():
            register_commands(found.commands, "settings.yaml", found.digest)
            return key("step", FINETUNINGS["mine"](data=DATA))

    first = own()
    (place / "own" / "__pycache__" / "loss.pyc").write_bytes(b"again")
    (place / "settings.yaml").write_text(TEXT.replace("7200", "60"), encoding="utf-8")
    assert own() == first
    (place / "own" / "loss.py").write_text("x = 2\n", encoding="utf-8")
    second = own()
    (place / "train.py").write_text("print(2)\n", encoding="utf-8")
    assert len({first, second, own()}) == 3


WORDS = '"{model}", "{data}", "{out}"'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("finetunings: 5", "finetunings is 5"),
        ("finetunings: {}", "sets nothing"),
        ("finetunings: {mine: train.py}", "finetunings.mine is 'train.py'"),
        ("finetunings: {Mine: {command: [a]}}", "finetunings is 'Mine'"),
        ("finetunings: {mine: {command: python train.py}}", "finetunings.mine.command is"),
        ("finetunings: {mine: {command: []}}", "finetunings.mine.command is []"),
        ('finetunings: {mine: {command: [a, "{model}", "{out}"]}}', "a command that is given {data}"),
        (f'finetunings: {{mine: {{command: [a, {WORDS}, "{{moodel}}"]}}}}', "is '{moodel}'"),
        (f'finetunings: {{mine: {{command: [a, {WORDS}, "{{concepts}}"]}}}}', "is '{concepts}'"),
        (f"finetunings: {{mine: {{command: [a, {WORDS}], shell: true}}}}", "finetunings.mine.shell is True"),
        (f"finetunings: {{mine: {{command: [a, {WORDS}], timeout: 0}}}}", "finetunings.mine.timeout is 0"),
        (f"finetunings: {{mine: {{command: [a, {WORDS}], timeout: long}}}}", "finetunings.mine.timeout is 'long'"),
        (f"finetunings: {{mine: {{command: [a, {WORDS}], files: [gone.py]}}}}", "a file that cannot be read"),
        (f"finetunings: {{mine: {{command: [a, {WORDS}], files: [../train.py]}}}}", "files is '../train.py'"),
        (f"finetunings: {{mine: {{command: [a, {WORDS}], files: [/etc/passwd]}}}}", "files is '/etc/passwd'"),
        (f"finetunings: {{mine: {{command: [a, {WORDS}], files: [link.py]}}}}", "files is 'link.py'"),
        (f"finetunings: {{mine: {{command: [a, {WORDS}], environment: [WANDB_API_KEY]}}}}", "'WANDB_API_KEY'"),
        (f"finetunings: {{mine: {{command: [a, {WORDS}, hf_{'a' * 30}]}}}}", "looks like a secret"),
        (f"finetunings: {{mine: {{command: [a, {WORDS}, own-secret-value]}}}}", "looks like a secret"),
    ],
)
def test_a_wrong_command_is_one_sentence_with_its_path(
    place: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    """Of the file, and of the entry in it."""
    monkeypatch.setenv("ACME_TOKEN", "own-secret-value")
    (place / "link.py").symlink_to(tmp_path_factory.mktemp("elsewhere") / "outside.py")
    (place / "settings.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"settings\.yaml") as raised:
        read_settings(place / "settings.yaml")
    assert words in str(raised.value)


@pytest.mark.parametrize("name", ["lora", "sampler"])
def test_a_name_that_is_taken_is_refused(place: Path, name: str) -> None:
    """By a built-in fine-tuning, or by a group of settings."""
    (place / "settings.yaml").write_text(f"finetunings: {{{name}: {{command: [a, {WORDS}]}}}}", encoding="utf-8")
    found = read_settings(place / "settings.yaml")
    with temporary(), pytest.raises(UserError, match=f'called "{name}"'):
        register_commands(found.commands, "settings.yaml", found.digest)
        check_steps()


def test_an_environment_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and by value; declared variables are added, unless they are secrets."""
    given = {
        "HF_HOME": "cache",
        "HF_TOKEN": "x",
        "CUDA_VISIBLE_DEVICES": "1",
        "OMP_NUM_THREADS": "1",
        "RESURGENCE_STORE_KEY": "x",
        "RESURGENCE_STORE": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "WANDB_MODE": "offline",
        "HTTPS_PROXY": "http://user:word@proxy:80",
        "HTTP_PROXY": "http://proxy:80",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    plain, declared = environment(), environment(("WANDB_MODE", "HTTPS_PROXY", "HTTP_PROXY", "HF_TOKEN"))
    assert {*plain} & {*given} == {"HF_HOME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"}
    assert {*declared} - {*plain} == {"WANDB_MODE", "HTTP_PROXY"} and "PATH" in plain
    assert is_secret("MY_PASSWORD") and not is_secret("TORCH_HOME", "/data")
    assert holds_secret("https://me:word@host/x") and not holds_secret("--tokenizer=clip")
