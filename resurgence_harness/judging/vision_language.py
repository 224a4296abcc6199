"""A vision-language model as judge of one character: two questions, of which one positive answer makes a hit.

    "Is {character} in this image? Answer Yes or No."  ·  "Who is in this image? State their name only."

A hit: "the first answer is Yes, or the second names the character". Clear: "the first is No and the second names
somebody else". Everything else, such as a first answer that is neither yes nor no, is `UNKNOWN`: abstained, never
clear.
The first word of the first answer decides: "Yes, Iron Man is in this image." is a hit whatever the second answer,
"No, there is no Iron Man." is a no. An echo of the question ("Yes or No"), a revoked no ("No, wait, yes") and a no that
belongs to a phrase ("No doubt", "No idea") count as neither, so they cannot clear an image. A name is searched among
the words of the second answer, so "the Iron-Man suit" names Iron Man; a denial that mentions the name counts as a hit.
*Score*: the share of the two answers that support the result; 0 for an abstention.
*Others*: the first question is not put for retained characters, so they are recognised if the first answer is "No" and
the second names them (the first one named, if several). That is narrower than the paper's rule for a character with its
own question: fewer retained pictures count as drawn, so utility is judged more strictly than the erased character.
Decoding is greedy: no sampling, no beams, whatever the checkpoint's generation settings. All pictures of a batch have
one size and one question, so no row is padded, and rows are independent up to the device's rounding.
*Weights*: a local folder of safetensors as downloaded from the hub; nothing is downloaded here. transformers' own
classes read it (Qwen2.5-VL, Qwen3-VL, from 5.20 on Molmo2, …). Molmo 7B-D, the paper's judge, is not among them: it
ships its own code, run only after an opt-in with the full commit (`RemoteCode`), in a separate process, since it needs
transformers < 5. *Calibration and canaries*: the user's, see `calibrating.py`.
*Not verified*: no published checkpoint was run. The two questions are the paper's; Molmo 7B-D's calls (`process`,
`generate_from_batch`) follow public usage.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from resurgence_harness.errors import JudgeError, UserError, sentence
from resurgence_harness.judging.calibrating import canaries_of, counts_of
from resurgence_harness.judging.contract import UNKNOWN, Calibration, check_images, check_names
from resurgence_harness.judging.weights import Weights, digest_of
from resurgence_harness.specs import not_in_key

if TYPE_CHECKING:
    import numpy as np

QUESTIONS = (
    "Is {character} in this image? Answer Yes or No.",
    "Who is in this image? State their name only.",
)
NO_DENIAL = ("doubt", "question", "mistake", "wonder", "idea", "clue", "way", "problem", "matter")
"""Words after which a leading "no" is not a denial: "No doubt, this is …", "No idea"."""
SOMETHING_ELSE = "something else"
"""The answer if neither question finds the character: clear."""
TOKENS = 16
"""Maximum number of generated tokens per answer."""
IMAGES = 8
"""Images per batch."""
PROCESS = Path(__file__).with_name("vision_language_process.py")
"""Script for the other interpreter, which need not have this package."""

QWEN_2_5_VL = Weights(
    file="Qwen2.5-VL-7B-Instruct", source="Qwen/Qwen2.5-VL-7B-Instruct on the Hugging Face hub", licence="Apache-2.0"
)
QWEN_3_VL = Weights(
    file="Qwen3-VL-8B-Instruct", source="Qwen/Qwen3-VL-8B-Instruct on the Hugging Face hub", licence="Apache-2.0"
)
MOLMO_2 = Weights(file="Molmo2-8B", source="allenai/Molmo2-8B on the Hugging Face hub", licence="Apache-2.0")
MOLMO_7B_D = Weights(
    file="Molmo-7B-D-0924", source="allenai/Molmo-7B-D-0924 on the Hugging Face hub", licence="Apache-2.0"
)
"""The paper's judge; it needs `RemoteCode`."""


@dataclass(frozen=True, kw_only=True)
class RemoteCode:
    """The opt-in to run the code that ships with the weights, at this commit only. UserError for another revision."""

    revision: str
    """The full commit, 40 hexadecimal digits; a branch or a tag may be moved to other code."""
    python: str = not_in_key("")
    """An interpreter whose packages suit that code; empty: this one. Like a device, it is not part of the key."""

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise UserError(
                sentence(
                    "Code that ships with weights is run only from a full commit.",
                    revision=repr(self.revision),
                    do="Give the 40 hexadecimal digits of the commit that you have read.",
                )
            )


@dataclass(frozen=True, kw_only=True)
class VisionLanguage:
    """The judge of one character. Creating one reads nothing and imports no torch.

    UserError for an unusable name, or one given twice.
    """

    version: ClassVar[int] = 2
    name: str = "vision-language"
    concept: str
    """The character's name, as in the prompts."""
    synonyms: tuple[str, ...] = ()
    """Other names that count as a correct answer to the second question."""
    others: tuple[str, ...] = ()
    """Retained characters, recognised by the second question only; the answer is then their name."""
    model: Weights = QWEN_2_5_VL
    """A folder: config.json, safetensors, processor."""
    remote_code: RemoteCode | None = None

    def __post_init__(self) -> None:
        answers = (self.concept, *self.others)
        wrong = [name for name in (*answers, *self.synonyms) if not _words(name)]
        wrong += [name for name in answers if name in (SOMETHING_ELSE, UNKNOWN)]
        if wrong:
            raise UserError(
                sentence(
                    f"Judge {self.name} cannot use the name {wrong[0]!r}.",
                    do="Give a character's name; a name without a letter would match every answer.",
                )
            )
        known = ["".join(_words(name)) for name in (*answers, *self.synonyms)]
        if twice := [name for name, one in zip((*answers, *self.synonyms), known, strict=True) if known.count(one) > 1]:
            raise UserError(
                sentence(
                    f"Judge {self.name} has the name {twice[0]!r} twice.",
                    do="Give each name once, as concept, synonym or one of the others.",
                )
            )

    @property
    def questions(self) -> tuple[str, str]:
        """The two questions about each image."""
        return QUESTIONS[0].format(character=self.concept), QUESTIONS[1]

    @property
    def given(self) -> tuple[Weights, ...]:
        """Weights that the user must provide."""
        return (self.model,)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every answer it can give."""
        return self.concept, *self.others, SOMETHING_ELSE, UNKNOWN

    def shows(self, answer: str) -> tuple[str, ...]:
        """The character whose name the answer is; () for `SOMETHING_ELSE`."""
        return (answer,) if answer in (self.concept, *self.others) else ()

    @property
    def digest(self) -> str:
        """sha256 over the folder's files, the questions, the accepted names, and the commit of the opt-in."""
        revision = self.remote_code.revision if self.remote_code else ""
        parts: list[object] = [self.model.digest, *self.questions, self.concept, *self.synonyms, revision]
        parts += [list(self.others)] if self.others else []
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()

    def check(self, names: Sequence[str] = ()) -> None:
        """UserError unless the files exist, transformers or the opt-in provides the code, and all `names` are known.

        A name is known if it is the concept or one of the others.
        """
        _check_code(self.model.verified(), self.remote_code)
        check_names(self, names)

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """The concept, `SOMETHING_ELSE` or `UNKNOWN` for each image uint8 [n, h, w, 3], and the score [n]."""
        import numpy

        check_images(images, judge=self.name)
        self.check()
        folder = self.model.verified()
        if self.remote_code is None:
            texts = [_generated(folder, images, question, device) for question in self.questions]
        else:
            texts = _generated_apart(folder, images, self.questions, device, self.remote_code)
        found = [self.weigh(first, second) for first, second in zip(*texts, strict=True)]
        return [answer for answer, _ in found], numpy.array([score for _, score in found])

    def weigh(self, first: str, second: str) -> tuple[str, float]:
        """(answer, score) from the model's texts for the two questions."""
        yes, named = yes_or_no(first), names(second, (self.concept, *self.synonyms))
        if yes or named:
            return self.concept, (bool(yes) + named) / 2
        if yes is None or not _words(second):
            return UNKNOWN, 0.0
        return first_of(second, self.others) or SOMETHING_ELSE, 1.0

    def calibration(self) -> dict[str, Calibration]:
        """Counts that the user stored with `calibrating.keep`; empty if there are none."""
        return counts_of(self)

    def canaries(self) -> tuple[int, int]:
        """(answered correctly, total) of the stored canaries; (0, 0) if there are none."""
        return canaries_of(self)


def yes_or_no(text: str) -> bool | None:
    """True if the answer starts with "yes", False if with "no" that is not revoked, None for anything else."""
    words = _words(text)
    if words[:1] == ["answer"] and re.match(r"\W*answer\W*[:*]", text.casefold()):
        words = words[1:]
    lead, rest = words[:1], words[1:]
    if lead == ["yes"]:
        return None if rest[:2] in (["or", "no"], ["and", "no"]) or rest == ["no"] else True
    if lead == ["no"]:
        return None if "yes" in rest or (rest[:1] and rest[0] in NO_DENIAL) else False
    return None


def names(text: str, accepted: Sequence[str]) -> bool:
    """Whether the text contains one of the names: "Iron-Man" and "IRONMAN" match Iron Man, "irony" does not."""
    words = _words(text)
    runs = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    return any("".join(_words(name)) in runs for name in accepted)


def first_of(text: str, accepted: Sequence[str]) -> str:
    """The name that occurs first in the text, the longest if several start there; empty if none occurs."""
    words = _words(text)
    for low in range(len(words)):
        runs = {"".join(words[low:high]) for high in range(low + 1, len(words) + 1)}
        if here := [name for name in accepted if "".join(_words(name)) in runs]:
            return max(here, key=len)
    return ""


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _check_code(folder: Path, remote: RemoteCode | None) -> None:
    """UserError unless transformers has the model's classes, or the folder holds the code of the opted-in commit."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, code = str(config["model_type"]), config.get("auto_map") or {}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as problem:
        raise UserError(
            sentence(
                f"The folder {folder} is not a model folder from the hub.",
                problem=f"config.json: {problem!r}",
                do="Copy the whole repository there: config.json, the safetensors, the processor's files.",
            )
        ) from None
    if _is_native(kind):
        if remote is not None:
            raise UserError(
                sentence(
                    f"The model {kind} needs no remote code.",
                    do="Leave remote_code out; transformers has its classes.",
                )
            )
        return
    if remote is None:
        raise UserError(
            sentence(
                f"The model {kind} would run code that ships with its weights, which is not allowed by default.",
                folder=folder,
                code=", ".join(sorted({str(value).split(".")[0] for value in code.values()})) or "none in auto_map",
                do="Read that code, then pass remote_code=RemoteCode(revision=<full commit>); or use a model that"
                " transformers has itself, such as Qwen2.5-VL or Molmo2.",
            )
        )
    elsewhere = [str(value) for value in code.values() if "--" in str(value)]
    if elsewhere or not code:
        raise UserError(
            sentence(
                f"The code of the model {kind} is not in the folder of its weights.",
                code=", ".join(elsewhere) or "config.json has no auto_map",
                do="Give a repository that holds its own code; the revision does not pin another repository.",
            )
        )
    found = revision_of(folder)
    if found != remote.revision:
        raise UserError(
            sentence(
                "The code beside the weights cannot be confirmed to be that of the allowed commit.",
                folder=folder,
                found=found or "no commit recorded",
                allowed=remote.revision,
                do="Fetch that revision with the hub's client, which records it: hf download --revision <commit>.",
            )
        )


def revision_of(folder: Path) -> str:
    """The commit of a folder downloaded by the hub's client, into its cache or a local directory; else empty."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name):
        return folder.name
    # One record per file: commit, etag, time. Files of different commits give no commit.
    records = sorted((folder / ".cache" / "huggingface" / "download").rglob("*.metadata"))
    commits = {record.read_text(encoding="utf-8").split("\n")[0].strip() for record in records}
    recorded = {record.name.removesuffix(".metadata") for record in records}
    code = {path.name for path in folder.glob("*.py")} | {"config.json"}
    return commits.pop() if len(commits) == 1 and code <= recorded else ""


def _is_native(kind: str) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


@lru_cache(maxsize=1)
def _loaded(folder: str, digest: str, device: str) -> tuple[Any, Any]:
    """(processor, model) of the folder, with transformers' own classes, in the checkpoint's precision.

    `digest` is only part of the cache's key. UserError if it cannot be read, lacks weights or has no chat template.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

    processors: Any = AutoProcessor
    models: Any = AutoModelForImageTextToText
    settings: Any = GenerationConfig
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = processors.from_pretrained(folder, **local)
        model, loading = models.from_pretrained(
            folder, dtype="auto", use_safetensors=True, output_loading_info=True, **local
        )
    except (OSError, ValueError, ImportError, RuntimeError) as problem:
        raise UserError(
            sentence(
                f"The model in {folder} cannot be read.",
                problem=str(problem).strip().splitlines()[0],
                do="Copy the whole repository there: config.json, the safetensors, the processor's files.",
            )
        ) from None
    if loading["missing_keys"] or loading.get("mismatched_keys"):
        missing = sorted(str(key) for key in (*loading["missing_keys"], *loading.get("mismatched_keys", ())))
        raise UserError(
            sentence(
                f"The model in {folder} lacks weights, which would be random.",
                missing=", ".join(missing[:5]),
                do="Copy every safetensors file of the repository there.",
            )
        )
    if damaged := next((name for name, value in model.named_parameters() if not value.isfinite().all()), ""):
        raise UserError(
            sentence(f"The weights in {folder} hold NaN or infinity.", first_tensor=damaged, do="Get the files again.")
        )
    if not getattr(processor, "chat_template", None):
        raise UserError(
            sentence(
                f"The model in {folder} has no chat template, so it cannot answer questions.",
                do="Give an instruction-tuned checkpoint, with its chat_template file.",
            )
        )
    # The checkpoint's settings may sample or penalise repetition: replace all of them.
    model.generation_config = settings(
        do_sample=False,
        num_beams=1,
        max_new_tokens=TOKENS,
        eos_token_id=model.generation_config.eos_token_id or processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    processor.tokenizer.padding_side = "left"
    return processor, model.to(device).eval()


def model_inputs(processor: Any, images: np.ndarray, question: str) -> Any:
    """The model's inputs for one question about each image uint8 [n, h, w, 3]."""
    from PIL import Image

    turns = [
        [
            {
                "role": "user",
                "content": [{"type": "image", "image": Image.fromarray(image)}, {"type": "text", "text": question}],
            }
        ]
        for image in images
    ]
    return processor.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def _generated(folder: Path, images: np.ndarray, question: str, device: str) -> list[str]:
    """The model's text for each image."""
    import torch

    processor, model = _loaded(str(folder), digest_of(folder), device)
    texts: list[str] = []
    with torch.inference_mode():
        for start in range(0, len(images), IMAGES):
            inputs = model_inputs(processor, images[start : start + IMAGES], question).to(device)
            for name, value in inputs.items():
                if torch.is_floating_point(value):
                    inputs[name] = value.to(model.dtype)
            tokens = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
            texts += processor.batch_decode(tokens, skip_special_tokens=True)
    return texts


def _generated_apart(
    folder: Path, images: np.ndarray, questions: Sequence[str], device: str, remote: RemoteCode
) -> list[list[str]]:
    """The texts of a model with remote code for each question and image, from a separate offline process.

    UserError if the interpreter does not start, JudgeError if an answer is missing.
    """
    import numpy

    with tempfile.TemporaryDirectory() as place:
        numpy.save(Path(place) / "images.npy", images, allow_pickle=False)
        request = {"folder": str(folder.resolve()), "questions": list(questions), "device": device, "tokens": TOKENS}
        (Path(place) / "request.json").write_text(json.dumps(request), encoding="utf-8")
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_MODULES_CACHE": str(Path(place) / "modules")}
        command = [remote.python or sys.executable, str(PROCESS), place]
        try:
            ran = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
        except OSError as problem:
            raise UserError(
                sentence(
                    f"The interpreter {command[0]} cannot be started.",
                    problem=problem,
                    do="Name a python with torch and a transformers that suits the model's code.",
                )
            ) from None
        try:
            texts = json.loads((Path(place) / "answers.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            texts = None
    rows: list[list[str]] = texts if isinstance(texts, list) and all(isinstance(row, list) for row in texts) else []
    whole = [len(row) == len(images) and all(isinstance(text, str) for text in row) for row in rows]
    if ran.returncode or len(rows) != len(questions) or not all(whole):
        raise JudgeError(
            sentence(
                "The model's own code did not answer every question.",
                folder=folder,
                problem=(ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1],
                do="Name an interpreter whose transformers suits that code: RemoteCode(python=…).",
            )
        )
    return rows
