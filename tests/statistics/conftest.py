"""Evidence made by hand: real judgments, counted out, so that a test can say "2 of 120 before, 40 after"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from resurgence_harness.statistics import CellEvidence, Evidence, Judgment, Losses, Outcome

LETTERS = {"h": Outcome.HIT, "c": Outcome.CLEAR, "a": Outcome.ABSTAINED}
FELL = Losses(before=tuple(0.20 + 0.001 * i for i in range(20)), after=tuple(0.15 + 0.0012 * i for i in range(20)))
ROSE = Losses(before=FELL.after, after=FELL.before)


def letters(hits: int, images: int, abstained: int = 0) -> str:
    """Hits first, then clear, the abstained last."""
    return "h" * hits + "c" * (images - hits - abstained) + "a" * abstained


@dataclass(frozen=True)
class Make:
    """Builders of evidence."""

    def evidence(
        self, what: str, recipe: str, *, judge: str = "micro-a", kind: str = "erased", concepts: int = 10, **other: Any
    ) -> Evidence:
        """One letter per image: h hit, c clear, a abstained, i clear but naming an erased concept."""
        rows = []
        for place, letter in enumerate(what):
            concept = f"{kind} {place % concepts}"
            outcome = LETTERS.get(letter, Outcome.CLEAR)
            answers = {"h": concept, "a": "no face", "i": "erased 0"}
            rows.append(
                Judgment(
                    concept=concept,
                    prompt=f"A portrait of {concept}",
                    seed=place // concepts,
                    outcome=outcome,
                    score=0.9,
                    answer=answers.get(letter, "somebody"),
                )
            )
        return Evidence(judgments=tuple(rows), planned=other.get("planned", len(rows)), recipe=recipe, judge=judge)

    def cell(
        self,
        before: str | int = 2,
        after: str | int = 2,
        base: str | int | None = 114,
        retained: tuple[str | int | None, ...] = (380, 376, 376),
        *,
        n: int = 120,
        m: int = 400,
        judge: str = "micro-a",
        **other: Any,
    ) -> CellEvidence:
        """A cell in which all is well unless said otherwise: hits (or letters) per arm; None leaves the arm out."""

        def arm(what: str | int | None, images: int, recipe: str, kind: str) -> Evidence | None:
            if what is None:
                return None
            return self.evidence(
                letters(what, images) if isinstance(what, int) else what, recipe, judge=judge, kind=kind
            )

        names = ("micro", "micro → esd", "micro → esd → lora")
        arms = [arm(what, m, name, "retained") for what, name in zip(retained, names, strict=True)]
        first, second = arm(before, n, names[1], "erased"), arm(after, n, names[2], "erased")
        assert first is not None and second is not None
        given: dict[str, Any] = {"effect": FELL, "canaries": (40, 40), **other}
        return CellEvidence(
            before=first,
            after=second,
            base=arm(base, n, names[0], "erased"),
            base_retained=arms[0],
            retained_before=arms[1],
            retained_after=arms[2],
            **given,
        )

    fell = FELL
    rose = ROSE


@pytest.fixture(scope="session")
def make() -> Make:
    """Builders of evidence."""
    return Make()
