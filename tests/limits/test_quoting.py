"""An acceptance is quoted from its file as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from resurgence_harness.limits.limits_file import Limits, load_limits
from resurgence_harness.limits.quoting import quoted
from tests.days import TO_COME

TEXT = """\
policy: {alpha: 0.01}
acceptances:
  - task: celebrity
    method: esd
    count: 10
    finetuning: lora
    level: 0.6      # why so high
    reason: known
    owner: release manager
    expires: TO_COME

  # the next one
  - {task: celebrity, method: uce, count: 1, finetuning: full, level: 0.5,
     reason: known, owner: release manager, expires: TO_COME}
cells: []
""".replace("TO_COME", TO_COME)


@pytest.mark.parametrize(("place", "lines"), [(0, (3, 10)), (1, (13, 14))])
def test_its_own_lines_are_found(tmp_path: Path, place: int, lines: tuple[int, int]) -> None:
    """From its dash to its last word: neither the blank line nor the comment about the next one."""
    path = tmp_path / "limits.yaml"
    path.write_text(TEXT, encoding="utf-8")
    limits = load_limits(path)
    found = quoted(limits, limits.acceptances[place], name="limits.yaml")
    assert found is not None and (found.first, found.last) == lines and found.text == TEXT
    assert found.name == "limits.yaml"
    assert quoted(limits, None) is None and quoted(Limits(), limits.acceptances[place]) is None


@pytest.mark.parametrize("text", [TEXT.replace("0.6 ", "0.9 "), "acceptances: [", None])
def test_a_file_that_was_changed_since_is_not_quoted(tmp_path: Path, text: str | None) -> None:
    """Other words, no YAML, no file: none of them is what decided."""
    path = tmp_path / "limits.yaml"
    path.write_text(TEXT, encoding="utf-8")
    limits = load_limits(path)
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    assert quoted(limits, limits.acceptances[0]) is None
