"""One cell's page: its tables say what the evidence says, and names are text."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest

from resurgence_harness.limits.quoting import Quoted
from resurgence_harness.reporting import acceptance_page, cell_page, pages
from resurgence_harness.reporting.cell_page import Details, Strip, per_concept
from resurgence_harness.reporting.heat_map import heat_map
from resurgence_harness.statistics import confusion
from resurgence_harness.statistics.intervals import paired
from tests.reporting.records import ALPHA, record
from tests.statistics.conftest import Make, letters

DETAILS = Details(
    sentence="SAFETY REGRESSION: it came back.",
    arithmetic="  scope  <script>alert(1)</script>",
    facts=(("judge", "identity v1"), ("empty", "")),
    reproduce="pytest 'test_x.py::test_x[esd-10-lora]' --resurgence-methods=esd",
    limits="limits.yaml",
)
FINDING = {"name": "level", "estimate": 0.42, "low": 0.3, "high": 0.5, "limit": 0.1, "images": 150}
BROKEN = {**FINDING, "holds": False, "broken": True}


def test_concepts_are_counted_and_compared_in_pairs() -> None:
    """Rates, the paired difference and Tango's bounds of each concept; what rose most is first."""
    before = letters(0, 120)
    after = "".join("h" if place % 10 == 3 else "a" if place == 4 else "c" for place in range(120))
    rows = per_concept(Make().cell(before=before, after=after), ALPHA)
    first = rows[0]
    assert (first.concept, first.before.value, first.after.value, first.difference) == ("erased 3", 0, 1, 1)
    assert (first.low, first.high) == paired(0, 12, 12, ALPHA) and len(rows) == 10
    assert sum(row.after.abstained for row in rows) == 1 and sum(row.after.images for row in rows) == 120
    lost = per_concept(Make().cell(before=after.replace("a", "c"), after=before), ALPHA)[-1]
    assert lost.difference == -1 and lost.high < -0.3
    told = list(csv.DictReader(io.StringIO(cell_page.concepts_csv(rows))))
    assert told[0]["concept"] == "erased 3" and float(told[0]["difference"]) == 1 and len(told) == 10


@pytest.mark.parametrize("verdict", ["HOLDS", "KNOWN", "UNDECIDED", "VIOLATED"])
def test_the_description_tells_the_verdict_and_the_figures(verdict: str) -> None:
    """The sentence first; base, before, after, difference, interval, images, abstained for a concept."""
    told = cell_page.description(
        record(verdict=verdict, findings=[BROKEN]), Make().cell(after=letters(30, 120)), DETAILS, strip=None
    )
    text = re.sub(r"<[^>]+>", " ", told)
    assert text.split()[0] == ("SAFETY" if verdict == "VIOLATED" else verdict)
    for words in ("base", "unlearned", "fine-tuned", "difference", "interval", "images", "abstained", "98 %", "broken"):
        assert words in text
    assert "42.0 %" in text and "10.0 %" in text


def test_what_failed_is_seen_where_every_criterion_holds() -> None:
    """An UNDECIDED cell's page names the control that failed, and an unlearning that did not work."""
    controls = [
        {"name": "utility", "state": "passed", "sentence": "it still draws", "more": None},
        {"name": "canaries", "state": "failed", "sentence": "the judge answers 1 of 2", "more": None},
        {"name": "positive control", "state": "not claimed", "sentence": "there is no base", "more": None},
    ]
    cell = record(verdict="UNDECIDED", findings=[{**BROKEN, "holds": True, "broken": False}], controls=controls)
    evidence = Make().cell(after=letters(0, 120))
    marked = re.compile(r'<tr class="over"><td>(.*?)</td>')
    assert marked.findall(cell_page.description(cell, evidence, DETAILS, strip=None)) == ["canaries"]
    cell["outcome"] = "collapsed"
    assert marked.findall(cell_page.description(cell, evidence, DETAILS, strip=None)) == ["canaries", "unlearning"]


def test_an_acceptance_is_linked_and_quoted() -> None:
    """The verdict leads to it; its own lines are on the page, the whole file on a page of its own, its lines marked."""
    accepted = {"reason": "r", "owner": "o", "level": 0.5, "rise": 0.25, "outcomes": ["collapsed"], "expires": None}
    cell, evidence = record(verdict="KNOWN", acceptance=accepted), Make().cell(after=letters(30, 120))
    quote = Quoted(name="a/limits.yaml", text="acceptances:\n  - task: x\n    level: 0.5\n# end\n", first=2, last=3)
    told = cell_page.description(cell, evidence, replace(DETAILS, quoted=quote), strip=None)
    assert (
        told.count('data-leads-to="acceptance"') == told.count('id="acceptance"') == 1 and "Acceptance that was" in told
    )
    assert "ceilings accepted beyond them are below" in told
    assert "lines 2 to 3" in told and "2    - task: x" in told and "# end" not in told
    assert quote.label == "acceptance in limits.yaml, lines 2 to 3"
    whole = acceptance_page.page(quote)
    assert whole.count("<mark>") == 2 and "<mark>3      level: 0.5</mark>" in whole and "4  # end" in whole
    unused = cell_page.description({**cell, "verdict": "HOLDS"}, evidence, DETAILS, strip=None)
    assert "Acceptance on file for this cell" in unused and "lines" not in unused
    assert "acceptance" not in cell_page.description(record(), evidence, DETAILS, strip=None).casefold()


def test_names_are_text_wherever_they_stand() -> None:
    """A concept, an answer, a reason or an arithmetic with markup in it is shown, not obeyed."""
    bad = "<img src=x onerror=alert(1)>"
    evidence = Make().cell(after=letters(30, 120))
    named = tuple(replace(one, concept=bad) for one in evidence.after.judgments)
    before = tuple(replace(one, concept=bad) for one in evidence.before.judgments)
    arms = {"after": replace(evidence.after, judgments=named), "before": replace(evidence.before, judgments=before)}
    evidence = replace(evidence, **arms)
    accepted = {"reason": bad, "owner": bad, "level": 0.5, "rise": None, "outcomes": [bad], "expires": None}
    quote = Quoted(name=bad, text=bad, first=1, last=1)
    details = Details(sentence=bad, arithmetic=bad, facts=((bad, bad),), reproduce=bad, limits=bad, quoted=quote)
    counts = {name: confusion(arm) for name, arm in evidence.arms()}
    strip = Strip(bad, b"x", covered=True)
    for page in (
        cell_page.description(record(acceptance=accepted), evidence, details, strip=strip),
        cell_page.provenance(details),
        heat_map(record(confusion=counts), evidence),
        acceptance_page.page(quote),
        pages.table([bad], [[bad]]),
    ):
        assert "<img src=x" not in page and "&lt;img" in page


def test_a_covered_picture_needs_no_script_and_fetches_nothing() -> None:
    """Blurred by style, uncovered by a checkbox; its bytes are in the page."""
    page = pages.page(pages.picture(b"jpeg", about="sheet", covered=True))
    assert "blur(" in page and 'type="checkbox"' in page and "data:image/jpeg;base64," in page
    assert "<script" not in page and "http" not in page
    assert "checkbox" not in pages.picture(b"jpeg", about="sheet", covered=False)


def test_the_rest_of_many_concepts_is_announced() -> None:
    """A hundred concepts do not make a hundred rows; the page says where the others are."""
    evidence = Make()
    arms = {
        name: evidence.evidence(letters(hits, 200), f"micro {name}", concepts=100)
        for name, hits in (("before", 0), ("after", 20))
    }
    from resurgence_harness.statistics import CellEvidence

    told = cell_page.description(record(), CellEvidence(**arms), DETAILS, strip=None)
    assert told.count("<tr") < 40 and "The other 88 are in" in told


def test_provenance_has_the_command_and_what_was_asked() -> None:
    """Empty facts are left out."""
    told = cell_page.provenance(DETAILS)
    assert "--resurgence-methods=esd" in told and "identity v1" in told and "empty" not in told
