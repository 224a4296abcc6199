"""Candidate, unlearned model and base as loadable directories, and checks of them before any image is drawn.

A candidate may be several parts in a row: a model, a U-Net, LoRAs with weights (`style.safetensors=0.8`), embeddings.
A part that is not a whole model is applied to the unlearned one, else to the base.

    identical to the unlearned model      a note; it is sampled, but the effect control fails: it never HOLDS
    identical to the base                 a note; it is sampled, and the level decides
    not derived from its parent           refused: a rise between unrelated models is no effect of a fine-tuning
    the unlearned model equals the base   refused: nothing was unlearned
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from resurgence_harness.diffusion.differences import settings_difference, weights_difference
from resurgence_harness.diffusion.formats import Cover
from resurgence_harness.diffusion.formats.as_parent import as_parent
from resurgence_harness.diffusion.lineage import Lineage, lineage
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.gate.audit import WeightAudit, audit
from resurgence_harness.given_models import MADE, materialised, published
from resurgence_harness.specs import Base, Recipe

NAMED = 5
"""Maximum files that are named in a note."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models of a gate, ready to be sampled."""

    candidate: Recipe
    label: str
    """Label of the candidate."""
    unlearned: Recipe | None
    base: Recipe | None
    files: dict[str, str]
    """The files that were given as the candidate and can change an image, by their names there, and their sha256."""
    differs: bool | None
    """Whether the candidate's weights differ from the unlearned model's; None without one."""
    notes: tuple[str, ...]
    """Notes to print before images are drawn."""
    audit: WeightAudit | None
    differences: tuple[str, ...] = ()
    """Settings and VAE weights in which the candidate differs from its parent (the unlearned model, else the base), as
    text: "tokenizer/tokenizer.json: the ids of 10 tokens". Empty without a parent, and if nothing differs."""
    as_parent: Recipe | None = None
    """The candidate's U-Net and text encoder with the parent's tokenizer, scheduler, VAE and configs; None if
    nothing differs."""

    def plain(self) -> dict[str, Any]:
        """As plain values for another process, without the audit."""
        recipes = {name: asdict(recipe.base) for name, recipe in self.named.items()}
        rest = {"label": self.label, "files": self.files, "differs": self.differs, "notes": list(self.notes)}
        rest["differences"] = list(self.differences)
        return {"models": recipes, **rest}

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Models:
        """Read the plain values of another process."""
        found = {name: Recipe(Base(**base)) for name, base in plain["models"].items()}
        return cls(
            candidate=found["tuned"],
            unlearned=found.get("unlearned"),
            base=found.get("base"),
            label=plain["label"],
            files=plain["files"],
            differs=plain["differs"],
            notes=tuple(plain["notes"]),
            audit=None,
            differences=tuple(plain["differences"]),
            as_parent=found.get("as_parent"),
        )

    @property
    def named(self) -> dict[str, Recipe]:
        """The models that exist, by their names in verdict.json."""
        given = {"base": self.base, "unlearned": self.unlearned, "tuned": self.candidate}
        given["as_parent"] = self.as_parent
        return {name: recipe for name, recipe in given.items() if recipe is not None}


def prepare(
    candidate: Sequence[str],
    *,
    unlearned: str | None,
    base: str | None,
    folder: Path,
    store: Path,
    cover: Cover = Cover.WHOLE,
    run: str = "",
) -> Models:
    """Make the models into directories, and compare their weights. Paths are relative to `folder`.

    `cover`: whether files may hold some layers only; the layers taken from the parent are then in the notes.
    A fresh run, identified by `run`, uses no directory that another run made.

    UserError for models that cannot be judged, and for a lineage that makes the comparison meaningless.
    """
    made = store / MADE
    first = published(base, folder) if base is not None else None
    parent = materialised([unlearned], first, folder, made, cover, run) if unlearned is not None else None
    below = parent.base if parent is not None else first
    found = materialised(candidate, below, folder, made, cover, run)
    opened = {
        name: ModelFiles(base.location)
        for name, base in (
            ("candidate", found.base),
            ("unlearned", parent.base if parent is not None else None),
            ("base", first),
        )
        if base is not None
    }
    known = lineage(**opened)
    _refuse(known)
    notes = list(known.findings)
    notes += [*(parent.notes if parent is not None else ()), *found.notes]
    if found.tokens:
        tokens = ", ".join(shown(token) for token in found.tokens)
        notes.append(f"The candidate's embedding acts only in prompts that hold {tokens}; write them into the policy.")
    notes += _unread(opened["candidate"])
    compared = known.comparisons.get(("candidate", "unlearned"))
    if compared is not None and compared.same:
        notes.append("So there is no fine-tuning to test: the effect control fails, and this candidate cannot HOLD.")
    checked = None
    if parent is not None and first is not None:
        checked = audit(**opened)
    above = opened.get("unlearned", opened.get("base"))
    differences: tuple[str, ...] = ()
    second = None
    if above is not None:
        differences = settings_difference(opened["candidate"], above)
        encoder = tuple(
            phrase
            for part in above.description.family.encoders
            for phrase in weights_difference(opened["candidate"], above, part)
        )
        if parent is not None:
            differences += encoder  # an erasure in the text encoder is in the unlearned model's encoder, too
        elif encoder:
            notes.append(
                f"Not the base's {encoder[0]}. Whether that erases or only hides is unknown without --unlearned."
            )
        own = ("unet",) if parent is not None else None
        if differences:
            second = as_parent(opened["candidate"], above, made, own=own, run=run)
    return Models(
        candidate=Recipe(replace(found.base, name="candidate")),
        label=shown(" + ".join(candidate)),
        unlearned=Recipe(replace(parent.base, name="unlearned")) if parent is not None else None,
        base=Recipe(first) if first is not None else None,
        files=dict(found.files),
        differs=None if compared is None else not compared.same,
        notes=tuple(notes),
        audit=checked,
        differences=differences,
        as_parent=Recipe(replace(second, name="candidate as its parent is asked")) if second is not None else None,
    )


WEIGHT_FILES = frozenset({".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx", ".gguf"})
"""Suffixes of files that hold weights."""


def _unread(model: ModelFiles) -> list[str]:
    """A note if a folder holds weights that are not judged: another loader could sample with them."""
    folder, described = model.directory, {file.path.absolute() for file in model.description.files}
    others = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in WEIGHT_FILES and path.is_file() and path.absolute() not in described
    )
    if not others:
        return []
    named = ", ".join(shown(name) for name in others[:NAMED]) + (" …" if len(others) > NAMED else "")
    return [f"Not judged, and not attested: {len(others)} further files of weights in the candidate's folder, {named}."]


def _refuse(known: Lineage) -> None:
    """UserError if the models to compare are unrelated."""
    if known.unrelated is None:
        return
    child, parent, finding = known.unrelated
    if known.comparisons[child, parent].same:
        do = "Give the model that was unlearned, or leave --unlearned out to judge the candidate alone."
    else:
        do = f"Give the {parent} model that it was made from, or leave --{parent} out to claim less."
    raise UserError(sentence(finding, do=do))
