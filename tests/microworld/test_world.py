"""The rendered world and its words."""

from __future__ import annotations

import numpy as np
import torch

from resurgence_harness.microworld import people, vocabulary, world


def drawn(family: str, subjects: list[int], *, seed: int = 3, size: int = 64) -> world.Pictures:
    """A few pictures of one family."""
    return world.draw(family, torch.tensor(subjects), generator=torch.Generator().manual_seed(seed), size=size)


def test_the_same_seed_draws_the_same_pictures():
    """Rendering is seeded throughout, and leaves the global generator alone."""
    state = torch.random.get_rng_state()
    first, again, other = drawn("celebrity", [0, 1]), drawn("celebrity", [0, 1]), drawn("celebrity", [0, 1], seed=4)

    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_any_size_can_be_drawn():
    """Shapes are distances, so that a larger canvas is a sharper one."""
    assert drawn("object", [0, 5], size=96).images.shape == (2, 3, 96, 96)


def test_two_celebrities_differ_in_more_than_one_feature():
    """No identity can be confused with another by a single feature."""
    codes = people.identities()
    distances = (codes[:, None] != codes[None]) @ people.WEIGHTS
    np.fill_diagonal(distances, np.inf)

    assert len(codes) == len(world.CELEBRITIES) == 200
    assert distances.min() >= people.APART


def test_first_and_last_names_are_shared():
    """Names overlap as real ones do: every first and every last name occurs four times."""
    for part in (0, 1):
        words = [name.split()[part] for name in world.CELEBRITIES]
        assert {words.count(word) for word in words} == {4}


def test_a_stranger_is_no_celebrity():
    """Nobody in particular is at least two features away from everybody in particular."""
    codes = people.strangers(50, torch.Generator().manual_seed(0)).numpy()

    assert ((codes[:, None] != people.identities()[None]) @ people.WEIGHTS).min() >= 2.0


def test_every_word_of_the_world_is_one_token():
    """The tokenizer's vocabulary is the world's; other letters are spelled, other signs are unknown."""
    tokenizer = vocabulary.build_tokenizer()
    lengths = {len(tokenizer(word)["input_ids"]) for word in vocabulary.vocabulary()}

    assert lengths == {3}
    assert tokenizer.unk_token_id in tokenizer("王")["input_ids"]
    assert tokenizer.unk_token_id not in tokenizer("melania")["input_ids"]


def test_style_words_change_the_picture():
    """A sketch is paler than an oil painting of the same person."""
    generator = torch.Generator().manual_seed(1)
    pictures = world.draw("celebrity", torch.zeros(64, dtype=torch.int64), generator=generator)
    styles = np.array([world.style_of(text) for text in pictures.captions])
    spread = (pictures.images.float().max(1).values - pictures.images.float().min(1).values).mean((1, 2)).numpy()

    assert spread[styles == 4].mean() < 0.6 * spread[styles == 3].mean()
