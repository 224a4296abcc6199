"""Equal questions have equal keys, different ones different keys, and a changed key is a reviewed change."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resurgence_harness.errors import SpecError
from resurgence_harness.specs import Base, Block, Concept, Probe, Prompt, Recipe, Sampler, Step, not_in_key
from resurgence_harness.storing import canonical, key
from resurgence_harness.storing.keys import canonical_json

GOLDEN = Path(__file__).parent / "golden" / "keys.txt"


@dataclass(frozen=True, kw_only=True)
class Blur(Step):
    """A step with the kinds of fields that steps have."""

    name: ClassVar[str] = "blur"
    version: ClassVar[int] = 3
    radius: float = 2.0
    concepts: tuple[Concept, ...] = ()
    note: str = not_in_key("")


BASE = Base(digest="ab" * 32, name="micro", location="/somewhere")
ADA = Concept(name="Ada Quill", synonyms=("Ada Q.",), kind="a celebrity")
PROBE = Probe(prompts=(Prompt(text="a photo of Ada Quill", concept="Ada Quill"),), seeds=(1, 2, 3))
QUESTIONS: dict[str, tuple[str, object]] = {
    "base": ("checkpoint", Recipe(BASE)),
    "one step": ("checkpoint", Recipe(BASE).then(Blur(concepts=(ADA,)))),
    "two steps": ("checkpoint", Recipe(BASE).then(Blur(concepts=(ADA,))).then(Blur(radius=0.1))),
    "images": ("images", (Recipe(BASE), PROBE)),
    "judgments": ("judgments", (Recipe(BASE), PROBE, {"type": "judge", "digest": "cd" * 32})),
    "float": ("number", 1e-7),
    "text": ("text", "Zoë Müller, 東京"),
}


def test_keys_are_the_golden_ones() -> None:
    """A changed key throws away everybody's builds, so it must show up as a changed line in a review."""
    golden = dict(line.rsplit(maxsplit=1) for line in GOLDEN.read_text(encoding="utf-8").splitlines())
    assert {word: key(kind, spec) for word, (kind, spec) in QUESTIONS.items()} == golden


def test_a_recipe_is_written_out_with_its_defaults() -> None:
    """The canonical form shows class words, versions, resolved defaults, and no places or labels."""
    assert canonical(Recipe(BASE).then(Blur(note="why"))) == {
        "type": "Recipe",
        "base": {"type": "Base", "digest": "ab" * 32},
        "steps": [{"type": "blur", "version": 3, "radius": 2.0, "concepts": []}],
    }


def test_a_field_called_name_is_a_field_and_not_the_class_word() -> None:
    """Concept.name is what is asked for; the class word of a concept stays Concept."""
    assert canonical(ADA) == {
        "type": "Concept",
        "name": "Ada Quill",
        "synonyms": ["Ada Q."],
        "kind": "a celebrity",
    }


def test_places_and_labels_do_not_change_the_key() -> None:
    """The same weights elsewhere on the disk, under another name, are the same base."""
    moved = replace(BASE, name="other", location="/elsewhere")
    assert key("checkpoint", Recipe(moved)) == key("checkpoint", Recipe(BASE))


@pytest.mark.parametrize(
    "other",
    [
        Recipe(replace(BASE, digest="00" * 32)).then(Blur()),
        Recipe(BASE).then(Blur(radius=2.5)),
        Recipe(BASE).then(Blur(concepts=(ADA,))),
        Recipe(BASE).then(Blur()).then(Blur()),
        Recipe(BASE),
    ],
    ids=["digest", "number", "concepts", "repeated", "fewer"],
)
def test_what_changes_the_bytes_changes_the_key(other: Recipe) -> None:
    """Every meaning in a recipe is in its key."""
    assert key("checkpoint", other) != key("checkpoint", Recipe(BASE).then(Blur()))


def test_a_version_changes_the_key() -> None:
    """Raising a step's version retires everything that its older meaning made."""

    @dataclass(frozen=True, kw_only=True)
    class Newer(Step):
        name: ClassVar[str] = "blur"
        version: ClassVar[int] = 4
        radius: float = 2.0
        concepts: tuple[Concept, ...] = ()

    assert key("checkpoint", Newer()) != key("checkpoint", Blur())


def test_the_kind_changes_the_key() -> None:
    """A checkpoint and the images of one spec never share a key."""
    assert key("checkpoint", ADA) != key("images", ADA)


def test_equal_specs_have_equal_keys_however_their_numbers_are_typed() -> None:
    """guidance=7 equals guidance=7.0, and −0.0 equals 0.0."""
    assert key("sampler", Sampler(guidance=7)) == key("sampler", Sampler(guidance=7.0))
    assert key("number", -0.0) == key("number", 0.0)


def test_true_is_not_one() -> None:
    """JSON tells booleans from numbers, and so do keys."""
    assert key("value", True) != key("value", 1)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1: 2}, {"a": {1, 2}}, b"bytes", object(), Path("x"), Blur],
    ids=["nan", "inf", "number as name", "set", "bytes", "object", "path", "class"],
)
def test_values_without_a_stable_meaning_are_refused(value: Any) -> None:
    """What JSON cannot say exactly is a mistake where it is written, not a key that changes tomorrow."""
    with pytest.raises(SpecError):
        key("value", value)


def test_the_refusal_says_where_the_value_stands() -> None:
    """A NaN deep in a recipe is named by its place."""
    with pytest.raises(SpecError, match=r"Recipe\.steps\[0\]\.radius is nan"):
        key("checkpoint", Recipe(BASE).then(Blur(radius=float("nan"))))


def test_a_field_called_type_is_refused() -> None:
    """It would hide which class the value is of."""

    @dataclass(frozen=True)
    class Odd:
        type: str = "x"

    with pytest.raises(SpecError, match="a field called type"):
        key("value", Odd())


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_their_exact_value(number: float) -> None:
    """The text of a float reads back as the same float, so no two floats share a key."""
    assert float(canonical_json(number)) == number


@given(st.dictionaries(st.text(), st.integers()))
def test_the_order_of_entries_does_not_matter(entries: dict[str, int]) -> None:
    """A mapping is a set of names with values."""
    assert key("value", entries) == key("value", dict(reversed(entries.items())))


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_keys_are_the_same_in_every_process(hash_seed: str) -> None:
    """Nothing in a key depends on Python's per-process hashing."""
    script = (
        "from resurgence_harness.specs import *; from resurgence_harness.storing import key;"
        "print(key('images', (Recipe(Base(digest='ab' * 32)), Probe(prompts=(Prompt("
        "text='a photo of Ada Quill', concept='Ada Quill'),), seeds=(1, 2, 3)))))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == key(*QUESTIONS["images"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
        max_leaves=20,
    )
)
def test_a_key_is_the_hash_of_the_canonical_json(value: Any) -> None:
    """The text composed of remembered parts is the one that canonical_json writes, for plain values and for specs."""
    rows = tuple(PROBE.rows())
    blocks = [Block(asked=rows, sampler=PROBE.sampler), Block(asked=((rows[0][0], True),), sampler=Sampler(guidance=7))]
    for one in (
        value,
        (value, PROBE),
        blocks,
        {"again": [PROBE, Recipe(BASE).then(Blur(concepts=(ADA,)))], "value": value},
    ):
        text = canonical_json({"kind": "thing", "spec": canonical(one)})
        assert key("thing", one) == hashlib.sha256(text.encode()).hexdigest()
