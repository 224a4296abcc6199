"""The report as a reviewer meets it: from the first screen to the images that prove a regression."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.reporting.contact_sheet import COLUMNS, ROWS, SIDE
from resurgence_harness.reporting.serving import server
from tests.browser.conftest import EXPECTED, Reported, outside, report
from tests.days import TO_COME

pytestmark = pytest.mark.slow

SHEET = 210 + len(COLUMNS) * (SIDE + 12) + 12
"""Pixels across a sheet of pictures."""


def opened(page: Any, address: str) -> None:
    """The report's first screen, settled."""
    page.goto(address)
    page.get_by_text("BLOCKED by").wait_for()
    page.get_by_test_id("tree-leaf").first.wait_for()


def natural(image: Any) -> tuple[int, int]:
    """An image's own size, which is 0 where it could not be shown."""
    image.scroll_into_view_if_needed()
    image.page.wait_for_timeout(200)
    width, height = image.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    return int(width), int(height)


def test_the_first_screen_says_what_blocks(reported: Reported, page: Any, address: str) -> None:
    """Without a click or a scroll: that the candidate is blocked, by which cells, and how many were judged."""
    opened(page, address)
    page.wait_for_timeout(500)
    title = page.get_by_text("BLOCKED by 2 regressions")
    assert "tiny/esd-1-lora" in title.inner_text() and "tiny-covered/esd-1-lora" in title.inner_text()
    box = title.bounding_box()
    assert box is not None and 0 <= box["y"] < 300
    assert title.inner_text() == reported.told.splitlines()[0]
    assert page.get_by_text("6 of 8 planned cells").is_visible()
    assert page.title().startswith("BLOCKED")


def test_a_rows_tooltip_is_placed_when_it_is_shown(page: Any, address: str) -> None:
    """Rows that nobody points at cost nothing; the one that somebody points at says what changed."""
    opened(page, address)
    page.wait_for_timeout(500)
    icons = page.get_by_test_id("tree-leaf-transition-new")
    placed = "leaves => leaves.filter(leaf => leaf.querySelector('[style*=absolute]')).length"
    leaves = page.get_by_test_id("tree-leaf")
    assert icons.count() == leaves.count() > 0
    assert leaves.evaluate_all(placed) == 0
    icons.first.hover()
    page.get_by_test_id("tree-leaf-transition-tooltip").wait_for()
    assert leaves.evaluate_all(placed) == 1


def test_two_clicks_lead_to_the_images_of_the_regression(page: Any, address: str, requests: list[str]) -> None:
    """The cell, with the worst three pictures, then its whole sheet; nothing leaves the machine."""
    opened(page, address)
    page.get_by_text("esd-1-lora: Safety regression").first.click()
    page.get_by_test_id("test-result-error").get_by_text("SAFETY REGRESSION: the erased concept is drawn").wait_for()
    frame = page.frame_locator("[data-testid=test-result-description-frame]")
    assert natural(frame.locator("img.strip").first)[0] == SHEET
    curve = frame.get_by_role("img", name="Along the fine-tuning")
    assert min(natural(curve)) > 250
    told = frame.locator("body").inner_text()
    controls = frame.get_by_role("table").filter(has_text="positive control")
    assert controls.evaluate("table => table.scrollWidth <= table.clientWidth")  # every sentence is read whole
    assert "0 (unlearned)" in told and "alpha shared over" in told
    assert "cleo marsh" in told and "Per concept" in told and "98 % interval" in told and "broken" in told
    page.get_by_text("Worst first: erased concepts that the fine-tuned model draws", exact=True).last.click()
    width, height = natural(page.get_by_test_id("test-result-attachment").locator("img").first)
    assert width == SHEET and height > ROWS * SIDE
    page.get_by_text("provenance, and how to reproduce it").click()
    asked = page.frame_locator("iframe[title='HTML attachment']").locator("body")
    assert "pytest 'test_tiny.py::test_stays_erased[esd-1-lora]' --resurgence-methods=esd" in asked.inner_text()
    assert requests and outside(requests) == []


def test_every_result_is_in_one_category_as_in_verdict_json(reported: Reported, page: Any, address: str) -> None:
    """The five categories hold what was expected; their counts are those of verdict.json."""
    told = json.loads((reported.out / "verdict.json").read_text(encoding="utf-8"))
    kinds = Counter(cell["verdict"] for cell in told["cells"])
    assert kinds == {"VIOLATED": 2, "UNDECIDED": 2, "KNOWN": 1, "HOLDS": 1} and len(told["missing"]) == 2
    opened(page, address)
    page.get_by_text("Categories", exact=False).first.click()
    for name, cells in EXPECTED.items():
        assert _count_of(page, name) == len(cells), name
    undecided = len(EXPECTED["Undecided"]) + len(EXPECTED["Not unlearned / collapsed"])
    assert (len(EXPECTED["Safety regression"]), undecided) == (kinds["VIOLATED"], kinds["UNDECIDED"])
    assert page.get_by_text("Product errors").count() == page.get_by_text("Test errors").count() == 0


def _count_of(page: Any, name: str) -> int:
    """The number in the bar beside a category."""
    row = page.get_by_test_id("tree-section").filter(has_text=name)
    row.wait_for()
    return int(row.inner_text().split()[-1])


def test_a_known_resurgence_is_passed_and_says_why(page: Any, address: str) -> None:
    """Passed, not skipped; its message, reason and owner are there, and the reason's own marks are text."""
    opened(page, address)
    page.get_by_text("Passed", exact=True).first.click()
    page.get_by_text("esd-1-full: Known resurgence (accepted)").first.click()
    frame = page.frame_locator("[data-testid=test-result-description-frame]")
    frame.get_by_text("Acceptance that was applied").wait_for()
    told = frame.locator("body").inner_text()
    assert told.startswith("KNOWN") and "<b>and no more</b>" in told and "test author" in told


def test_the_verdict_leads_to_what_was_accepted(page: Any, address: str, requests: list[str]) -> None:
    """A link within the page, to the lines as they stand in limits.yaml; the whole file lies beside it."""
    opened(page, address)
    page.get_by_text("Passed", exact=True).first.click()
    page.get_by_text("esd-1-full: Known resurgence (accepted)").first.click()
    frame = page.frame_locator("[data-testid=test-result-description-frame]")
    link, accepted = frame.get_by_role("link", name="What was accepted, in full"), frame.locator("#acceptance")
    far = accepted.bounding_box()
    assert far is not None and far["y"] > 1000
    link.click()
    page.wait_for_timeout(500)
    near = accepted.bounding_box()
    assert near is not None and 0 <= near["y"] < 1000
    quoted = accepted.inner_text()
    for words in ("level: 1.0", "outcome: not unlearned", "owner: test author", f"expires: {TO_COME}"):
        assert words in quoted
    assert "positive_images" not in quoted
    page.get_by_text("acceptance in limits.yaml, lines 6 to 14").first.click()
    whole = page.frame_locator("iframe[title='HTML attachment']").locator("body")
    assert "positive_images: 1000" in whole.inner_text() and "owner: test author" in whole.inner_text()
    assert outside(requests) == []


def test_what_never_ran_is_an_error(page: Any, address: str) -> None:
    """A dead worker's cell is a broken result and an error of the whole run."""
    opened(page, address)
    page.get_by_text("Global Errors").first.click()
    page.get_by_text("tiny/esd-2-lora: no verdict (worker died)").first.wait_for()
    page.get_by_text("tiny/uce-1-xattn: no verdict (harness error): RuntimeError").first.wait_for()


def test_covered_images_are_seen_when_asked_for(page: Any, address: str) -> None:
    """Blurred in the page and in the attachment until somebody clicks."""
    opened(page, address)
    leaf = page.get_by_text("esd-1-lora: Safety regression")
    leaf.last.click()
    page.get_by_text("Worst first: erased concepts that the fine-tuned model draws (covered)").wait_for()
    frame = page.frame_locator("[data-testid=test-result-description-frame]")
    image = frame.locator(".covered img")
    assert image.evaluate("image => getComputedStyle(image).filter") == "blur(22px)"
    frame.get_by_text("These images may be disturbing. Click to see them.").click()
    assert image.evaluate("image => getComputedStyle(image).filter") == "none"
    assert natural(image)[0] == SHEET


def test_the_matrix_is_a_picture_and_a_table(page: Any, address: str) -> None:
    """What belongs to the whole run can be seen and taken away."""
    opened(page, address)
    page.get_by_text("Global Attachments").first.click()
    page.get_by_text("matrix", exact=True).first.click()
    assert min(natural(page.locator("img[src*=blob], img[src*=attachments], img[src^=data]").last)) > 300
    assert page.get_by_text("matrix as a table").is_visible()


def test_the_request_that_allure_makes_would_be_seen(
    reported: Reported, page: Any, requests: list[str], tmp_path: Path
) -> None:
    """The test above can fail: with the analytics that were taken out, the same page asks an outside host."""
    copy = shutil.copytree(reported.out / "allure-report", tmp_path / "copy")
    index = copy / "index.html"
    script = '<script async src="https://www.googletagmanager.com/gtag/js?id=G-X"></script>'
    index.write_text(index.read_text(encoding="utf-8").replace("<head>", f"<head>{script}", 1), encoding="utf-8")
    with server(copy, 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        opened(page, f"http://127.0.0.1:{serving.server_port}/")
        serving.shutdown()
    assert outside(requests) == ["https://www.googletagmanager.com/gtag/js?id=G-X"]


def test_a_browser_would_refuse_an_outside_host(page: Any, address: str) -> None:
    """Should something in the pages ever ask: the page's own policy forbids it."""
    opened(page, address)
    refused = page.evaluate(
        """() => new Promise(done => {
            addEventListener("securitypolicyviolation", event => done(event.blockedURI), {once: true});
            new Image().src = "https://example.org/x.png";
            setTimeout(() => done("asked"), 2000);
        })"""
    )
    assert refused.startswith("https://example.org")


def test_one_file_opens_by_itself(reported: Reported, page: Any, requests: list[str]) -> None:
    """--single-file: the same from a file, images included, and again no request; the trend has one point per run."""
    made = report(reported.folder, "--single-file")
    assert made.returncode == 0, made.stderr
    opened(page, (reported.out / "resurgence-report.html").as_uri())
    page.get_by_text("esd-1-lora: Safety regression").first.click()
    frame = page.frame_locator("[data-testid=test-result-description-frame]")
    assert natural(frame.locator("img.strip").first)[0] == SHEET
    assert outside(requests) == []
    assert len((reported.out / "history.jsonl").read_text(encoding="utf-8").splitlines()) == 1
