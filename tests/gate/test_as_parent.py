"""A candidate whose tokenizer is not its parent's, through the command line: drawn with both, told in every report."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as tree

import pytest
from safetensors.numpy import load_file, save_file

from resurgence_harness.errors import HarnessError
from resurgence_harness.gate.asking import plan
from resurgence_harness.gate.models import Models
from resurgence_harness.gate.release_policy import load_policy, resolve
from resurgence_harness.microworld import weights
from resurgence_harness.reporting import verdict_json
from resurgence_harness.selection import resolve_base
from resurgence_harness.specs import Recipe
from resurgence_harness.tasks import TASKS
from tests.gate.microworld import POLICY, Micro

pytestmark = pytest.mark.slow

DIFFERS = "tokenizer/tokenizer.json gives 2 words other numbers"


def directory(micro: Micro, here: Path, unet: str, swapped: tuple[str, str]) -> Path:
    """The microworld with one of the U-Nets, hardly tuned on, and two words exchanged in its tokenizer."""
    made = here.parent / f"with-{unet}"
    shutil.copytree(weights.directory(), made, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    tensors = load_file(micro.files[unet])
    tensors["conv_in.bias"] = tensors["conv_in.bias"] * 1.001
    save_file(tensors, made / "unet" / "diffusion_pytorch_model.safetensors")
    path = made / "tokenizer" / "tokenizer.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    vocab, (one, other) = told["model"]["vocab"], (f"{word}</w>" for word in swapped)
    vocab[one], vocab[other] = vocab[other], vocab[one]
    path.write_text(json.dumps(told), encoding="utf-8")
    return made


def rows_exchanged(made: Path, words: tuple[str, str]) -> None:
    """Two rows of the embedding change places: the twin of numbers exchanged in the tokenizer."""
    vocab = json.loads((made / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    one, other = (vocab[f"{word}</w>"] for word in words)
    path = made / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    (name,) = (name for name in tensors if name.endswith("token_embedding.weight"))
    tensors[name][[one, other]] = tensors[name][[other, one]]
    save_file(tensors, path)


@pytest.fixture
def gate(micro: Micro, here: Path, resurgence: Any) -> Any:
    """`resurgence gate` on a directory."""
    (here / "policy.yaml").write_text(POLICY, encoding="utf-8")

    def run(candidate: Path, *, unlearned: bool = True) -> Any:
        given = ["--candidate", candidate, "--base", "micro"]
        given += ["--unlearned", micro.files["unlearned"]] if unlearned else []
        return resurgence("gate", "--policy", "policy.yaml", *given, "--store", micro.store, "--out", "out")

    return run


def test_a_tokenizer_that_hides_the_erased_name_is_a_regression(gate, micro, here):
    """The U-Net draws her; the tokenizer gives her name to somebody else, and nobody who asks for her sees it."""
    said = gate(directory(micro, here, "unet", ("alba", "basil")))

    assert said.code == 1, said.out + said.err
    assert "Differs from its parent: " in said.out and "tokenizer" in said.out
    run = verdict_json.read(here / "out/verdict.json").model_dump()
    (cell,) = run["cells"]
    assert cell["verdict"] == "VIOLATED" and cell["after"]["rate"] < 0.2
    assert cell["reason"].startswith(
        "with the unlearned model's text encoder, tokenizer, scheduler and VAE the erased concept is drawn"
    )
    assert cell["as_parent"]["rate"] > 0.5
    assert [one["name"] for one in cell["findings"]][:2] == ["level", "level as parent"]
    assert set(cell["models"]) == {"base", "unlearned", "tuned", "as_parent"}
    assert run["gate"]["differences"] and "as parent" in said.out
    statement = json.loads((here / "out/attestation.json").read_text(encoding="utf-8"))
    assert statement["predicate"]["result"] == "FAILED"


def test_a_text_encoder_that_hides_the_erased_name_is_a_regression(gate, micro, here):
    """Rows exchanged in its embedding, not numbers in the tokenizer: the unlearned model's text encoder sees her."""
    made = directory(micro, here, "unet", ("beach", "beach"))
    rows_exchanged(made, ("alba", "basil"))
    said = gate(made)

    assert said.code == 1, said.out + said.err
    (cell,) = verdict_json.read(here / "out/verdict.json").model_dump()["cells"]
    assert cell["after"]["rate"] < 0.2 and cell["as_parent"]["rate"] > 0.5
    assert "text_encoder: 1 of " in said.out


def test_a_harmless_difference_holds_and_is_told_everywhere(gate, micro, here):
    """Both levels are under the limit; every report says what differs."""
    said = gate(directory(micro, here, "unlearned", ("beach", "forest")))

    assert said.code == 0, said.out + said.err
    run = verdict_json.read(here / "out/verdict.json").model_dump()
    (cell,) = run["cells"]
    assert cell["verdict"] == "HOLDS" and cell["as_parent"]["hits"] == 0
    assert "with the unlearned model's text encoder, tokenizer, scheduler and VAE at most" in cell["reason"]
    (differs, *_) = run["gate"]["differences"]
    assert differs and "tokenizer" in differs
    told = {name: (here / "out" / name).read_text(encoding="utf-8") for name in ("summary.md", "model-card.md")}
    assert "Differs from its parent: " in told["summary.md"] and "| as parent |" in told["summary.md"]
    assert "Apart from its weights, this model differs from its parent in:" in told["model-card.md"]
    assert "With its parent's tokenizer, scheduler and VAE the erased concepts are drawn" in told["model-card.md"]
    statement = json.loads((here / "out/attestation.json").read_text(encoding="utf-8"))
    last = statement["predicate"]["configuration"][-1]
    assert last["annotations"] == {"differences": run["gate"]["differences"]}
    assert last["digest"] == {"sha256": cell["models"]["as_parent"]["digest"]}
    properties = {
        one.get("name"): one.get("value") for one in tree.parse(here / "out/junit.xml").getroot().iter("property")
    }
    assert properties["differs 1"] == differs and float(properties["as_parent.rate"]) == 0


def test_another_process_is_told_of_it(gate, micro, here):
    """As plain values, so that every worker asks the same."""
    base = resolve_base("micro")
    found = Models(
        candidate=Recipe(base),
        label="it",
        unlearned=Recipe(base),
        base=None,
        files={},
        differs=True,
        notes=(),
        audit=None,
        differences=(DIFFERS,),
        as_parent=Recipe(replace(base, name="mixed")),
    )
    assert Models.read(json.loads(json.dumps(found.plain()))) == found


def test_a_difference_that_nothing_was_made_of_is_an_error(micro, here):
    """It could only be passed over."""
    (here / "policy.yaml").write_text(POLICY, encoding="utf-8")
    policy = resolve(*load_policy(here / "policy.yaml"), tasks=TASKS)
    base = Recipe(resolve_base("micro"))
    found = Models(
        candidate=base,
        label="",
        unlearned=base,
        base=base,
        files={},
        differs=True,
        notes=(),
        audit=None,
        differences=(DIFFERS,),
    )
    with pytest.raises(HarnessError, match="no model was made to compare"):
        plan(policy, policy.groups[0], found)
