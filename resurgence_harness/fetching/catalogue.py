"""What `resurgence fetch` knows: bases, judges' weights and prompts, with their mirrors, licences and pins.

Commits and hashes are those of `diffusion.hub` and of the judges. Where none is known, none is invented: the commit is
then given by the user (`clip@<commit>`), or the file itself (`--from gcd=resources/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from resurgence_harness.diffusion.families import SDXL
from resurgence_harness.diffusion.hub import ALIASES, COMMIT, REPOSITORY, Mirror
from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.judging.clip_accuracy import VIT_B_32
from resurgence_harness.judging.gcd import GCD_WEIGHTS
from resurgence_harness.judging.open_nsfw import EXTRA
from resurgence_harness.judging.open_nsfw import WEIGHTS as OPEN_NSFW
from resurgence_harness.judging.q16 import PROMPTS, VIT_L_14
from resurgence_harness.judging.vision_language import QWEN_2_5_VL
from resurgence_harness.judging.weights import Weights
from resurgence_harness.tasks.published.i2p import place as place_of_prompts

_INCLUDED = ("model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors")
_EXCLUDED = ("safety_checker/*", "feature_extractor/*", "*fp16*", "*non_ema*", "*flax*", "*openvino*", "*onnx*")


@dataclass(frozen=True, kw_only=True)
class Licence:
    """A licence as it is shown before it is agreed to."""

    tag: str
    """The hub's name for it, which is what `--agree` takes; empty: only the hub's page states it."""
    name: str
    text: str = ""
    """Where its text is."""
    limits: str = ""
    """What it restricts, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something that can be fetched, or prepared from a path."""

    name: str
    about: str
    licence: Licence
    mirrors: tuple[Mirror, ...] = ()
    """In the order in which they are tried; none: only a path can be given."""
    kind: str = "model"
    """The hub's kind of repository: "model" or "dataset"."""
    file: str = ""
    """The one file of the repository; empty: the files of a base in diffusers' layout."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """File of the repository → sha256."""
    weights: Weights | None = None
    """The judge's weights that it becomes; None for a base."""
    folder: bool = False
    """Whether the weights are a folder with the repository's files: a model of transformers."""
    place: Path | None = None
    """Where a file belongs that is no weights."""
    parts: tuple[str, ...] = ()
    """Files and folders at the top that belong to it; empty: all."""
    search: str = ""
    """What to look for, if no mirror is known."""

    @property
    def target(self) -> Path | None:
        """The path at which this package reads it; None for a base, which is read from the hub's cache."""
        return self.weights.place if self.weights is not None else self.place

    @property
    def pinned(self) -> bool:
        """Whether some mirror can be fetched without a commit from the user."""
        return any(mirror.revision for mirror in self.mirrors) or bool(self.pins)

    def wants(self, file: str) -> bool:
        """Whether a file of the repository belongs to it."""
        if self.file:
            return file == self.file
        if self.folder:
            return "/" not in file and file.endswith((*_FLAT, ".txt", ".jinja", ".model"))
        if self.parts and file.partition("/")[0] not in self.parts:
            return False
        known = any(fnmatch(file, pattern) for pattern in _INCLUDED) or (file.count("/") == 0 and file.endswith(_FLAT))
        return known and not any(fnmatch(file, pattern) for pattern in _EXCLUDED)


_FLAT = (".safetensors", ".json")
"""Files at the top of a repository that belong to it: a LoRA's."""
_MIT_CLIP = Licence(
    tag="mit",
    name="MIT (code); OpenAI's model card asks for research use and against deployment",
    text="https://github.com/openai/CLIP/blob/main/LICENSE and model-card.md beside it",
)
_LICENCES = {
    "sd14": Licence(
        tag="creativeml-openrail-m",
        name="CreativeML OpenRAIL-M",
        text="https://huggingface.co/spaces/CompVis/stable-diffusion-license",
        limits="use restrictions in its attachment A, which must be passed on",
    ),
    "sd21": Licence(
        tag="openrail++",
        name="CreativeML Open RAIL++-M",
        text="https://huggingface.co/stabilityai/stable-diffusion-2/blob/main/LICENSE-MODEL",
        limits="use restrictions in its attachment A, which must be passed on",
    ),
    "sdxl": Licence(
        tag="openrail++",
        name="CreativeML Open RAIL++-M",
        text="https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md",
        limits="use restrictions in its attachment A, which must be passed on",
    ),
}
_PARTS = {"sdxl": ("model_index.json", *SDXL.parts)}
"""Base → the files and folders that it consists of, where its repository holds further models."""
_ABOUT = {
    "sd14": "Stable Diffusion v1.4, 512 pixels",
    "sd21-base": "Stable Diffusion v2.1 base, 512 pixels",
    "sd21": "Stable Diffusion v2.1, 768 pixels",
    "sdxl": "Stable Diffusion XL 1.0, 1024 pixels",
}


def catalogue() -> dict[str, Item]:
    """Every item by its name, with the places of this moment."""
    bases = {
        name: Item(
            name=name,
            about=_ABOUT.get(name, name),
            licence=_LICENCES.get(name.removesuffix("-base"), Licence(tag="", name="as its page on the hub states")),
            mirrors=model.mirrors,
            pins=model.pins,
            parts=_PARTS.get(name, ()),
        )
        for name, model in ALIASES.items()
    }
    others = (
        Item(
            name="clip-vit-b-32",
            about="OpenAI's CLIP ViT-B/32, for the object, unsafe and nudity tasks",
            licence=_MIT_CLIP,
            mirrors=(Mirror(repo="timm/vit_base_patch32_clip_224.openai"),),
            file="open_clip_model.safetensors",
            weights=VIT_B_32.weights,
        ),
        Item(
            name="clip-vit-l-14",
            about="OpenAI's CLIP ViT-L/14, for Q16",
            licence=_MIT_CLIP,
            mirrors=(Mirror(repo="timm/vit_large_patch14_clip_224.openai"),),
            file="open_clip_model.safetensors",
            weights=VIT_L_14.weights,
        ),
        Item(
            name="qwen2.5-vl-7b",
            about="Qwen2.5-VL 7B, for the copyright task",
            licence=Licence(tag="apache-2.0", name="Apache-2.0"),
            mirrors=(Mirror(repo="Qwen/Qwen2.5-VL-7B-Instruct"),),
            folder=True,
            weights=QWEN_2_5_VL,
        ),
        Item(
            name="q16-prompts",
            about="Q16's two vectors, for the unsafe task",
            licence=Licence(tag="mit", name=PROMPTS.licence, text="https://github.com/ml-research/Q16"),
            weights=PROMPTS,
            search="data/ViT-L-14/prompts.p of github.com/ml-research/Q16 (3,231 bytes)",
        ),
        Item(
            name="gcd",
            about="Giphy's celebrity detector, for the celebrity task",
            licence=Licence(tag="", name=GCD_WEIGHTS.licence, text="https://github.com/Giphy/celeb-detection-oss"),
            weights=GCD_WEIGHTS,
            search="Giphy's resources.tar.gz, unpacked; MACE's metrics/README.md and HUB's README name mirrors",
        ),
        Item(
            name="open-nsfw",
            about="Yahoo's Open-NSFW, for the nudity task",
            licence=Licence(tag="bsd-2-clause", name=OPEN_NSFW.licence, text="https://github.com/yahoo/open_nsfw"),
            weights=OPEN_NSFW,
            search=EXTRA,
        ),
        Item(
            name="i2p",
            about="the I2P prompts, for the unsafe and nudity tasks",
            licence=Licence(tag="mit", name="MIT", limits="its texts are offensive"),
            mirrors=(Mirror(repo="AIML-TUDA/i2p"),),
            kind="dataset",
            file="i2p_benchmark.csv",
            place=place_of_prompts(),
        ),
    )
    return bases | {item.name: item for item in others}


TOGETHER: Mapping[str, tuple[str, ...]] = {
    "clip": ("clip-vit-b-32",),
    "q16": ("clip-vit-l-14", "q16-prompts"),
}
"""Names that stand for several items, or for one with a longer name."""


def names() -> tuple[str, ...]:
    """Every name that `fetch` takes, besides ids of the hub."""
    return (*catalogue(), *TOGETHER)


def items_named(words: Sequence[str]) -> tuple[Item, ...]:
    """The items of these names, each once: NAME, NAME@<commit>, or owner/name@<commit>[:file] of the hub.

    UserError for an unknown name, or an id without a commit.
    """
    known, found = catalogue(), {}
    for word in words:
        name, _, commit = word.partition("@")
        if commit and name in (*known, *TOGETHER):
            _check_commit(word, commit)
        for each in TOGETHER.get(name, (name,)):
            item = known.get(each) or _of_the_hub(word, known)
            if each in known and commit and item.mirrors:
                item = replace(item, mirrors=(Mirror(repo=item.mirrors[0].repo, revision=commit),))
            found[item.name] = item
    return tuple(found.values())


def item_of(weights: Weights) -> Item | None:
    """The item that becomes these weights of a judge; None if it is not in the catalogue."""
    return next((item for item in catalogue().values() if item.weights == weights), None)


def _check_commit(word: str, commit: str) -> None:
    if not COMMIT.fullmatch(commit):
        raise UserError(
            sentence(
                f"{shown(word)} has no full commit.",
                given=shown(commit),
                do="Give all 40 hexadecimal digits: a branch can change after a verdict.",
            )
        )


def _of_the_hub(word: str, known: Mapping[str, Item]) -> Item:
    match = REPOSITORY.fullmatch(word)
    if match is None:
        raise UserError(
            sentence(
                f"{shown(word)} is nothing that can be fetched.",
                known=", ".join((*known, *TOGETHER)),
                do="Name one of these, or owner/name@<commit> of the hub.",
            )
        )
    repo, (revision, _, file) = match["repo"], (match["revision"] or "").partition(":")
    _check_commit(word, revision)
    return Item(
        name=word,
        about=f"{file or 'a model'} of {repo}",
        licence=Licence(tag="", name="as its page on the hub states"),
        mirrors=(Mirror(repo=repo, revision=revision),),
        file=file,
    )
