"""The documentation site: `sphinx-build -W --keep-going docs build/site`, with `pip install -e ".[docs]"`.

Pages are the Markdown files of this folder. The reference of the commands, of pytest's options, of the file formats and
of the Python interface is generated here from the code, into docs/generated, which git ignores.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import resurgence_harness
from resurgence_harness.gate import schemas
from resurgence_harness.reporting import verdict_json

HERE = Path(__file__).parent
GENERATED = HERE / "generated"

project = "resurgence-harness"
release = version = resurgence_harness.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = project
exclude_patterns = ["notebooks"]
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
# Links inside the site, headings included, are checked by every build: MyST warns, and -W makes that an error. Links to
# other sites are checked by `-b linkcheck` where RESURGENCE_LINKS=outside is set, since that needs a network.
linkcheck_ignore = [r"http://(127\.0\.0\.1|localhost).*"]
if os.environ.get("RESURGENCE_LINKS") != "outside":
    linkcheck_ignore.append(r"https?://.*")
linkcheck_anchors_ignore_for_url = [r"https://(github|huggingface)\.(com|co)/.*"]  # headings made by scripts
linkcheck_timeout, linkcheck_retries, linkcheck_workers = 20, 2, 2
add_module_names = False

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)")
"""A link to a file of the repository that is no page."""
TESTING = ("check_judge", "check_task", "check_unlearning", "check_finetuning", "run_on")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", generate)
    app.connect("source-read", name_files_outside)
    app.connect("autodoc-process-docstring", as_restructured_text)


def name_files_outside(app: Any, page: str, source: list[str]) -> None:
    """Links to files of the repository become their names, as the site has pages only.

    FileNotFoundError for a file that does not exist.
    """

    if page.startswith("generated/"):
        return

    def named(found: re.Match[str]) -> str:
        if not (HERE.parent / found[2]).exists():
            raise FileNotFoundError(f"{page} links to {found[2]}, which does not exist.")
        return f"{found[1]} (`{found[2]}`)"

    source[0] = OUTSIDE.sub(named, source[0])


def generate(app: Any) -> None:
    """Write the generated pages."""
    GENERATED.mkdir(exist_ok=True)
    for name, content in {
        "commands": commands(),
        "options": options(),
        "schemas": formats(),
        "python": python(),
    }.items():
        page = GENERATED / f"{name}.md"
        if not page.is_file() or page.read_text(encoding="utf-8") != content:
            page.write_text(content, encoding="utf-8")


def commands() -> str:
    """`--help` of every command."""
    import typer.main

    from resurgence_harness.cli.commands import app

    def walk(command: Any, name: str) -> str:
        inner = getattr(command, "commands", {})
        text = "" if inner else f"## {name}\n\n```text\n{helped(name.split()[1:])}\n```\n\n"
        return text + "".join(walk(one, f"{name} {word}") for word, one in inner.items() if not one.hidden)

    return "# Commands\n\n" + walk(typer.main.get_command(app), "resurgence")


def helped(words: list[str]) -> str:
    """What `resurgence WORDS --help` prints, without colours and boxes' width of a terminal."""
    return run([sys.executable, "-m", "resurgence_harness.cli", *words, "--help"])


def options() -> str:
    """The plugin's part of `pytest --help`."""
    text = run([sys.executable, "-m", "pytest", "--help"])
    (own,) = [block for block in re.split(r"\n(?=\S)", text) if block.startswith("resurgence")]
    return f"# Options of pytest\n\n```text\n{own}\n```\n"


def run(command: list[str]) -> str:
    """A command's output. CalledProcessError if it fails."""
    plain = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "110", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain, cwd=HERE.parent)
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def formats() -> str:
    """The fields of verdict.json and of the policy and limits files, from their schemas."""
    found = {
        "verdict.json": verdict_json.schema(),
        "The policy of a gate": schemas.schema("policy"),
        "limits.yaml": schemas.schema("limits"),
    }
    return "# File formats\n\n" + "".join(f"## {name}\n\n{_tables(schema)}" for name, schema in found.items())


def _tables(schema: dict[str, Any]) -> str:
    parts = {"": schema, **schema.get("$defs", {})}
    text = ""
    for name, part in parts.items():
        rows = [
            f"| `{field}` | {_kind(about)} | {_cell(about.get('description', ''))} |"
            for field, about in part.get("properties", {}).items()
        ]
        if rows:
            title = f"### {name}\n\n" if name else ""
            described = part.get("description", "").split("\n\n")[0]
            text += f"{title}{_cell(described)}\n\n| field | type | |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
    return text


def _kind(about: dict[str, Any]) -> str:
    if "$ref" in about:
        return f"{about['$ref'].rpartition('/')[2]}"
    if "anyOf" in about:
        return " or ".join(dict.fromkeys(map(_kind, about["anyOf"])))
    if "enum" in about or "const" in about:
        return ", ".join(f"`{json.dumps(one)}`" for one in about.get("enum", [about.get("const")]))
    if about.get("type") == "array":
        return f"list of {_kind(about['items'])}" if isinstance(about.get("items"), dict) else "list"
    return str(about.get("type", "any"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def python() -> str:
    """The public names of the package, and of its contract tests."""
    import inspect

    lines = ["# Python", "", "How to use it: [library](../library.md), [extending](../extending.md).", ""]
    for module, names in {
        "resurgence_harness": resurgence_harness.__all__,
        "resurgence_harness.testing": TESTING,
    }.items():
        lines += [f"## {module}", ""]
        for name in names:
            value = getattr(__import__(module, fromlist=[name]), name)
            if name == "__version__":
                continue
            if inspect.ismodule(value):
                place = "resurgence_harness.library.gating.gate"
            else:
                place = f"{value.__module__}.{value.__qualname__}"
            if hasattr(value, "model_fields"):
                about = f"{inspect.getdoc(value)} Fields: [{name}](schemas.md#{name.lower()})."
                lines += [f"**{name}** {about}", ""]
                continue
            kind, inside = ("autoclass", ["    :members:"]) if inspect.isclass(value) else ("autofunction", [])
            lines += ["```{eval-rst}", f".. {kind}:: {place}", *inside, "```", ""]
    return "\n".join(lines)


def as_restructured_text(app: Any, what: str, name: str, value: Any, settings: Any, lines: list[str]) -> None:
    """The docstrings of this package are plain text: indented blocks are shown as they are, `names` as code."""
    text: list[str] = []
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        if re.search(r"^ {2,}\S|\S {3,}\S", block, re.MULTILINE):
            text += ["::", "", *(f"    {line}" for line in block.splitlines()), ""]
        else:
            escaped = re.sub(r"([*_|\\])(?![^`]*`[^`]*(?:`[^`]*`[^`]*)*$)", r"\\\1", block)
            text += [*re.sub(r"`([^`]+)`", r"``\1``", escaped).splitlines(), ""]
    lines[:] = text
