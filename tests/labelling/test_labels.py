"""Sets of pictures and files of labels: kept at once, resumable, and contradicted by every edit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.labelling import CANNOT_TELL, NONE, LabelFile, PictureSet, Session, labellers
from tests.labelling.sets import drawn


def test_a_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Pictures, order and facts; a changed or missing picture is named."""
    made = drawn(tmp_path / "set", 6)
    found = PictureSet.read(tmp_path / "set")

    assert found == made and found.images().shape == (6, 16, 16, 3) and found.digest == made.digest
    (tmp_path / "set" / "0002.png").write_bytes(b"another")
    with pytest.raises(UserError, match=r"0002\.png in .* has changed"):
        PictureSet.read(tmp_path / "set")
    with pytest.raises(UserError, match="There are no pictures to label"):
        PictureSet.read(tmp_path)


def test_what_cannot_be_labelled_with_one_key_is_refused(tmp_path: Path) -> None:
    """Ten choices, or the same picture twice."""
    facts = {"task": "t", "base": "b", "base_digest": "", "judge": "j", "judge_digest": ""}
    about = [{"kind": "k", "drawn_by": "b", "prompt": "p", "seed": seed, "concept": "c"} for seed in range(2)]
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(UserError, match="10 choices cannot be labelled"):
        PictureSet.write(tmp_path, images, about, choices=tuple("abcdefghij"), **facts)
    with pytest.raises(UserError, match="are the same"):
        PictureSet.write(tmp_path, images, about, choices=("a",), **facts)


def test_every_answer_is_on_the_disk_at_once_and_can_be_taken_back(tmp_path: Path) -> None:
    """Another reader sees each; an undo is a line of its own."""
    pictures = drawn(tmp_path, 4)
    first, second, *_ = (picture.sha256 for picture in pictures.pictures)
    file = LabelFile.open(pictures, "photo editor")
    assert not file.path.exists()
    file.add(first, "red")
    assert LabelFile.open(pictures, "photo editor").labels == {first: "red"}
    file.add(second, NONE)
    assert file.undo() == second and file.undo() == first and file.undo() is None
    file.add(first, CANNOT_TELL)

    again = LabelFile.open(pictures, "photo editor")
    assert again.labels == {first: CANNOT_TELL} and again.chain == file.chain
    assert len(file.path.read_bytes().splitlines()) == 6
    with pytest.raises(UserError, match="is no label of these pictures"):
        file.add(second, "blue")


def test_an_edit_contradicts_the_file(tmp_path: Path) -> None:
    """A changed label, a removed, inserted or repeated line, another role, a line that is no JSON."""
    pictures = drawn(tmp_path, 5)
    file = LabelFile.open(pictures, "editor")
    for picture, label in zip(pictures.pictures, ("red", "green", NONE, "red", "green"), strict=True):
        file.add(picture.sha256, label)
    whole = file.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    edits = [
        whole.replace(b'"green"', b'"red"', 1),
        b"".join([*lines[:2], *lines[3:]]),
        b"".join([*lines[:3], lines[2], *lines[3:]]),
        whole.replace(b'"by": "editor"', b'"by": "chief"'),
        b"".join([*lines[:3], b"{}\n", *lines[3:]]),
        b"".join([lines[0], b"not json\n"]),
    ]
    for edited in edits:
        file.path.write_bytes(edited)
        with pytest.raises(UserError, match="were edited: a line contradicts its digest"):
            LabelFile.open(pictures, "editor")
    file.path.write_bytes(whole)
    assert LabelFile.open(pictures, "editor").labels == file.labels


def test_a_line_that_a_crash_cut_off_was_no_answer(tmp_path: Path) -> None:
    """It is dropped and the next answer follows the last whole one."""
    pictures = drawn(tmp_path, 3)
    file = LabelFile.open(pictures, "editor")
    file.add(pictures.pictures[0].sha256, "red")
    with file.path.open("ab") as stream:
        stream.write(b'{"picture": "')
    resumed = LabelFile.open(pictures, "editor")
    resumed.add(pictures.pictures[1].sha256, "green")

    assert [*LabelFile.open(pictures, "editor").labels.values()] == ["red", "green"]


def test_labels_of_other_pictures_and_names_of_people_are_refused(tmp_path: Path) -> None:
    """The file is bound to pictures.json; a role is what is asked for."""
    pictures, others = drawn(tmp_path / "a", 3), drawn(tmp_path / "b", 3, seed=1)
    file = LabelFile.open(pictures, "editor")
    file.add(pictures.pictures[0].sha256, "red")
    (tmp_path / "b" / file.path.name).write_bytes(file.path.read_bytes())
    with pytest.raises(UserError, match="belong to other pictures"):
        LabelFile.open(others, "editor")
    for name in ("", "Ada Quill", "../up", "a" * 41):
        with pytest.raises(UserError, match="cannot be the role"):
            LabelFile.open(pictures, name)


def test_a_session_shuffles_resumes_and_says_how_two_labellers_agree(tmp_path: Path) -> None:
    """Orders differ between labellers; the first of two windows' answers stays; nothing of the origin is told."""
    pictures = drawn(tmp_path, 30)
    one, two = Session(pictures, "first"), Session(pictures, "second")
    assert one.order != two.order and set(one.order) == set(pictures.pictures)
    for session in (one, two):
        for place, picture in enumerate(session.order):
            session.answer(place, picture.concept if picture.concept in pictures.choices else NONE)
    last = two.order[29]
    assert two.undo()["next"] == [29]
    assert two.answer(29, CANNOT_TELL)["kept"] == CANNOT_TELL
    assert two.answer(29, "red")["kept"] == CANNOT_TELL

    state = Session(pictures, "second").state()
    told = json.dumps(state)
    assert state["done"] == 30 and "agrees with first on 29 of 30 pictures, Cohen's kappa 0.95" in told
    assert "secret prompt" not in told and last.sha256 not in told and "drawn by" not in told
    assert {file.by for file in labellers(pictures)} == {"first", "second"}
