"""The labelling page in a real browser: keys, undo, a reload in the middle, two windows, a thousand pictures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.labelling import NONE, LabelFile, PictureSet, Session
from resurgence_harness.labelling.page import Server
from tests.browser.conftest import outside
from tests.labelling.sets import drawn

pytestmark = pytest.mark.slow


@contextmanager
def served(pictures: PictureSet, by: str = "editor") -> Iterator[Server]:
    """The page of a labeller."""
    with Server(Session(pictures, by)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def opened(chromium: Any, server: Server) -> Any:
    """The page in a window of its own, with its first picture."""
    page = chromium.new_page(viewport={"width": 1280, "height": 860})
    page.set_default_timeout(20_000)
    page.goto(server.address)
    page.wait_for_selector("#place img")
    return page


def labelled(page: Any, count: int) -> None:
    """Wait until the page says that so many are labelled."""
    says(page, "#count", f"{count} of ")


def says(page: Any, place: str, text: str) -> None:
    """Wait for a text on the page, whose policy lets no other script wait for it."""
    from playwright.sync_api import expect

    expect(page.locator(place)).to_contain_text(text, timeout=20_000)


def current(page: Any) -> int:
    """The place of the picture that is shown."""
    return int(page.get_attribute("#place", "data-place"))


def test_keys_undo_and_a_reload_in_the_middle(chromium: Any, tmp_path: Path) -> None:
    """One key a picture; the last answer is taken back and given anew; a reload goes on where it was."""
    pictures = drawn(tmp_path, 9, covered=True)
    with served(pictures) as server:
        page = opened(chromium, server)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        assert "covered" in (page.get_attribute("#place", "class") or "")
        page.keyboard.press("Space")
        assert "covered" not in (page.get_attribute("#place", "class") or "")
        first = current(page)
        for done, key in enumerate("12", 1):
            page.keyboard.press(key)
            labelled(page, done)
        page.keyboard.press("q")  # no label
        third = current(page)
        page.keyboard.press("0")
        labelled(page, 3)
        page.keyboard.press("u")
        labelled(page, 2)
        page.wait_for_selector(f"#place[data-place='{third}']")
        page.keyboard.press("x")
        labelled(page, 3)

        page.reload()
        page.wait_for_selector("#place img")
        labelled(page, 3)
        assert current(page) not in (first, third)
        shown = page.content()
        assert "secret prompt" not in shown and "drawn by" not in shown
        for done in range(4, 10):
            page.keyboard.press("1")
            labelled(page, done)
        says(page, "#place", "Every picture is labelled")
        assert not outside(asked)
        page.close()
    kept = [*LabelFile.open(pictures, "editor").labels.values()]
    assert kept[:3] == ["red", "green", "cannot tell"] and len(kept) == 9


def test_two_windows_at_once(chromium: Any, tmp_path: Path) -> None:
    """Both show the same picture; the first answer stays, the second window says so, and no picture is asked twice."""
    pictures = drawn(tmp_path, 6)
    with served(pictures) as server:
        one, two = opened(chromium, server), opened(chromium, server)
        place = current(one)
        assert current(two) == place
        one.keyboard.press("1")
        labelled(one, 1)
        two.keyboard.press("2")
        says(two, "#problem", "had labelled that picture: red")
        for window in (one, two) * 5:
            window.keyboard.press("0")
            window.wait_for_timeout(150)
        labelled(two, 6)
        one.close(), two.close()
    labels = LabelFile.open(pictures, "editor").labels
    assert [*labels.values()] == ["red"] + [NONE] * 5


def test_a_thousand_pictures_come_within_a_tenth_of_a_second(chromium: Any, tmp_path: Path) -> None:
    """Half of the first 60 are there within 100 ms of their keys, at about ten keys a second; all are kept."""
    pictures, took = drawn(tmp_path, 1000), []
    with served(pictures) as server:
        page = opened(chromium, server)
        for done in range(1, 61):
            place = current(page)
            page.keyboard.press("120"[done % 3])
            page.wait_for_timeout(90)
            assert page.wait_for_selector(f"#place:not([data-place='{place}'])")
            took.append(float(page.get_attribute("#place", "data-took")))
        labelled(page, 60)
        for place in range(60, 1000):
            server.session.answer(place, NONE)
        page.reload()
        says(page, "#place", "Every picture is labelled")
        page.close()
    kept = [*LabelFile.open(pictures, "editor").labels.values()]
    assert len(kept) == 1000 and kept[:60] == ["green", NONE, "red"] * 20
    assert sorted(took)[30] < 100, sorted(took)


def test_a_file_that_cannot_be_written_stops_the_page(chromium: Any, tmp_path: Path) -> None:
    """Nothing is shown as kept that is not."""
    pictures = drawn(tmp_path, 4)
    with served(pictures) as server:
        page = opened(chromium, server)
        (tmp_path / "labels-editor.jsonl").mkdir()
        page.keyboard.press("1")
        says(page, "#problem", "cannot be written")
        page.keyboard.press("2")
        page.wait_for_timeout(100)
        assert page.inner_text("#count").startswith("0 of") and not server.session.file.labels
        page.close()
