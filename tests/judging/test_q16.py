"""Q16: two vectors, one argmax, and a pickle that is read without running anything."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from resurgence_harness.bench.judged import judgments
from resurgence_harness.errors import JudgeError, UserError
from resurgence_harness.judging import Q16, Weights, shown_by
from resurgence_harness.judging.__main__ import main
from resurgence_harness.judging.q16 import PROMPTS, PUBLISHED, convert_prompts, read_array_pickle
from resurgence_harness.specs import Probe, Prompt, Sampler
from resurgence_harness.statistics import Evidence, Outcome, Rate
from tests.judging.tiny_clip import WIDTH, pictures, save_tiny_clip, tiny_clip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's file."""
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def judge(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Q16:
    """Blue is appropriate, red is not."""
    clip = tiny_clip(weights)
    middle = clip.image_features(np.concatenate([pictures("blue", 4), pictures("red", 4)]), "cpu")
    path = tmp_path_factory.mktemp("prompts") / "prompts.safetensors"
    # Vectors of any length: only their direction counts.
    save_file({"prompts": torch.stack([3 * middle[:4].mean(0), middle[4:].mean(0)])}, path)
    return Q16(clip=clip, prompts=Weights(file=path.name, path=str(path)))


def test_index_1_is_inappropriate(judge: Q16) -> None:
    """The nearer vector by direction, not by length."""
    answers, scores = judge.answer(np.concatenate([pictures("red", 3, seed=1), pictures("blue", 3, seed=1)]), "cpu")

    assert answers == ["inappropriate"] * 3 + ["appropriate"] * 3
    assert ((scores > 0.5) & (scores <= 1)).all()


def test_inappropriate_is_a_hit_for_every_concept_asked_for(judge: Q16) -> None:
    """And, for a retained prompt, an erased concept that was drawn: both are read from the judgments alone."""
    prompts = (Prompt(text="a fight", concept="violence"), Prompt(text="a slur", concept="hate"))
    probe = Probe(prompts=prompts, seeds=(1,), sampler=Sampler(height=48, width=48))
    images = np.concatenate([pictures("red", 1), pictures("blue", 1)])
    found = judgments(judge, images, probe, device="cpu")
    assert [one.outcome for one in found] == [Outcome.HIT, Outcome.CLEAR]

    retained = Probe(prompts=tuple(replace(one, concept="a garden") for one in prompts), seeds=(1,))
    evidence = Evidence(
        judgments=tuple(judgments(judge, images, retained, device="cpu")), planned=2, recipe="r", judge=judge.name
    )
    assert Rate.of(evidence).hits == 0
    assert Rate.of_answers(evidence, ["hate", "violence"]).hits == 1


def test_what_its_answers_stand_for_is_part_of_the_digest(judge: Q16) -> None:
    """A changed meaning of a hit is another question to the store."""
    others = [replace(judge, concepts=("nudity",)), replace(judge, harmless=("a garden",))]

    assert len({one.digest for one in (judge, *others)}) == 3
    assert shown_by(others[1], "appropriate") == ("a garden",) and shown_by(judge, "appropriate") == ()


@pytest.mark.parametrize("meaning", [{"concepts": ()}, {"concepts": ("hate",), "harmless": ("hate",)}])
def test_a_judge_that_knows_no_hit_is_refused(meaning: dict[str, tuple[str, ...]]) -> None:
    """Without concepts everything would be clear."""
    with pytest.raises(UserError, match="has no valid definition of a hit"):
        Q16(**meaning)


def test_the_published_vectors_belong_to_one_model(weights: Path) -> None:
    """In another space they mean nothing."""
    with pytest.raises(UserError, match="do not belong to tiny-clip"):
        Q16(clip=tiny_clip(weights))


@pytest.mark.parametrize("shape", [(2, WIDTH + 1), (2, 768)])
def test_vectors_of_another_length_are_refused(judge: Q16, tmp_path: Path, shape: tuple[int, int]) -> None:
    """Both lengths are told."""
    save_file({"prompts": torch.ones(shape)}, tmp_path / "p.safetensors")
    with pytest.raises(JudgeError, match=rf"have {shape[1]} dimensions and tiny-clip has {WIDTH}"):
        replace(judge, prompts=Weights(file="p", path=str(tmp_path / "p.safetensors"))).answer(
            pictures("red", 1), "cpu"
        )


@pytest.mark.parametrize("tensors", [{"prompts": torch.ones(3, WIDTH)}, {"other": torch.ones(2, WIDTH)}])
def test_what_are_no_two_vectors_is_refused(judge: Q16, tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Three of them, or another name."""
    save_file(tensors, tmp_path / "p.safetensors")
    with pytest.raises(UserError, match="are not Q16 vectors"):
        replace(judge, prompts=Weights(file="p", path=str(tmp_path / "p.safetensors"))).answer(
            pictures("red", 1), "cpu"
        )


def test_the_pickle_itself_is_refused_with_the_command(judge: Q16, tmp_path: Path) -> None:
    """People give what they downloaded."""
    (tmp_path / "prompts.p").write_bytes(pickle.dumps(np.ones((2, 768), np.float16)))
    given = replace(PROMPTS, path=str(tmp_path / "prompts.p"))
    with pytest.raises(UserError, match=r"are a pickle(.|\n)*judging q16 prompts\.p"):
        replace(judge, prompts=given, clip=Q16().clip)._vectors("cpu")


@pytest.mark.parametrize("protocol", [3, 4])
def test_an_array_of_the_published_form_is_converted(tmp_path: Path, protocol: int) -> None:
    """Protocol 3, as published, and 4, which names no more; every half-precision number is kept."""
    vectors = np.random.default_rng(0).normal(size=(2, 768)).astype(np.float16)
    source = tmp_path / "prompts.p"
    source.write_bytes(pickle.dumps(vectors, protocol=protocol))
    made = convert_prompts(source, tmp_path / "q16.safetensors", sha256=hashlib.sha256(source.read_bytes()).hexdigest())

    assert torch.equal(load_file(made)["prompts"], torch.from_numpy(vectors).float())


def test_bytes_that_were_not_published_are_not_read(tmp_path: Path) -> None:
    """The hash comes first: the reader never sees them."""
    (tmp_path / "prompts.p").write_bytes(pickle.dumps(np.ones((2, 768), np.float16)))
    with pytest.raises(UserError, match="is not the published") as caught:
        convert_prompts(tmp_path / "prompts.p", tmp_path / "q16.safetensors")

    assert PUBLISHED in str(caught.value) and not (tmp_path / "q16.safetensors").exists()


class Trap:
    """Leaves a mark when it is unpickled by a careless reader."""

    def __init__(self, mark: Path) -> None:
        """`mark` is the file it would write."""
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path, ...]]:
        """What a pickle can do."""
        return Path.touch, (self.mark,)


def test_a_pickle_that_asks_for_more_than_an_array_runs_nothing(tmp_path: Path) -> None:
    """Refused by name, before anything is called."""
    (tmp_path / "trap.p").write_bytes(pickle.dumps([np.ones(2), Trap(tmp_path / "ran")]))
    with pytest.raises(UserError, match=r"refers to pathlib[\w.]*, which no array needs"):
        read_array_pickle(tmp_path / "trap.p")

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04",
        pickle.dumps([1, 2]),
        pickle.dumps(np.array([None, "a"], object)),
        pickle.dumps(np.ones(4))[:-9],
    ],
    ids=["empty", "cut off", "no array", "objects", "cut array"],
)
def test_a_pickle_that_holds_no_numbers_is_refused(tmp_path: Path, content: bytes) -> None:
    """In one sentence."""
    (tmp_path / "odd.p").write_bytes(content)
    with pytest.raises(UserError):
        read_array_pickle(tmp_path / "odd.p")


@pytest.mark.parametrize("shape", [(2, 512), (768, 2), (2,)])
def test_vectors_of_another_model_are_not_converted(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """ViT-B's have 512 numbers."""
    source = tmp_path / "prompts.p"
    source.write_bytes(pickle.dumps(np.ones(shape, np.float16)))
    with pytest.raises(UserError, match="holds no Q16 vectors for ViT-L/14"):
        convert_prompts(source, tmp_path / "q", sha256=hashlib.sha256(source.read_bytes()).hexdigest())


def test_the_command_tells_its_usage_and_its_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """4, as for every mistake of a user."""
    assert main([]) == 4 and "judging q16 prompts.p" in capsys.readouterr().err
    assert main(["q16", str(tmp_path / "no.p")]) == 4 and "There is no file" in capsys.readouterr().err
