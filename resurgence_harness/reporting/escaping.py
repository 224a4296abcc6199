"""Text that came from a file or a prompt, made fit for Markdown, HTML, XML and a line of a CI's log."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from html import escape

from resurgence_harness.errors import shown, visible

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~@$<>&:\-.])")


def markdown(text: object) -> str:
    """Plain words in Markdown: nothing in them is a link, a tag, a mention, a table's end or a new line."""
    line = " ".join(visible(word) for word in str(text).split())
    return _SPECIAL.sub(lambda found: _ENTITIES.get(found[0], "\\" + found[0]), line)


_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;", "@": "&#64;", ":": "&#58;", "$": "&#36;", ".": "."}
_ENTITIES |= {letter: letter for letter in "-+()"}
"""Characters that a backslash does not tame everywhere, and those that need no taming within a line."""


def xml(text: object) -> str:
    """Characters that XML 1.0 cannot hold, or that do not show, written out; the writer escapes the others."""
    return lines(text)


def html(text: object) -> str:
    """Text between tags or quotes in HTML."""
    return escape(lines(text))


def lines(text: object) -> str:
    """Every line with whatever does not show in it written out."""
    return "\n".join(visible(line) for line in str(text).split("\n"))


def command(text: object) -> str:
    """A workflow command's message: a line end would begin another command."""
    return lines(text).replace("%", "%25").replace("\n", "%0A")


def parameter(text: object) -> str:
    """A workflow command's parameter, in which commas and colons end it."""
    return command(text).replace(":", "%3A").replace(",", "%2C")


def discreet(text: object, environ: Mapping[str, str] = os.environ) -> str:
    """A library's message without what nobody may read: secrets of the environment, and accounts in addresses."""
    told = _ACCOUNT.sub(r"\1***@", str(text))
    secrets = {value for name, value in environ.items() if _SECRET.search(name) and len(value) >= 6}
    for secret in sorted(secrets, key=len, reverse=True):
        told = told.replace(secret, "***")
    return _TOKEN.sub("***", told)


def problem(error: BaseException) -> str:
    """What a library's error says, in one discreet line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return shown(discreet(f"{type(error).__name__}: {lines[0] if lines else 'no more is said'}"), limit=300)


_SECRET = re.compile(r"TOKEN|KEY|PASSWORD|PASSWD|SECRET|CREDENTIAL", re.I)
"""What a variable that holds one is called."""
_ACCOUNT = re.compile(r"(://)[^/\s@]+@")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|(?<=Bearer )[\w.~+/=-]+", re.I)
