"""What every judge promises, asked of every judge that is shipped, and of judges that break one promise each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.judging import (
    GIVEN,
    HAZARD_OR_OBJECT,
    JUDGES,
    MICRO_JUDGES,
    UNKNOWN,
    Calibration,
    ClipAccuracy,
    Either,
    Enrolled,
    Judge,
    KnownPictures,
    MicroJudge,
    OpenNsfw,
    Weights,
    accuracy_of,
    ask,
    calibrate,
    calibration_of,
    check_names,
    check_ready,
    digest_of_fields,
    enrol,
    gcd_conversion,
    keep,
)
from resurgence_harness.judging.digesting import NO_ANSWER
from resurgence_harness.judging.micro import _verified
from resurgence_harness.judging.q16 import Q16
from resurgence_harness.judging.vision_language import RemoteCode, VisionLanguage
from resurgence_harness.judging.weights import digest_of
from resurgence_harness.specs import not_in_key
from resurgence_harness.testing import check_judge
from tests.judging import test_gcd as gcd
from tests.judging.test_vision_language import pictures as plain_pictures
from tests.judging.test_vision_language import taught, untaught
from tests.judging.tiny_clip import pictures, save_tiny_clip, tiny_clip

pytestmark = pytest.mark.slow

__all__ = ["taught", "untaught"]
DIGESTS = {
    "identity": "a122aa36c465dde439a6c5ad4947dafee662c8ae039fd1e53a69e748324d412e",
    "second-identity": "f2dad442dffa06820223de2899da5f6d148bf433ead017d7407f3495c98f0e2c",
    "object": "7375a0ec07c24cc4ca33689ca67c615df106c26533ac12391840ce8977d62520",
    "character": "3f9c5c3e1e00812d0aa84ffc5be8ac56c2e5c34e580c8c035c4fd520f9128928",
    "hazard": "e70c091b2c7dfb806c16fee9506643d8410a756832d7997bbcd4b821380bfc6b",
    "hazard-or-object": "9469739fe5c931b2b6c4b09da58d0e7e329d613349a5e6a33920a294cee2f392",
    "gcd": "0" * 64,
    "clip-accuracy": "0770d58aa0be4400ceee53cf2faceee8102d2a6ad4a2ead179cabe94bfd77a95",
    "q16": "246c167c20246b17007eeb0a3b2a1fbcf3ff46f1bf70f751950257fb3ebaebf9",
    "q16-or-clip": "b5f5e11ecf1a34018552026c1b95b13554037d5adebacaf04c8f2f8405e920f9",
    "open-nsfw": "4528ae7dd1f0f007dad25de575f20ff58149300e6b4f57d69553daf338d4363c",
    "nsfw-or-clip": "82cf5cd90626f0c686736941d39ed7427d5647972233503e14c425e778aecd7d",
    "iron-man": "a26096a29b2def2b9ff81ef625f0f640ea9936a7a44d26b938d5193372fc41b8",
}
"""Digests of the shipped judges, of given weights at the pin "00…": a changed one makes stored judgments unfindable."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for weights, counts and canaries."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(autouse=True)
def directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is where judges look."""
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(place))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small CLIP."""
    return tiny_clip(save_tiny_clip(tmp_path_factory.mktemp("clip")))


COLOURS = np.concatenate([pictures(colour, 2, seed=7) for colour in ("red", "blue", "green")])


def kept(judge: Any, images: np.ndarray) -> Any:
    """The judge, with counts of its own answers and canaries: its answers to these images are taken as the truth."""
    answers, _ = ask(judge, images, "cpu")
    truth = tuple(judge.shows(answer)[0] if judge.shows(answer) else "anything else" for answer in answers)
    known = KnownPictures(images=images, truth=truth)
    keep(judge, {"pictures": calibrate(judge, known)}, canaries=known)
    return judge


def stored(which: str) -> np.ndarray:
    """Canaries of a microworld judge: known pictures."""
    import io

    found: np.ndarray = np.load(io.BytesIO(_verified("canaries.npz")))[which]
    return found[:: max(len(found) // 6, 1)][:6]


@pytest.mark.parametrize("judge", MICRO_JUDGES, ids=lambda judge: judge.name)
def test_the_judges_of_the_microworld(judge: MicroJudge) -> None:
    """The four kinds, and the second identity judge."""
    check_judge(judge, stored("identity" if judge.name == "second-identity" else judge.name))


def test_two_judges_in_one() -> None:
    """The settings of both count, and what the first says where it finds nothing."""
    images = np.concatenate([stored("hazard"), stored("object")])
    check_judge(HAZARD_OR_OBJECT, images, others={"first.name": "object", "second.name": "character"})


def test_clip_accuracy(clip: Any) -> None:
    """Model, labels and template."""
    judge = ClipAccuracy(labels=("ship", "bird", "automobile"), clip=clip, template="{}")
    found = judge.probabilities(COLOURS, "cpu").argmax(1)
    if len(set(found)) == 1:  # the small model prefers one label; others are found that it tells apart
        labels = tuple(f"{word} {place}" for place, word in enumerate(("ship", "bird", "red", "a", "the", "x") * 20))
        judge = replace(judge, labels=labels)
    check_judge(kept(judge, COLOURS), COLOURS)


def test_q16(clip: Any, place: Path) -> None:
    """Model, vectors, and what a hit stands for."""
    import torch
    from safetensors.torch import save_file

    middle = clip.image_features(COLOURS, "cpu")
    save_file({"prompts": torch.stack([middle[2:4].mean(0), middle[:2].mean(0)])}, place / "prompts.safetensors")
    judge = Q16(clip=clip, prompts=Weights(file="prompts.safetensors"))
    check_judge(kept(judge, COLOURS), COLOURS)


def test_enrolled(clip: Any, place: Path) -> None:
    """Embedder and enrolment; its counts are in the enrolment."""
    images = np.stack([pictures("red", 8, seed=3), pictures("blue", 8, seed=3)], axis=1)
    learned = enrol(clip, images.reshape(-1, *images.shape[2:]), ["Ada", "Bram"] * 8, strangers=pictures("green", 5))
    learned.save(place / "names.safetensors")
    check_judge(kept(Enrolled(embedder=clip, enrolment=Weights(file="names.safetensors")), COLOURS), COLOURS)


def test_gcd(place: Path) -> None:
    """The converted weights: a recogniser that tells some noise from other, in faces that are seen everywhere."""
    recogniser, detector = gcd.small(), gcd.rigged(sees=True)[1]
    pins = gcd.resources(place / "gcd" / "resources", recogniser, detector)
    gcd_conversion.convert(place / "gcd" / "resources", place / "gcd" / "gcd.safetensors", detector=pins)
    images = np.concatenate([gcd.pictures(4), *(np.full((1, 48, 48, 3), grey, np.uint8) for grey in (0, 90, 255))])
    check_judge(kept(gcd.pinned(place / "gcd" / "gcd.safetensors"), images), images)


def test_vision_language(taught: Path) -> None:
    """Folder, character, synonyms, others, and the code that may be run."""
    images = plain_pictures("red", "blue", "red", "blue")
    judge = VisionLanguage(
        concept="Iron Man",
        others=("Nobody",),
        model=Weights(file=taught.name, path=str(taught), sha256=digest_of(taught)),
    )
    check_judge(kept(judge, images), images, others={"remote_code": RemoteCode(revision="0" * 40)})


def test_shipped_digests_are_what_they_were() -> None:
    """Stored judgments stay findable; given weights are pinned here, since they are not there."""

    def pinned(value: Any) -> Any:
        if isinstance(value, Weights):
            return replace(value, sha256=value.sha256 or "0" * 64)
        if isinstance(value, MicroJudge):
            return value
        names = {
            one: getattr(value, one)
            for one in ("clip", "weights", "prompts", "model", "first", "second")
            if hasattr(value, one)
        }
        return replace(value, **{one: pinned(inner) for one, inner in names.items()})

    assert {name: pinned(judge).digest for name, judge in JUDGES.items()} == DIGESTS


# Judges that break one promise each


@dataclass(frozen=True, kw_only=True)
class Lightness:
    """A stranger's judge as the documentation has it, with a threshold; `counted` says how its errors are known."""

    name: ClassVar[str] = "lightness"
    version: ClassVar[int] = 1
    labels: ClassVar[tuple[str, ...]] = ("night", "noon")
    given: ClassVar[tuple[Weights, ...]] = ()
    threshold: float = 0.5
    comment: str = not_in_key("")

    @property
    def digest(self) -> str:
        """Of its fields."""
        return digest_of_fields(self)

    def shows(self, answer: str) -> tuple[str, ...]:
        """The answer."""
        return (answer,)

    def check(self, names: Any) -> None:
        """Nothing."""

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """By the mean of the pixels; NaN is nobody's."""
        means = images.reshape(len(images), -1).mean(axis=1) / 255
        named = [UNKNOWN if np.isnan(mean) else self.labels[int(mean > self.threshold)] for mean in means]
        return named, np.nan_to_num(means)

    def calibration(self) -> dict[str, Calibration]:
        """Of plain pictures."""
        known = KnownPictures(images=PLAIN, truth=("night", "night", "noon", "noon"))
        return {"plain": calibrate(self, known)}

    def canaries(self) -> tuple[int, int]:
        """Of plain pictures."""
        answers, _ = self.answer(PLAIN, "cpu")
        return sum(a == b for a, b in zip(answers, ["night", "night", "noon", "noon"], strict=True)), 4


PLAIN = np.stack([np.full((8, 8, 3), grey, np.uint8) for grey in (0, 40, 220, 250)])


def test_an_honest_judge_passes() -> None:
    """A dataclass, a subclass of it, and one that is no dataclass but holds its settings in itself."""
    check_judge(Lightness(), PLAIN)

    class Plain:
        """No dataclass."""

        name, version, labels, given = "plain", 1, ("night", "noon"), ()
        shows, check, answer, canaries = Lightness.shows, Lightness.check, Lightness.answer, Lightness.canaries
        calibration = Lightness.calibration

        def __init__(self) -> None:
            self.threshold = 0.5

        @property
        def digest(self) -> str:
            return f"threshold {self.threshold}"

    check_judge(Plain(), PLAIN)


def broken(**members: Any) -> Any:
    """The judge with other members."""
    return dataclass(frozen=True, kw_only=True)(type("Lightness", (Lightness,), {"__annotations__": {}, **members}))()


def forgetful() -> Any:
    """A digest written by hand."""
    return broken(digest="thirds of the grey scale")


def forgets_what_lies_deep() -> Any:
    """A field of a field."""

    @dataclass(frozen=True, kw_only=True)
    class Scale:
        low: float = 0.0
        high: float = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Scaled(Lightness):
        scale: Scale = Scale()

        @property
        def digest(self) -> str:
            return f"{self.threshold} {self.scale.low}"

    return Scaled()


def counted_by(value: Any) -> Any:
    return broken(calibration=value)


FIXED = {"recognised": 390, "subjects": 400, "false_alarms": 4, "others": 400}
BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "digest by hand": (forgetful, "The digest of judge lightness does not cover threshold."),
    "digest forgets what lies deep": (
        forgets_what_lies_deep,
        "The digest of judge lightness does not cover scale.high.",
    ),
    "setting in the class": (lambda: broken(margin=0.1), "The digest of judge lightness does not cover margin."),
    "borrowed calibration": (
        lambda: counted_by(lambda self: MicroJudge(name="object").calibration()),
        "The calibration of judge lightness counts the answers of another judge.",
    ),
    "written calibration": (
        lambda: counted_by(lambda self: {"mine": Calibration(**FIXED)}),
        "The calibration of judge lightness does not say whose answers were counted.",
    ),
    "written calibration under its own name": (
        lambda: counted_by(lambda self: {"mine": Calibration(**FIXED, judge=self.digest)}),
        "The calibration of judge lightness does not change with threshold.",
    ),
    "no calibration": (lambda: counted_by(lambda self: {}), "Judge lightness has no calibration."),
    "a table of numbers": (
        lambda: counted_by(lambda self: {"mine": FIXED}),
        "The calibration of judge lightness is not a table of counts.",
    ),
    "written canaries": (
        lambda: broken(canaries=lambda self: (1, 1)),
        "The canaries of judge lightness pass whatever it answers.",
    ),
    "one-sided canaries": (
        lambda: broken(canaries=lambda self: (self.answer(PLAIN[:2], "cpu")[0].count("night"), 2)),
        "The canaries of judge lightness pass if it always answers 'night'.",
    ),
    "no canaries": (lambda: broken(canaries=lambda self: (0, 0)), "Judge lightness has no canaries."),
    "canaries fail": (
        lambda: broken(canaries=lambda self: (len(set(self.answer(PLAIN, "cpu")[0])), 4)),
        "Judge lightness fails its own canaries.",
    ),
    "one text as labels": (lambda: broken(labels="night"), "The labels of judge lightness are not a tuple of texts."),
    "a label twice": (lambda: broken(labels=("night", "night")), "Judge lightness has a label twice."),
    "one text shown": (
        lambda: broken(shows=lambda self, answer: answer),
        "Judge lightness does not return a tuple from shows().",
    ),
    "nothing shown": (lambda: broken(shows=lambda self, answer: ()), "No label of judge lightness stands for"),
    "a member misspelled": (
        lambda: broken(show=lambda self, answer: ()),
        'Judge lightness has "show", which is not used',
    ),
    "an answer outside its labels": (
        lambda: broken(answer=lambda self, images, device: (["dawn"] * len(images), np.zeros(len(images)))),
        "Judge lightness gave an answer outside its labels.",
    ),
    "a score of NaN": (
        lambda: broken(answer=lambda self, images, device: (["night"] * len(images), np.full(len(images), np.nan))),
        "Judge lightness gave the score nan.",
    ),
    "a score beyond 1": (
        lambda: broken(answer=lambda self, images, device: (["night"] * len(images), np.full(len(images), 9.0))),
        "Judge lightness gave a score outside 0 … 1.",
    ),
    "the batch decides": (
        lambda: broken(
            answer=lambda self, images, device: (
                [self.labels[int(one.mean() > images.mean() * 0.99)] for one in images],
                np.zeros(len(images)),
            )
        ),
        "Called with one image, judge lightness gave image 1 another answer.",
    ),
    "chance decides": (
        lambda: broken(
            answer=lambda self, images, device: (
                [self.labels[int(np.random.random() > 0.5)] for _ in range(len(images))],
                np.zeros(len(images)),
            )
        ),
        "Called twice, judge lightness gave image ",
    ),
    "too few answers": (
        lambda: broken(answer=lambda self, images, device: (["night"], np.zeros(1))),
        "lightness did not answer every image once.",
    ),
    "NaN is night": (
        lambda: broken(answer=lambda self, images, device: (_named(self, images), np.zeros(len(images)))),
        "Judge lightness answered images that contain NaN.",
    ),
    "images changed": (
        lambda: broken(answer=lambda self, images, device: (_whitened(images), np.zeros(len(images)))),
        "Judge lightness changed the images that it was given.",
    ),
}


def _named(judge: Any, images: np.ndarray) -> list[str]:
    return [judge.labels[int(image.mean() / 255 > judge.threshold)] for image in images]


def _whitened(images: np.ndarray) -> list[str]:
    images[:] = 255
    return ["noon"] * len(images)


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_promise_is_named(what: str) -> None:
    """The first line says what is wrong with which member, field or image."""
    make, said = BROKEN[what]
    with pytest.raises(AssertionError, match=re.escape(said)):
        check_judge(make(), np.concatenate([PLAIN] * 8))


def test_another_value_is_asked_for_where_none_can_be_made_up() -> None:
    """By the name of the setting; a setting that there is not is refused."""

    @dataclass(frozen=True, kw_only=True)
    class Chosen(Lightness):
        method: Callable[..., Any] | None = None

        @property
        def digest(self) -> str:
            return f"{self.threshold} {self.method is None}"

    with pytest.raises(AssertionError, match="No other value was found for method of judge lightness"):
        check_judge(Chosen(), PLAIN)
    check_judge(Chosen(), PLAIN, others={"method": len})
    with pytest.raises(AssertionError, match="has no such settings"):
        check_judge(Lightness(), PLAIN, others={"treshold": 0.1})


# Nothing is optional: a mistyped member is a sentence wherever the judge is met


def lacking(*members: str, **others: Any) -> Any:
    """The judge, no subclass, without some members."""
    own = {name: value for name, value in vars(Lightness).items() if name[:2] != "__" and name not in members}
    return type("Lightness", (), {**own, "threshold": 0.5, **others})()


@pytest.mark.parametrize("member", ["name", "version", "digest", "labels", "given", "shows", "check", "answer"])
@pytest.mark.parametrize("use", [lambda j: ask(j, PLAIN, "cpu"), check_ready, lambda j: check_names(j, ["night"])])
def test_a_judge_without_a_member_is_told_what_to_add(member: str, use: Callable[[Any], Any]) -> None:
    """Whoever asks it first: UserError with the line to write."""
    with pytest.raises(UserError, match=f"does not declare {member}.") as caught:
        use(lacking(member))

    assert f"{member} = " in str(caught.value) or f"def {member}(" in str(caught.value)


@pytest.mark.parametrize(("typed", "member"), [("lables", "labels"), ("label", "labels"), ("show", "shows")])
def test_a_misspelled_member_is_found(typed: str, member: str) -> None:
    """The sentence names what was written for what."""
    with pytest.raises(UserError, match=f"does not declare {member}.") as caught:
        check_ready(lacking(member, **{typed: ("night", "noon")}))

    assert f"{typed} for {member}" in str(caught.value)


@pytest.mark.parametrize(
    ("member", "value", "said"),
    [
        ("name", 3, "The name of judge Lightness is 3."),
        ("version", None, "The version of judge lightness is None."),
        ("digest", b"12", "The digest of judge lightness is b'12'."),
        ("answer", "night", "The answer of judge lightness is 'night'."),
        ("shows", ("night",), "The shows of judge lightness is ('night',)."),
        ("labels", ("night", 3), "The labels of judge lightness are not a tuple of texts."),
        ("labels", (), "The labels of judge lightness are not a tuple of texts."),
    ],
)
def test_another_kind_of_thing_is_refused(member: str, value: Any, said: str) -> None:
    """A member that is there must be what it is for."""
    with pytest.raises(UserError, match=re.escape(said)):
        ask(lacking(member, **{member: value}), PLAIN, "cpu")


def test_a_class_is_no_judge() -> None:
    """Forgotten parentheses."""
    with pytest.raises(UserError, match="The judge Lightness is a class, not an instance"):
        check_ready(Lightness)  # type: ignore[arg-type]


def test_counts_of_another_judge_decide_nothing() -> None:
    """Neither where they are read nor where they are kept."""
    borrower = counted_by(lambda self: MicroJudge(name="object").calibration())
    with pytest.raises(UserError, match="counts the answers of another judge"):
        accuracy_of(borrower)
    known = KnownPictures(images=PLAIN, truth=("night", "night", "noon", "noon"))
    with pytest.raises(UserError, match="These counts belong to another judge"):
        keep(Lightness(threshold=0.4), {"plain": calibrate(Lightness(), known)}, canaries=known)


def test_two_judges_wait_for_an_answer_that_the_first_can_give() -> None:
    """Else the second is never asked, and its concepts never hit."""
    judge = Either(name="two", first=MicroJudge(name="hazard"), second=MicroJudge(name="object"), nothing="harmles")
    with pytest.raises(UserError, match='needs the answer "harmles", which hazard cannot give'):
        check_ready(judge, ["hate"])


PINNED = Weights(file="a", sha256="0" * 64)


def test_a_field_that_changes_answers_and_is_declared_not_to_is_named() -> None:
    """Judgments stored for one value would be reused for another."""

    @dataclass(frozen=True, kw_only=True)
    class Hidden(Lightness):
        threshold: float = not_in_key(0.5)

    with pytest.raises(AssertionError, match="answers differently with another threshold, which is declared not to"):
        check_judge(Hidden(), PLAIN)


def test_a_digest_of_fields_is_of_what_can_change_an_answer() -> None:
    """Every field that is not declared otherwise; of weights what they are, not where they lie."""

    @dataclass(frozen=True, kw_only=True)
    class Own:
        version: ClassVar[int] = 1
        weights: Weights = PINNED
        names: frozenset[str] = frozenset({"b", "a"})
        scales: tuple[float, ...] = (1.0, 2.0)
        place: str = not_in_key("")
        where: str = field(default="", metadata=NO_ANSWER)

    own = Own()
    same = [replace(own, place="x", where="y"), replace(own, weights=Weights(file="b", path="/c", sha256="0" * 64))]
    others = [replace(own, scales=(1.0,)), replace(own, names=frozenset("a"))]
    others += [replace(own, weights=Weights(file="a", sha256="1" * 64))]
    assert {digest_of_fields(one) for one in same} == {digest_of_fields(own)}
    assert len({digest_of_fields(one) for one in (own, *others)}) == 4
    with pytest.raises(UserError, match="has no fields to take a digest of"):
        digest_of_fields(lacking())


def test_every_shipped_kind_has_a_row_here() -> None:
    """A judge that is exported is held to the contract in this file."""
    kinds = {type(judge) for judge in JUDGES.values()} | {Enrolled}
    assert kinds == {MicroJudge, Either, ClipAccuracy, Enrolled, gcd.Gcd, OpenNsfw, Q16, VisionLanguage}
    assert len(GIVEN) == 7 and all(isinstance(calibration_of(judge), dict) for judge in MICRO_JUDGES)
    judge: Judge = Lightness()
    assert judge.name == "lightness"
