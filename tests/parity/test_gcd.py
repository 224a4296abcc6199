"""GCD's boxes, crops, probabilities and names are those of Giphy's code (docs/parity.md)."""

from __future__ import annotations

import numpy as np

from resurgence_harness.judging.gcd import face_of, largest_group, recognised
from tests.parity import gcd_inputs as given
from tests.parity.given import agree, recorded


def test_boxes_crops_and_names_are_the_authors() -> None:
    """Detected, cut out with the margin, scaled, recognised and grouped."""
    theirs, recogniser = recorded("gcd"), given.recogniser()
    boxes = given.detector().detect(given.IMAGES)
    faces = [[face_of(image, box) for box in found] for image, found in zip(given.IMAGES, boxes, strict=True)]
    flat = [face for each in faces for face in each if face is not None]
    says, points = recognised(recogniser, flat, "cpu")
    ends = np.cumsum([len(found) for found in boxes])[:-1]
    centres = recogniser.centres.numpy()
    groups = [largest_group(*pair, centres) for pair in zip(np.split(says, ends), np.split(points, ends), strict=True)]
    off = np.abs(np.stack(flat)[:, 4::16, 4::16].astype(float) - theirs["faces"])
    print(f"GCD faces: {(off > 0).mean():.1%} of levels differ, by {off.max():.0f} at most")

    assert [len(found) for found in boxes] == theirs["counts"].tolist()
    agree("GCD boxes and scores", np.concatenate(boxes), theirs["boxes"])
    assert off.max() == 0
    agree("GCD embeddings", points, theirs["embeddings"])
    agree("GCD probabilities", np.exp(says), theirs["probabilities"])
    assert [who for who, _ in groups] == theirs["answers"][:, 0].tolist()
    agree("GCD names' probabilities", [sure for _, sure in groups], theirs["answers"][:, 1])


def test_the_largest_group_is_the_authors() -> None:
    """Of pictures of one to three people, where the authors' Gaussian mixture and the nearest centre agree."""
    ours = []
    for case in range(len(recorded("gcd")["groups"])):
        probability, points, centres = given.people(case)
        ours.append(largest_group(np.log(probability), points, centres))
    theirs = recorded("gcd")["groups"]

    assert [who for who, _ in ours] == theirs[:, 0].tolist()
    agree("GCD groups", [sure for _, sure in ours], theirs[:, 1])
