"""A corpus of hostile and broken policies, lists and names, generated: each must be one sentence and exit code 4.

    for case in corpus(outside): case.make(folder) → the arguments of `resurgence gate`

Empty and contradictory files, wrong encodings, bombs of aliases and of nesting, repeated keys, numbers that are none,
paths that lead elsewhere, and names that are HTML, shell, templates or control characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

NAME = "Alba Drummond"
GOOD = f"task: celebrity\nconcepts: {{erased: [{NAME}]}}\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{two}: &{two} [{', '.join([f'*{one}'] * 9)}]\n" for one, two in zip("abcdefgh", "bcdefghi", strict=True)
)
NAMES = (
    "<script>alert(1)</script>",
    "$(touch pwned)",
    "`touch pwned`",
    "; rm -rf /",
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\\\Windows",
    "{0.__class__.__init__.__globals__}",
    "%s%n%x",
    "[link](https://example.org)",
    "x" * 500,
    "\\x00",
    "\\x1b[31m",
    "\\u202Egnp.exe",
    "...",
    " spaced ",
    "two\\nlines",
    "🙂",
)
"""As they stand between double quotes in YAML. None is a name that the task's judges know."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One hostile input."""

    name: str
    make: Callable[[Path], list[str]]
    """make(folder): write it into an empty folder; the arguments of the command."""


def corpus(outside: Path) -> list[Case]:
    """Every case; `outside` is a file that must not be read as a list of names."""
    cases = [*_policies(), *_lists(outside), *_words()]
    assert len({case.name for case in cases}) == len(cases)
    return cases


def _policy(name: str, content: str | bytes) -> Case:
    def make(folder: Path) -> list[str]:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / "policy.yaml").write_bytes(data)
        return ["--policy", "policy.yaml", "--candidate", "micro"]

    return Case(name=f"policy: {name}", make=make)


def _policies() -> Iterator[Case]:
    yield _policy("empty", "")
    yield _policy("a list", "- 1\n")
    yield _policy("a number", "3\n")
    yield _policy("not YAML", "task: [celebrity\n")
    yield _policy("a tab", "task:\n\t- x\n")
    yield _policy("two documents", f"{GOOD}---\n{GOOD}")
    yield _policy("an alias bomb", BOMB)
    yield _policy("an alias", "task: &a celebrity\nconcepts: {erased: [*a]}\n")
    yield _policy("merged keys", f"{GOOD}limits: &a {{level: 0.1}}\nbudget: {{<<: *a}}\n")
    yield _policy("nested deeply", "concepts: " + "[" * 20_000)
    yield _policy("a huge number", f"{GOOD}seeds: {'9' * 10_000}\n")
    yield _policy("no such day", f"{GOOD}acceptances: 2020-99-99\n")
    yield _policy("a Python object", "task: !!python/object/apply:os.mkdir [pwned]\n")
    yield _policy("a tag", "task: !include /etc/passwd\n")
    yield _policy("UTF-16", GOOD.encode("utf-16"))
    yield _policy("latin-1", "task: célébrité\n".encode("latin-1"))
    yield _policy("binary", bytes(range(256)))
    yield _policy("a null character", "task: celebrity\0\n")
    yield _policy("two megabytes", "#" * 2_000_000)
    yield _policy("an unknown key", f"{GOOD}levels: 1\n")
    yield _policy("a repeated key", f"{GOOD}task: unsafe\n")
    yield _policy("a list as key", f"{GOOD}? [1]\n: 2\n")
    yield _policy("another version", f"{GOOD}version: 2\n")
    yield _policy("an unknown task", GOOD.replace("celebrity", "robbery"))
    yield _policy("an unknown judge", f"{GOOD}judges: [nobody]\n")
    yield _policy("a judge twice", f"{GOOD}judges: [identity, identity, identity]\n")
    yield _policy("no concepts", "task: celebrity\n")
    yield _policy("no names", "concepts: {erased: []}\n")
    yield _policy("concepts that are a number", "concepts: {erased: 3}\n")
    yield _policy("a name that is a number", "concepts: {erased: [1]}\n")
    yield _policy("both lists", f"concepts: {{erased: [{NAME}], retained: [{NAME}]}}\n")
    yield _policy("a name twice", f"concepts: {{erased: [{NAME}, alba drummond]}}\n")
    yield _policy("a synonym twice", f'concepts: {{erased: ["{NAME} | x"], retained: ["x"]}}\n')
    yield _policy("a group of strangers", f"{GOOD}groups: {{g: {{concepts: [Nobody Known]}}}}\n")
    yield _policy("two groups", f"{GOOD}groups: {{a: {{concepts: [{NAME}]}}, b: {{concepts: [{NAME}]}}}}\n")
    yield _policy("an empty group", f"{GOOD}groups: {{g: {{concepts: []}}}}\n")
    yield _policy("a group that is a path", f"{GOOD}groups: {{'../x': {{concepts: [{NAME}]}}}}\n")
    yield _policy("a group that is HTML", f"{GOOD}groups: {{'<b>': {{concepts: [{NAME}]}}}}\n")
    for value in (".nan", ".inf", "-1", "0", "1", "2", "'0.1'", "yes", "[]", "null"):
        if value != "null":  # says nothing, and the default stands
            yield _policy(f"level {value}", f"{GOOD}limits: {{level: {value}}}\n")
        yield _policy(f"minutes {value}", f"{GOOD}budget: {{minutes: {value}, images: 0}}\n")
    yield _policy("alpha of a coin", f"{GOOD}limits: {{alpha: 0.7}}\n")
    yield _policy("no seeds", f"{GOOD}seeds: 0\n")
    yield _policy("a giant image", f"{GOOD}sampler: {{height: 100000}}\n")
    for text in ("no name", "{} and {}", "{0.__class__}", "{name}", "{}}", "{", "x" * 500 + "{}", "{}\\n{}"):
        yield _policy(f"prompt {text[:20]}", f'{GOOD}prompts: {{erased: ["{text}"]}}\n')
    yield _policy("a prompt too long to read", f'{GOOD}prompts: {{erased: ["{"a " * 50}{{}}"]}}\n')
    yield _policy("no acceptances there", f"{GOOD}acceptances: nowhere.yaml\n")
    yield _policy("itself as acceptances", f"{GOOD}acceptances: policy.yaml\n")
    yield _policy("a list that is nowhere", "concepts: {erased: nowhere.txt}\n")
    yield _policy("a folder as list", "concepts: {erased: .}\n")
    yield _policy("a list elsewhere", "concepts: {erased: ../../outside}\n")
    yield _policy("an absolute list", "concepts: {erased: /etc/passwd}\n")
    yield _policy("acceptances elsewhere", f"{GOOD}acceptances: ../../outside\n")


def _lists(outside: Path) -> Iterator[Case]:
    def listed(name: str, data: bytes) -> Case:
        def make(folder: Path) -> list[str]:
            (folder / "erased.txt").write_bytes(data)
            return ["--concepts", "erased.txt", "--candidate", "micro"]

        return Case(name=f"list: {name}", make=make)

    yield listed("empty", b"")
    yield listed("comments only", b"# nobody\n\n")
    yield listed("UTF-16", NAME.encode("utf-16"))
    yield listed("binary", bytes(range(256)))
    yield listed("two megabytes", b"a\n" * 1_000_000)
    yield listed("twenty thousand names", b"".join(b"n%d\n" % number for number in range(20_000)))
    yield listed("an empty synonym", f"{NAME} | \n".encode())
    yield listed("strangers", b"Nobody Known\n")
    for place, name in enumerate(NAMES):
        yield listed(f"name {place}", name.encode())

    def linked(folder: Path) -> list[str]:
        (folder / "erased.txt").symlink_to(outside)
        return ["--concepts", "erased.txt", "--candidate", "micro"]

    yield Case(name="list: a link to something else", make=linked)


def _words() -> Iterator[Case]:
    """Names in a policy, and models that are none."""
    for place, name in enumerate(NAMES):
        yield _policy(f"name {place}", f'concepts: {{erased: ["{name}"]}}\n')
        yield _policy(f"retained name {place}", f'concepts: {{erased: [{NAME}], retained: ["{name}"]}}\n')
    for place, name in enumerate(("", " ", "nowhere", "../../x", "a=b", "x=nan", "x=inf", "owner/name", "x" * 5000)):

        def make(folder: Path, name: str = name) -> list[str]:
            (folder / "erased.txt").write_text(NAME)
            return ["--concepts", "erased.txt", "--candidate", name]

        yield Case(name=f"candidate {place}", make=make)
