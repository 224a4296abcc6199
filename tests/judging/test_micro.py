"""The microworld's judges: calibrated, pinned, and unwilling to answer what they cannot see."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from resurgence_harness.errors import JudgeError, UserError
from resurgence_harness.judging import JUDGES, NO_FACE, Calibration, judge_by_name
from resurgence_harness.judging.micro import SOMEONE_ELSE
from resurgence_harness.microworld import world


@pytest.mark.parametrize("name", JUDGES)
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


def test_strangers_are_mostly_nobody_in_particular():
    """A face that is no celebrity is seldom given a celebrity's name."""
    pictures = world.draw("stranger", torch.zeros(60, dtype=torch.int64), generator=torch.Generator().manual_seed(5))
    answers, _ = judge_by_name("identity").answer(pictures.images.permute(0, 2, 3, 1).numpy(), "cpu")

    assert NO_FACE not in answers
    assert answers.count(SOMEONE_ELSE) >= 45


def test_noise_is_never_a_celebrity():
    """Pictures of nothing are abstained or nobody."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    answers, _ = judge_by_name("identity").answer(noise, "cpu")

    assert set(answers) <= {NO_FACE, SOMEONE_ELSE}


def test_pictures_of_another_size_are_refused():
    """A judge that looks at something it was not trained on says so."""
    with pytest.raises(JudgeError, match="64-pixel"):
        judge_by_name("identity").answer(np.zeros((2, 32, 32, 3), np.uint8), "cpu")


def test_an_unknown_judge_is_named():
    """The error lists the judges there are."""
    with pytest.raises(UserError, match="identity"):
        judge_by_name("gcd")


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
