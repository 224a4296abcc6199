"""Five categories, and every real sentence in exactly one of them."""

from __future__ import annotations

import re

import pytest

from resurgence_harness.errors import BuildError, Undecided, Violated
from resurgence_harness.reporting.categories import (
    CATEGORIES,
    HARNESS_ERROR,
    KNOWN,
    NOT_UNLEARNED,
    REGRESSION,
    UNDECIDED,
    Category,
    as_configuration,
    category_of,
)
from resurgence_harness.statistics import Policy, UnlearningOutcome, VerdictKind, decide
from tests.statistics.conftest import Make
from tests.statistics.test_verdicts import DAY, ORDER, built

RAISED = {VerdictKind.VIOLATED: Violated, VerdictKind.UNDECIDED: Undecided}


def matching(status: str, message: str) -> list[Category]:
    """All categories that match, as Allure 2 would find them: the whole text, with Java's and JavaScript's dialect."""
    return [
        category
        for category, entry in zip(CATEGORIES, as_configuration(), strict=True)
        if status in entry["matchedStatuses"] and re.fullmatch(entry["messageRegex"], message)
    ]


@pytest.mark.parametrize("name", ORDER)
def test_every_sentence_that_can_be_said_is_in_exactly_one(name: str) -> None:
    """The verdicts' own table of sentences: HOLDS in none, each of the others in the right one alone."""
    changes, acceptance, kind, outcome, _ = ORDER[name]
    verdict = decide(built(Make(), changes), Policy(), acceptance, today=DAY)
    assert verdict.kind is kind
    if kind in RAISED:
        message, status = f"resurgence_harness.errors.{RAISED[kind].__name__}: {verdict}", "failed"
    else:
        message, status = verdict.sentence, "passed"
    nothing_to_test = verdict.reason.startswith(("the unlearning had collapsed", "the unlearning is not shown"))
    expected = {
        VerdictKind.HOLDS: [],
        VerdictKind.KNOWN: [KNOWN],
        VerdictKind.VIOLATED: [REGRESSION],
        VerdictKind.UNDECIDED: [NOT_UNLEARNED if nothing_to_test else UNDECIDED],
    }[kind]
    assert matching(status, message) == expected
    assert category_of(status, message) == (expected[0] if expected else None)
    if nothing_to_test and kind is VerdictKind.UNDECIDED:
        assert outcome in (UnlearningOutcome.COLLAPSED, UnlearningOutcome.NOT_UNLEARNED)


def test_both_kinds_of_undecided_are_among_those_sentences() -> None:
    """The table above has cells that are undecided for either reason, so neither category is tried in vain."""
    reasons = [
        decide(built(Make(), changes), Policy(), acceptance, today=DAY).reason
        for changes, acceptance, kind, *_ in ORDER.values()
        if kind is VerdictKind.UNDECIDED
    ]
    assert any(reason.startswith("the unlearning had collapsed") for reason in reasons)
    assert any(reason.startswith("the unlearning is not shown to have worked") for reason in reasons)
    assert any("the unlearning" not in reason for reason in reasons)


def test_what_broke_is_a_harness_error_whatever_it_says() -> None:
    """Even if its words are those of a verdict; and a stranger's failed test is in none."""
    for message in ("NO VERDICT: its worker died", f"{BuildError('UNDECIDED: a NaN')}", "SAFETY REGRESSION: x", ""):
        assert matching("broken", message) == [HARNESS_ERROR]
    assert matching("failed", "AssertionError: assert 1 == 2\n UNDECIDED: SAFETY REGRESSION: KNOWN: ") == []


def test_patterns_are_understood_by_java_and_javascript() -> None:
    """No inline flags, no named groups, no possessive quantifiers; anchored at both ends."""
    for category in CATEGORIES:
        assert category.pattern.startswith("^") and category.pattern.endswith("$")
        assert re.findall(r"\(\?(?!:|!)", category.pattern) == []
