"""Registering in one process: whose name it is, what replaces what, and what is undone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from resurgence_harness.diffusion.parameters import Parameters, StrictKeyValue
from resurgence_harness.errors import UserError
from resurgence_harness.judging import JUDGES, MicroJudge
from resurgence_harness.planning import judgments_key
from resurgence_harness.presets import METHODS, Method
from resurgence_harness.registry import (
    BUILT_IN,
    KINDS,
    Origin,
    entries,
    given_parts,
    in_key,
    register,
    registered_by_suite,
    temporary,
)
from resurgence_harness.registry.tables import OfSuite
from resurgence_harness.specs import Base, Concept, Probe, Prompt, Recipe
from resurgence_harness.storing import canonical
from resurgence_harness.tasks import OBJECT, PUBLISHED, TASKS
from resurgence_harness.unlearning import UCE, Unlearning

ACME, BETA = Origin.of_package("acme-erasure", "1.0"), Origin.of_package("beta-erasure", "2.0")
SUITE = Origin.of_conftest("suites/night/conftest.py")
SOURCE = "5" * 64


@dataclass(frozen=True, kw_only=True)
class Nothing(Unlearning):
    """A method of a package."""

    name: ClassVar[str] = "nothing"
    version: ClassVar[int] = 1
    concepts: tuple[Concept, ...]

    @property
    def moves(self) -> Parameters:
        """Keys and values."""
        return StrictKeyValue()

    def apply(self, model: object, run: object) -> object:  # type: ignore[override]
        """Nothing."""
        return model


@dataclass(frozen=True)
class Own(MicroJudge):
    """A judge of a suite."""


def test_every_built_in_object_is_in_the_registry() -> None:
    """Of each kind, with this package as its origin and without a note."""
    for kind in KINDS:
        found = entries(kind)
        assert found and all(entry.origin == BUILT_IN and not entry.named and not entry.source for entry in found)
    assert given_parts([("unlearning", "esd"), ("judge", "identity"), ("task", "object"), ("task", "nowhere")]) == ()


def test_a_package_takes_no_name_that_is_taken() -> None:
    """Neither a built-in one nor another package's; both origins are named."""
    with temporary():
        register("unlearning", Nothing, ACME, source=SOURCE)
        with pytest.raises(UserError) as caught:
            register("unlearning", Nothing, BETA, source=SOURCE)
        assert str(caught.value).splitlines()[0] == 'Two unlearning methods are called "nothing".'
        assert "acme-erasure 1.0" in str(caught.value) and "beta-erasure 2.0" in str(caught.value)
        with pytest.raises(UserError, match='Two unlearning methods are called "esd"'):
            register("unlearning", Method(Nothing, {}, 1, "esd"), ACME)
        with pytest.raises(UserError, match='Two tasks are called "object"'):
            register("task", OBJECT, ACME)
    assert "nothing" not in METHODS


def test_a_suite_replaces_and_the_next_one_gets_the_old_back() -> None:
    """A second call registers its own objects alone; what was replaced returns."""
    built_in = JUDGES["second-identity"]
    mine = Own(name="second-identity")
    with temporary():
        registered_by_suite([OfSuite("judge", mine, SUITE, Path(__file__))])
        assert JUDGES["second-identity"] is mine
        (entry,) = given_parts([("judge", "second-identity")])
        assert entry.replaced is not None and entry.replaced.origin == BUILT_IN
        assert entry.note == (
            f'Judge "second-identity" is from suites/night/conftest.py, source {entry.source[:12]}; '
            "it replaces the built-in one."
        )
        with pytest.raises(UserError, match='Two judges are called "second-identity"'):
            register("judge", replace(built_in, name="second-identity"), SUITE)
        register("unlearning", Nothing, SUITE, source=SOURCE)
        registered_by_suite([])
        assert METHODS["nothing"].step is Nothing and in_key(Nothing) is not None  # not by a hook, so it stays
        assert JUDGES["second-identity"] is built_in and given_parts([("judge", "second-identity")]) == ()


def test_a_task_of_a_suite_is_there_on_every_base() -> None:
    """In both tables, and gone from both."""
    night = replace(OBJECT, name="night")
    with temporary():
        registered_by_suite([OfSuite("task", night, SUITE, Path(__file__))])
        assert TASKS["night"] is PUBLISHED["night"] is night
        registered_by_suite([OfSuite("task", replace(night, name="object"), SUITE, Path(__file__))])
        assert TASKS["object"] == PUBLISHED["object"] and "night" not in TASKS and "night" not in PUBLISHED
    assert TASKS["object"] is OBJECT and PUBLISHED["object"] is not OBJECT


def test_what_a_registered_class_makes_has_its_origin_in_its_key() -> None:
    """Steps and judges; this package's have none."""
    step = Nothing(concepts=(Concept(name="cat"),))
    model, probe = Recipe(Base(digest="0" * 64)), Probe(prompts=(Prompt(text="cat", concept="cat"),), seeds=(1,))
    plain, judged = canonical(step), judgments_key(model, probe, Own(name="identity"))
    with temporary():
        register("unlearning", Nothing, ACME, source=SOURCE)
        register("judge", Own(name="identity"), SUITE, source=SOURCE)
        assert canonical(step) == {**plain, "from": {"package": "acme-erasure", "version": "1.0", "source": SOURCE}}
        assert judgments_key(model, probe, Own(name="identity")) != judged
        assert in_key(Own) == {"package": "", "version": "", "source": SOURCE}
        assert in_key(UCE) is None and "from" not in canonical(UCE(concepts=(Concept(name="cat", kind="pet"),)))
    assert canonical(step) == plain


@pytest.mark.parametrize(
    ("kind", "given", "sentence"),
    [
        ("unlearning", 5, "An unlearning method is expected, not 5."),
        ("unlearning", MicroJudge, "An unlearning method is expected"),
        ("finetuning", Nothing, "A fine-tuning is expected"),
        ("judge", MicroJudge, "The judge MicroJudge is a class, not an instance."),
        ("judge", OBJECT, "Judge object does not declare version"),
        ("task", "night", "A task is expected, not 'night'."),
    ],
)
def test_an_object_of_another_kind_is_refused(kind: str, given: object, sentence: str) -> None:
    """With a sentence on what was expected."""
    with pytest.raises(UserError) as caught:
        register(kind, given, ACME)
    assert str(caught.value).startswith(sentence)
