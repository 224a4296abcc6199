"""Text that came from a file or a prompt, made fit for Markdown, HTML, XML and a line of a CI's log."""

from __future__ import annotations

import re

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
