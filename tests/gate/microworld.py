"""Candidates in every format on the embedded microworld, as the files that people would have.

    base ──UCE──▶ unlearned ──── 90 % of the way back ───▶ a U-Net, a single file, a LoRA, two LoRAs: the same change
                      └─ a little noise in the text encoder ──▶ another text encoder;  a new word ──▶ an embedding

UCE changes to_k and to_v of attn2 alone, so its inverse is a LoRA of these layers, exact at full rank. The five files
say the same in five layouts: a gate must answer them alike, and audit each at BACK.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.warm_python import python

if TYPE_CHECKING:
    from torch import Tensor

BACK = 0.9
"""How far the candidates that must fail are moved back towards the base."""
ERASED = ("Alba Drummond", "Ivo Yarrow")
"""Two of the names that are erased, in the order of the task."""
COUNT = 5
"""Names that are erased."""
WORD = "zq"
"""The embedding's."""
POLICY = f"""\
version: 1
task: celebrity
concepts: {{erased: [{ERASED[0]}]}}
limits: {{level: 0.3, delta: 0.3, delta_u: 0.3, incidental: 0.3}}
sampler: {{steps: 5}}
"""
"""Limits so wide and pictures so rough that a clear answer takes one or two looks."""


class Micro(NamedTuple):
    """Files by what they are, and the store in which base and unlearned model keep their images."""

    files: dict[str, Path]
    store: Path


def files_in(folder: Path) -> Micro:
    """What `make` has written into a folder."""
    return Micro({file.stem: file for file in folder.glob("*.safetensors")}, folder / "store")


def make(folder: Path) -> None:
    """Unlearn, and write every file."""
    import torch

    from resurgence_harness.bench import Bench
    from resurgence_harness.selection import Selection, plan_cell, resolve_base
    from resurgence_harness.specs import Cell
    from resurgence_harness.storing import Store
    from resurgence_harness.tasks import TASKS
    from tests.original_layout import original_layout

    store, task = folder / "store", TASKS["celebrity"]
    cell = Cell(task="celebrity", method="uce", count=COUNT, finetuning="lora")
    plan = plan_cell(cell, resolve_base("micro"), task=task, selection=Selection())
    bench = Bench(Store(store), device="cpu")
    model = bench.model(plan.base)
    base, whole_base = _copied(model.unet.state_dict()), _copied(original_layout(model))
    model = bench.model(plan.unlearned)
    unlearned = _copied(model.unet.state_dict())
    back = {name: torch.lerp(value, base[name], BACK) for name, value in unlearned.items()}
    model.unet.load_state_dict(back)
    noise = torch.Generator().manual_seed(0)
    text = {
        name: value + 0.02 * value.std() * torch.randn(value.shape, generator=noise) if value.ndim > 1 else value
        for name, value in _copied(model.text_encoder.state_dict()).items()
    }
    table = next(value for name, value in text.items() if name.endswith("token_embedding.weight"))
    pairs = _pairs(unlearned, back)
    made = {
        "unlearned": unlearned,
        "unet": back,
        "original": _copied(original_layout(model)),
        "base": whole_base,
        "diffusers": _diffusers(pairs),
        "kohya": _kohya(pairs, alpha=0.5),
        "keys": _diffusers({name: pair for name, pair in pairs.items() if name.endswith("to_k")}, times=2.0),
        "values": _diffusers({name: pair for name, pair in pairs.items() if name.endswith("to_v")}, times=4.0),
        "text": text,
        "embedding": {WORD: table.mean(0) + 0.5 * table.std(0)},
        "stranger": {
            name: torch.randn(value.shape, generator=noise) * value.std() if value.ndim > 1 else value
            for name, value in unlearned.items()
        },
    }
    bench.release()
    for name, tensors in made.items():
        _save(tensors, folder / f"{name}.safetensors")


def environment(**more: str) -> dict[str, str]:
    """Of a command that a person gives: this package, one thread, no CI and no options from around the tests."""
    strange = ("RESURGENCE", "PYTEST", "GITHUB", "CI", "HF_", "MLFLOW", "WANDB")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    kept |= {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return {**kept, **more}


def resurgence(*words: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """The `resurgence` command, as a process of its own; a cold one for variables that libraries read on import."""
    program = sys.executable if any(name.startswith("HF_") for name in more) else python()
    command = [program, "-c", "from resurgence_harness.cli import main; main()", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=900)


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def _save(tensors: dict[str, Tensor], path: Path) -> Path:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def _pairs(old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer → (down, up) with up · down = new − old, for every layer that moved."""
    import torch

    found = {}
    for name, value in old.items():
        if not torch.equal(value, new[name]):
            u, s, v = torch.linalg.svd((new[name] - value).double(), full_matrices=False)
            found[name.removesuffix(".weight")] = ((s.sqrt()[:, None] * v).float(), (u * s.sqrt()).float())
    return found


def _diffusers(pairs: dict[str, tuple[Tensor, Tensor]], *, times: float = 1.0) -> dict[str, Tensor]:
    """diffusers' keys, the change made `times` as large."""
    found = {}
    for name, (down, up) in pairs.items():
        found |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": times * up}
    return found


def _kohya(pairs: dict[str, tuple[Tensor, Tensor]], *, alpha: float) -> dict[str, Tensor]:
    """The web interfaces' keys, with an alpha of so many times the rank."""
    import torch

    found = {}
    for name, (down, up) in pairs.items():
        layer = f"lora_unet_{name.replace('.', '_')}"
        found |= {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up / alpha}
        found[f"{layer}.alpha"] = torch.tensor(alpha * len(down))
    return found
