"""Text that came from a file or a prompt, made fit for Markdown, HTML, XML and a line of a CI's log."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from resurgence_harness.errors import shown

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~@$<>&:\-.])")


def markdown(text: object) -> str:
    """Plain words in Markdown: nothing in them is a link, a tag, a mention, a table's end or a new line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return _SPECIAL.sub(lambda found: _ENTITIES.get(found[0], "\\" + found[0]), line)


_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;", "@": "&#64;", ":": "&#58;", "$": "&#36;", ".": "."}
_ENTITIES |= {letter: letter for letter in "-+()"}
"""Characters that a backslash does not tame everywhere, and those that need no taming within a line."""


def xml(text: object) -> str:
    """Characters that XML 1.0 cannot hold, written out; the writer escapes the others."""
    return "".join(c if _in_xml(ord(c)) else repr(c)[1:-1] for c in str(text))


def _in_xml(code: int) -> bool:
    return code in (0x9, 0xA, 0xD) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF


def command(text: object) -> str:
    """A workflow command's message: a line end would begin another command."""
    return str(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


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
