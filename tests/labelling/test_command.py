"""`resurgence label`: ends when every picture is labelled; one process for each labeller."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from resurgence_harness.labelling import LabelFile, PictureSet
from tests.labelling.sets import drawn
from tests.plugin.conftest import ROOT
from tests.warm_python import python

pytestmark = pytest.mark.slow


@pytest.fixture
def label(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """label("--by", …): the command on six pictures."""
    drawn(tmp_path / "set", 6)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}

    def start(*words: str) -> subprocess.Popen[str]:
        command = [python(), "-m", "resurgence_harness.cli", "label", str(tmp_path / "set"), "--no-browser", *words]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def test_two_labellers_one_after_the_other(label: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """The address is printed, a second process of the same role is refused, and the last answer ends the command."""
    for by in ("first", "second"):
        process = label("--by", by)
        assert process.stdout is not None
        address = re.match(r"(http://127\.0\.0\.1:\d+/\?token=\S+)  \(0 of 6 labelled", process.stdout.readline())
        assert address is not None
        parts = urlsplit(address[1])
        if by == "first":
            again = label("--by", by)
            _, errors = again.communicate(timeout=60)
            assert again.returncode == 4 and "labelled by first in another process" in errors
        for place in range(6):
            connection = http.client.HTTPConnection(parts.netloc, timeout=10)
            own = {"X-Token": parts.query.removeprefix("token="), "Origin": f"http://{parts.netloc}"}
            connection.request("POST", "/answer", json.dumps({"place": place, "label": "red"}), own)
            assert connection.getresponse().status == 200
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "6 of 6 pictures labelled" in output
    assert "agrees with first on 6 of 6 pictures, Cohen's kappa undefined" in output
    assert len(LabelFile.open(PictureSet.read(tmp_path / "set"), "second").labels) == 6


def test_a_mistake_is_one_sentence(label: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """A name in place of a role, and an edited file of labels."""
    process = label("--by", "Ada Quill")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 4 and "cannot be the role of a labeller" in errors
    pictures = PictureSet.read(tmp_path / "set")
    file = LabelFile.open(pictures, "editor")
    file.add(pictures.pictures[0].sha256, "red")
    file.path.write_bytes(file.path.read_bytes().replace(b'"red"', b'"green"'))
    process = label("--by", "editor")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 4 and "were edited" in errors and "Traceback" not in errors
