"""Every generated policy, list and acceptance is refused in a sentence, quickly, or reads the same."""

from __future__ import annotations

import os
import re
import resource
import time
from pathlib import Path

import pytest
import yaml

from resurgence_harness import strict_yaml
from resurgence_harness.errors import UserError
from resurgence_harness.gate.release_policy import PolicyFile, ReleasePolicy, load_policy, resolve
from resurgence_harness.reviewed_text import decoded
from resurgence_harness.tasks import TASKS
from tests.gate import generated_policies
from tests.gate.generated_policies import ACCEPTANCE, GOOD, NAME, SOON, corpus

pytestmark = pytest.mark.slow

SECONDS, MEGABYTES = 1.0, 100
"""For one input."""
INTERNALS = re.compile(
    r"function-(after|before|wrap|plain)|pydantic|tuple\[|_plain|yaml\.org|Traceback|\bTrue\b|\bNone\b"
)
"""Words of the libraries that read it."""


def read(options: list[str]) -> ReleasePolicy:
    """What the gate does with these options before it looks at a model."""
    given = dict(zip(options[::2], options[1::2], strict=True))
    if "--policy" in given:
        file, folder = load_policy(Path(given["--policy"]))
        return resolve(file, folder, tasks=TASKS)
    return resolve(PolicyFile(), Path.cwd(), tasks=TASKS, erased=Path(given["--concepts"]))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of good files."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "good.yaml").write_text(GOOD, encoding="utf-8")
    (folder / "good.txt").write_text(NAME, encoding="utf-8")
    (folder / "good-a.yaml").write_text(ACCEPTANCE % SOON, encoding="utf-8")
    return folder


def test_every_row_is_refused_in_a_sentence_or_reads_the_same(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One UserError in the file's own words, every character of it visible; nothing blocks, nothing grows."""
    rows, wrong = corpus(outside), {}
    (outside / "policy.yaml").write_text(GOOD, encoding="utf-8")
    monkeypatch.chdir(outside)
    digest = read(["--policy", "policy.yaml"]).digest
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, row in enumerate(rows):
        folder = tmp_path / "rows" / str(number)
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        options = row.make(folder)
        there, start, said = sorted(os.walk(folder)), time.process_time(), ""
        try:
            if read(options).digest != digest:
                said = "read, with another digest"
            elif row.expected != "same":
                said = "read"
        except UserError as error:
            said = "" if row.expected == "refused" else str(error)
            first, *others = str(error).splitlines()
            if not first.endswith(".") or not others or not others[-1].startswith("  "):
                said = f"no sentence: {error}"
            if not str(error).replace("\n", "").isprintable() or max(map(len, [first, *others])) > 1000:
                said = f"not fit to be shown: {str(error)!r:.300}"
            if INTERNALS.search(str(error).replace(str(tmp_path), "")):
                said = f"words of a library: {error}"
        except BaseException as error:
            said = repr(error)[:300]
        if time.process_time() - start > SECONDS:
            said += f"; it took {time.process_time() - start:.1f} s"
        if sorted(os.walk(folder)) != there:
            said += "; it left something behind"
        if said:
            wrong[row.name] = said
    assert not wrong, "\n".join(f"{name}: {words}" for name, words in wrong.items())
    assert len(rows) >= 180
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES
    assert not any((tmp_path / name).exists() for name in ("pwned", "rows/pwned"))


def test_both_parsers_read_the_same(tmp_path: Path, outside: Path) -> None:
    """Where libyaml is missing, the parser in Python reads: what both accept has the same values and lines."""
    compared = 0
    for number, row in enumerate(corpus(outside)):
        folder = tmp_path / "rows" / str(number)
        folder.mkdir(parents=True)
        row.make(folder)
        path = folder / "policy.yaml"
        if not path.is_file() or path.is_symlink() or path.stat().st_size > 20_000:
            continue
        try:
            text = decoded(path.read_bytes())
            one = strict_yaml.parse(text, loader=yaml.CSafeLoader)
            two = strict_yaml.parse(text, loader=yaml.SafeLoader)
        except ValueError:
            continue
        compared += 1
        assert (one.content, one.lines) == (two.content, two.lines), row.name
    assert compared > 100


def test_what_is_written_is_read_again() -> None:
    """Text that looks like something else keeps its quotes; what is repeated is written out."""
    day = generated_policies.SOON
    for word in (
        *generated_policies.NO_NUMBERS,
        *generated_policies.NO_TEXTS,
        "<<",
        "=",
        "1e5",
        "a: b",
        "# x",
        day,
        "\u202e",
    ):
        content = {"acceptances": [{"reason": word, "expires": day}] * 2}
        assert strict_yaml.parse(strict_yaml.written(content)).content == content, word


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("concepts: {erased: [No]}", "concepts.erased.0 is No, which some YAML parsers read as true or false"),
        ("limits: {level: 1:30}", "limits.level is 1:30, which YAML parsers read as different numbers"),
        ("limits: {level: '0.1'}", 'limits.level is "0.1": a number is expected, without quotes.'),
        ("limits: {level: true}", "limits.level is true: a number is expected"),
        ("concepts: {erased: !!set {a}}", "line 1: not readable as YAML: the tag !!set is not supported"),
        ("limits:\n  <<: {level: 1}", "line 2: not readable as YAML: the merge key << is not supported"),
        ("models: {candidate: 3}", "models.candidate is 3: a model is expected"),
        ("concepts: {erased: 3}", "concepts.erased is 3: a list of names is expected, or the path of a file"),
        ("lеvel: 3", "l\\u0435vel is not a known key"),
        ("task: 5", "task is 5: text is expected"),
        ("version: true", "version is true: a whole number is expected"),
    ],
)
def test_a_mistake_is_told_in_the_files_words(tmp_path: Path, text: str, words: str) -> None:
    """The keys that lead there, the value as it stands, what is expected."""
    path = tmp_path / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_policy(path)
    assert words in str(caught.value).splitlines()[0]
