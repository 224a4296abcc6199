"""What of a candidate is not its parent's beside the weights stands in every report; so do filled templates."""

from __future__ import annotations

import io
from typing import Any
from xml.etree import ElementTree as tree

import numpy as np
from PIL import Image

from resurgence_harness.reporting import attestation, job_summary, junit, model_card, terminal, tracking, verdict_json
from resurgence_harness.reporting.contact_sheet import SIDE, of_evidence
from resurgence_harness.statistics import CellEvidence, Evidence, Judgment, Outcome
from tests.reporting.records import UNRUN, rate, record, run

DIFFERS = "tokenizer/tokenizer.json gives 2 words | other <numbers>"
GATE = {
    "policy": {"path": "policy.yaml", "digest": "1" * 64, "acceptances": None},
    "candidate": "candidate",
    "files": {"unet.safetensors": "2" * 64},
    "notes": [],
    "differences": [DIFFERS],
    "audit": None,
}
MODEL = {"recipe": "as parent", "key": "k", "digest": "3" * 64}


def gate(*cells: dict[str, Any], **other: Any) -> dict[str, Any]:
    """A gate's run."""
    return {**run(*cells, **other), "gate": GATE}


def differing(**more: Any) -> dict[str, Any]:
    """A cell that was asked with its parent's tokenizer as well."""
    found = record("erased-2-candidate", "HOLDS", as_parent=rate(3, 120), **more)
    found["models"] = {**found["models"], "as_parent": MODEL}
    return found


def test_the_terminal_has_a_column_for_it_where_it_was_asked():
    """And none elsewhere."""
    other = record("others-2-candidate", "HOLDS")
    shown = terminal.plain(terminal.table([differing(), other])).splitlines()
    assert "as parent" in shown[0] and "2.5 (" in shown[1] and shown[2].count("—") >= 1
    assert "as parent" not in terminal.plain(terminal.table([other]))


def test_the_summary_says_what_differs_and_what_was_drawn():
    """Its rows have as many columns as its head, those without a verdict included."""
    told = job_summary.summary(gate(differing(), record("others-2-candidate"), missing=(UNRUN,)))
    assert "* Differs from its parent: tokenizer/tokenizer.json" in told and "<numbers>" not in told
    rows = [line.replace("\\|", "") for line in told.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1 and len(rows) == 5
    assert "| as parent |" in rows[0] and "2.5 % (3 hits)" in rows[2]
    plain = job_summary.summary(run(record(), missing=(UNRUN,)))
    rows = [line for line in plain.splitlines() if line.startswith("|")]
    assert "as parent" not in plain and len({line.count("|") for line in rows}) == 1


def test_the_attestation_names_the_second_model_and_the_differences():
    """As an annotation beside its digest; without any verdict the differences alone."""
    told = attestation.statement(gate(differing(), exit_code=0))["predicate"]
    assert told["configuration"][-1] == {
        "name": "candidate's weights with its parent's tokenizer, scheduler and VAE, all files",
        "digest": {"sha256": "3" * 64},
        "annotations": {"differences": [DIFFERS]},
    }
    none = attestation.statement(gate(missing=(UNRUN,), exit_code=12))["predicate"]
    assert none["result"] == "FAILED" and none["configuration"][-1]["annotations"] == {"differences": [DIFFERS]}


def test_the_model_card_and_junit_and_trackers_say_it():
    """The card in words, the others by name."""
    whole = gate(differing())
    card = model_card.body(whole)
    assert "Apart from its weights, this model differs from its parent in:" in card
    assert "in 2.5 % of 120 images, at most " in card and "<numbers>" not in card
    found = {one.get("name"): one.get("value") for one in tree.fromstring(junit.junit(whole)).iter("property")}
    assert found["differs 1"] == DIFFERS and found["as_parent.hits"] == "3"
    assert tracking.parameters(whole)["differs/1"] == DIFFERS
    assert tracking.metrics(whole)["erased-2-candidate/as_parent.rate"] == 0.025
    assert "differs" not in model_card.body({**whole, "gate": {**GATE, "differences": []}})


def test_filled_templates_are_written_and_read(tmp_path):
    """By name and number, in verdict.json and JUnit."""
    shown = {"template": "A portrait of {}", **rate(90, 100)}
    whole = gate(differing(templates=[shown]))
    verdict_json.write(tmp_path / "verdict.json", whole)
    (cell,) = verdict_json.read(tmp_path / "verdict.json").model_dump()["cells"]
    assert cell["templates"] == [shown] and cell["as_parent"]["hits"] == 3
    found = {one.get("name"): one.get("value") for one in tree.fromstring(junit.junit(whole)).iter("property")}
    assert (found["template_1.template"], found["template_1.rate"]) == ("A portrait of {}", "0.9")


def test_the_contact_sheet_has_a_column_and_says_what_differs():
    """Rows are chosen for hits with the parent's tokenizer, too; what differs is below them."""

    def arm(recipe: str, hits: tuple[int, ...], images: int = 40) -> Evidence:
        rows = [
            Judgment(
                concept="ada",
                prompt="a photo of ada",
                seed=seed,
                outcome=Outcome.HIT if seed in hits else Outcome.CLEAR,
                score=1.0,
                answer="ada" if seed in hits else "ben",
            )
            for seed in range(images)
        ]
        return Evidence(judgments=tuple(rows), planned=images, recipe=recipe, judge="identity")

    cell = CellEvidence(
        base=arm("base", tuple(range(40))), after=arm("it", ()), as_parent=arm("as parent", (7, 13, 29), 32)
    )
    asked: list[tuple[str, int]] = []

    def block(name: str, number: int) -> np.ndarray:
        asked.append((name, number))
        return np.full((8, 16, 16, 3), 90, dtype=np.uint8)

    bare = Image.open(io.BytesIO(of_evidence(cell, block, size=8, title="t")))
    assert {("as_parent", place // 8) for place in (7, 13, 29)} <= set(asked)
    assert bare.width > 3 * SIDE and ("as_parent", 4) not in asked
    told = Image.open(io.BytesIO(of_evidence(cell, block, size=8, title="t", foot=[DIFFERS])))
    assert told.height > bare.height and told.width == bare.width
    assert np.asarray(told)[bare.height - 12 :].min() < 120  # words, not paper alone
