"""A file of settings from the command line to the verdict, with what a small grid says of itself."""

from __future__ import annotations

import hashlib

import pytest

from resurgence_harness.presets import choice
from tests.plugin.conftest import Folder

pytestmark = pytest.mark.slow

UCE = "--resurgence-methods=uce"


def test_a_file_of_settings_is_recorded_with_its_digest(suite: Folder) -> None:
    """Its values reach the cell and verdict.json, and the line that repeats it; --resurgence-set comes before it.

    The grid can never decide, which its cell and the last lines of the run say.
    """
    path = suite.write(
        "settings.yaml",
        """
        uce: {templates: ["{}", "a photo of {}"]}
        salun: {retain_weight: 0.75}
        lora: {schedule: {kind: cosine}, flip: random, steps: 7}
        """,
    )
    small = ["--resurgence-seeds=2", "--resurgence-engine=fixed"]
    own = [f"--resurgence-set={setting}" for setting in suite.settings]
    ran = suite.run(UCE, "--resurgence-settings=settings.yaml", *small, *own)
    assert ran.code == 10, ran.output + ran.errors
    selection = ran.verdicts["selection"]
    assert selection["settings"] == hashlib.sha256(path.read_bytes()).hexdigest()
    changed = selection["changed"]
    assert changed["uce.templates"] == ["{}", "a photo of {}"] and changed["salun.retain_weight"] == 0.75
    assert changed["lora.schedule"] == "cosine" and changed["lora.flip"] == "random"
    assert changed["lora.steps"] == 2  # the folder's own --resurgence-set
    for name, value in changed.items():
        assert choice(name, value) is not None
    assert "lora.flip=random" in ran.output
    (result,) = ran.results
    pages = [suite.path / "reports/out/allure-results" / one["source"] for one in result["attachments"]]
    told = " ".join(
        page.read_text(encoding="utf-8", errors="ignore") for page in pages if page.suffix in (".html", ".txt")
    )
    (note,) = selection["notes"]
    assert note.startswith("tiny, 1 concept: 2 images cannot show that nothing came back")
    assert note in " ".join(ran.output.split()) and "never HOLDS" in note
    assert "--resurgence-set=lora.schedule=cosine" in told and "schedule cosine" in told


def test_a_wrong_setting_is_exit_code_4_with_its_path(suite: Folder) -> None:
    """Before anything is built, and without a traceback."""
    suite.write("settings.yaml", "shs: {projection: {kind: gradient-memory, margin: big}}\n")
    for arguments, words in (
        (["--resurgence-settings=settings.yaml"], "shs.projection.margin is 'big'"),
        (["--resurgence-settings=nowhere.yaml"], "cannot be read"),
        (["--resurgence-captions=nowhere.txt"], "cannot be read"),
        (["--resurgence-set=shs.projection=sideways"], "shs.projection is 'sideways'"),
        (["--resurgence-set=esd.subset=everything"], "choose --resurgence-methods=esd-all"),
    ):
        ran = suite.run("--resurgence-methods=esd", *arguments)
        assert ran.code == 4, ran.output + ran.errors
        assert words.casefold() in ran.errors.casefold() and "Traceback" not in ran.errors
    assert not (suite.path / "reports").exists()
