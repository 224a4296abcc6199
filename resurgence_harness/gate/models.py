"""Candidate, unlearned model and base as directories that can be loaded, and what is known before anything is drawn.

A candidate may be several things in a row: a model, a U-Net, LoRAs with weights (`style.safetensors=0.8`), embeddings.
What is no whole model is applied to the unlearned one, else to the base.

    identical to the unlearned model      told; drawn all the same, but the effect control fails: it never HOLDS
    identical to the base                 told; drawn: the level says what it is
    not derived from its parent           refused: a rise between strangers says nothing of a fine-tuning
    the unlearned model equals the base   refused: nothing was unlearned
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from resurgence_harness.diffusion.base_files import WEIGHTS, weight_files
from resurgence_harness.diffusion.formats import Candidate, Cover, Source, materialise
from resurgence_harness.diffusion.hub import is_name, locate
from resurgence_harness.diffusion.lineage import Lineage, lineage
from resurgence_harness.diffusion.tensor_files import sha256_of
from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.gate.audit import WeightAudit, audit
from resurgence_harness.selection import base_model
from resurgence_harness.specs import Base, Recipe

MADE = "candidates"
"""The folder below the store's root in which candidates are made into directories."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models of a gate, ready to be asked."""

    candidate: Recipe
    words: str
    """What the candidate is, for people."""
    unlearned: Recipe | None
    base: Recipe | None
    files: dict[str, str]
    """The candidate's weight files by the names they were given under, and their sha256."""
    differs: bool | None
    """Whether the candidate's weights differ from the unlearned model's; None without one."""
    notes: tuple[str, ...]
    """What a person must know before images are drawn."""
    audit: WeightAudit | None

    def plain(self) -> dict[str, Any]:
        """As values that another process can be told, without the audit."""
        recipes = {name: asdict(recipe.base) for name, recipe in self.named.items()}
        rest = {"words": self.words, "files": self.files, "differs": self.differs, "notes": list(self.notes)}
        return {"models": recipes, **rest}

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Models:
        """What another process told."""
        found = {name: Recipe(Base(**base)) for name, base in plain["models"].items()}
        return cls(
            candidate=found["tuned"],
            unlearned=found.get("unlearned"),
            base=found.get("base"),
            words=plain["words"],
            files=plain["files"],
            differs=plain["differs"],
            notes=tuple(plain["notes"]),
            audit=None,
        )

    @property
    def named(self) -> dict[str, Recipe]:
        """Every model there is, by the word that verdict.json has for it."""
        given = {"base": self.base, "unlearned": self.unlearned, "tuned": self.candidate}
        return {name: recipe for name, recipe in given.items() if recipe is not None}


def prepare(
    candidate: Sequence[str],
    *,
    unlearned: str | None,
    base: str | None,
    folder: Path,
    store: Path,
    cover: Cover = Cover.WHOLE,
) -> Models:
    """Make directories of what was given, and look at the weights. Paths are meant from `folder`.

    `cover`: whether files may hold some layers only; what they leave to their parent is then among the notes.

    UserError for what cannot be judged, and for a lineage that makes the question meaningless.
    """
    made = store / MADE
    published = _base(base, folder) if base is not None else None
    parent = _materialised([unlearned], published, folder, made, cover) if unlearned is not None else None
    below = parent.base if parent is not None else published
    found = _materialised(candidate, below, folder, made, cover)
    places = {
        "unlearned": parent.base.location if parent is not None else None,
        "base": published.location if published is not None else None,
    }
    known = lineage(found.base.location, **places)
    _refuse(known)
    notes = list(known.findings)
    notes += [*(parent.notes if parent is not None else ()), *found.notes]
    if found.tokens:
        words = ", ".join(shown(token) for token in found.tokens)
        notes.append(f"The candidate's embedding acts only in prompts that hold {words}; write them into the policy.")
    compared = known.comparisons.get(("candidate", "unlearned"))
    if compared is not None and compared.same:
        notes.append("So there is no fine-tuning to test: the effect control fails, and this candidate cannot HOLD.")
    checked = None
    if parent is not None and published is not None:
        checked = audit(found.base.location, unlearned=parent.base.location, base=published.location)
    return Models(
        candidate=Recipe(replace(found.base, name="candidate")),
        words=shown(" + ".join(candidate)),
        unlearned=Recipe(replace(parent.base, name="unlearned")) if parent is not None else None,
        base=Recipe(published) if published is not None else None,
        files=_digests(candidate, folder),
        differs=None if compared is None else not compared.same,
        notes=tuple(notes),
        audit=checked,
    )


def read_word(word: str, folder: Path) -> tuple[Path, float]:
    """A model as a person names it: its path, and the weight of a LoRA after "="."""
    name, equals, number = word.rpartition("=")
    weight = 1.0
    if equals and not _there(word, folder):
        try:
            word, weight = name, float(number)
        except ValueError:
            raise UserError(
                sentence(f"The weight of {shown(name)} is {shown(number)!r}.", do="Write style.safetensors=0.8.")
            ) from None
        if not math.isfinite(weight):
            raise UserError(sentence(f"The weight of {shown(name)} is {number}.", do="Give a number such as 0.8."))
    try:
        (folder / word).exists()
        odd = not word.strip()
    except (OSError, ValueError):  # a name that no file can have
        odd = True
    if odd:
        raise UserError(sentence(f'There is no model at "{shown(word)}".', do="Give a file, a directory or a name."))
    if word == "micro":
        return Path(base_model(word).location), weight
    if is_name(word, folder):
        return locate(word).directory, weight
    return folder / Path(word).expanduser(), weight


def _there(word: str, folder: Path) -> bool:
    try:
        return (folder / word).exists()
    except (OSError, ValueError):
        return False


def _base(word: str, folder: Path) -> Base:
    """The published model."""
    if word == "micro" or is_name(word, folder):
        return base_model(word)
    found = base_model(str(read_word(word, folder)[0]))
    return replace(found, name=shown(Path(word).name or word))


def _materialised(words: Sequence[str], parent: Base | None, folder: Path, made: Path, cover: Cover) -> Candidate:
    sources = [
        Source(path=path, weight=weight, cover=cover) for path, weight in (read_word(word, folder) for word in words)
    ]
    return materialise(sources, parent.location if parent is not None else None, made)


def _refuse(known: Lineage) -> None:
    """UserError where what is compared has nothing to do with one another."""
    for (child, parent), one in known.comparisons.items():
        finding = next((words for words in known.findings if words.startswith(f"The {child} is not derived")), None)
        if not one.same and not one.derived and finding is not None:
            raise UserError(
                sentence(
                    finding,
                    do=f"Give the {parent} model that it was made from, or leave --{parent} out to claim less.",
                )
            )
        if one.same and (child, parent) == ("unlearned", "base"):
            raise UserError(
                sentence(
                    next(words for words in known.findings if words.startswith("The unlearned model equals")),
                    do="Give the model that was unlearned, or leave --unlearned out to judge the candidate alone.",
                )
            )


def _digests(words: Sequence[str], folder: Path) -> dict[str, str]:
    """sha256 of the files that a person gave, by names that lead nowhere."""
    digests: dict[str, str] = {}

    def note(name: str, digest: str) -> None:
        digests[f"{name} ({digest[:8]})" if name in digests else name] = digest

    for word in words:
        path, _ = read_word(word, folder)
        if path.is_file():
            note(shown(path.name), sha256_of(path))
            continue
        whole = (path / "model_index.json").is_file()
        parts = [file for part in WEIGHTS for file in weight_files(path, part)] if whole else path.glob("*.safetensors")
        for file in sorted(parts):
            note(shown(file.relative_to(path).as_posix()), sha256_of(file))
    return digests
