"""Policies, lists and acceptances that are generated: one thing wrong in each, in every place where it can be.

    for row in corpus(outside): arguments = row.make(folder)

Each writes into an empty folder and gives the options by which the files are named. `expected` is what must become of
it: "refused" by reading alone, or "same": read, with the digest of the policy `GOOD`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from resurgence_harness.statistics.policies import day_in_utc
from tests.gate.hostile_policies import GOOD, NAME

SOON = str(day_in_utc() + timedelta(days=100))
ACCEPTANCE = (
    "acceptances:\n- {task: celebrity, method: erased, count: 1, finetuning: candidate, level: 0.9, reason: x,"
    " owner: y, expires: %s}\n"
)
FRACTIONS = (
    "alpha",
    "level",
    "delta",
    "delta_u",
    "incidental",
    "unlearned_at_most",
    "positive_control",
    "utility_floor",
)
NUMBERS = (
    *(f"limits: {{{name}: %s}}" for name in FRACTIONS),
    *(f"groups: {{g: {{concepts: [{NAME}], {name}: %s}}}}" for name in ("level", "alpha", "positive_images")),
    "limits: {positive_images: %s}",
    "budget: {images: %s}",
    "budget: {minutes: %s}",
    "seeds: %s",
    *(f"sampler: {{{name}: %s}}" for name in ("steps", "guidance", "height", "width", "batch")),
)
"""Every place of a number."""
NO_NUMBERS = ("true", "yes", "'5'", "0x10", "0o17", "010", "1_000", "1:30", "+5", ".inf", ".NaN", "-1", "1e999", "[1]")
NO_NUMBERS += ("{a: 1}", "2027-01-31", "!!int 5", "&a 5", "five", '"\\u202e5"', "9" * 50, "5 5", "|\n  5\n", "５")
TEXTS = ("task: %s", "concepts: {erased: [%s]}", f"groups: {{g: {{concepts: [%s]}}}}\nconcepts: {{erased: [{NAME}]}}")
NO_TEXTS = ("true", "No", "on", "5", "0.5", "null", "[a]", "{a: b}", "007", "0x1F", "12:30", "!!str x", "''", "' '")
TAGS = (
    "!!set",
    "!!omap",
    "!!pairs",
    "!!seq",
    "!!map",
    "!!str",
    "!!binary",
    "!!null",
    "!!bool",
    "!!float",
    "!!timestamp",
)
TAGS += (
    "!!merge",
    "!!python/name:os.system",
    "!!python/object/new:os.system",
    "!!python/module:os",
    "!",
    "!own",
    "!<x>",
)
HIDDEN = (
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    *(0x200E, 0x200F, 0x61C, 0x85, 0x2028, 0x2029, 0xFEFF, 0xFFF9, 0xFFFE, 0xFDD0),
    *(1, 7, 8, 0xB, 0xC, 0x1B, 0x1C, 0x7F, 0x9B, 0xE0041),
)
"""Characters that change how a text looks, or hide it: refused anywhere in a file."""
UNSEEN = (0x200B, 0x200C, 0x200D, 0x2060, 0xAD, 0x34F, 0x115F, 0x3164, 0xFFA0, 0xFE0F, 0xE0100, 0x2800, 0x180E)
UNSEEN += (0xE000, 0xF0000, 0x378, 0x2FE0, 0x1D173)
"""Characters without width, glyph or meaning: refused in a name."""
DAYS = ("2599-01-01", "9999-12-31", "0000-01-01", "2027-02-30", "2027-13-01", "2027-1-1", "27-01-31", "20270131")
DAYS += (
    "2027-W01-1",
    "2027-01-31T00:00:00",
    "2027-01-31 00:00:00",
    "2027-01-31T00:00:00Z",
    "19872000000",
    "1e9",
    "soon",
)
DAYS += ("true", "[2027-01-31]", "'2027-01-31 '", "!!timestamp 2027-01-31", "2027/01/31", "31.01.2027", "never", "-1")
DAYS += ("２０２７-01-31", "2027-01-31-", "2027_01_31", "190:20:30", "''", "{day: 2027-01-31}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One input."""

    name: str
    make: Callable[[Path], list[str]]
    """make(folder): write it; the options that name it."""
    expected: str = "refused"


def corpus(outside: Path) -> list[Row]:
    """Every row; `outside` is a folder with good files that nothing in it may lead to."""
    rows = [
        *_values(),
        *_structure(),
        *_characters(),
        *_long(),
        *_acceptances(),
        *_places(outside),
        *_encodings(),
        *_harmless(),
    ]
    assert len({row.name for row in rows}) == len(rows)
    return rows


def policy(name: str, text: str | bytes, expected: str = "refused") -> Row:
    """A policy file."""

    def make(folder: Path) -> list[str]:
        (folder / "policy.yaml").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return ["--policy", "policy.yaml"]

    return Row(name=f"policy: {name}", make=make, expected=expected)


def listed(name: str, data: bytes, expected: str = "refused") -> Row:
    """A list of names."""

    def make(folder: Path) -> list[str]:
        (folder / "erased.txt").write_bytes(data)
        return ["--concepts", "erased.txt"]

    return Row(name=f"list: {name}", make=make, expected=expected)


def _values() -> Iterator[Row]:
    """What is no number in the place of every number, what is no text in the place of texts."""
    for field in NUMBERS:
        for value in NO_NUMBERS:
            yield policy(f"{field} is {value!r}"[:140], f"{GOOD}{field % value}\n")
    for field in TEXTS:
        for value in NO_TEXTS:
            if not (field.startswith("task") and value == "null"):  # says nothing
                begin = "" if "concepts" in field else f"concepts: {{erased: [{NAME}]}}\n"
                yield policy(f"{field} is {value!r}"[:140], f"{begin}{field % value}\n")
    for value in ("0", "2", "1.0", "true", "'1'", "null 1", "01", "[1]"):
        yield policy(f"version {value}", f"{GOOD}version: {value}\n")


def _structure() -> Iterator[Row]:
    """Tags, anchors, merges, repeated and odd keys, nesting."""
    names = f"{{{NAME}: null}}"
    for tag in TAGS:
        yield policy(f"tag {tag} on a list", f"concepts: {{erased: {tag} [{NAME}]}}\n")
        yield policy(f"tag {tag} on a text", f"task: {tag} celebrity\nconcepts: {{erased: [{NAME}]}}\n")
        yield policy(f"tag {tag} on a mapping", f"concepts: {{erased: {tag} {names}}}\n")
    yield policy("a tag on a key", f"{GOOD}!!str seeds: 5\n")
    yield policy("a tag on the file", f"!!map\n{GOOD}")
    for name, text in {
        "an anchor alone": "budget: &a {images: 5}",
        "a merge": "limits: {<<: {level: 0.9}}",
        "a merge of several": "limits: {<<: [{level: 0.9}, {level: 0.1}]}",
        "a merge in a block": "limits:\n  <<: {level: 0.9}\n  level: 0.1",
        "a merge in quotes": "limits: {'<<': {level: 0.9}}",
        "a repeated key": "limits: {level: 0.1, level: 0.9}",
        "a repeated key in a block": "limits:\n  level: 0.1\n  level: 0.9",
        "a repeated key in quotes": "limits: {level: 0.1, 'level': 0.9}",
        "a repeated key by escapes": 'limits: {level: 0.1, "lev\\u0065l": 0.9}',
        "a repeated section": "seeds: 5\nseeds: 5",
        "a key in full width": "limits: {level: 0.1, ｌevel: 0.9}",
        "a key in Cyrillic": "limits: {lеvel: 0.9}",
        "numbers as keys": "groups: {1: {concepts: [x]}, 1.0: {concepts: [y]}}",
        "truth as a key": "groups: {true: {concepts: [x]}}",
        "yes as a key": "groups: {yes: {concepts: [x]}}",
        "nothing as a key": "groups: {~: {concepts: [x]}}",
        "an empty key": "groups: {'': {concepts: [x]}}",
        "a missing key": ": 5",
        "a mapping as a key": "? {a: b}\n: c",
        "a list in brackets as a key": "[a]: c",
        "a key over several lines": "? limits\n  x\n: {level: 0.1}",
        "a second document": "---\nseeds: 5",
        "a document's end and more": "...\nseeds: 5",
        "a directive in the middle": "%YAML 1.2\n---\nseeds: 5",
        "an unfinished list": "judges: [identity",
        "an unfinished text": 'judges: ["identity',
        "a wrong escape": 'judges: ["\\q"]',
        "a tab as indentation": "limits:\n\tlevel: 0.1",
        "two values in a line": "seeds: 5: 6",
        "a lonely bracket": "]",
        "an at sign": "judges: [@identity]",
        "a backtick": "judges: [`x`]",
        "an unknown key in Greek": "λεvel: 0.9",
    }.items():
        yield policy(name, f"{GOOD}{text}\n")
    yield policy("a %TAG", f"%TAG ! tag:yaml.org,2002:\n---\n{GOOD}")
    yield policy("a %YAML of the future", f"%YAML 3.0\n---\n{GOOD}")
    for opening in ("[", "{a: ", "- ", "[{a: ", "? "):
        for times in (20, 5_000):
            yield policy(
                f"nested by {opening!r} {times}", f"seeds: {opening * times}" if opening[0] in "[{" else opening * times
            )


def _characters() -> Iterator[Row]:
    """Characters that hide or move text, in comments, in names, raw and as escapes."""
    for code in HIDDEN:
        yield policy(f"U+{code:04X} in a comment", f"{GOOD}# harmless{chr(code)}limits: {{level: 0.9}}\n")
        yield listed(f"U+{code:04X} in a comment", f"{NAME} # nothing{chr(code)}\n".encode())
    for code in (*HIDDEN, *UNSEEN):
        escape = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
        yield policy(f"U+{code:04X} as an escape", f'concepts: {{erased: ["Alba{escape} Drummond"]}}\n')
        yield listed(f"U+{code:04X} in a name", f"Alba{chr(code)}x Drummond\n".encode())
    for name in ("a" + "\u0301" * 40, "\ud800", "\udfff"):
        yield policy(f"name {name!a}"[:60], f"concepts: {{erased: ['{name}']}}\n")
    twice = 'concepts: {{erased: ["Zo\u00eb", "Zoe\u0308"]}}\n'
    yield policy("a name twice, composed and decomposed", twice)
    yield policy("a name twice, in full width", f"concepts: {{erased: [{NAME}, Ａlba Drummond]}}\n")
    yield policy("erased and retained, decomposed", 'concepts: {erased: ["Zo\u00eb"], retained: ["Zoe\u0308"]}\n')
    yield listed("a name twice, composed and decomposed", "Zo\u00eb\nZoe\u0308\n".encode())
    yield policy("a line's end that is none in most editors", f"{GOOD}# x\rlimits: {{level: 0.9}}\n")


def _long() -> Iterator[Row]:
    """A megabyte of one thing."""
    room = (1 << 20) - 200
    for name, text in {
        "a sexagesimal number": "seeds: 1" + ":59" * (room // 3),
        "a number": "seeds: 1" + "0" * room,
        "a fraction": "seeds: 0." + "1" * room,
        "an underscored number": "seeds: 1" + "_1" * (room // 2),
        "a text": "task: " + "x" * room,
        "a text of many words": "task: " + "x " * (room // 2),
        "a text of many lines": "task:\n" + " x\n" * (room // 3),
        "a literal text": "task: |\n" + " x\n" * (room // 3),
        "a folded text": "task: >\n" + "\n" * room + " x",
        "a text of escapes": 'task: "' + "\\n" * (room // 2) + '"',
        "a key": "x" * room + ": 5",
        "many keys": "\n".join(f"k{n}: 1" for n in range(80_000)),
        "many values": "judges: [" + "x," * (room // 2) + "]",
        "many blocks": "judges:\n" + "- x\n" * (room // 4),
        "many mappings": "cells: [" + "{a: 1}," * (room // 7) + "]",
        "spaces": "seeds:" + " " * room + "x",
        "brackets": "seeds: " + "[" * room,
        "braces": "seeds: " + "{" * room,
        "question marks": "? " * (room // 2),
        "dashes": "- " * (room // 2),
        "quotes": "task: '" + "''" * (room // 2) + "'",
        "anchors": "judges: [" + "&a x," * (room // 5) + "]",
        "colons": "task: " + "a:" * (room // 2),
    }.items():
        yield policy(f"long: {name}", f"concepts: {{erased: [{NAME}]}}\n{text}\n")
    yield policy("long: one byte too many", GOOD + "#" * ((1 << 20) + 1 - len(GOOD)))
    yield listed("long: one name", b"x" * room)
    yield listed("long: further words", NAME.encode() + b" | x" * (room // 4))
    yield listed("long: bars", b"|" * room)
    yield listed("long: empty lines", b"\n" * room)
    yield listed("long: names", b"x\n" * (room // 2))
    yield listed("long: marks", b"a" + "\u0301".encode() * (room // 2))


def _acceptances() -> Iterator[Row]:
    """Acceptances without a good end, or that say nothing."""

    def accepted(name: str, text: str) -> Row:
        def make(folder: Path) -> list[str]:
            (folder / "a.yaml").write_text(text, encoding="utf-8")
            return policy("", f"{GOOD}acceptances: a.yaml\n").make(folder)

        return Row(name=f"acceptance: {name}", make=make)

    whole = ACCEPTANCE % SOON
    yield Row(name="acceptance: harmless", make=accepted("", whole).make, expected="same")
    for day in DAYS:
        yield accepted(f"the day {day}", ACCEPTANCE % day)
    for key in ("task", "method", "count", "finetuning", "reason", "owner", "expires"):
        start = whole.index(f"{key}: ")
        end = min(place for sign in (", ", "}") if (place := whole.find(sign, start)) > 0)
        yield accepted(f"without {key}", (whole[:start] + whole[end:]).replace("{, ", "{").replace(", , ", ", "))
        for value in ("[]", "{}", "''", "-1", "null null", "yes"):
            if not (key in ("task", "method", "finetuning", "reason", "owner") and value in ("null null",)):
                bad = "{a: 1}" if value == "-1" and key != "count" else value
                yield accepted(f"{key} {value}", f"{whole[:start]}{key}: {bad}{whole[end:]}")
    for value in ("0", "1.5", "-0.1", "'0.5'", "true", ".nan", "1e999", "[0.5]", "0.5 0.6", "50%"):
        yield accepted(f"level {value}", whole.replace("level: 0.9", f"level: {value}"))
    for value in ("fine", "[unlearned, fine]", "3", "{a: b}", "true", "[[unlearned]]"):
        yield accepted(f"outcome {value}", whole.replace("level: 0.9", f"outcome: {value}"))
    for value in (
        "x",
        "{base: x}",
        "{base: x, steps: {esd: 0}}",
        "{base: x, steps: [esd]}",
        "{base: 1, steps: {esd: 1}}",
    ):
        yield accepted(f"bound_to {value}", whole.replace("level: 0.9", f"level: 0.9, bound_to: {value}"))
    for digits in ("xyz", "82f0c1d2e3a", "82F0C1D2E3A4", "'1234'"):
        bound = f"bound_to: {{base: x, steps: {{esd: 1}}, settings: {digits}}}"
        yield accepted(f"settings {digits}", whole.replace("level: 0.9", f"level: 0.9, {bound}"))
    yield accepted("twice", whole + whole.removeprefix("acceptances:\n"))
    yield accepted("limits beside", f"{whole}policy: {{level: 0.9}}\n")
    yield accepted("cells beside", f"{whole}cells: [{{method: erased, level: 0.9}}]\n")
    yield accepted("an alias", whole.replace("celebrity", "&a celebrity").replace("erased", "*a"))


def _places(outside: Path) -> Iterator[Row]:
    """Links, folders, pipes and devices in the place of files, and paths that lead out."""

    def instead(name: str, put: Callable[[Path], object], of: str) -> Row:
        def make(folder: Path) -> list[str]:
            (folder / "good.yaml").write_text(GOOD, encoding="utf-8")
            (folder / "good.txt").write_text(NAME, encoding="utf-8")
            (folder / "good-a.yaml").write_text(ACCEPTANCE % SOON, encoding="utf-8")
            put(folder / {"policy": "policy.yaml", "list": "erased.txt", "acceptances": "a.yaml"}[of])
            if of == "policy":
                return ["--policy", "policy.yaml"]
            said = "concepts: {erased: erased.txt}\n" if of == "list" else f"{GOOD}acceptances: a.yaml\n"
            return policy("", said).make(folder)

        return Row(name=f"{of}: {name}", make=make)

    good = {"policy": "good.yaml", "list": "good.txt", "acceptances": "good-a.yaml"}
    for of, beside in good.items():
        yield instead("a link beside itself", lambda path, to=beside: path.symlink_to(to), of)
        yield instead("a link outside", lambda path, to=beside: path.symlink_to(outside / to), of)
        yield instead("a link to nothing", lambda path: path.symlink_to("nowhere"), of)
        yield instead("a link to itself", lambda path: path.symlink_to(path.name), of)
        yield instead("a link to a device", lambda path: path.symlink_to("/dev/zero"), of)
        yield instead("a link to a link", lambda path, to=beside: _link(path, to), of)
        yield instead("a folder", lambda path: path.mkdir(), of)
        yield instead("a pipe", lambda path: os.mkfifo(path), of)
        yield instead("a socket", _socket, of)
        yield instead("empty of text", lambda path: path.write_bytes(b"\0" * 100), of)
        yield instead("sparse and huge", _sparse, of)

    def through(name: str, said: str, *more: str) -> Row:
        def make(folder: Path) -> list[str]:
            (folder / "there").symlink_to(outside)
            (folder / "policy.yaml").write_text(said, encoding="utf-8")
            return list(more) or ["--policy", "policy.yaml"]

        return Row(name=f"a linked folder: {name}", make=make)

    yield through("the policy", GOOD, "--policy", "there/good.yaml")
    yield through("the list", "concepts: {erased: there/good.txt}\n")
    yield through("the list of an option", GOOD, "--concepts", "there/good.txt")
    yield through("acceptances", f"{GOOD}acceptances: there/good-a.yaml\n")
    for path in (
        "/dev/stdin",
        "/dev/null",
        "/dev/zero",
        "/proc/self/environ",
        "/proc/self/mem",
        "/etc/passwd",
        "~/x",
        "..",
        ".",
    ):
        yield policy(f"the list {path}", f"concepts: {{erased: {path}}}\n")
        yield policy(f"the acceptances {path}", f"{GOOD}acceptances: {path}\n")
    for name in ("/dev/zero", "/proc/self/mem", "nowhere.yaml", ".", "x" * 5000, "a/b/c"):
        yield Row(name=f"the policy {name[:20]}", make=lambda folder, name=name: ["--policy", name])
        yield Row(name=f"the list of an option {name[:20]}", make=lambda folder, name=name: ["--concepts", name])


def _encodings() -> Iterator[Row]:
    """Everything but UTF-8."""
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
        yield policy(f"in {encoding}", GOOD.encode(encoding))
        yield listed(f"in {encoding}", f"{NAME}\n".encode(encoding))
    for encoding in ("latin-1", "cp1252", "cp437", "shift-jis", "gb18030", "koi8-r", "mac-roman"):
        letter = {"shift-jis": "名", "gb18030": "名", "koi8-r": "я"}.get(encoding, "é")
        yield policy(f"in {encoding}", f"concepts: {{erased: [{letter}a]}}\n".encode(encoding))
        yield listed(f"in {encoding}", f"{letter}a\n".encode(encoding))
    for name, data in {
        "overlong": b"\xc0\xaf",
        "half a character": b"\xe2\x82",
        "a surrogate": b"\xed\xa0\x80",
        "beyond Unicode": b"\xf4\x90\x80\x80",
        "gzip": b"\x1f\x8b\x08\x00",
        "two marks": b"\xef\xbb\xbf\xef\xbb\xbf",
    }.items():
        yield policy(f"bytes: {name}", data + GOOD.encode())
        yield listed(f"bytes: {name}", data + NAME.encode())


def _harmless() -> Iterator[Row]:
    """Other ways to write the same policy."""
    for name, text in {
        "a byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
        "carriage returns": GOOD.replace("\n", "\r\n").encode(),
        "a beginning": f"---\n{GOOD}".encode(),
        "an end": f"{GOOD}...\n".encode(),
        "a directive": f"%YAML 1.2\n---\n{GOOD}".encode(),
        "quotes": GOOD.replace("celebrity", "'celebrity'").replace(NAME, f'"{NAME}"').encode(),
        "comments": f"# é ü 名 👍\n{GOOD}# emphasis: no\n".encode(),
        "a block": f"task: celebrity\nconcepts:\n  erased:\n  - {NAME}\n".encode(),
        "empty sections": f"{GOOD}limits:\nbudget: ~\nsampler: null\n".encode(),
        "a folded name": f"task: celebrity\nconcepts: {{erased: [{NAME.replace(' ', chr(10) + '  ')}]}}\n".encode(),
        "a megabyte of comments": GOOD.encode() + b"# x\n" * 200_000,
        "JSON": b'{"task": "celebrity", "concepts": {"erased": ["%s"]}}' % NAME.encode(),
        "another order": f"concepts: {{erased: [{NAME}]}}\ntask: celebrity\n".encode(),
        "no line's end": GOOD.rstrip().encode(),
    }.items():
        yield policy(f"harmless: {name}", text, "same")
    for name, data in {
        "a byte order mark": b"\xef\xbb\xbf" + NAME.encode(),
        "carriage returns": f"# x\r\n{NAME}\r\n".encode(),
        "comments and spaces": f"\n\n   {NAME}   # first\n\n".encode(),
        "capitals": NAME.upper().encode(),
    }.items():
        yield listed(f"harmless: {name}", data, "same")


def _link(path: Path, to: str) -> None:
    (path.parent / "middle").symlink_to(to)
    path.symlink_to("middle")


def _socket(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 36)
