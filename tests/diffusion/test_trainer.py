"""What a user's command gets, what it must leave, and what is said when it does not. Real processes, real files."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from resurgence_harness.diffusion.commands import Command
from resurgence_harness.diffusion.model import StableDiffusion, difference
from resurgence_harness.errors import BuildError
from resurgence_harness.finetuning.command import CommandFineTuning, finetuning_of
from resurgence_harness.specs import Concept
from resurgence_harness.storing.keys import key
from resurgence_harness.unlearning.command import unlearning_of
from tests.finetuning.test_contract import DATA
from tests.tiny import tiny_run
from tests.two_models import load, model, v1, v2, xl

pytestmark = pytest.mark.slow

__all__ = ["load", "model", "v1", "v2", "xl"]
HEAD = """
    import json, os, shutil, signal, subprocess, sys, time
    from pathlib import Path

    import numpy as np
    from safetensors.numpy import load_file, save_file

    model, data, out, seed = [Path(word) for word in sys.argv[1:]]
    UNET = "unet/diffusion_pytorch_model.safetensors"

    def copied(part=UNET, change=lambda name, value: value * np.float32(1.01), to=out):
        shutil.copytree(model, to, dirs_exist_ok=True)
        save_file({name: change(name, value) for name, value in load_file(model / part).items()}, to / part)
"""
"""Python without torch, so that a case takes a moment."""


@pytest.fixture
def mine(tmp_path: Path) -> Callable[..., CommandFineTuning]:
    """A fine-tuning whose command is a script of these lines."""

    def make(body: str, **options: Any) -> CommandFineTuning:
        text = dedent(HEAD).lstrip() + dedent(body)
        (tmp_path / "train.py").write_text(text, encoding="utf-8")
        command = Command(
            words=("{python}", "train.py", "{model}", "{data}", "{out}", "{seed}"),
            files=(("train.py", hashlib.sha256(text.encode()).hexdigest()),),
            folder=str(tmp_path),
            **options,
        )
        return finetuning_of("mine", command)(data=DATA, seed=3)

    return make


def test_a_command_gets_the_model_and_the_images_and_its_result_is_taken(
    mine: Callable[..., CommandFineTuning], model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U-Net and text encoder as it wrote them, everything else the model's own; the folder is removed, the log kept."""
    monkeypatch.setenv("HF_TOKEN", "not-for-a-command")
    monkeypatch.setenv("RESURGENCE_STORE_KEY", "nor-this-one")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy")
    monkeypatch.setenv("MY_MODE", "fast")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    step = mine(
        """
        rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
        print(json.dumps({
            "rows": rows,
            "sizes": [(data / row["file_name"]).read_bytes()[16:24].hex() for row in rows],
            "seed": str(seed),
            "files": sorted(os.listdir(".")),
            "environment": dict(os.environ),
        }))
        copied()
        copied("text_encoder/model.safetensors", lambda name, value: value + np.float32(0.01 * (value.ndim == 2)),
               to=Path("encoder"))
        shutil.copy("encoder/text_encoder/model.safetensors", out / "text_encoder" / "model.safetensors")
        (out / "checkpoint-1").mkdir()
        (out / "checkpoint-1" / "optimizer.bin").write_bytes(b"a trainer's own state")
        """,
        variables=("MY_MODE", "HTTPS_PROXY"),
    )
    kept: dict[str, str] = {}
    facts: dict[str, Any] = {}
    work = tmp_path / "work"
    work.mkdir()

    changed = step.apply(
        model,
        tiny_run(
            model,
            folder=work,
            record=facts.__setitem__,
            keep=lambda name, path: kept.update({name: path.read_text(encoding="utf-8")}),
        ),
    )

    got = json.loads(kept["trainer.log"])
    assert [row["text"] for row in got["rows"]] == [prompt.text for prompt, _ in DATA.probe.rows()]
    assert got["sizes"] == ["0000004000000040"] * 6 and got["seed"] == "3" and got["files"] == ["train.py"]
    assert got["environment"]["MY_MODE"] == "fast" and got["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert not {"HF_TOKEN", "RESURGENCE_STORE_KEY", "HTTPS_PROXY"} & got["environment"].keys()
    moved = difference(changed, model)
    name = "unet.conv_in.weight"
    torch.testing.assert_close(moved[name], dict(model.unet.named_parameters())["conv_in.weight"] * 1.01)
    assert any(one.startswith("text_encoder.") for one in moved) and all(map(step.moves.selects, moved))
    assert changed.vae is model.vae and changed.tokenizer is model.tokenizer
    assert facts["command"]["words"] == list(step.command.words) and "not controlled" in facts["note"]
    assert "not-for-a-command" not in json.dumps(facts) and list(work.iterdir()) == []


FAILURES = {
    "an exit code": ("print('epoch 1'); sys.exit('no memory')", "ended with exit code 1", ["| epoch 1", "| no memory"]),
    "a signal": ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9", ["It printed nothing."]),
    "nothing": ("print('done')", "wrote nothing to {out}", ["| done"]),
    "a pickle": (
        "copied(); (out / UNET).rename(out / 'unet' / 'diffusion_pytorch_model.bin')",
        "wrote a pickle, which is never opened here",
        ["unet/diffusion_pytorch_model.bin"],
    ),
    "the model that it was given": (
        "shutil.copytree(model, out, dirs_exist_ok=True)",
        "wrote the model that it was given, so nothing was trained",
        [],
    ),
    "half a model": ("copied(); shutil.rmtree(out / 'text_encoder')", "wrote no model that can be judged", ["problem"]),
    "NaN": (
        "copied(change=lambda name, value: value * np.float32('nan'))",
        "wrote no model that can be judged",
        ["problem"],
    ),
    "another model": (
        "draw = np.random.default_rng(0).normal\n"
        "copied(change=lambda name, value: (value.std() * draw(size=value.shape)).astype('f4'))",
        "wrote a model that is not derived from {model}",
        ["unrelated weights"],
    ),
    "another autoencoder": (
        "copied()\ncopied('vae/diffusion_pytorch_model.safetensors', to=Path('x'))\n"
        "shutil.copytree('x/vae', out / 'vae', dirs_exist_ok=True)",
        "differs from {model} in more than the weights of U-Net and text encoder",
        ["vae: "],
    ),
    "into the model": (
        "copied()\n(model / 'note.txt').write_text('mine')",
        "changed what it was given as {model}",
        ["note.txt"],
    ),
    "into the images": (
        "copied()\n(data / '000000.png').write_bytes(b'')",
        "changed what it was given as {data}",
        ["000000.png"],
    ),
    "a link for the folder": ("copied(to=Path('x')); out.rmdir(); out.symlink_to(Path('x').absolute())", "{out}", []),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_a_command_does_wrong_is_one_sentence(
    mine: Callable[..., CommandFineTuning], model: StableDiffusion, case: str
) -> None:
    """A BuildError with its last lines; no result."""
    body, what, facts = FAILURES[case]

    with pytest.raises(BuildError) as raised:
        mine(body).apply(model, tiny_run(model))

    first, *rest = str(raised.value).splitlines()
    assert first.startswith('The command of the fine-tuning "mine" ') and what in first, str(raised.value)
    assert all(any(fact in line for line in rest) for fact in facts), str(raised.value)


def test_the_time_limit_ends_the_whole_process_group(
    mine: Callable[..., CommandFineTuning], model: StableDiffusion, tmp_path: Path
) -> None:
    """Its children too, also those that ignore SIGTERM once the command itself has ended."""
    note = tmp_path / "child"
    step = mine(
        f"""
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
        child = subprocess.Popen([sys.executable, "-c", code + "; time.sleep(60)"], stdout=subprocess.PIPE)
        child.stdout.readline()
        Path({str(note)!r}).write_text(str(child.pid))
        print("working", flush=True)
        time.sleep(60)
        """,
        timeout=2.0,
    )

    with pytest.raises(BuildError, match="was ended after its time limit of 2 seconds") as raised:
        step.apply(model, tiny_run(model))

    assert "| working" in str(raised.value)
    end = time.monotonic() + 5
    while _runs(int(note.read_text())):
        assert time.monotonic() < end
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def test_a_program_that_does_not_exist_is_one_sentence(model: StableDiffusion) -> None:
    """As the system says it."""
    step = finetuning_of("mine", Command(words=("no-such-program", "{model}", "{data}", "{out}")))(data=DATA)
    with pytest.raises(BuildError, match="could not be started: No such file or directory"):
        step.apply(model, tiny_run(model))


def test_a_file_that_changed_since_the_settings_were_read_is_refused(
    mine: Callable[..., CommandFineTuning], model: StableDiffusion, tmp_path: Path
) -> None:
    """What runs is what the key holds."""
    step = mine("copied()")
    (tmp_path / "train.py").write_text("copied(2)", encoding="utf-8")
    with pytest.raises(BuildError, match="was changed after the settings had been read"):
        step.apply(model, tiny_run(model))


def test_an_unlearning_gets_the_names(model: StableDiffusion, tmp_path: Path) -> None:
    """One in each line, and the result may be a U-Net alone."""
    text = dedent("""
        import shutil, sys
        from pathlib import Path
        import numpy as np
        from safetensors.numpy import load_file, save_file

        model, concepts, out = map(Path, sys.argv[1:])
        print(concepts.read_text(encoding="utf-8").splitlines())
        shutil.copy(model / "unet" / "config.json", out)
        name = "diffusion_pytorch_model.safetensors"
        weights = load_file(model / "unet" / name)
        save_file({one: value * np.float32(0.99) for one, value in weights.items()}, out / name)
    """)
    (tmp_path / "erase.py").write_text(text, encoding="utf-8")
    files = (("erase.py", hashlib.sha256(text.encode()).hexdigest()),)
    words = ("{python}", "erase.py", "{model}", "{concepts}", "{out}")
    names = (Concept(name="ada quill"), Concept(name="Zoë Stone"))
    step = unlearning_of("ours", Command(words=words, files=files, folder=str(tmp_path)))(concepts=names)
    logs: list[str] = []

    changed = step.apply(model, tiny_run(model, keep=lambda _, path: logs.append(path.read_text(encoding="utf-8"))))

    assert logs == ["['ada quill', 'Zoë Stone']\n"]
    moved = difference(changed, model)
    assert "unet.conv_in.weight" in moved and all(name.startswith("unet.") for name in moved)
    assert changed.text_encoder is model.text_encoder


def test_the_key_holds_the_command_its_files_the_seed_and_the_images(mine: Callable[..., CommandFineTuning]) -> None:
    """And not where the files are, how long it may take, or what it gets from the environment."""
    step = mine("copied()")
    own = key("step", step)

    def with_command(**other: Any) -> str:
        return key("step", replace(step, command=replace(step.command, **other)))

    assert with_command(folder="elsewhere", timeout=5.0, variables=("MY_MODE",)) == own
    assert key("step", replace(step, save_at=(), steps=1, learning_rate=2.0, batch=8)) == own
    others = [
        with_command(words=(*step.command.words, "--fast")),
        with_command(files=(("train.py", "0" * 64),)),
        key("step", replace(step, seed=4)),
        key("step", replace(step, data=replace(DATA, probe=replace(DATA.probe, seeds=(7,))))),
        key("step", finetuning_of("other", step.command)(data=DATA, seed=3)),
    ]
    assert len({own, *others}) == 6
