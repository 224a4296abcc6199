"""`resurgence new`: writes a working unlearning method, judge or task, with its test."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from resurgence_harness.cli.starting_files import FILES, START, TESTS
from resurgence_harness.errors import UserError, sentence, shown

LONGEST = 40
"""Maximum characters of a name: it becomes part of file names and node ids."""
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("new")(new_command)


def new_command(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"{', '.join(FILES)}.")],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name, as in node ids: lower-case letters, digits and hyphens.")
    ],
    into: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write into.")] = Path(),
) -> None:
    """Write a working method, judge or task, and its test, which passes as written: NAME.py and test_NAME.py."""
    if kind not in FILES:
        raise UserError(
            sentence(f'There is no kind "{shown(kind)}" to write.', known=", ".join(FILES), do="Name one of these.")
        )
    module = _module(name)
    files = {into / f"{module}.py": FILES[kind], into / f"test_{module}.py": TESTS[kind]}
    for file in files:
        if file.exists() or file.is_symlink():
            raise UserError(
                sentence(
                    f"{shown(str(file))} exists already.", do="Choose another name, or another folder with --into."
                )
            )
    _check_free(name, module)
    words = {"@NAME@": name, "@MODULE@": module, "@CLASS@": _class(name), "@CONSTANT@": module.upper()}
    _write({file: _filled(text, words) for file, text in files.items()}, into)
    print(f"Written: {', '.join(map(str, files))}")
    print(f"Test: pytest {into / f'test_{module}.py'}")
    print(_filled(START[kind], words))


def _module(name: str) -> str:
    """The module's name; UserError for a name that cannot be one, or a node id."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST or keyword.iskeyword(name):
        raise UserError(
            sentence(
                f'"{shown(name)}" cannot be the name of a file and of a node id.',
                wanted=f"lower-case letters, digits and single hyphens, a letter first, at most {LONGEST} characters",
                do="For example: shrink, my-judge2.",
            )
        )
    return name.replace("-", "_")


def _check_free(name: str, module: str) -> None:
    """UserError for a file that would hide an installed module from every import in its folder."""
    try:
        known = module in sys.stdlib_module_names or module == "conftest" or find_spec(module) is not None
    except (ImportError, ValueError):
        known = True
    if known:
        raise UserError(
            sentence(
                f"A Python module called {module} exists already, which {module}.py would hide.",
                name=name,
                do="Choose another name.",
            )
        )


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _filled(text: str, words: dict[str, str]) -> str:
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text


def _write(files: dict[Path, str], into: Path) -> None:
    """Write both files or none; existing ones are never overwritten."""
    written: list[Path] = []
    try:
        into.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            with file.open("x", encoding="utf-8", newline="\n") as stream:
                written.append(file)
                stream.write(text)
    except (OSError, ValueError) as problem:
        for file in written:
            file.unlink(missing_ok=True)
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise UserError(
            sentence(
                f"{shown(str(into))} cannot be written into.", reason=reason, do="Give another folder with --into."
            )
        ) from None
