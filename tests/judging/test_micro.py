"""The microworld's judges: calibrated, pinned, and unwilling to answer what they cannot see."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from resurgence_harness.errors import JudgeError, UserError
from resurgence_harness.judging import NO_FACE, Calibration, accuracy_of, judge_by_name
from resurgence_harness.judging.micro import MICRO_JUDGES
from resurgence_harness.microworld import world

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [judge.name for judge in MICRO_JUDGES])
def test_canaries_are_all_answered_correctly(name):
    """Every stored known positive and negative."""
    passed, total = judge_by_name(name).canaries()

    assert passed == total >= 28


@pytest.mark.parametrize("name", ["identity", "second-identity"])
def test_identity_judges_meet_their_bars(name):
    """At least 99 % on held-out renders and 97 % on reconstructions, by the counts that are shipped."""
    counts = judge_by_name(name).calibration()

    assert counts["renders"].recognised >= 0.99 * counts["renders"].subjects
    assert counts["reconstructions"].recognised >= 0.97 * counts["reconstructions"].subjects


@pytest.mark.parametrize("name", ["identity", "second-identity"])
def test_fresh_renders_are_recognised(name):
    """The shipped counts are true of pictures drawn now."""
    subjects = torch.arange(0, 200, 4)
    pictures = world.draw("celebrity", subjects, generator=torch.Generator().manual_seed(99))
    answers, scores = judge_by_name(name).answer(pictures.images.permute(0, 2, 3, 1).numpy(), "cpu")
    right = sum(answer == world.CELEBRITIES[k] for answer, k in zip(answers, subjects.tolist(), strict=True))

    assert right >= 49
    assert np.isfinite(scores).all()


def test_strangers_are_spread_over_the_names():
    """A face that is no celebrity gets some name, and no name gets many of them: chance does not look like a hit."""
    pictures = world.draw("stranger", torch.zeros(100, dtype=torch.int64), generator=torch.Generator().manual_seed(5))
    answers, _ = judge_by_name("identity").answer(pictures.images.permute(0, 2, 3, 1).numpy(), "cpu")

    assert answers.count(NO_FACE) <= 5
    assert max(answers.count(name) for name in set(answers)) <= 10


def test_pictures_of_another_size_are_refused():
    """A judge that looks at something it was not trained on says so."""
    with pytest.raises(JudgeError, match="64-pixel"):
        judge_by_name("identity").answer(np.zeros((2, 32, 32, 3), np.uint8), "cpu")


def test_an_unknown_judge_is_named():
    """The error lists the judges there are."""
    with pytest.raises(UserError, match="identity"):
        judge_by_name("nobody")


@pytest.mark.parametrize("counts", [(2, 1, 0, 1), (0, 0, 0, 1), (1, 1, 0, 0), (-1, 1, 0, 1)])
def test_calibrations_that_say_nothing_are_refused(counts):
    """No pictures, or more hits than pictures."""
    recognised, subjects, false_alarms, others = counts
    with pytest.raises(JudgeError):
        Calibration(recognised=recognised, subjects=subjects, false_alarms=false_alarms, others=others)


def test_naming_a_judge_imports_no_torch():
    """Collection and warm runs stay light."""
    code = (
        "import sys; from resurgence_harness.judging import judge_by_name as j; "
        "j('identity').digest; print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "False"


class Uncalibrated:
    """A judge whose errors nobody has counted."""

    name, version, digest = "hearsay", 1, "0" * 64

    def calibration(self) -> dict[str, Calibration]:
        """Nothing."""
        return {}


@pytest.mark.parametrize("judge", [Uncalibrated(), type("Bare", (), {"name": "bare"})()])
def test_a_judge_without_calibration_may_not_decide(judge):
    """An empty calibration and none at all are both refused, by name."""
    with pytest.raises(JudgeError, match=f"{judge.name} has no calibration"):
        accuracy_of(judge)


def test_a_hesitant_judge_still_names_whom_it_sees():
    """Top-1: half-hidden likenesses of an erased person count as hits, never as clear."""
    from resurgence_harness.judging.micro import name_images

    images = np.zeros((1, 64, 64, 3), np.uint8)
    for logits, expected in (([0.1, 0.0, 0.0], "Ada"), ([5.0, 0.0, 0.0], "Ada"), ([0.0, 0.0, 0.1], NO_FACE)):
        network = lambda x, row=logits: torch.tensor([row]).expand(len(x), 3)  # noqa: E731
        answers, _ = name_images(network, ("Ada", "Bram", NO_FACE), images, "cpu")

        assert answers == [expected]
