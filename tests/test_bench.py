"""What the bench makes is made once, is what was asked, and says where it came from: a tiny, real Stable Diffusion."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

import resurgence_harness.bench.model_cache as model_cache_module
from resurgence_harness.bench import Bench
from resurgence_harness.diffusion.base_files import digest_of
from resurgence_harness.errors import BuildError, JudgeError, SpecError, UserError
from resurgence_harness.finetuning import BenignSet, Full, LoRA
from resurgence_harness.judging import Calibration, Weights
from resurgence_harness.planning import HELD_OUT, checkpoint_key, images_key, judgments_key
from resurgence_harness.specs import Base, Concept, Probe, Prompt, Recipe, Sampler, Step
from resurgence_harness.statistics import Outcome, Rate
from resurgence_harness.storing import Condition, Store, StoreWarning, keeping
from resurgence_harness.unlearning import ESD, UCE
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

SAMPLER = Sampler(steps=2, height=64, width=64, batch=4)
ADA = Concept(name="ada quill", kind="a celebrity")
ASKED = Probe(prompts=(Prompt(text="a portrait of ada quill", concept="ada quill"),), seeds=(1, 2, 3), sampler=SAMPLER)
BENIGN = Probe(
    prompts=tuple(Prompt(text=f"a photo of {name}", concept=name) for name in ("cleo marsh", "dov ferris")),
    seeds=(101, 102),
    sampler=SAMPLER,
)


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """A judge with an opinion on every picture: who is seen depends on how light it is."""

    name: ClassVar[str] = "brightness"
    version: ClassVar[int] = 1
    digest: str = "00" * 32
    labels: ClassVar[tuple[str, ...]] = ("ada quill", "bram quill", "no face")
    given: ClassVar[tuple[Weights, ...]] = ()

    def shows(self, answer: str) -> tuple[str, ...]:
        """The name itself."""
        return (answer,)

    def check(self, names: object) -> None:
        """Nothing."""

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """One of three answers by the mean of the pixels."""
        means = images.reshape(len(images), -1).mean(axis=1, dtype=np.float64).astype(np.float32)
        return [self.labels[int(mean * 1000) % 3] for mean in means], means

    def canaries(self) -> tuple[int, int]:
        """It knows black from white."""
        answers, _ = self.answer(np.stack([np.zeros((8, 8, 3), np.uint8), np.ones((8, 8, 3), np.uint8)]), "cpu")
        return int(answers[0] == "ada quill") + int(answers[1] == "bram quill"), 2

    def calibration(self) -> dict[str, Calibration]:
        """Black is ada quill, white is somebody else: each shown 400 times."""
        black, white = (np.full((400, 8, 8, 3), value, np.uint8) for value in (0, 1))
        right, wrong = (self.answer(pictures, "cpu")[0].count("ada quill") for pictures in (black, white))
        return {"pictures": Calibration(recognised=right, subjects=400, false_alarms=wrong, others=400)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A tiny Stable Diffusion on the disk."""
    directory = save_tiny_stable_diffusion(tmp_path_factory.mktemp("base"))
    return Base(digest=digest_of(directory), name="tiny", location=str(directory))


@pytest.fixture(scope="module")
def unlearned(base: Base) -> Recipe:
    """UCE on one name."""
    return Recipe(base).then(UCE(concepts=(ADA,)))


@pytest.fixture(scope="module")
def tuned(unlearned: Recipe) -> Recipe:
    """The unlearned model after three steps of LoRA."""
    return unlearned.then(LoRA(data=BenignSet(probe=BENIGN), steps=3, batch=2, learning_rate=1e-2))


@pytest.fixture(scope="module")
def warm(tuned: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the tuned recipe's evidence is made; tests that write work on a copy."""
    root = tmp_path_factory.mktemp("warm") / "store"
    bench = Bench(Store(root))
    bench.evidence(tuned, ASKED, Brightness())
    bench.losses(tuned)
    return root


@pytest.fixture
def store(warm: Path, tmp_path: Path) -> Store:
    """A copy of the warm store."""
    shutil.copytree(warm, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def bench(store: Store) -> Iterator[Bench]:
    """A bench on a warm store."""
    bench = Bench(store)
    yield bench
    bench.release()


def weights(model: StableDiffusion) -> dict[str, Any]:
    """Every tensor of a model that can move."""
    from resurgence_harness.diffusion.model import tensors

    return {name: value.clone() for name, value in tensors(model).items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Bit for bit."""
    import torch

    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Checkpoints


def test_a_checkpoint_holds_only_what_differs(bench: Bench, unlearned: Recipe, tuned: Recipe) -> None:
    """UCE stores 32 key and value matrices, LoRA the 128 attention projections, merged into plain weights."""
    from safetensors import safe_open

    for recipe, count in ((unlearned, 32), (tuned, 4 * 2 * 16)):
        artifact = bench.checkpoint(recipe)
        with safe_open(artifact.path / "delta.safetensors", "pt") as stored:
            names = list(stored.keys())
        assert len(names) == count == artifact.facts["tensors moved"]
        assert all(".attn" in name and "lora" not in name for name in names)


def test_a_loaded_model_is_what_the_steps_made(base: Base, tmp_path: Path) -> None:
    """Deltas applied along the recipe give, bit for bit, the weights that training left in memory."""
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

    step = UCE(concepts=(ADA,))
    second = UCE(concepts=(Concept(name="dov ferris", kind="a celebrity"),))
    published = StableDiffusion.load(base.location)
    run = Run(base=published, base_digest=base.digest, parent_digest=base.digest)
    by_hand = second.apply(step.apply(published, run), run)
    built = Bench(Store(tmp_path / "store")).model(Recipe(base).then(step).then(second))
    assert same(weights(built), weights(by_hand))


def test_two_stores_get_the_same_bytes(base: Base, tmp_path: Path) -> None:
    """The same recipe on the same machine at the same thread count has the same digest."""
    recipe = Recipe(base).then(ESD(concepts=(ADA,), iterations=2, trajectories=1, trajectory_steps=2))
    digests = {Bench(Store(tmp_path / name)).checkpoint(recipe).digest for name in ("one", "two")}
    assert len(digests) == 1


def test_loaded_models_do_not_change_each_other(bench: Bench, tuned: Recipe, unlearned: Recipe, base: Base) -> None:
    """Models held at once stay different models, whatever is drawn meanwhile, and spoiling one spoils nothing else."""
    models = [bench.model(recipe) for recipe in (Recipe(base), unlearned, tuned)]
    before = [weights(model) for model in models]
    assert not same(before[0], before[1]) and not same(before[1], before[2])
    other = replace(ASKED, seeds=(9,))
    bench.images(unlearned, other)
    for model, kept in zip(models, before, strict=True):
        assert same(weights(model), kept)
    next(models[0].unet.parameters()).data.zero_()
    again = Bench(Store(bench.store.root.parent / "again"))
    assert (bench.images(Recipe(base), other) == again.images(Recipe(base), other)).all()


def test_changing_weights_leaves_no_trace(bench: Bench, base: Base, tuned: Recipe, unlearned: Recipe) -> None:
    """The U-Net that takes one model after another draws what a freshly loaded one draws."""
    from resurgence_harness.sampling import sample

    probe = replace(ASKED, seeds=(7,))
    for recipe in (tuned, Recipe(base), unlearned, tuned.before, tuned):
        fresh = sample(Bench(bench.store).model(recipe), probe)
        assert (bench.images(recipe, probe) == fresh).all()


def test_a_model_that_is_worn_already_is_not_read_again(
    bench: Bench, base: Base, tuned: Recipe, unlearned: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of blocks drawn one after the other by one model the first alone reads its checkpoints."""
    read: list[int] = []
    merged = model_cache_module.merged

    def counted(chain: Any) -> Any:
        read.append(len(chain))
        return merged(chain)

    monkeypatch.setattr(model_cache_module, "merged", counted)
    for seed, recipe in enumerate((tuned, tuned, Recipe(base), tuned, unlearned, tuned), start=50):
        bench.images(recipe, replace(ASKED, seeds=(seed,)))
    assert read == [2, 1, 2]


def test_the_facts_tell_where_it_came_from(bench: Bench, tuned: Recipe, unlearned: Recipe) -> None:
    """Threads, versions, device, losses, the step's own records, and what it was made with."""
    artifact = bench.checkpoint(tuned)
    facts = artifact.facts
    assert facts["threads"] >= 1 and facts["device"] == "cpu"
    assert {"torch", "diffusers", "transformers", "peft", "python"} <= facts["versions"].keys()
    assert facts["recorded"]["samples seen"] == 6
    assert facts["work"] == {"group": "lora, 2 at a time", "units": 3}
    assert artifact.inputs == {checkpoint_key(unlearned): bench.checkpoint(unlearned).digest}
    assert artifact.seconds > 0
    kinds = {found.kind for place in facts["made with"] if (found := bench.store.find(place))}
    assert kinds == {"latents", "images"}


def test_benign_losses_are_paired_and_held_out(bench: Bench, tuned: Recipe, unlearned: Recipe) -> None:
    """As many losses before as after, on images whose seeds no training used; none for an unlearning."""
    losses = bench.losses(tuned)
    assert losses is not None
    assert len(losses.before) == len(losses.after) == HELD_OUT
    assert losses.before != losses.after
    assert bench.losses(unlearned) is None


def test_intermediate_checkpoints_are_recipes_of_their_own(bench: Bench, base: Base) -> None:
    """SampleRequest to save at a step, the bench has that step's own recipe, as if it had been asked for it alone."""
    step = Full(data=BenignSet(probe=BENIGN), steps=2, batch=2, save_at=(1, 2))
    recipe = Recipe(base).then(step)
    bench.checkpoint(recipe)
    part = Recipe(base).then(step.at(1))
    saved = bench.store.open(checkpoint_key(part))
    assert saved.facts["benign losses"]["after"] != bench.checkpoint(recipe).facts["benign losses"]["after"]
    alone = Bench(Store(bench.store.root.parent / "alone")).checkpoint(part)
    assert alone.digest == saved.digest


def test_a_base_has_no_checkpoint(bench: Bench, base: Base) -> None:
    """What was published is not built."""
    with pytest.raises(SpecError, match="is not built"):
        bench.checkpoint(Recipe(base))


@dataclass(frozen=True, kw_only=True)
class Nothing(Step):
    """A step that changes nothing."""

    name: ClassVar[str] = "nothing"
    version: ClassVar[int] = 1

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """A copy."""
        return model.copy()


@dataclass(frozen=True, kw_only=True)
class Spoils(Step):
    """A step that diverges."""

    name: ClassVar[str] = "spoils"
    version: ClassVar[int] = 1

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """A copy with a NaN."""
        changed = model.copy()
        next(changed.unet.parameters()).data.view(-1)[0] = float("nan")
        return changed


@pytest.mark.parametrize(("step", "words"), [(Nothing(), "changed no tensor"), (Spoils(), "NaN")])
def test_a_step_that_went_wrong_is_not_stored(base: Base, tmp_path: Path, step: Step, words: str) -> None:
    """No tensor moved, or a NaN: a build error, and nothing in the store."""
    bench = Bench(Store(tmp_path / "store"))
    with pytest.raises(BuildError, match=words):
        bench.checkpoint(Recipe(base).then(step))
    assert bench.store.keys() == []


# Images and judgments


def test_images_are_paired_rows_of_bytes(bench: Bench, tuned: Recipe) -> None:
    """One uint8 picture per row, the same at the second asking, from one file."""
    images = bench.images(tuned, ASKED)
    assert images.shape == (3, 64, 64, 3) and images.dtype == np.uint8
    assert (bench.images(tuned, ASKED) == images).all()
    assert list(bench.store.open(images_key(tuned, ASKED)).files) == ["images.safetensors"]


def test_evidence_is_what_the_judge_said(bench: Bench, tuned: Recipe) -> None:
    """A hit is the asked name, "no face" is abstained, anything else is clear."""
    judge = Brightness()
    probe = replace(ASKED, seeds=tuple(range(1, 13)))
    evidence = bench.evidence(tuned, probe, judge)
    answers, scores = judge.answer(bench.images(tuned, probe), "cpu")
    assert [one.answer for one in evidence.judgments] == answers
    assert [one.score for one in evidence.judgments] == [float(score) for score in scores]
    meaning = {"ada quill": Outcome.HIT, "bram quill": Outcome.CLEAR, "no face": Outcome.ABSTAINED}
    assert [one.outcome for one in evidence.judgments] == [meaning[answer] for answer in answers]
    assert evidence.rows == tuple((prompt.text, seed) for prompt, seed in probe.rows())
    assert evidence == bench.evidence(tuned, probe, judge)


def test_images_are_kept_as_they_were_drawn_however_their_memory_lies(
    bench: Bench, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's images are permuted views; safetensors would write their memory in its own order and scramble them."""
    drawn = np.arange(3 * 3 * 64 * 64, dtype=np.uint64).astype(np.uint8).reshape(3, 3, 64, 64).transpose(0, 2, 3, 1)
    assert not drawn.flags.c_contiguous
    monkeypatch.setattr("resurgence_harness.sampling.sample", lambda model, probe, **_: drawn)

    assert np.array_equal(bench.images(Recipe(base), replace(ASKED, seeds=(71, 72, 73))), drawn)


def test_another_judge_looks_at_the_old_images(bench: Bench, tuned: Recipe) -> None:
    """Other weights of a judge are another question about the same pictures; nothing is drawn or built."""
    before = bench.store.keys()
    bench.evidence(tuned, ASKED, Brightness(digest="11" * 32))
    assert len(bench.store.keys()) == len(before) + 1


def test_a_judge_that_skips_an_image_is_not_believed(bench: Bench, tuned: Recipe) -> None:
    """A missing answer is an error, never a clear image."""

    class Lazy(Brightness):
        def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
            answers, scores = super().answer(images, device)
            return answers[1:], scores[1:]

    with pytest.raises(JudgeError, match="did not answer every image once"):
        bench.evidence(tuned, ASKED, Lazy(digest="22" * 32))


def test_a_judge_that_says_nan_is_not_believed(bench: Bench, tuned: Recipe) -> None:
    """A score that is no number is an error."""

    class Odd(Brightness):
        def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
            answers, scores = super().answer(images, device)
            return answers, scores * np.nan

    with pytest.raises(JudgeError, match="score nan"):
        bench.evidence(tuned, ASKED, Odd(digest="33" * 32))


def test_an_answer_outside_its_labels_is_not_believed(bench: Bench, tuned: Recipe) -> None:
    """It would count as clear."""

    class Strange(Brightness):
        def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
            answers, scores = super().answer(images, device)
            return ["cleo marsh", *answers[1:]], scores

    with pytest.raises(UserError, match="outside its labels"):
        bench.evidence(tuned, ASKED, Strange(digest="44" * 32))


def test_what_an_answer_stands_for_is_kept_with_the_judgments(bench: Bench, tuned: Recipe) -> None:
    """A hit is what the judge declares; read back, the same judgments still say which concepts they show."""
    asked = tuple(sorted({prompt.concept for prompt in ASKED.prompts}))

    class Verdictive(Brightness):
        labels: ClassVar[tuple[str, ...]] = ("bad", "good", "no face")

        def shows(self, answer: str) -> tuple[str, ...]:
            return asked if answer == "bad" else ()

    judge = Verdictive(digest="55" * 32)
    made, read = bench.evidence(tuned, ASKED, judge), bench.known(tuned, ASKED, judge)
    assert read is not None and read.judgments == made.judgments
    outcome = {"bad": Outcome.HIT, "good": Outcome.CLEAR, "no face": Outcome.ABSTAINED}
    assert all(one.outcome is outcome[one.answer] for one in made.judgments)
    assert Rate.of_answers(made, asked) == Rate.of(made)
    assert Rate.of_answers(made, ["good"]).hits == 0


def test_missing_canaries_are_asked_for_again(bench: Bench) -> None:
    """None today is not kept as an answer, so that those given tomorrow are shown to the judge."""

    class Bare(Brightness):
        given: ClassVar[int] = 0

        def canaries(self) -> tuple[int, int]:
            return self.given, self.given

    judge = Bare(digest="66" * 32)
    assert bench.canaries(judge) == (0, 0)
    Bare.given = 3
    assert bench.canaries(judge) == (3, 3)


def test_canaries_are_asked_once(bench: Bench) -> None:
    """The judge's own test is kept with its weights' digest."""
    assert bench.canaries(Brightness()) == (2, 2)
    assert bench.canaries(Brightness()) == (2, 2)
    assert sum(artifact.kind == "canaries" for artifact in bench.store.ls()) == 1


# Warm, corrupt and outdated stores


def test_a_warm_store_answers_without_torch(warm: Path, base: Base) -> None:
    """Evidence, losses and plans come from the store in a process that never imports torch or diffusers."""
    script = f"""
        import sys
        from tests.test_bench import ASKED, BENIGN, ADA, Brightness
        from resurgence_harness.bench import Bench
        from resurgence_harness.finetuning import BenignSet, LoRA
        from resurgence_harness.planning import plan
        from resurgence_harness.specs import Base, Recipe
        from resurgence_harness.storing import Store
        from resurgence_harness.unlearning import UCE
        recipe = Recipe(Base(digest="{base.digest}")).then(UCE(concepts=(ADA,))).then(
            LoRA(data=BenignSet(probe=BENIGN), steps=3, batch=2, learning_rate=1e-2))
        store = Store(sys.argv[1], read_only=True)
        bench = Bench(store)
        print(len(bench.evidence(recipe, ASKED, Brightness())), len(bench.images(recipe, ASKED)))
        print(len(bench.losses(recipe).before), plan(store, [(recipe, ASKED, Brightness())]).needed)
        print(sorted({{"torch", "diffusers", "transformers"}} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(warm)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["3 3", f"{HELD_OUT} ()", "[]"]


def test_judgments_outlive_images_and_checkpoints(bench: Bench, tuned: Recipe) -> None:
    """What was judged stays judged after the large files are cleared away."""
    evidence = bench.evidence(tuned, ASKED, Brightness())
    losses = bench.losses(tuned)
    keeping.gc(bench.store, older_than_days=-1, keep_kinds=["judgments", "losses"])
    later = Bench(bench.store)
    assert later.evidence(tuned, ASKED, Brightness()) == evidence
    assert later.losses(tuned) == losses
    assert {artifact.kind for artifact in bench.store.ls()} == {"judgments", "losses"}


def test_a_corrupt_parent_is_named_and_made_again(bench: Bench, tuned: Recipe, unlearned: Recipe) -> None:
    """The same bytes come back, so what was made from them stands."""
    path = bench.store.open(checkpoint_key(unlearned)).path / "delta.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.warns(StoreWarning, match=r"delta\.safetensors of checkpoint"):
        bench.images(tuned, replace(ASKED, seeds=(8,)))
    assert bench.store.condition(checkpoint_key(tuned)) is Condition.PRESENT


def test_what_was_made_from_something_else_is_made_again(bench: Bench, tuned: Recipe, unlearned: Recipe) -> None:
    """A parent that came out different outdates its child, the child's images and their judgments."""
    import torch
    from safetensors.torch import load_file, save_file

    store, place = bench.store, checkpoint_key(unlearned)
    delta = load_file(store.open(place).path / "delta.safetensors")
    judged = judgments_key(tuned, ASKED, Brightness())

    def build(folder: Path) -> dict[str, Any]:
        save_file(
            {name: torch.nextafter(value, value + 1) for name, value in delta.items()}, folder / "delta.safetensors"
        )
        return {}

    old = {key: store.open(key).digest for key in (checkpoint_key(tuned), images_key(tuned, ASKED))}
    store.make(place, kind="checkpoint", label="from another machine", inputs={"0" * 64: "x"}, build=build)
    for key in (*old, judged):
        assert store.condition(key) is Condition.CHANGED
    bench.evidence(tuned, ASKED, Brightness())
    for key in (*old, judged):
        assert store.condition(key) is Condition.PRESENT
    assert store.open(checkpoint_key(tuned)).digest != old[checkpoint_key(tuned)]


def test_a_base_that_was_replaced_is_refused(base: Base, tmp_path: Path) -> None:
    """Weights that are not the recipe's are a user's mistake, before anything is made."""
    other = replace(base, digest="ff" * 32)
    with pytest.raises(UserError, match="is not tiny"):
        Bench(Store(tmp_path / "store")).images(Recipe(other), ASKED)
    with pytest.raises(UserError, match="The location of the base"):
        Bench(Store(tmp_path / "store")).images(Recipe(replace(base, location="")), ASKED)


def test_the_bench_may_know_where_the_base_lies(base: Base, tmp_path: Path) -> None:
    """A recipe without a place is built where `base_location` says."""
    bench = Bench(Store(tmp_path / "store"), base_location=base)
    assert bench.images(Recipe(replace(base, location="")), ASKED).shape == (3, 64, 64, 3)


def test_progress_tells_what_is_being_done(base: Base, tmp_path: Path) -> None:
    """Stages in words, counts that rise to their total, and losses where there are some."""
    told: list[tuple[str, int, int, float | None]] = []
    bench = Bench(Store(tmp_path / "store"), progress=lambda *what: told.append(what))
    recipe = Recipe(base).then(ESD(concepts=(ADA,), iterations=2, trajectories=1, trajectory_steps=2))
    bench.evidence(recipe, ASKED, Brightness())
    stages = list(dict.fromkeys(stage for stage, *_ in told))
    assert stages == [
        "building tiny → esd(1)",
        "drawing 3 images of tiny → esd(1)",
        "judging brightness on 3 images of tiny → esd(1)",
    ]
    for stage in stages:
        counts = [(done, total) for words, done, total, _ in told if words == stage]
        assert counts == sorted(counts) and counts[-1][0] == counts[-1][1]
    assert told[1][3] is not None


def test_released_models_are_gone(bench: Bench, tuned: Recipe) -> None:
    """After release nothing keeps a model alive, and the bench still works."""
    import gc
    import weakref

    seen = weakref.ref(bench.model(tuned).unet)
    bench.release()
    gc.collect()
    assert seen() is None
    assert bench.images(tuned, replace(ASKED, seeds=(5,))).shape == (1, 64, 64, 3)
