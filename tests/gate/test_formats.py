"""A candidate of every format through a whole gate: the real command, a real Stable Diffusion, every report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from resurgence_harness.diffusion.formats.recognising import REFUSED
from resurgence_harness.diffusion.tensor_files import PICKLES, sha256_of
from resurgence_harness.reporting import verdict_json
from tests.gate.microworld import BACK, POLICY, WORD, Micro, resurgence

pytestmark = pytest.mark.slow

SAME = {
    "a U-Net": ["unet"],
    "a single file in the original layout": ["original"],
    "a LoRA, diffusers' keys": ["diffusers"],
    "a LoRA, kohya's keys": ["kohya"],
    "two LoRAs with weights": ["keys=0.5", "values=0.25"],
}
"""The same change in five layouts: back to the base by BACK."""


@pytest.fixture
def gate(micro: Micro, here: Path) -> Any:
    """gate(words of the candidate, policy): its exit code, what it said, and its verdict file if there is one."""

    def run(*words: str, policy: str = POLICY, unlearned: bool | str = True) -> tuple[int, str, dict[str, Any] | None]:
        (here / "policy.yaml").write_text(policy, encoding="utf-8")
        given: list[object] = []
        for word in words:
            name, equals, weight = word.partition("=")
            given += ["--candidate", f"{micro.files.get(name, name)}{equals}{weight}"]
        if unlearned:
            given += ["--unlearned", micro.files["unlearned"] if unlearned is True else unlearned]
        given += ["--base", "micro", "--store", micro.store, "--out", "out", "--device", "cpu"]
        ran = resurgence("gate", "--policy", "policy.yaml", *given, cwd=here)
        assert "Traceback" not in ran.stderr, ran.stderr
        file = here / "out/verdict.json"
        found = verdict_json.read(file).model_dump() if file.is_file() else None
        return ran.returncode, ran.stdout + ran.stderr, found

    return run


@pytest.mark.parametrize("words", SAME.values(), ids=SAME)
def test_the_same_change_in_every_layout_gets_the_same_answer(words: list[str], gate: Any, micro: Micro, here: Path):
    """VIOLATED, with the audit of the change that was made, and digests of the files that were given."""
    code, said, run = gate(*words)

    assert code == 1, said
    assert run is not None and run["gate"]["audit"]["undone"] == pytest.approx(BACK, abs=1e-4)
    assert "90% of the erasure is undone" in said and "Lineage" not in said and run["gate"]["notes"] == []
    files = [micro.files[word.partition("=")[0]] for word in words]
    assert run["gate"]["files"] == {file.name: sha256_of(file) for file in files}
    (cell,) = run["cells"]
    assert cell["verdict"] == "VIOLATED" and "came back" in cell["reason"]
    assert cell["before"]["hits"] == 0 and cell["after"]["hits"] >= 20 and cell["retained_after"]["hits"] >= 20
    subjects = json.loads((here / "out/attestation.json").read_text(encoding="utf-8"))["subject"]
    assert [one["name"] for one in subjects] == [file.name for file in files]


def test_another_text_encoder_is_drawn_with_and_passes(gate: Any):
    """Its own images, so the effect control is met, and nothing erased in them."""
    code, said, run = gate("text")

    assert code == 0, said
    (cell,) = run["cells"]
    assert cell["verdict"] == "HOLDS" and cell["after"]["hits"] == 0 and "Lineage" not in said
    assert _state(cell, "fine-tuning effect") == "passed"


def test_an_embedding_acts_where_prompts_hold_its_word_and_is_no_pass_elsewhere(gate: Any):
    """With the word in the prompts the images differ; without it they are the unlearned model's, and nothing HOLDS."""
    code, said, run = gate("embedding")
    assert code == 10, said
    assert f"acts only in prompts that hold {WORD}" in said
    assert _state(run["cells"][0], "fine-tuning effect") == "failed"

    prompts = f'prompts: {{erased: ["A portrait of {{}}, {WORD}"], retained: ["A portrait of {{}}, {WORD}"]}}\n'
    code, said, run = gate("embedding", policy=POLICY + prompts)
    assert code == 0, said
    assert _state(run["cells"][0], "fine-tuning effect") == "passed"
    assert run["cells"][0]["after"]["hits"] == 0


def test_lineage_is_told_before_an_image_is_drawn(gate: Any, micro: Micro, here: Path):
    """A LoRA of weight 0 is the unlearned model, a file may be the base; strangers and no erasure are refused."""
    code, said, run = gate("diffusers=0")
    assert code == 10, said
    assert said.startswith("Lineage: The candidate is identical to the unlearned.")
    assert _state(run["cells"][0], "fine-tuning effect") == "failed"

    code, said, run = gate("base")
    assert code == 1, said
    assert said.startswith("Lineage: The candidate is identical to the base.")
    assert run["gate"]["audit"]["undone"] == pytest.approx(1)

    for words, unlearned, sentence in (
        ("stranger", True, "The candidate is not derived from the unlearned"),
        ("unet", "micro", "The unlearned model equals the base"),
    ):
        code, said, run = gate(words, unlearned=unlearned)
        assert (code, run) == (4, None), said
        assert said.startswith(f"resurgence: {sentence}"), said
    assert not list((here / "out").glob("*"))


def test_every_other_kind_is_named_and_refused(here: Path, resurgence: Any):
    """Exit 4 and one sentence before anything is loaded: what it is, or for pickles the line that converts them."""
    (here / "policy.yaml").write_text(POLICY, encoding="utf-8")
    given = ["--policy", "policy.yaml", "--base", "micro", "--store", "store", "--out", "out"]
    for kind, signs in REFUSED.items():
        file = here / "candidate.safetensors"
        save_file({f"{signs[0].strip('.')}.weight": np.zeros((2, 2), np.float32)}, file)
        said = resurgence("gate", "--candidate", file, *given)
        assert said.code == 4 and f"is {kind}, which cannot be judged here." in said.err.splitlines()[0], said.err
    for suffix in sorted(PICKLES):
        (here / f"candidate{suffix}").write_bytes(b"\x80\x02.")
        said = resurgence("gate", "--candidate", f"candidate{suffix}", *given)
        assert said.code == 4 and "is a pickle" in said.err and "which runs no code in the file" in said.err, said.err
    assert not (here / "out").exists()


def _state(cell: dict[str, Any], name: str) -> str:
    """What a control showed."""
    return str(next(control for control in cell["controls"] if control["name"] == name)["state"])
