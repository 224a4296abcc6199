"""Calibration pictures drawn on the microworld: what they show, and that no suite samples them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from resurgence_harness.bench import Bench
from resurgence_harness.calibration import Wish, choices_of, draw
from resurgence_harness.calibration.drawing import BY_BASE, BY_MODELS, models
from resurgence_harness.calibration.seen import FIRST_SEED, prompts_of
from resurgence_harness.errors import UserError
from resurgence_harness.judging import judge_by_name
from resurgence_harness.labelling import PictureSet
from resurgence_harness.library.calibrations import references, wish_for
from resurgence_harness.storing import Store
from tests.shared import made_once

pytestmark = pytest.mark.slow

QUICK = ("lora.steps=1", "benign.names=2", "benign.seeds=1", "sampler.steps=1", "lora.batch=2")


def wish() -> Wish:
    """24 pictures in one step each."""
    return wish_for(base="micro", task="celebrity", pictures=24, changed=QUICK)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures, drawn once."""

    def make(root: Path) -> None:
        wanted = wish()
        names = [one.name for group in choices_of(wanted) for one in group]
        draw(wanted, Bench(Store(root / "store")), root / "set", references=references(wanted, names))

    return made_once(tmp_path_factory, "calibration-pictures", make)


def test_a_third_is_drawn_by_models_and_no_suite_samples_any(folder: Path) -> None:
    """Choices erased and retained, near misses and none in both kinds; every seed once; a reference of each choice."""
    found, task = PictureSet.read(folder / "set"), wish().task
    assert Counter(one.kind for one in found.pictures) == {BY_BASE: 16, BY_MODELS: 8}
    assert {one.drawn_by for one in found.pictures} == {"micro", "micro → uce", "micro → uce → lora"}
    seeds = [one.seed for one in found.pictures]
    assert len(set(seeds)) == 24 and min(seeds) >= FIRST_SEED
    assert not {one.prompt for one in found.pictures} & prompts_of(task)
    assert len(found.choices) == 6 and set(found.references) == set(found.choices)
    erased = {one.name for one in task.erasable}
    for kind in (BY_BASE, BY_MODELS):
        shown = {one.concept for one in found.pictures if one.kind == kind}
        assert (
            shown & erased & set(found.choices) and (shown - erased) & set(found.choices) and shown - set(found.choices)
        )


def test_a_model_of_the_users_own_draws_its_third(folder: Path, tmp_path: Path) -> None:
    """Given with what was erased from it: that is what the labeller chooses among; without the list it is refused."""
    from safetensors.torch import save_file

    wanted = wish()
    erased, _ = choices_of(wanted)
    unet = Bench(Store(folder / "store")).model(models(wanted, erased)[0]).unet
    save_file(
        {name: value.detach().contiguous() for name, value in unet.state_dict().items()}, tmp_path / "u.safetensors"
    )
    (tmp_path / "erased.txt").write_text(f"{erased[1].name}\n", encoding="utf-8")
    given = {"base": "micro", "task": "celebrity", "pictures": 24, "unlearned": [f"mine={tmp_path}/u.safetensors"]}
    mine = wish_for(**given, concepts=tmp_path / "erased.txt", changed=QUICK, store=str(tmp_path / "store"))

    own = choices_of(mine)[0]
    assert [one.name for one in own] == [erased[1].name]
    assert [recipe.label for recipe in models(mine, own)] == ["micro → given", "micro → given → lora"]
    with pytest.raises(UserError, match="concepts"):
        wish_for(**given)


def test_pictures_that_are_there_are_used_and_others_refused(folder: Path, tmp_path: Path) -> None:
    """Without a store nothing can be drawn again; another judge, or one without an answer, is refused."""
    nowhere = Bench(Store(tmp_path / "none"))
    assert draw(wish(), nowhere, folder / "set") == PictureSet.read(folder / "set")
    with pytest.raises(UserError, match="drawn for another judge"):
        draw(replace(wish(), judge=judge_by_name("second-identity")), nowhere, folder / "set")
    with pytest.raises(UserError, match="has no answer for any concept of celebrity"):
        choices_of(replace(wish(), judge=judge_by_name("object")))
    with pytest.raises(UserError, match="too few for a calibration"):
        replace(wish(), pictures=5)
    with pytest.raises(UserError, match="There is no task"):
        wish_for(base="micro", task="cats")
