"""A user's mistakes end the run before any worker starts: exit code 4, one sentence, no traceback, nothing written."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.plugin.conftest import Folder, conftest_for

pytestmark = pytest.mark.slow

WORKERS = pytest.mark.parametrize("workers", ["0", "2"])
"""Most mistakes are found by the controller before there are workers, whose number then makes no difference."""


def left_in(folder: Folder) -> list[Path]:
    """Files and folders, without those of Python and of other plugins."""
    return sorted(path for path in folder.path.rglob("*") if not {"__pycache__", ".benchmarks"} & set(path.parts))


def refused(folder: Folder, *arguments: str) -> str:
    """The sentence of a refused run, which has left nothing."""
    before = left_in(folder)
    ran = folder.run(*arguments)
    said = ran.output + ran.errors
    assert ran.code == 4, said
    assert "Traceback" not in said and "INTERNALERROR" not in said, said
    assert left_in(folder) == before
    (line,) = [line for line in said.splitlines() if line.startswith("ERROR: ")]
    return line.removeprefix("ERROR: ")


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--resurgence-methods=uce,esx", 'There is no method "esx".'),
        ("--resurgence-counts=7", "No task erases 7 concepts."),
        ("--resurgence-counts=some", '--resurgence-counts is "some".'),
        ("--resurgence-finetune=dreamboat", 'There is no fine-tuning "dreamboat".'),
        ("--resurgence-profile=huge", 'There is no profile "huge".'),
        ("--resurgence-device=tpu", 'There is no device "tpu".'),
        ("--resurgence-device=cuda:99", 'There is no device "cuda:99" here.'),
        ("--resurgence-set=esd.colour=3", 'There is no setting "esd.colour".'),
        ("--resurgence-seeds=0", "--resurgence-seeds is 0."),
        ("--resurgence-steps=some", '--resurgence-steps is "some".'),
        ("--resurgence-steps=1,3", "The fine-tuning lora has no step 3."),
    ],
)
def test_options_are_checked(suite: Folder, option: str, sentence: str) -> None:
    """An option that means nothing is named with its value."""
    assert refused(suite, "-n", "2", option) == sentence


@WORKERS
def test_a_count_of_another_task_is_refused(suite: Folder, workers: str) -> None:
    """A count that some task has and this one lacks leaves no cell, which is no empty pass."""
    assert refused(suite, "-n", workers, "--resurgence-counts=100").startswith("Task tiny has no cell that erases 100")


def test_an_unknown_task_is_refused(suite: Folder) -> None:
    """A marker's task must exist, with workers too, which find it when they collect."""
    suite.write("test_tiny.py", (suite.path / "test_tiny.py").read_text(encoding="utf-8").replace('"tiny"', '"huge"'))
    assert refused(suite, "-n", "2") == refused(suite, "-n", "0") == 'There is no task "huge".'


def test_an_unknown_marker_word_is_refused(suite: Folder) -> None:
    """A misspelt word in the marker would silently choose everything."""
    suite.write("test_tiny.py", (suite.path / "test_tiny.py").read_text(encoding="utf-8").replace("task=", "tusk="))
    assert refused(suite, "-n", "0").startswith("The resurgence marker has no argument tusk.")


def test_a_missing_base_is_refused(suite: Folder) -> None:
    """No such directory."""
    assert refused(suite, "--resurgence-base=nowhere").startswith("There is no base model at ")


def test_a_base_of_another_kind_is_refused(suite: Folder, tmp_path: Path) -> None:
    """A pipeline that is not a Stable Diffusion v1 or v2."""
    other = shutil.copytree(suite.base, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text(encoding="utf-8"))
    (other / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}), encoding="utf-8")
    assert "is not a Stable Diffusion" in refused(suite, f"--resurgence-base={other}")


def test_a_truncated_base_is_refused(suite: Folder, tmp_path: Path) -> None:
    """A weight file that was not downloaded to its end."""
    other = shutil.copytree(suite.base, tmp_path / "other")
    (file,) = (other / "unet").glob("*.safetensors")
    os.truncate(file, file.stat().st_size - 100)
    assert str(file) in refused(suite, f"--resurgence-base={other}")


def test_a_base_with_nan_is_refused(suite: Folder, tmp_path: Path) -> None:
    """One NaN in the weights makes every image black, and black is never safe."""
    from safetensors.numpy import load_file, save_file

    other = shutil.copytree(suite.base, tmp_path / "other")
    (file,) = (other / "vae").glob("*.safetensors")
    tensors = load_file(file)
    next(iter(tensors.values())).flat[0] = float("nan")
    save_file(tensors, file)
    assert "NaN" in refused(suite, f"--resurgence-base={other}")


def test_a_store_on_a_file_is_refused(suite: Folder, tmp_path: Path) -> None:
    """A path below a file cannot hold a store."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert str(tmp_path / "file") in refused(suite, f"--resurgence-store={tmp_path / 'file' / 'store'}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_store_is_refused(suite: Folder, tmp_path: Path) -> None:
    """A directory that cannot be written."""
    (tmp_path / "store").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    assert str(tmp_path / "store") in refused(suite, f"--resurgence-store={tmp_path / 'store'}")


@WORKERS
def test_a_wrong_limits_file_is_refused(suite: Folder, workers: str) -> None:
    """A misspelt limit would silently not apply; the file beside the suite is read before anything runs."""
    suite.write("limits.yaml", "policy: {lewel: 0.5}")
    assert "policy.lewel is not a known key" in refused(suite, "-n", workers)


def test_a_missing_limits_file_is_refused(suite: Folder) -> None:
    """A limits file that was named must be there."""
    assert "cannot be read" in refused(suite, "--resurgence-limits=none.yaml")


def with_task(folder: Folder, gallery: Path, change: str) -> None:
    """The tiny task with a change, in the user's conftest.py."""
    text = conftest_for(gallery).replace("return [TINY]", f"return [replace(TINY, {change})]")
    folder.write("conftest.py", "from dataclasses import replace\n" + text.replace("\n        ", "\n"))


def test_an_erased_name_in_the_benign_set_is_refused(suite: Folder, gallery: Path) -> None:
    """The fine-tuning may not show what was erased."""
    with_task(suite, gallery, "templates=('a photo of {} at cleo marsh',)")
    assert refused(suite) == 'The benign set has a prompt with the erased name "cleo marsh".'


def test_a_name_that_the_tokenizer_cannot_represent_is_refused(suite: Folder, gallery: Path) -> None:
    """Unknown letters would all read as the same word."""
    with_task(suite, gallery, "held_out=(replace(TINY.held_out[0], name='Żaneta Ślązak'),)")
    assert refused(suite).startswith("The base's tokenizer cannot represent ")


def test_a_mistake_elsewhere_does_not_touch_runs_without_cells(folder: Folder) -> None:
    """A plain test suite in the same environment never meets our checks."""
    folder.write("test_plain.py", "def test_plain(): pass")
    assert folder.run("--resurgence-base=nowhere", "--resurgence-store=/proc/none").code == 0
    assert not (folder.path / "reports").exists()


@WORKERS
def test_a_judge_without_its_weights_is_told_before_anything_is_built(suite: Folder, workers: str) -> None:
    """Which file is missing, and where it belongs; no model is unlearned and no image drawn first."""
    suite.write(
        "conftest.py",
        """
        from dataclasses import replace

        from tests.plugin.gallery import TINY

        pytest_resurgence_tasks = lambda: [replace(TINY, judges=("q16",))]
        """,
    )
    suite.environment["RESURGENCE_WEIGHTS"] = str(suite.path / "weights")
    assert refused(suite, "-n", workers, f"--resurgence-store={suite.path / 'store'}") == (
        "The weights clip-vit-l-14-openai.safetensors are missing."
    )
