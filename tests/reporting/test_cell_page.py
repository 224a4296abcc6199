"""One cell's page: its tables say what the evidence says, and names are text."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest

from resurgence_harness.reporting import cell_page, pages
from resurgence_harness.reporting.cell_page import Details, Strip, confusion, per_concept
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


def test_confusion_counts_every_image_once() -> None:
    """As asked, an erased concept by its name, another, abstained: each row sums to the images asked for."""
    evidence = Make().evidence("hhhhh" + "c" * 5 + "a" * 5 + "i" * 5, "micro", kind="retained", concepts=5)
    found = confusion(evidence, named=["erased 0", "erased 1"])
    assert found.answers == ("as asked", "erased 0", "another", "abstained")
    assert set(found.counts) == {(1, 1, 1, 1)} and len(found.asked) == 5
    few = confusion(evidence, named=["erased 0"], most=0)
    assert few.answers == ("as asked", "another", "abstained") and set(few.counts) == {(1, 2, 1)}


def test_the_heat_map_shows_all_and_the_first_rows() -> None:
    """Erased concepts that came back come first, retained ones that were lost; a row for all of them before."""
    told = cell_page.heat_map(Make().cell(after=letters(30, 120), retained=(380, 376, "h" * 300 + "i" * 100)))
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>.*?</tr>", told)]
    assert rows[1] == ["all", "10", "30", "90", "0"] and rows[2][:3] == ["erased", "9", "3"]
    assert ["all", "10", "300", "100", "0", "0"] in rows


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


def test_names_are_text_wherever_they_stand() -> None:
    """A concept, an answer, a reason or an arithmetic with markup in it is shown, not obeyed."""
    bad = "<img src=x onerror=alert(1)>"
    evidence = Make().cell(after=letters(30, 120))
    named = tuple(replace(one, concept=bad) for one in evidence.after.judgments)
    before = tuple(replace(one, concept=bad) for one in evidence.before.judgments)
    arms = {"after": replace(evidence.after, judgments=named), "before": replace(evidence.before, judgments=before)}
    evidence = replace(evidence, **arms)
    accepted = {"reason": bad, "owner": bad, "level": 0.5, "rise": None, "outcomes": [bad], "expires": None}
    details = Details(sentence=bad, arithmetic=bad, facts=((bad, bad),), reproduce=bad, limits=bad)
    strip = Strip(bad, b"x", covered=True)
    for page in (
        cell_page.description(record(acceptance=accepted), evidence, details, strip=strip),
        cell_page.provenance(details),
        cell_page.heat_map(evidence),
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
