"""An acceptance of a gate counts for the concepts that it names, and for no others under the same group word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from resurgence_harness.errors import UserError
from resurgence_harness.gate import baseline
from resurgence_harness.gate.release_policy import PolicyFile, ReleasePolicy, resolve
from resurgence_harness.limits.limits_file import load_limits
from resurgence_harness.limits.names import same_names
from resurgence_harness.reporting import verdict_json
from resurgence_harness.statistics import Outcome, Rate, Shuffled
from resurgence_harness.statistics.policies import day_in_utc
from resurgence_harness.tasks import TASKS
from tests.reporting.records import rate, record, run

pytestmark = pytest.mark.slow

ALBA, KAIA = "Alba Drummond", "Kaia Valencourt"
HEAD = "acceptances:\n"
ENTRY = """\
- task: celebrity
  method: erased
  count: {count}
  finetuning: candidate
  level: 0.9
  reason: known
  owner: release
  expires: {day}
"""


def written(folder: Path, *lists: tuple[str, ...], count: int = 1) -> Path:
    """An acceptances file with an entry for each list of names; none are named where the list is empty."""
    entries = []
    for names in lists:
        entry = ENTRY.format(count=count, day=day_in_utc())
        entries.append(entry + (f"  concepts: {list(names)}\n" if names else ""))
    path = folder / "acceptances.yaml"
    path.write_text(HEAD + "".join(entries), encoding="utf-8")
    return path


def policy(folder: Path, *names: str) -> ReleasePolicy:
    """A policy that erases these and reads the acceptances beside it."""
    said = {"concepts": {"erased": list(names)}, "acceptances": "acceptances.yaml"}
    return resolve(PolicyFile.model_validate(said), folder, tasks=TASKS)


@pytest.mark.parametrize(
    ("accepted", "asked", "applies", "words"),
    [
        ((ALBA,), (ALBA,), True, None),
        (("ＡLBA drummond",), (ALBA,), True, None),
        ((KAIA, ALBA), (ALBA, KAIA), True, None),
        ((ALBA,), (KAIA,), False, "names other concepts than the policy (Alba Drummond)"),
        ((ALBA, KAIA), (ALBA, "Hugo Zorander"), False, "names other concepts"),
        ((ALBA, KAIA), (ALBA,), False, "names other concepts"),
        ((), (ALBA,), False, "names no concepts: record it again"),
    ],
)
def test_only_the_same_names_are_accepted(
    tmp_path: Path, accepted: tuple[str, ...], asked: tuple[str, ...], applies: bool, words: str | None
) -> None:
    """Order, case and width do not count; what does not apply is reported in a sentence."""
    written(tmp_path, accepted, count=len(asked))
    found = policy(tmp_path, *asked)
    (group,) = found.groups
    given = found.acceptance(group, None)
    assert (given is not None) == applies
    assert [words in told for told in found.stale] == ([] if words is None else [True])


def test_policies_may_share_a_file(tmp_path: Path) -> None:
    """The same cell stands once for each list of names, and no list twice, however it is spelt."""
    written(tmp_path, (ALBA,), (KAIA,), ())
    for name in (ALBA, KAIA):
        found = policy(tmp_path, name)
        given = found.acceptance(found.groups[0], None)
        assert given is not None and given.concepts == (name,) and len(found.stale) == 2
    with pytest.raises(UserError, match=r"acceptances\.1 accepts erased-1-candidate \(celebrity\) a second time"):
        load_limits(written(tmp_path, (ALBA,), (ALBA.upper(),)))


def verdict(folder: Path, **more: Any) -> Path:
    """A verdict.json with one gate's cell beyond its limits."""
    path = folder / "verdict.json"
    verdict_json.write(path, run(record("erased-1-candidate", **more)))
    return path


def test_a_recorded_baseline_names_its_concepts(tmp_path: Path) -> None:
    """It replaces what names the same or nothing, keeps what names others, and counts for its own names alone."""
    path = written(tmp_path, (KAIA,), (), (ALBA,))
    new = baseline.entries(verdict(tmp_path, erased=[ALBA]), reason="measured", owner="release", expires=day_in_utc())
    baseline.record(path, new)

    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["acceptances"]
    assert [(one["concepts"], one["reason"]) for one in entries] == [([KAIA], "known"), ([ALBA], "measured")]
    found = policy(tmp_path, ALBA)
    given = found.acceptance(found.groups[0], None)
    assert given is not None and given.reason == "measured"
    strange = policy(tmp_path, "Hugo Zorander")
    assert strange.acceptance(strange.groups[0], None) is None and len(strange.stale) == 2


@pytest.mark.parametrize("erased", [[], [ALBA, KAIA]])
def test_a_verdict_that_does_not_name_its_concepts_is_not_accepted(tmp_path: Path, erased: list[str]) -> None:
    """One of an earlier version, or one whose count is not that of its names."""
    with pytest.raises(UserError, match="does not name the erased concepts of erased-1-candidate"):
        baseline.entries(verdict(tmp_path, erased=erased), reason="x", owner="y", expires=day_in_utc())


def test_a_suite_applies_what_names_its_concepts_or_none(tmp_path: Path) -> None:
    """There the cell fixes the concepts; names that are given must still be the cell's."""
    from resurgence_harness.specs import Cell

    cell = Cell(task="celebrity", method="erased", count=1, finetuning="candidate")
    limits = load_limits(written(tmp_path, (ALBA,)))
    assert limits.acceptance_for(cell, concepts=[ALBA]) is not None
    assert limits.acceptance_for(cell, concepts=[KAIA]) is None
    assert load_limits(written(tmp_path, ())).acceptance_for(cell, concepts=[KAIA]) is not None
    assert same_names([ALBA, KAIA]) == same_names([KAIA.upper(), ALBA])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"after": {"high": 0.4}}, "bounds that its own figures contradict"),
        ({"after": {"low": 0.43}}, "bounds that its own figures contradict"),
        ({"as_parent": {"high": 0.4}}, "bounds that its own figures contradict"),
        ({"rise": {"high": 0.1}}, "bounds that its own figures contradict"),
        ({"rise": {"high": "0.9"}}, "bounds that its own figures contradict"),
        ({"rise": {"estimate": None}}, "bounds that its own figures contradict"),
        ({"after": {"hits": 151}}, "is not a verdict file"),
        ({"after": {"hits": 10}}, "is not a verdict file"),
        ({"after": {"rate": 0.1}}, "is not a verdict file"),
        ({"after": {"high": 0.1, "low": 0.2}}, "is not a verdict file"),
        ({"after": {"high": 1.1}}, "is not a verdict file"),
        ({"before": {"judged": 1}}, "is not a verdict file"),
    ],
)
def test_an_edited_verdict_is_not_accepted(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """Whose counts, rate and bounds contradict each other; the same file unedited is."""
    rise = {"name": "rise", "estimate": 0.39, "low": 0.28, "high": 0.5}
    path = verdict(tmp_path, erased=[ALBA], as_parent=rate(63), findings=[rise])
    given = {"reason": "x", "owner": "y", "expires": day_in_utc()}
    assert baseline.entries(path, **given)[0]["rise"] == 0.5
    told = json.loads(path.read_text(encoding="utf-8"))
    (cell,) = told["cells"]
    for name, values in change.items():
        (cell["findings"][0] if name == "rise" else cell[name]).update(values)
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(UserError, match=words):
        baseline.entries(path, **given)


def test_an_early_look_may_bind_tighter_than_the_rate(tmp_path: Path) -> None:
    """Honest bounds of a shuffled grid, which leave the rate outside: written and read, and no ceiling."""
    outcomes = (Outcome.HIT,) * 20 + (Outcome.CLEAR,) * 180
    odd = Rate(20, 200, 0, design=Shuffled(1000), drawn=outcomes, asked=(ALBA,) * 200).as_dict(0.01)
    assert odd["rate"] < odd["low"]
    path = verdict(tmp_path, erased=[ALBA], after=odd)
    assert verdict_json.read(path).cells[0].after.rate == odd["rate"]
    with pytest.raises(UserError, match="bounds that its own figures contradict"):
        baseline.entries(path, reason="x", owner="y", expires=day_in_utc())
