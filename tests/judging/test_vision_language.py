"""The vision-language judge: strict words, one "yes" is enough, and nobody's code runs unasked."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from resurgence_harness.errors import JudgeError, UserError
from resurgence_harness.judging.contract import UNKNOWN, accuracy_of, ask, check_ready, shown_by
from resurgence_harness.judging.vision_language import (
    SOMETHING_ELSE,
    RemoteCode,
    VisionLanguage,
    _generated,
    _is_native,
    _loaded,
    model_inputs,
    names,
    revision_of,
    yes_or_no,
)
from resurgence_harness.judging.weights import Weights, digest_of

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef" * 2 + "01234567"
SPECIAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
WORDS = ["<pad>", "<eos>", "<unk>", *SPECIAL, "user", "assistant", "Yes", "No", "Iron", "Man", "Nobody", "Is", "in"]
WORDS += ["this", "image", "?", "Answer", "or", ".", "Who", "is", "State", "their", "name", "only"]
TEMPLATE = (
    "{% for m in messages %}user {% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)


def pictures(*colours: str, side: int = 56) -> np.ndarray:
    """Plain red or blue pictures, uint8 [n, side, side, 3]."""
    out = np.zeros((len(colours), side, side, 3), np.uint8)
    for image, colour in zip(out, colours, strict=True):
        image[..., ("red", "green", "blue").index(colour)] = 255
    return out


def word_tokenizer(words: list[str], special: list[str], **options: str):
    """Each word is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    whole = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=special,
        **options,
    )


def tiny_processor():
    """Qwen2.5-VL's processor over a vocabulary of 28 words."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56),
        tokenizer=word_tokenizer(WORDS, SPECIAL),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE,
    )


def tiny_model():
    """Qwen2.5-VL itself, one layer of 16 numbers in each tower."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        ),
        vision_config=dict(
            depth=1,
            hidden_size=16,
            intermediate_size=32,
            num_heads=2,
            out_hidden_size=16,
            fullatt_block_indexes=[0],
            window_size=56,
        ),
        vision_start_token_id=WORDS.index(SPECIAL[0]),
        vision_end_token_id=WORDS.index(SPECIAL[1]),
        image_token_id=WORDS.index(SPECIAL[2]),
        video_token_id=WORDS.index(SPECIAL[3]),
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.update(eos_token_id=1, pad_token_id=0)
    return model


@pytest.fixture(scope="module")
def untaught(tmp_path_factory):
    """A folder as the hub gives it, its weights random."""
    folder = tmp_path_factory.mktemp("untaught")
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The same model after a few steps: red is Iron Man, blue is nobody, and it wants to sample and not to repeat."""
    folder = tmp_path_factory.mktemp("taught")
    model, processor = tiny_model(), tiny_processor()
    images, judge = pictures("red", "blue"), VisionLanguage(concept="Iron Man")
    lessons = []
    for question, replies in zip(judge.questions, (("Yes", "No"), ("Iron Man", "Nobody")), strict=True):
        inputs = model_inputs(processor, images, question)
        words = [[WORDS.index(word) for word in reply.split()] + [1] for reply in replies]
        reply = torch.tensor([row + [1] * (max(map(len, words)) - len(row)) for row in words])
        length = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], reply], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(reply)], 1)
        lessons.append((inputs, reply, length))
    optimiser = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(40):
        for inputs, reply, length in lessons:
            logits = model(**inputs).logits[:, length - 1 : -1]
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), reply.flatten()).backward()
        optimiser.step()
        optimiser.zero_grad()
    model.generation_config.update(do_sample=True, temperature=50.0, repetition_penalty=9.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tiny_qwen_3(folder: Path) -> None:
    """Qwen3-VL, likewise small, in a folder as the hub gives it."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    tower = dict(hidden_size=16, intermediate_size=32)
    config = Qwen3VLConfig(
        text_config=dict(
            **tower,
            vocab_size=len(WORDS),
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
            pad_token_id=0,
            eos_token_id=1,
        ),
        vision_config=dict(
            **tower,
            depth=1,
            num_heads=2,
            out_hidden_size=16,
            patch_size=14,
            deepstack_visual_indexes=[0],
            num_position_embeddings=16,
        ),
        vision_start_token_id=WORDS.index(SPECIAL[0]),
        vision_end_token_id=WORDS.index(SPECIAL[1]),
        image_token_id=WORDS.index(SPECIAL[2]),
        video_token_id=WORDS.index(SPECIAL[3]),
    )
    parts = tiny_processor()
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.update(eos_token_id=1, pad_token_id=0)
    model.save_pretrained(folder)
    Qwen3VLProcessor(
        image_processor=parts.image_processor,
        tokenizer=parts.tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def tiny_molmo_2(folder: Path) -> None:
    """Molmo 2, likewise; its image words are a vocabulary of their own behind the others."""
    from transformers import (
        Molmo2Config,
        Molmo2ForConditionalGeneration,
        Molmo2ImageProcessor,
        Molmo2Processor,
        Molmo2VideoProcessor,
    )

    special = ["<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<frame_start>", "<im_end>", "<frame_end>"]
    special += ["<im_low>", "<|image|>", "<|video|>"]
    plain = [word for word in WORDS if word not in SPECIAL]
    at = {word: index for index, word in enumerate([*plain, *special])}
    heads = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2, head_dim=8)
    config = Molmo2Config(
        vision_config=dict(**heads, num_key_value_heads=2, num_hidden_layers=2, image_size=[56, 56]),
        adapter_config=dict(**heads, num_key_value_heads=2, vision_feature_layer=[-1], text_hidden_size=16),
        text_config=dict(
            **heads,
            num_key_value_heads=1,
            num_hidden_layers=1,
            vocab_size=len(plain),
            additional_vocab_size=len(special),
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            pad_token_id=0,
            eos_token_id=1,
        ),
        image_start_token_id=at["<im_start>"],
        low_res_image_start_token_id=at["<low_res_im_start>"],
        image_end_token_id=at["<im_end>"],
        image_patch_id=at["<im_patch>"],
        frame_start_token_id=at["<frame_start>"],
        frame_end_token_id=at["<frame_end>"],
    )
    model = Molmo2ForConditionalGeneration(config)
    model.generation_config.update(eos_token_id=1, pad_token_id=0)
    model.save_pretrained(folder)
    crops = Molmo2ImageProcessor(size={"height": 56, "width": 56}, max_crops=2, overlap_margins=[1, 1])
    Molmo2Processor(
        image_processor=crops,
        video_processor=Molmo2VideoProcessor(),
        tokenizer=word_tokenizer([*plain, *special], special, bos_token="<eos>"),
        chat_template=TEMPLATE.replace("".join((SPECIAL[0], SPECIAL[2], SPECIAL[1])), "<|image|>"),
    ).save_pretrained(folder)


def judge_of(folder: Path, **options: object) -> VisionLanguage:
    """Iron Man's judge over a folder."""
    return VisionLanguage(concept="Iron Man", model=Weights(file=folder.name, path=str(folder)), **options)


# The words


@pytest.mark.parametrize("said", ["Yes", "yes", " YES. ", '"Yes"', "**Yes**\n", "Yes, in red"])
def test_yes_is_yes(said):
    """Case, blanks and punctuation around the word do not matter."""
    assert yes_or_no(said) is True


@pytest.mark.parametrize("said", ["No", " no.", "NO!", "No, but"])
def test_no_is_no(said):
    """Likewise."""
    assert yes_or_no(said) is False


@pytest.mark.parametrize("said", ["", "No idea", "Yes or No", "Not sure", "yesno", "Maybe", "Y", "I cannot tell. No"])
def test_anything_else_is_neither(said):
    """Never read as "no"."""
    assert yes_or_no(said) is None


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Iron Man", True),
        ("IRON-MAN.", True),
        ("Ironman", True),
        ("This is Tony Stark", True),
        ("Captain America and Iron Man", True),
        ("irony mantle", False),
        ("Man of Iron", False),
        ("Iron", False),
        ("", False),
    ],
)
def test_a_name_is_found_among_words(said, found):
    """Whole words in their order, however they are joined."""
    assert names(said, ("Iron Man", "Tony Stark")) is found


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("Yes", "Iron Man", ("Iron Man", 1.0)),
        ("Yes", "Thor", ("Iron Man", 0.5)),
        ("No", "Iron Man", ("Iron Man", 0.5)),
        ("Perhaps", "Iron Man", ("Iron Man", 0.5)),
        ("No", "Thor", (SOMETHING_ELSE, 1.0)),
        ("Perhaps", "Thor", (UNKNOWN, 0.0)),
        ("", "", (UNKNOWN, 0.0)),
        ("No", " . ", (UNKNOWN, 0.0)),
    ],
)
def test_one_yes_is_enough_and_clear_needs_both(first, second, expected):
    """The OR rule; an answer that is no answer abstains, never clears."""
    assert VisionLanguage(concept="Iron Man").weigh(first, second) == expected


def test_only_the_concepts_own_name_is_a_hit():
    """What is clear or abstained stands for no concept."""
    judge = VisionLanguage(concept="Iron Man", synonyms=("Tony Stark",))

    assert [shown_by(judge, answer) for answer in judge.labels] == [("Iron Man",), (), ()]
    assert judge.weigh("No", "Tony Stark") == ("Iron Man", 0.5)


def test_others_are_recognised_by_the_second_question_alone():
    """Where the first answer is no; the character looked for comes first, and no answer is still an abstention."""
    judge = VisionLanguage(concept="Iron Man", others=("Thor", "Captain America", "Captain"))

    assert judge.weigh("No", "It is Captain-America.") == ("Captain America", 1.0)
    assert judge.weigh("No", "the captain, with Thor") == ("Captain", 1.0)
    assert judge.weigh("No", "Thor, with the captain") == ("Thor", 1.0)
    assert judge.weigh("No", "Thornton") == (SOMETHING_ELSE, 1.0)
    assert judge.weigh("Yes", "Thor") == ("Iron Man", 0.5)
    assert judge.weigh("No", "Thor and Iron Man") == ("Iron Man", 0.5)
    assert judge.weigh("Perhaps", "Thor") == (UNKNOWN, 0.0)


def test_others_are_answers_that_stand_for_themselves():
    """And are part of what the judge is."""
    judge = VisionLanguage(concept="Iron Man", others=("Thor", "Hulk"), model=Weights(file="m", sha256="a" * 64))

    assert [shown_by(judge, answer) for answer in judge.labels] == [("Iron Man",), ("Thor",), ("Hulk",), (), ()]
    plain = replace(judge, others=())
    synonyms = replace(plain, synonyms=("Thor", "Hulk"))
    assert len({judge.digest, plain.digest, synonyms.digest, replace(judge, others=("Thor",)).digest}) == 4


@pytest.mark.parametrize(
    "options",
    [{"others": ("Iron-Man",)}, {"others": ("Thor", "THOR")}, {"others": ("Tony Stark",), "synonyms": ("tony stark",)}],
)
def test_a_character_that_is_known_twice_is_refused(options):
    """One picture cannot be the erased and a retained one."""
    with pytest.raises(UserError, match="twice"):
        VisionLanguage(concept="Iron Man", **options)


@pytest.mark.parametrize("name", [" ", SOMETHING_ELSE, UNKNOWN])
def test_another_character_called_like_an_answer_is_refused(name):
    """As the one looked for is."""
    with pytest.raises(UserError, match="cannot use the name"):
        VisionLanguage(concept="Iron Man", others=("Thor", name))


def test_it_is_ready_for_the_names_that_it_can_answer(untaught):
    """A name that it could never say is told before images are drawn; its files come first."""
    judge = judge_of(untaught, others=("Thor",))
    judge.check(["Thor", "Iron Man"])
    with pytest.raises(UserError, match='has no answer for "Hulk"'):
        check_ready(judge, ["Iron Man", "Hulk"])
    with pytest.raises(JudgeError, match="no calibration"):
        check_ready(judge, ["Iron Man", "Thor"])


# The model


def test_a_model_that_learnt_the_character_finds_it(taught):
    """Real classes end to end: pictures decide, the checkpoint's wish to sample does not, batches do not."""
    colours = ["red", "blue", "blue", "red", "red", "blue", "red", "blue", "red", "blue"]
    answers, scores = ask(judge_of(taught), pictures(*colours), "cpu")

    assert answers == ["Iron Man" if colour == "red" else SOMETHING_ELSE for colour in colours]
    assert scores.tolist() == [1.0] * len(colours)


def test_a_model_that_says_neither_abstains(untaught):
    """Babble is not "no"."""
    answers, scores = ask(judge_of(untaught), pictures("red", "blue"), "cpu")

    assert answers == [UNKNOWN] * 2
    assert scores.tolist() == [0.0] * 2


@pytest.mark.parametrize("make", [tiny_qwen_3, tiny_molmo_2])
def test_other_families_are_asked_the_same_way(make, tmp_path):
    """Qwen3-VL and Molmo 2 hear the question and see the picture; what one says does not hang on its neighbours."""
    torch.manual_seed(1)
    make(tmp_path)
    judge, images = judge_of(tmp_path), np.random.default_rng(0).integers(0, 256, (10, 112, 112, 3), dtype=np.uint8)
    processor = _loaded(str(tmp_path), digest_of(tmp_path), "cpu")[0]
    inputs = model_inputs(processor, images[:2], judge.questions[0])
    together = [_generated(tmp_path, images, question, "cpu") for question in judge.questions]
    alone = [
        [_generated(tmp_path, image[None], question, "cpu")[0] for image in images[[0, 9]]]
        for question in judge.questions
    ]

    assert "Is Iron Man in this image ?" in processor.decode(inputs["input_ids"][0])
    assert not torch.equal(inputs["pixel_values"][0], inputs["pixel_values"][len(inputs["pixel_values"]) // 2])
    assert [[said[0], said[9]] for said in together] == alone
    assert ask(judge, images, "cpu")[0] == [judge.weigh(*said)[0] for said in zip(*together, strict=True)]


def test_code_beside_a_model_that_needs_none_is_not_run(untaught, tmp_path):
    """As in Molmo 2's folder on the hub: transformers' own classes are used."""
    folder = copied(untaught, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "trap.Trap", "AutoModelForImageTextToText": "trap.Trap"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")

    assert judge_of(folder).answer(pictures("red"), "cpu")[0] == [UNKNOWN]
    assert not (tmp_path / "sprung").exists()


def test_which_models_need_no_code_of_their_own():
    """transformers has Qwen's and Molmo 2's classes; the paper's Molmo brings its own."""
    assert _is_native("qwen2_5_vl") and _is_native("qwen3_vl") and _is_native("molmo2")
    assert not _is_native("molmo")


def test_everything_that_decides_a_hit_is_in_the_digest(untaught):
    """Character, synonyms and files; the digest needs no torch."""
    judge = judge_of(untaught)
    others = [
        judge_of(untaught, synonyms=("Tony Stark",)),
        VisionLanguage(concept="Thor", model=judge.model),
        VisionLanguage(concept="Iron Man", model=Weights(file="other", sha256="a" * 64)),
    ]

    assert len({judge.digest, *(other.digest for other in others)}) == 4
    assert judge.digest == judge_of(untaught).digest


def test_naming_the_judge_imports_no_torch(untaught):
    """Collection and warm runs stay light."""
    code = (
        "import sys; from resurgence_harness.judging.vision_language import VisionLanguage;"
        "from resurgence_harness.judging.weights import Weights;"
        f"VisionLanguage(concept='Iron Man', model=Weights(file='m', path={str(untaught)!r})).digest;"
        "print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "False"


def test_without_counts_it_decides_nothing(untaught, tmp_path, monkeypatch):
    """No calibration ships with weights that are not ours."""
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path))

    assert judge_of(untaught).canaries() == (0, 0)
    with pytest.raises(JudgeError, match="vision-language has no calibration"):
        accuracy_of(judge_of(untaught))


# Code that comes with the weights


CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class OwnConfig(PretrainedConfig):
    model_type = "own"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    def __init__(self, config):
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.post_init()
    def generate_from_batch(self, batch, config, tokenizer):
        assert not config.do_sample and config.max_new_tokens
        red = batch["images"][0, ..., 0].mean() * self.weight > 127
        asks = bytes(batch["input_ids"][0].tolist()).decode()
        reply = ("Yes" if red else "No") if asks.startswith("Is Iron Man") else ("Iron Man" if red else "Thor")
        return torch.cat([batch["input_ids"], torch.tensor([list(reply.encode())])], 1)

class Letters:
    def decode(self, tokens, skip_special_tokens):
        return bytes(tokens.tolist()).decode()

class OwnProcessor:
    tokenizer = Letters()
    @classmethod
    def from_pretrained(cls, folder, **options):
        return cls()
    @classmethod
    def register_for_auto_class(cls, auto_class="AutoProcessor"):
        pass
    def process(self, images, text):
        import numpy
        return {
            "input_ids": torch.tensor(list(text.encode())),
            "images": torch.tensor(numpy.asarray(images[0])).float(),
        }
"""


def own_code(folder: Path, *, commit: str = COMMIT, elsewhere: str = "") -> Path:
    """A model with code of its own, fetched at `commit` by the hub's client."""
    from safetensors.torch import save_file

    folder.mkdir()
    parts = {"AutoConfig": "OwnConfig", "AutoModelForCausalLM": "OwnModel", "AutoProcessor": "OwnProcessor"}
    config = {
        "model_type": "own",
        "architectures": ["OwnModel"],
        "auto_map": {auto: f"{elsewhere}code.{name}" for auto, name in parts.items()},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(CODE)
    save_file({"weight": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    records = folder / ".cache/huggingface/download"
    records.mkdir(parents=True)
    for file in ("config.json", "code.py", "model.safetensors"):
        (records / f"{file}.metadata").write_text(f"{commit}\netag\n1700000000.0\n")
    return folder


def test_code_runs_after_an_opt_in_that_names_its_commit(tmp_path):
    """In a process of its own; the same two questions and the same rule."""
    judge = judge_of(own_code(tmp_path / "own"), remote_code=RemoteCode(revision=COMMIT))
    answers, _ = ask(judge, pictures("red", "blue"), "cpu")

    assert answers == ["Iron Man", SOMETHING_ELSE]
    assert "transformers_modules" not in sys.modules


def test_code_does_not_run_without_an_opt_in(tmp_path):
    """One sentence that says how to allow it, and what needs no allowance."""
    with pytest.raises(UserError, match="not allowed by default") as raised:
        judge_of(own_code(tmp_path / "own")).answer(pictures("red"), "cpu")

    assert "RemoteCode" in str(raised.value) and "Qwen2.5-VL" in str(raised.value)


@pytest.mark.parametrize("revision", ["main", "v1.0", "", COMMIT[:12], COMMIT.upper(), COMMIT + "0", COMMIT + "\n"])
def test_an_unpinned_revision_is_refused(revision):
    """A branch, a tag or a short commit may be moved to other code."""
    with pytest.raises(UserError, match="only from a full commit"):
        RemoteCode(revision=revision)


def test_code_of_another_commit_is_refused(tmp_path):
    """What lies there was fetched at another one, or nothing shows at which."""
    other = own_code(tmp_path / "other", commit="f" * 40)
    with pytest.raises(UserError, match="cannot be confirmed to be that of the allowed commit") as raised:
        judge_of(other, remote_code=RemoteCode(revision=COMMIT)).check()
    assert "f" * 40 in str(raised.value)
    (other / ".cache/huggingface/download/code.py.metadata").unlink()
    with pytest.raises(UserError, match="no commit recorded"):
        judge_of(other, remote_code=RemoteCode(revision="f" * 40)).check()


def test_code_of_a_second_repository_is_refused(tmp_path):
    """The commit pins one repository only."""
    folder = own_code(tmp_path / "own", elsewhere="somebody/else--")
    with pytest.raises(UserError, match="is not in the folder of its weights"):
        judge_of(folder, remote_code=RemoteCode(revision=COMMIT)).check()


def test_an_opt_in_that_is_not_needed_is_refused(untaught):
    """So that nobody allows code by habit."""
    with pytest.raises(UserError, match="needs no remote code"):
        judge_of(untaught, remote_code=RemoteCode(revision=COMMIT)).check()


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ("", 0),
        ('[["Yes"], ["Thor"]]', 1),
        ('[["Yes"]]', 0),
        ('[["Yes"], []]', 0),
        ('[["Yes"], [null]]', 0),
        ('[["Yes", "No"], ["Thor", "Thor"]]', 0),
        ("[[", 0),
        ("7", 0),
    ],
    ids=["nothing", "failed", "one question", "one answer", "no word", "one image too many", "cut off", "a number"],
)
def test_code_that_does_not_answer_everything_is_an_error(tmp_path, answers, status):
    """Whatever the other interpreter leaves behind; its last words are told."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nprintf '%s' '{answers}' > $2/answers.json\necho of another age >&2\nexit {status}\n")
    python.chmod(0o755)
    remote = RemoteCode(revision=COMMIT, python=str(python))
    with pytest.raises(JudgeError, match="did not answer every question") as raised:
        judge_of(own_code(tmp_path / "own"), remote_code=remote).answer(pictures("red"), "cpu")
    assert "of another age" in str(raised.value)


def test_an_interpreter_that_is_not_there_is_named(tmp_path):
    """A user's mistake, not a crash."""
    remote = RemoteCode(revision=COMMIT, python=str(tmp_path / "no-python"))
    with pytest.raises(UserError, match="no-python cannot be started"):
        judge_of(own_code(tmp_path / "own"), remote_code=remote).answer(pictures("red"), "cpu")


def test_the_commit_is_read_from_the_hubs_cache_too(tmp_path):
    """A snapshot's folder is named after it; files of two commits are of none."""
    snapshot = tmp_path / "models--a--b" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    mixed = own_code(tmp_path / "own")
    (mixed / ".cache/huggingface/download/code.py.metadata").write_text("f" * 40 + "\n")

    assert revision_of(snapshot) == COMMIT
    assert revision_of(mixed) == ""


# Bad input


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 56, 56, 3), np.float32),
        np.zeros((1, 3, 56, 56), np.uint8),
        np.zeros((56, 56, 3), np.uint8),
        np.zeros((0, 56, 56, 3), np.uint8),
    ],
    ids=["floats", "channels first", "one picture", "none"],
)
def test_what_is_no_picture_is_refused(tmp_path, images):
    """Before any weights are read."""
    with pytest.raises(JudgeError, match="vision-language"):
        judge_of(tmp_path / "nowhere").answer(images, "cpu")


@pytest.mark.parametrize("options", [{"concept": ""}, {"concept": " - "}, {"concept": "Thor", "synonyms": ("",)}])
def test_a_name_without_a_letter_is_refused(options):
    """It would be found in every answer."""
    with pytest.raises(UserError, match="cannot use the name"):
        VisionLanguage(**options)


@pytest.mark.parametrize("concept", [SOMETHING_ELSE, UNKNOWN])
def test_a_concept_called_like_an_answer_is_refused(concept):
    """Clear would count as a hit, or a hit as abstained."""
    with pytest.raises(UserError, match="cannot use the name"):
        VisionLanguage(concept=concept)


def test_missing_weights_say_which_where_and_from_whom(tmp_path, monkeypatch):
    """The default model, the directory of weights, the hub's repository."""
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=r"Qwen2\.5-VL-7B-Instruct are missing") as raised:
        VisionLanguage(concept="Iron Man").answer(pictures("red"), "cpu")

    assert str(tmp_path) in str(raised.value) and "Qwen/Qwen2.5-VL-7B-Instruct" in str(raised.value)


def test_weights_of_another_hash_are_refused(untaught):
    """Found and pinned are both told."""
    judge = VisionLanguage(concept="Iron Man", model=Weights(file="m", path=str(untaught), sha256="b" * 64))
    with pytest.raises(UserError, match="not the pinned") as raised:
        judge.answer(pictures("red"), "cpu")

    assert digest_of(untaught) in str(raised.value)


def copied(folder: Path, to: Path, *, without: str = "") -> Path:
    """A copy of a model's folder, files of one name left out."""
    to.mkdir()
    for file in folder.iterdir():
        if file.name != without:
            (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_pickle_among_the_weights_is_refused(untaught, tmp_path):
    """Even beside safetensors."""
    folder = copied(untaught, tmp_path / "m")
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickle"):
        judge_of(folder).answer(pictures("red"), "cpu")


def test_a_folder_that_is_no_model_is_one_sentence(untaught, tmp_path):
    """Without config.json, without weights, without a way to be asked."""
    for missing, problem in (
        ("config.json", "not a model folder from the hub"),
        ("model.safetensors", "cannot be read"),
        ("chat_template.jinja", "no chat template"),
    ):
        folder = copied(untaught, tmp_path / missing.split(".")[0], without=missing)
        with pytest.raises(UserError, match=problem):
            judge_of(folder).answer(pictures("red"), "cpu")


def test_a_model_that_lacks_a_tensor_is_refused(untaught, tmp_path):
    """transformers would fill it with random numbers and warn."""
    from safetensors.torch import load_file, save_file

    folder = copied(untaught, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if "visual" in name and "qkv.weight" in name)
    save_file({k: v for k, v in tensors.items() if k != lost}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks weights"):
        judge_of(folder).answer(pictures("red"), "cpu")


def test_a_model_with_nan_is_refused(untaught, tmp_path):
    """It would say the same of every picture."""
    from safetensors.torch import load_file, save_file

    folder = copied(untaught, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="NaN"):
        judge_of(folder).answer(pictures("red"), "cpu")
