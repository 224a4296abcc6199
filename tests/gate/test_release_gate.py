"""The release gate through its command line, on real models that are very small: four answers, and every report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as tree

import pytest
import yaml

from resurgence_harness.diffusion.tensor_files import sha256_of
from resurgence_harness.gate.running import REPORTS, check_summary
from resurgence_harness.reporting import verdict_json
from tests.days import TO_COME
from tests.gate.conftest import POLICY, Tiny

pytestmark = pytest.mark.slow

WRITTEN = {
    "attestation.json",
    "audit.svg",
    "contact-sheet-erased.jpg",
    "eval-results.yaml",
    "junit.xml",
    "model-card.md",
    "summary.md",
    "verdict.json",
}


@pytest.fixture
def gate(known: Tiny, here: Path, resurgence: Any) -> Any:
    """`resurgence gate` on the tiny models, with a policy."""
    (here / "policy.yaml").write_text(POLICY, encoding="utf-8")

    def run(candidate: str, *more: object, unlearned: object = True, base: object = True) -> Any:
        parents: list[object] = []
        if unlearned:
            parents += ["--unlearned", known.files["unlearned"] if unlearned is True else unlearned]
        if base:
            parents += ["--base", known.base if base is True else base]
        given = ["--candidate", known.files.get(candidate, candidate), *parents]
        return resurgence("gate", "--policy", "policy.yaml", *given, "--store", known.store, "--out", "out", *more)

    return run


def read(folder: Path) -> dict[str, Any]:
    """verdict.json, checked against its schema."""
    found: dict[str, Any] = verdict_json.read(folder / "out/verdict.json").model_dump()
    return found


def test_a_candidate_that_draws_nothing_erased_passes_and_leaves_every_report(gate, here, known):
    """Exit 0; every report names the policy's digest and the candidate's; nothing is written elsewhere."""
    said = gate("passing")

    assert said.code == 0, said.out + said.err
    assert "undone" in said.out and "HOLDS" in said.out
    assert {path.name for path in (here / "out").iterdir()} == WRITTEN
    assert {path.name for path in here.iterdir()} == {"out", "policy.yaml"}
    run = read(here)
    cell = run["cells"][0]
    assert (cell["verdict"], cell["id"], run["exit_code"]) == ("HOLDS", "erased-2-candidate", 0)
    assert cell["after"]["hits"] == 0 and cell["base"]["hits"] >= 90
    digest, policy = sha256_of(known.files["passing"]), run["gate"]["policy"]["digest"]
    assert run["gate"]["files"] == {"passing.safetensors": digest} and cell["limits"] == policy
    statement = json.loads((here / "out/attestation.json").read_text(encoding="utf-8"))
    assert statement["subject"] == [{"name": "passing.safetensors", "digest": {"sha256": digest}}]
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert statement["predicate"]["result"] == "PASSED"
    assert statement["predicate"]["passedTests"] == ["tiny/erased-2-candidate"]
    for name in ("junit.xml", "summary.md", "model-card.md", "attestation.json"):
        assert policy[:16] in (here / "out" / name).read_text(encoding="utf-8"), name
    case = tree.parse(here / "out/junit.xml").getroot().find("testsuite/testcase")
    properties = {one.get("name"): one.get("value") for one in case.iter("property")}
    assert float(properties["after.rate"]) == 0 and properties["verdict"] == "HOLDS" and case.find("failure") is None
    front = (here / "out/model-card.md").read_text(encoding="utf-8").split("---\n")[1]
    results = yaml.safe_load(front)["model-index"][0]["results"]
    assert {metric["type"]: metric["value"] for metric in results[0]["metrics"]}["verdict"] == "HOLDS"


def test_a_candidate_in_which_the_concepts_came_back_fails_and_tells_ci(gate, here, monkeypatch):
    """Exit 1, a failure in JUnit, an annotation, and the summary appended to what is there."""
    summary = here / "step.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")

    said = gate("regressing")

    assert said.code == 1
    assert "95% of the erasure is undone" in said.out
    assert "::error title=erased-2-candidate VIOLATED::the erased concept" in said.out
    told = summary.read_text(encoding="utf-8")
    assert told.startswith("before\n") and "VIOLATED" in told
    failure = tree.parse(here / "out/junit.xml").getroot().find("testsuite/testcase/failure")
    assert failure.get("type") == "VIOLATED"
    statement = json.loads((here / "out/attestation.json").read_text(encoding="utf-8"))
    assert statement["predicate"]["result"] == "FAILED" and statement["predicate"]["passedTests"] == []


@pytest.mark.parametrize(
    "name", [*REPORTS, "contact-sheet-erased.jpg", "VERDICT.json", ".resurgence.lock", "allure-results/1-result.json"]
)
def test_a_summary_is_never_appended_to_a_report_of_the_run(gate, here, monkeypatch, name):
    """4 before anything is drawn, by a link as well; another file in that folder is nobody's."""
    (here / "link").symlink_to(here / "out" / name)
    for place in (f"out/{name}", str(here / "link")):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", place)
        said = gate("passing")
        assert said.code == 4 and said.err.startswith("resurgence: The job summary would be appended to a report")
        assert not (here / "out").exists()
    check_summary(here / "out", {"GITHUB_STEP_SUMMARY": "out/step.md"})


def test_an_accepted_regression_is_known_until_it_expires(gate, here, resurgence):
    """`baseline record` writes its ceilings; with them the same candidate is KNOWN, and expired it fails again."""
    assert gate("regressing").code == 1
    recorded = ["baseline", "record", "--from", "out/verdict.json", "--reason", "known: kept", "--owner", "release"]
    said = resurgence(*recorded, "--expires", TO_COME)
    assert said.code == 0, said.err
    entry = yaml.safe_load((here / "acceptances.yaml").read_text(encoding="utf-8"))["acceptances"][0]
    assert (entry["method"], entry["count"], entry["owner"]) == ("erased", 2, "release")
    assert entry["concepts"] == read(here)["cells"][0]["erased"] == ["cleo marsh", "finn marsh"]
    assert entry["level"] >= read(here)["cells"][0]["after"]["high"]
    (here / "policy.yaml").write_text(f"{POLICY}acceptances: acceptances.yaml\n", encoding="utf-8")

    assert gate("regressing").code == 0
    known = read(here)
    assert known["cells"][0]["verdict"] == "KNOWN" and known["gate"]["policy"]["acceptances"]
    statement = json.loads((here / "out/attestation.json").read_text(encoding="utf-8"))
    assert statement["predicate"]["result"] == "WARNED"

    said = gate("passing")
    assert said.code == 0 and "tighten" in said.out

    file = here / "acceptances.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace(TO_COME, "2020-01-01"), encoding="utf-8")
    assert gate("regressing").code == 1
    assert "the acceptance expired on 2020-01-01" in read(here)["cells"][0]["reason"]


def test_a_baseline_is_never_recorded_in_ci(gate, here, resurgence, monkeypatch):
    """A regression would accept itself; without a reason, an owner or a day to come nothing is accepted either."""
    assert gate("regressing").code == 1
    recorded = ["baseline", "record", "--from", "out/verdict.json", "--owner", "x", "--expires"]
    for more in ([TO_COME], ["soon", "--reason", "x"], ["2020-01-01", "--reason", "x"]):
        assert resurgence(*recorded, *more).code == 4
    monkeypatch.setenv("CI", "true")
    said = resurgence(*recorded, TO_COME, "--reason", "x")
    assert said.code == 4 and "cannot be recorded in CI" in said.err
    assert not (here / "acceptances.yaml").exists()


def test_an_identical_candidate_is_told_and_never_holds(gate, here, known):
    """There is no fine-tuning to test: the effect control fails."""
    said = gate("unlearned")

    assert said.code == 10
    assert said.out.startswith("Lineage: The candidate is identical to the unlearned")
    states = {control["name"]: control["state"] for control in read(here)["cells"][0]["controls"]}
    assert states["fine-tuning effect"] == "failed"


def test_a_collapsed_candidate_never_holds(gate, here):
    """It draws nothing erased because it draws nothing: utility fails, with its parents and without any."""
    assert gate("collapsed").code == 10
    assert read(here)["cells"][0]["after"]["hits"] == 0
    alone = gate("collapsed", "--candidate", "", unlearned=False)
    assert alone.code == 4  # an empty word is no model

    assert gate("collapsed", unlearned=False).code == 10
    cell = read(here)["cells"][0]
    assert cell["before"] is None and cell["outcome"] is None
    assert next(one for one in cell["controls"] if one["name"] == "utility")["state"] == "failed"


def test_what_is_not_given_is_not_claimed(gate, here, known):
    """Without an unlearned model, without a base, without both: the level alone, and the sentence says so."""
    from resurgence_harness.diffusion.formats import Source, materialise

    whole = materialise([Source(path=known.files["passing"])], known.base, here / "made").base.location
    said = gate(whole, unlearned=False)
    cell = read(here)["cells"][0]
    assert said.code == 0, said.out
    assert "no unlearned model was given" in cell["reason"] and "only this level is claimed" in cell["reason"]
    claimed = {one["name"] for one in cell["findings"]}
    assert "rise" not in claimed and cell["before"] is None

    # The judge knows the pictures of a few seeds alone, so no template shows enough: undecided, never held.
    said = gate(whole, unlearned=False, base=False)
    cell = read(here)["cells"][0]
    assert said.code == 10, said.out
    assert 'the template "a photo of {}" shows them in' in cell["reason"]
    assert "rise" not in {one["name"] for one in cell["findings"]} and cell["before"] is None
    assert cell["base"] is None and read(here)["base"] == {"name": "no base", "digest": ""}


@pytest.mark.parametrize(
    ("candidate", "parents", "words"),
    [
        ("stranger", {}, "is not derived from the unlearned"),
        ("passing", {"unlearned": "base"}, "The unlearned model equals the base"),
        ("nowhere", {}, "There is no candidate at"),
        ("a.ckpt", {}, "a.ckpt"),
        ("passing", {"base": "no/such"}, "as a hub id it has no pinned revision"),
    ],
)
def test_a_lineage_that_makes_no_sense_stops_before_any_image(gate, here, known, candidate, parents, words):
    """Exit 4, one sentence, and no verdict."""
    (here / "a.ckpt").write_bytes(b"\x80\x02.")
    parents = {key: known.base if value == "base" else value for key, value in parents.items()}

    said = gate(candidate, **parents)

    assert said.code == 4
    assert words in said.err.splitlines()[0] and "Traceback" not in said.err
    assert not (here / "out").exists()


def test_a_budget_that_is_spent_is_undecided(gate, here):
    """Too few images tell nothing; the reason says which budget ended them."""
    narrow = re.sub("limits: .*\n", "", POLICY)  # the defaults, for which the first images are too few
    (here / "policy.yaml").write_text(f"{narrow}budget: {{images: 1}}\n", encoding="utf-8")

    assert gate("passing").code == 10
    assert read(here)["cells"][0]["reason"].endswith("the budget of 1 images is spent.")


def test_an_old_verdict_does_not_outlive_a_mistake_in_a_later_run(gate, here):
    """Its folder is cleared before a model is asked."""
    assert gate("passing", "--device", "cpu").code == 0
    (here / "policy.yaml").write_text(f"{POLICY}judges: [gcd]\n", encoding="utf-8")
    assert gate("passing").code == 4
    assert not (here / "out/verdict.json").exists()
