"""Which tasks a run has: by its base, by a file of the user's; and what is told of prompts that somebody wrote out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.plugin.conftest import ROOT, Folder
from tests.plugin.test_mistakes import refused
from tests.plugin.test_options import collected
from tests.tasks.i2p_csv import CHOSEN, HEADER, OTHERS

pytestmark = pytest.mark.slow

DOCUMENTED = re.findall(r"```python\n# (\S+)\n(.*?)```", (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8"), re.S)
"""The files of the documented task, by name."""
UNSAFE = """
    import pytest


    @pytest.mark.resurgence(task="unsafe", methods=["uce"])
    def test_stays_erased(claim):
        claim.stays_erased()
"""


@pytest.fixture
def night(folder: Folder) -> Folder:
    """A folder with the task of docs/tasks.md, and nothing else of ours."""
    for name, text in DOCUMENTED:
        folder.write(name, text)
    return folder


def clip_vocabulary(directory: Path) -> None:
    """CLIP's own vocabulary as SD v1.4's folder has it: vocab.json and merges.txt, no tokenizer.json."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    words = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {words.get(token, token): place for token, place in tokenizer.encoder.items()}
    merges = [" ".join(pair) for pair, _ in sorted(tokenizer.bpe_ranks.items(), key=lambda item: item[1])]
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    settings = {"model_max_length": 77, "unk_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


@pytest.fixture(scope="module")
def large(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that says it draws 512 pixels, with SD's tokenizer: for plans, never for images."""
    base = shutil.copytree(tiny_base, tmp_path_factory.mktemp("large") / "sd")
    config = json.loads((base / "unet" / "config.json").read_text(encoding="utf-8"))
    (base / "unet" / "config.json").write_text(json.dumps({**config, "sample_size": 64}), encoding="utf-8")
    clip_vocabulary(base / "tokenizer")
    tokens = len(json.loads((base / "tokenizer" / "vocab.json").read_text(encoding="utf-8")))
    config = json.loads((base / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    (base / "text_encoder" / "config.json").write_text(
        json.dumps({**config, "vocab_size": tokens, "max_position_embeddings": 77}), encoding="utf-8"
    )
    weights = load_file(base / "text_encoder" / "model.safetensors")
    for name, rows in (("token_embedding", tokens), ("position_embedding", 77)):
        (key,) = (one for one in weights if one.endswith(f"{name}.weight"))
        weights[key] = np.resize(weights[key], (rows, weights[key].shape[1]))
    for key in [one for one in weights if one.endswith("position_ids")]:
        weights[key] = np.arange(77)[None]
    save_file(weights, base / "text_encoder" / "model.safetensors")
    return base


def unsafe_on(folder: Folder, large: Path, text: str | None) -> Folder:
    """The unsafe task in a folder, on the large base, with this csv."""
    folder.write("test_unsafe.py", UNSAFE)
    folder.environment["RESURGENCE_I2P"] = str(folder.path / "i2p.csv")
    folder.base = large
    if text is not None:
        (folder.path / "i2p.csv").write_text(text, encoding="utf-8")
    return folder


def test_a_documented_task_is_found_and_its_file_is_short(night: Folder) -> None:
    """What docs/tasks.md says to write, as it stands there: fewer than 40 lines of code."""
    assert [name for name, _ in DOCUMENTED] == ["conftest.py", "test_night.py"]
    assert sum(bool(line.strip()) for line in DOCUMENTED[0][1].splitlines()) < 40
    assert collected(night, "-n", "0") == ["uce-1-lora", "esd-1-lora"]
    ran = night.run("--collect-only", "-q", "-n", "0", "--resurgence-counts=3")
    assert ran.code == 4 and "Task night has no cell that erases 3 concepts." in ran.output + ran.errors


def test_a_documented_task_runs_and_long_prompts_are_counted(night: Folder) -> None:
    """One cell to its verdict, by the user's judge; what the base reads in part is told, in verdict.json too."""
    night.settings = tuple(text.replace("batch=32", "batch=4") for text in night.settings)
    night.write(
        "conftest.py",
        DOCUMENTED[0][1]
        + "\n\nfrom dataclasses import replace\n\nfrom resurgence_harness.specs import Prompt\n\n"
        + 'TEXTS = ("a photo of night", "a night in the " + "photo of a person in the " * 5)\n'
        + "NIGHT = replace(NIGHT, written=tuple(Prompt(text=text, concept='night') for text in TEXTS))\n",
    )
    ran = night.run("-n", "0", "--resurgence-methods=uce", "--resurgence-seeds=2", "--resurgence-engine=fixed")
    (cell,) = ran.verdicts["cells"]
    assert (cell["task"], cell["judge"], cell["verdict"]) == ("night", "darkness", "UNDECIDED") and ran.code == 10
    assert cell["after"]["judged"] == 4
    told = "Prompts of night: 1 of 2 are longer than the 24 tokens that the base reads and are truncated."
    assert ran.verdicts["selection"]["prompts"] == [told]
    assert told in ran.output


def test_a_long_prompt_that_nobody_wrote_out_is_refused(night: Folder) -> None:
    """Of a template nothing is cut: it could be the name."""
    text = DOCUMENTED[0][1].replace('"{}"),', f'"{"a photo of the " * 8}{{}}"),')
    night.write("conftest.py", text)
    assert "tokens; the base reads 24." in refused(night)


def test_the_base_decides_and_a_file_of_ones_own_wins(folder: Folder, large: Path) -> None:
    """The same suite: the published prompts need their csv; the microworld's and the user's own do not."""
    unsafe_on(folder, large, None)
    assert refused(folder, "-n", "2").startswith("The prompts of I2P are missing")
    assert collected(folder) == ["uce-4-lora"]  # nothing is read to collect
    assert collected(folder, "--resurgence-base=micro") == ["uce-4-lora"]
    folder.write("conftest.py", DOCUMENTED[0][1].replace('name="night",', 'name="unsafe",', 1))
    assert collected(folder) == ["uce-1-lora"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HEADER.replace("categories", "labels") + CHOSEN, "has no column categories."),
        (HEADER + CHOSEN + OTHERS.replace("60.0", "600", 1), '"600" is not a percentage.'),
        (HEADER + OTHERS, "is chosen for self-harm."),
    ],
    ids=["column", "percentage", "selection"],
)
def test_a_wrong_csv_is_exit_code_4(folder: Folder, large: Path, text: str, sentence: str) -> None:
    """One sentence before any worker starts."""
    assert sentence in refused(unsafe_on(folder, large, text))


def test_the_judge_of_the_published_task_is_asked_for_next(folder: Folder, large: Path) -> None:
    """With the csv in order its judge's weights are the next thing that is missing."""
    unsafe_on(folder, large, HEADER + CHOSEN + OTHERS)
    folder.environment["RESURGENCE_WEIGHTS"] = str(folder.path / "weights")
    assert refused(folder) == "The weights clip-vit-l-14-openai.safetensors are missing."


def test_a_judge_that_cannot_say_a_name_is_refused(night: Folder) -> None:
    """A concept that no answer stands for would never be a hit, which looks like safety."""
    night.write("conftest.py", DOCUMENTED[0][1].replace('labels = ("night", "dusk", "noon")', 'labels = ("dark",) * 3'))
    assert refused(night) == 'Judge darkness has no answer for "night", so it could never detect its return.'


def test_prompts_that_are_cut_are_counted_with_clips_own_tokens(large: Path) -> None:
    """Begin and end token included: 75 words of one token fit, 76 do not; no torch is needed to know."""

    code = (
        "import sys; from pathlib import Path; from resurgence_harness.diffusion.texts import check_texts;"
        "fits, long = 'cat ' * 75, 'cat ' * 76;"
        f"print(check_texts(Path({str(large)!r}), [fits, long], may_be_cut=[fits, long]), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 77) False"
