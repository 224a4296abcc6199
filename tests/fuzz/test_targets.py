"""What the fuzzer calls, over the corpora that it begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, seeds

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_is_a_value_or_a_sentence(target: str, tmp_path: Path) -> None:
    """Among them are inputs that are accepted, and many that are not."""
    inputs = list(seeds(target, tmp_path))
    accepted = [TARGETS[target](data) for data in inputs]
    assert accepted[0] and len(inputs) > 60 and accepted.count(False) > 30


def test_a_reader_that_breaks_its_promise_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing would ever be found."""
    from tests.fuzz import targets

    monkeypatch.setattr(targets, "read_header", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        targets.header(b"")
    monkeypatch.undo()
    monkeypatch.setattr(targets.UserError, "__str__", lambda self: "no sentence")
    with pytest.raises(AssertionError):
        targets.header(b"")
