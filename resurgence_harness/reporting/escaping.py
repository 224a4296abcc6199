"""Escapes text from files and prompts for Markdown, HTML, XML and CI logs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from html import escape

from resurgence_harness.errors import shown, visible

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~@$<>&:\-.])")


def markdown(text: object) -> str:
    """Text as one literal line of Markdown: no links, tags, mentions, table cells or line breaks."""
    line = " ".join(visible(word) for word in str(text).split())
    return _SPECIAL.sub(lambda found: _ENTITIES.get(found[0], "\\" + found[0]), line)


_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;", "@": "&#64;", ":": "&#58;", "$": "&#36;", ".": "."}
_ENTITIES |= {letter: letter for letter in "-+()"}
"""Characters that a backslash does not escape everywhere, and those that need no escape within a line."""


def xml(text: object) -> str:
    """Text with invisible characters, and those that XML 1.0 forbids, as escapes; the XML writer escapes the others."""
    return lines(text)


def html(text: object) -> str:
    """Text between tags or quotes in HTML."""
    return escape(lines(text))


def lines(text: object) -> str:
    """Text with the invisible characters of every line as escapes."""
    return "\n".join(visible(line) for line in str(text).split("\n"))


def command(text: object) -> str:
    """A workflow command's message: a line end would begin another command."""
    return lines(text).replace("%", "%25").replace("\n", "%0A")


def parameter(text: object) -> str:
    """A workflow command's parameter, in which commas and colons end it."""
    return command(text).replace(":", "%3A").replace(",", "%2C")


def discreet(text: object, environ: Mapping[str, str] = os.environ) -> str:
    """A library's message without secrets: values of secret environment variables, accounts in URLs, tokens."""
    redacted = _ACCOUNT.sub(r"\1***@", str(text))
    secrets = {value for name, value in environ.items() if _SECRET.search(name) and len(value) >= 6}
    for secret in sorted(secrets, key=len, reverse=True):
        redacted = redacted.replace(secret, "***")
    return _TOKEN.sub("***", redacted)


def problem(error: BaseException) -> str:
    """A library's error as one line without secrets."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return shown(discreet(f"{type(error).__name__}: {lines[0] if lines else 'no message'}"), limit=300)


_SECRET = re.compile(r"TOKEN|KEY|PASSWORD|PASSWD|SECRET|CREDENTIAL", re.I)
"""Names of environment variables that may hold a secret."""
_ACCOUNT = re.compile(r"(://)[^/\s@]+@")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|(?<=Bearer )[\w.~+/=-]+", re.I)
