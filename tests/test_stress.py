"""`resurgence stress` on the embedded microworld, as a person runs it in an empty folder: a model and a LoRA eraser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from resurgence_harness.bench import Bench
from resurgence_harness.library import stress_demo as demo
from resurgence_harness.library.suites import named
from resurgence_harness.microworld import weights
from resurgence_harness.process import ExitCode
from resurgence_harness.reporting import verdict_json
from resurgence_harness.selection import Selection, plan_cell, resolve_base
from resurgence_harness.specs import Cell
from resurgence_harness.storing import Store
from resurgence_harness.tasks import TASKS
from tests.gate.microworld import _copied, _diffusers, _pairs, _save, resurgence

UNET = "unet/diffusion_pytorch_model.safetensors"
WIDE = "policy: {level: 0.3, delta: 0.3, delta_u: 0.3, incidental: 0.3}\n"
"""Limits so wide that a clear answer takes one or two looks."""
QUICK = ("--set", "sampler.steps=5", "--set", "benign.names=25", "--set", "benign.seeds=1")
CELEBRITY = TASKS["celebrity"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("./my-erased", ("my-erased", "./my-erased")),
        ("models/my erased.safetensors", ("my-erased", "models/my erased.safetensors")),
        ("a/eraser.safetensors=0.8", ("eraser", "a/eraser.safetensors=0.8")),
        ("mine=./x", ("mine", "./x")),
        ("mine=eraser.safetensors=0.5", ("mine", "eraser.safetensors=0.5")),
        ("owner/name@0123456789", ("name", "owner/name@0123456789")),
    ],
)
def test_a_model_without_a_name_has_that_of_its_file(word: str, expected: tuple[str, str]) -> None:
    """A weight after "=" is not a name."""
    assert named(word) == expected


@pytest.mark.slow
def test_a_directory_and_a_lora_of_the_same_erasure_get_the_same_verdict(tmp_path: Path) -> None:
    """UCE on five names, as a whole model and as a LoRA; with the curve, from an otherwise empty folder."""
    cell = Cell(task="celebrity", method="uce", count=5, finetuning="lora")
    plan = plan_cell(cell, resolve_base("micro"), task=CELEBRITY, selection=Selection())
    bench = Bench(Store(tmp_path / "made"))
    base, unlearned = (_copied(bench.model(recipe).unet.state_dict()) for recipe in (plan.base, plan.unlearned))
    bench.release()
    here = tmp_path / "here"
    whole = Path(shutil.copytree(weights.directory(), here / "whole"))
    (whole / UNET).unlink()
    _save(unlearned, whole / UNET)
    _save(_diffusers(_pairs(base, unlearned), times=2.0), here / "eraser.safetensors")
    (here / "erased.txt").write_text("\n".join(one.name for one in CELEBRITY.erase(5)), encoding="utf-8")
    (here / "limits.yaml").write_text(WIDE, encoding="utf-8")

    ran = resurgence(
        "stress",
        *(
            "--unlearned",
            "whole",
            "--unlearned",
            "eraser.safetensors=0.5",
            "--base",
            "micro",
            "--concepts",
            "erased.txt",
        ),
        *("--steps", "5,20", "--limits", "limits.yaml", "--store", tmp_path / "store", "--device", "cpu", *QUICK),
        cwd=here,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = {one.id: one for one in verdict_json.read(here / "reports/stress/verdict.json").cells}
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys(
        ["whole-5-lora", "eraser-5-lora"], "HOLDS"
    )
    for one in found.values():
        assert one.outcome == "unlearned" and one.along is not None and one.along.first is None
        assert (one.along.claims, [rate.step for rate in one.along.rates]) == (4, [0, 5, 20])
    assert "a LoRA" in ran.stdout and "the limit is not shown to be passed at any of the steps 5, 20" in ran.stdout


def test_a_demonstration_that_goes_wrong_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that judged nothing keeps its code; both models are made from one method here, which takes seconds."""
    monkeypatch.setattr(demo, "MODELS", {"survives": ("uce", "HOLDS")})
    given: list[str] = []

    def suite(options: object) -> ExitCode:
        given.extend(options)  # type: ignore[call-overload]
        return ExitCode.INCOMPLETE

    code = demo.run(suite, out=tmp_path / "out", store=str(tmp_path / "store"), device="cpu")
    assert code is ExitCode.INCOMPLETE
    (model,) = [option for option in given if option.startswith("--resurgence-unlearned=survives=")]
    assert Path(model.rpartition("=")[2]).is_file()
    listed = next(option for option in given if option.startswith("--resurgence-concepts="))
    assert Path(listed.partition("=")[2]).read_text(encoding="utf-8").split("\n")[0] == CELEBRITY.erase(1)[0].name
