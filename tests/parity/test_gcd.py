"""GCD's boxes, crops, probabilities and names are those of Giphy's code (docs/parity.md)."""

from __future__ import annotations

import numpy as np
import pytest

from resurgence_harness.judging.gcd import face_of, largest_group, recognised
from tests.parity import gcd_inputs as given
from tests.parity.given import agree, recorded

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def boxes() -> list[np.ndarray]:
    """What the detector sees in the three pictures."""
    return given.detector().detect(given.IMAGES)


def test_boxes_and_crops_are_the_authors(boxes: list[np.ndarray]) -> None:
    """As many faces, at the same places, cut out with the margin and scaled to the same levels."""
    theirs = recorded("gcd")
    faces = [face_of(image, box) for image, found in zip(given.IMAGES, boxes, strict=True) for box in found]
    levels = np.stack([face[4::16, 4::16] for face in faces if face is not None])

    assert [len(found) for found in boxes] == theirs["counts"].tolist()
    agree("GCD boxes and scores", np.concatenate(boxes), theirs["boxes"])
    assert np.array_equal(levels, theirs["faces"])


def test_probabilities_and_names_are_the_authors(boxes: list[np.ndarray]) -> None:
    """Of the faces of the last picture, one by one and as a group."""
    theirs, recogniser, found = recorded("gcd"), given.recogniser(), boxes[-1]
    faces = [face for box in found if (face := face_of(given.IMAGES[-1], box)) is not None]
    says, points = recognised(recogniser, faces, "cpu")
    who, sure = largest_group(says, points, recogniser.centres.numpy())

    agree("GCD embeddings", points, theirs["embeddings"][-len(found) :])
    agree("GCD probabilities", np.exp(says), theirs["probabilities"][-len(found) :])
    assert who == theirs["answers"][-1, 0]
    agree("GCD name's probability", sure, theirs["answers"][-1, 1])


def test_the_largest_group_is_the_authors() -> None:
    """Of pictures of one to three people, where the authors' Gaussian mixture and the nearest centre agree."""
    ours = []
    for case in range(len(recorded("gcd")["groups"])):
        probability, points, centres = given.people(case)
        ours.append(largest_group(np.log(probability), points, centres))
    theirs = recorded("gcd")["groups"]

    assert [who for who, _ in ours] == theirs[:, 0].tolist()
    agree("GCD groups", [sure for _, sure in ours], theirs[:, 1])
