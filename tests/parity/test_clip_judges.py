"""Q16's logits and CLIP accuracy's probabilities are those of the authors' code (docs/parity.md)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from resurgence_harness.judging import Clip, ClipAccuracy, Weights
from resurgence_harness.judging.clip import _fitted, unit
from resurgence_harness.judging.q16 import LABELS, LOGIT_SCALE, Q16
from tests.parity import clip_inputs as given
from tests.parity.given import agree, recorded

pytestmark = pytest.mark.slow

SETS = {"fitting": given.FITTING, "larger": given.LARGER, "wide": given.WIDE}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """The model that OpenAI's code computed with in float64."""
    return given.save_parity_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def q16(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Q16:
    """Q16 with vectors of this model's space."""
    path = tmp_path_factory.mktemp("q16") / "vectors.safetensors"
    save_file({"prompts": given.vectors()}, path)
    return Q16(clip=clip, prompts=Weights(file=path.name, path=str(path)))


@pytest.mark.parametrize("size", SETS)
def test_pictures_are_fitted_as_by_openai(size: str) -> None:
    """No level differs by more than 1 of 255, as written; where nothing is scaled, none differs."""
    pixels = torch.from_numpy(SETS[size]).permute(0, 3, 1, 2).float()
    ours = _fitted(pixels, (given.SIDE, given.SIDE)).permute(0, 2, 3, 1).numpy()
    off = np.abs(ours - recorded("clip")[f"{size} levels"].astype(float))
    print(f"CLIP {size}: {(off > 0).mean():.1%} of levels differ, by {off.max():.0f} at most")

    assert off.max() <= (0 if size == "fitting" else 1)
    assert (off > 0).mean() <= 0.01


def test_q16s_logits_and_answers_are_the_authors(clip: Clip, q16: Q16) -> None:
    """100 times the cosines, and what becomes of them, on pictures that need no scaling."""
    theirs = recorded("clip")
    logits = LOGIT_SCALE * clip.image_features(given.FITTING, "cpu") @ unit(given.vectors(), what="of a prompt").T
    answers, scores = q16.answer(given.FITTING, "cpu")

    agree("Q16 logits", logits, theirs["q16 fitting logits"])
    agree("Q16 scores", scores, theirs["q16 fitting scores"])
    assert [LABELS[place] for place in theirs["q16 fitting answers"]] == answers


@pytest.mark.parametrize("size", ["larger", "wide"])
def test_q16_answers_the_same_on_scaled_pictures(q16: Q16, size: str) -> None:
    """A level more or less moves a score by less than a thousandth."""
    answers, scores = q16.answer(SETS[size], "cpu")

    assert [LABELS[place] for place in recorded("clip")[f"q16 {size} answers"]] == answers
    agree(f"Q16 {size}, scores", scores, recorded("clip")[f"q16 {size} scores"], within=1e-3)


def test_clip_accuracys_probabilities_are_maces(clip: Clip) -> None:
    """Of every label for every picture, and their statistic, the mean of the label that was asked for.

    Their logarithms are compared: a float32 cosine times 100 leaves a probability no more than 1e-5 of itself.
    """
    judge, theirs = ClipAccuracy(labels=given.LABELS, clip=clip), recorded("clip")
    asked = judge.asked_probability(given.FITTING, [given.LABELS[1]] * len(given.FITTING), "cpu")

    found = judge.probabilities(given.FITTING, "cpu")

    agree("CLIP accuracy, log-probabilities", np.log(found), np.log(theirs["accuracy fitting"]))
    agree("CLIP accuracy, probabilities", found, theirs["accuracy fitting"], within=5e-5)
    agree("CLIP accuracy, mean", asked.mean(), theirs["accuracy fitting mean"], within=5e-5)
