"""Every hostile policy, list and name is one sentence: exit 4, nothing run, nothing written."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as tree

import pytest
import yaml

from resurgence_harness.gate.release_policy import PolicyFile, load_policy, resolve
from resurgence_harness.reporting import attestation, escaping, job_summary, junit, model_card
from resurgence_harness.tasks import TASKS
from tests.gate.hostile_policies import GOOD, NAMES, corpus
from tests.reporting.records import record, run

pytestmark = pytest.mark.slow


def test_the_whole_corpus_is_refused(here: Path, resurgence: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Through the command line: one sentence and what to do, no traceback, no file but the one that was given."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"\x7fELF secret\n")
    cases = corpus(outside)
    wrong = {}
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for number, case in enumerate(cases):
        folder = here / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        arguments = case.make(folder)
        there = sorted(os.walk(folder))
        said = resurgence("gate", *arguments, "--store", tmp_path / "store", "--out", "out")
        first, *_, last = (said.err.rstrip() or "nothing was said").splitlines()
        if said.code != 4 or not first.startswith("resurgence: ") or not first.endswith("."):
            wrong[case.name] = f"{said.code}: {first[:200]}"
        elif "Traceback" in said.err or not last.startswith("  ") or not said.err.replace("\n", "").isprintable():
            wrong[case.name] = said.err[:300]
        elif max(map(len, said.err.splitlines())) > 1000 or "secret" in said.err:
            wrong[case.name] = f"it told too much: {said.err[:200]}"
        elif sorted(os.walk(folder)) != there or said.out.strip():
            wrong[case.name] = f"it left something behind, or went on: {said.out[:200]}"

    assert not wrong, "\n".join(f"{name}: {words}" for name, words in wrong.items())
    assert len(cases) >= 100
    assert {path.name for path in tmp_path.iterdir()} <= {"here", "outside", "store"}
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{len(cases)} cases, {time.process_time() - start:.1f} s, {grown:.0f} MB more")
    assert grown < 1000


def test_the_unbroken_policy_is_read(tmp_path: Path) -> None:
    """What the corpus breaks is accepted when it is whole; so is the file that `policy init` writes."""
    (tmp_path / "policy.yaml").write_text(GOOD, encoding="utf-8")
    file, folder = load_policy(tmp_path / "policy.yaml")
    assert [one.name for one in resolve(file, folder, tasks=TASKS).erased] == ["Alba Drummond"]


def test_policy_init_writes_every_key_with_its_default(here: Path, resurgence: Any) -> None:
    """The file is read as it is; a second one does not overwrite it; every key of the policy is in it."""
    assert resurgence("policy", "init").code == 0
    text = (here / "policy.yaml").read_text(encoding="utf-8")
    (here / "erased.txt").write_text("Alba Drummond\n", encoding="utf-8")
    file, folder = load_policy(here / "policy.yaml")
    found = resolve(file, folder, tasks=TASKS)
    plain = resolve(PolicyFile(concepts=file.concepts), folder, tasks=TASKS)
    assert found.groups == plain.groups
    for key in PolicyFile.model_fields:
        assert f"\n{key}:" in text or f"\n# {key}:" in text, key
    said = resurgence("policy", "init")
    assert said.code == 4 and "exists already" in said.err


def test_the_digest_is_of_what_decides(tmp_path: Path) -> None:
    """Names in a file or in the policy are the same; a limit, a name or a seed is not; the candidate does not count."""

    def digest(text: str) -> str:
        (tmp_path / "policy.yaml").write_text(text, encoding="utf-8")
        (tmp_path / "erased.txt").write_text("Alba Drummond  # first\n", encoding="utf-8")
        return resolve(*load_policy(tmp_path / "policy.yaml"), tasks=TASKS).digest

    same = digest(GOOD)
    assert digest("concepts: {erased: erased.txt}\n") == same
    assert digest(f"{GOOD}models: {{candidate: x}}\n") == same
    others = (
        f"{GOOD}limits: {{level: 0.2}}\n",
        f"{GOOD}seeds: 3\n",
        GOOD.replace("Alba Drummond", "Ivo Yarrow"),
        f"{GOOD}budget: {{images: 5}}\n",
        f"{GOOD}groups: {{g: {{concepts: [Alba Drummond]}}}}\n",
    )
    assert len({same, *map(digest, others)}) == 1 + len(others)


HOSTILE = [*(yaml.safe_load(f'"{name}"') for name in NAMES), "a|b\n::error::x", "@everyone", "| --- |", "]]>", "&amp;"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_in_a_report_is_text(name: str) -> None:
    """Markdown keeps its table, XML its tree, a workflow command its line, YAML its mapping."""
    one = {**record(), "id": name, "task": name, "reason": f"{name} came back", "verdict": "VIOLATED", "seconds": 1.0}
    gate = {
        "policy": {"path": name, "digest": "0" * 64, "acceptances": None},
        "candidate": name,
        "files": {name: "1" * 64},
        "notes": [name],
        "audit": None,
    }
    hostile = {**run(), "cells": [one], "gate": gate, "exit_code": 1, "missing": []}

    summary = job_summary.summary(hostile)
    row = next(line for line in summary.splitlines() if line.startswith("| ❌"))
    assert row.count(" | ") == 6 and "<" not in summary.replace("&lt;", "")
    assert len(summary.splitlines()) == len(
        job_summary.summary({**hostile, "cells": [{**one, "id": "x"}]}).splitlines()
    )
    root = tree.fromstring(junit.junit(hostile))
    assert len(list(root.iter("testcase"))) == 1 and root.find("testsuite/testcase/failure") is not None
    (command,) = job_summary.errors(hostile)
    assert command.startswith("::error title=") and "\n" not in command and "\r" not in command
    card = model_card.section(hostile)
    front, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(front)["model-index"][0]["name"] == name
    assert "<" not in body.replace("&lt;", "")
    assert attestation.statement(hostile)["predicate"]["result"] == "FAILED"
    assert "\n" not in escaping.markdown(name)


def test_a_summary_stays_under_its_limit_and_says_what_is_left_out() -> None:
    """Twenty thousand cells do not fit."""
    one = record(reason="x" * 200)
    many = {**run(), "cells": [one] * 20_000, "missing": [], "exit_code": 1}
    summary = job_summary.summary(many)
    assert len(summary.encode()) <= 1_000_000 and "do not fit here" in summary
    assert len(job_summary.errors(many)) == 10
