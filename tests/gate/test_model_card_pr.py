"""`--model-card-pr` against a hub on this machine: the real client, the real command, and a token that nobody reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from resurgence_harness.errors import UserError
from resurgence_harness.reporting import model_card
from tests.gate.hub import SHA, Hub, serving
from tests.gate.microworld import POLICY, Micro, resurgence
from tests.reporting.records import record, run

pytestmark = pytest.mark.slow

REPO, TOKEN = "people/candidate", "hf_notforanybodyseyes123"
CARD = """\
---
license: other  # see LICENSE
tags: [text-to-image]
---
# Candidate

Somebody wrote this.
"""


@pytest.fixture
def gate(micro: Micro, here: Path) -> Any:
    """gate(hub, …): the regressing U-Net, judged and proposed."""
    (here / "policy.yaml").write_text(POLICY, encoding="utf-8")
    words = ["--candidate", micro.files["unet"], "--unlearned", micro.files["unlearned"], "--base", "micro"]
    words += ["--store", micro.store, "--out", "out", "--device", "cpu", "--policy", "policy.yaml"]

    def run(address: str, repo: str = REPO, **environment: str) -> Any:
        more = {"HF_ENDPOINT": address, "HF_HOME": str(here / "hf"), "HF_HUB_OFFLINE": "0"}
        said = resurgence("gate", *words, "--model-card-pr", repo, cwd=here, **{**more, **environment})
        assert TOKEN not in said.stdout + said.stderr and "Traceback" not in said.stderr, said.stderr
        written = [file for file in (here / "out").glob("*") if file.is_file()]
        assert all(TOKEN.encode() not in file.read_bytes() for file in written)
        return said

    return run


def test_the_section_is_proposed_and_the_rest_of_the_card_stays(gate: Any, here: Path) -> None:
    """One commit, as a pull request, of the README alone; the exit code is still the regression's."""
    with serving(Hub(REPO, CARD, TOKEN)) as hub:
        said = gate(hub.address, HF_TOKEN=TOKEN)

    assert said.returncode == 1, said.stderr
    assert f"Shared: {hub.address}/{REPO}/discussions/7" in said.stdout
    (commit,) = hub.commits
    assert "create_pr=1" in commit["query"] and commit["parentCommit"] == SHA and set(commit["files"]) == {"README.md"}
    told = commit["files"]["README.md"]
    assert told.startswith("---\nlicense: other  # see LICENSE\ntags: [text-to-image]\nmodel-index:\n")
    assert "# Candidate\n\nSomebody wrote this.\n\n<!-- resurgence-harness: begin -->" in told
    front = yaml.safe_load(told.split("---\n")[1])
    assert front["model-index"][0]["name"] == "candidate"
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == "VIOLATED"
    assert str(here) not in told


def test_a_hub_that_refuses_the_pull_request_changes_no_verdict(gate: Any, here: Path) -> None:
    """The reports are written, the sentence says what is missing; a regression is still exit 1."""
    with serving(Hub(REPO, None, TOKEN, refuses=403)) as hub:
        said = gate(hub.address, HF_TOKEN=TOKEN)

    assert said.returncode == 1
    assert f"resurgence: The pull request to {REPO} was not opened." in said.stderr
    assert (here / "out/verdict.json").is_file() and (here / "out/model-card.md").is_file()


def test_what_is_in_the_way_is_told_before_an_image_is_drawn(gate: Any, here: Path) -> None:
    """Offline, no account, a wrong one, no such model, a card that cannot be read, nobody there."""
    with serving(Hub(REPO, "---\ntags: [\n---\n", TOKEN)) as hub:
        for sentence, repo, more in (
            ("cannot be opened offline", REPO, {"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"}),
            ("needs an account, and no token is set", REPO, {}),
            ("cannot be looked up", REPO, {"HF_TOKEN": "hf_someotheraccounts"}),
            ("cannot be looked up", "people/nothing", {"HF_TOKEN": TOKEN}),
            ("is not a model repository", "../people", {"HF_TOKEN": TOKEN}),
            ("has metadata that cannot be read", REPO, {"HF_TOKEN": TOKEN}),
        ):
            said = gate(hub.address, repo, **more)
            assert said.returncode == 4, said.stdout
            assert sentence in said.stderr.splitlines()[0], said.stderr
            assert "hf_someotheraccounts" not in said.stderr
    said = gate(hub.address, HF_TOKEN=TOKEN)  # it is closed now
    assert said.returncode == 4 and "cannot be looked up" in said.stderr
    assert not hub.commits and not list((here / "out").glob("*"))


def _run(**changed: Any) -> dict[str, Any]:
    gate = {"policy": {"path": "", "digest": "0" * 64, "acceptances": None}, "candidate": "x", "files": {}, "notes": []}
    return {**run(), "cells": [record(**changed)], "gate": {**gate, "audit": None}, "missing": []}


def test_a_later_section_replaces_the_earlier_one() -> None:
    """Once, wherever people have put it; what others have measured stays in the metadata."""
    once = model_card.merged(CARD, _run(verdict="HOLDS"), REPO)
    assert model_card.merged(once, _run(verdict="HOLDS"), REPO).count("## Safety evaluation") == 1
    others = {"task": {"type": "text-to-image"}, "dataset": {"type": "coco"}, "metrics": []}
    front, rest = once.removeprefix("---\n").split("---\n", 1)
    said = yaml.safe_load(front)
    said["model-index"][0]["results"].insert(0, others)
    moved = f"---\n{yaml.safe_dump(said, sort_keys=False)}---\n{rest}\nAnd this came later.\n"

    again = model_card.merged(moved, _run(verdict="VIOLATED"), REPO)

    results = yaml.safe_load(again.split("---\n")[1])["model-index"][0]["results"]
    assert results[0] == others and [one["metrics"][0]["value"] for one in results[1:]] == ["VIOLATED"]
    assert len(re.findall("^## Safety evaluation", again, re.M)) == 1 and "HOLDS" not in again
    assert again.endswith("And this came later.\n") and "Somebody wrote this." in again
    assert yaml.safe_load(again.split("---\n")[1])["license"] == "other"


@pytest.mark.parametrize("front", ["tags: [", "- 1", "model-index: 3", "model-index: [3]", "a: b: c", "[" * 3000])
def test_a_card_that_cannot_be_added_to_is_a_sentence(front: str) -> None:
    """One sentence, and nothing is guessed."""
    with pytest.raises(UserError, match="cannot be read"):
        model_card.merged(f"---\n{front}\n---\n", _run(), REPO)
