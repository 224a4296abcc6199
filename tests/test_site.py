"""The documentation site: every page is in its index, and every link to a file leads to one.

.ci/run builds it with warnings as errors.
"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_every_page_is_in_the_index_and_every_entry_is_a_page() -> None:
    """Under one of the four captions; pages in generated/ are made by docs/conf.py."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    trees = re.findall(r"```{toctree}\n:caption: (.+)\n:maxdepth: 1\n\n([^`]+)```", index)
    assert [caption for caption, _ in trees] == ["Tutorials", "How to", "Reference", "Explanation"]
    entries = [entry for _, pages in trees for entry in pages.split()]
    written = [entry for entry in entries if not entry.startswith("generated/")]
    assert sorted(written) == sorted(path.stem for path in DOCS.glob("*.md") if path.stem != "index")
    assert set(entries) - set(written) == {f"generated/{name}" for name in ("commands", "options", "schemas", "python")}


def test_links_of_pages_lead_to_files() -> None:
    """In docs/ and in the files at the top; addresses and anchors aside."""
    for page in [*DOCS.glob("*.md"), *(DOCS.parent / name for name in ("README.md", "CONTRIBUTING.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_command_and_option_in_the_pages_exists() -> None:
    """Lines of pages that begin with `resurgence …`, in blocks and inline: its command, and every option it has."""
    import typer.main

    from resurgence_harness.cli.commands import app

    found = 0
    for page in [*DOCS.glob("*.md"), *(DOCS.parent / name for name in ("README.md", "CONTRIBUTING.md"))]:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = re.findall(r"^ {4,}(?:- run: )?(resurgence [a-z].*)$", text, re.MULTILINE)
        for line in [*lines, *re.findall(r"`(resurgence [a-z][^`]*)`", text)]:
            words = re.split(r"[#|;>]", line.replace("…", " "))[0].split()[1:]
            command = typer.main.get_command(app)
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
            group = getattr(command, "commands", {})
            assert not (group and words and re.fullmatch(r"[a-z]+", words[0])), f"{page.name}: {line}: no {words[0]}"
            if group:
                continue
            known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
            passed_on = command.context_settings.get("ignore_unknown_options", False)
            for word in words:
                option = re.split(r"[=,)\]]", word.lstrip("[("))[0]
                if re.fullmatch(r"--[a-z][a-z-]*", option) and not passed_on:
                    assert option in known, f"{page.name}: {line}: no {option}"
            found += 1
    assert found > 60
