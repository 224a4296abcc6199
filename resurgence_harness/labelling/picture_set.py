"""A folder of pictures to be labelled, with what each was drawn for.

    FOLDER/pictures.json       the judge, the choices, and of every picture its file, sha256, kind, model, prompt, seed
    FOLDER/0001.png …
    FOLDER/labels-ROLE.jsonl   the answers of a labeller (`label_file`)

`digest` is the sha256 of pictures.json, so labels of one set are not accepted for another.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import UserError, sentence, shown

if TYPE_CHECKING:
    import numpy as np

FILE = "pictures.json"
MOST_CHOICES = 9
"""One key each: 1 to 9."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture and its origin."""

    file: str
    sha256: str
    """Of the file."""
    kind: str
    """Counted separately from other kinds: "drawn by the base"."""
    drawn_by: str
    """The model, for people."""
    prompt: str
    seed: int
    concept: str
    """What the prompt names."""


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """The pictures of a calibration, as stored."""

    folder: Path
    task: str
    base: str
    """Name of the base."""
    base_digest: str
    judge: str
    judge_digest: str
    choices: tuple[str, ...]
    """What a picture may show, beside none of these: at most nine, one key each."""
    pictures: tuple[Picture, ...]
    covered: bool = False
    """Whether pictures are blurred until the labeller reveals them."""
    references: Mapping[str, str] = field(default_factory=dict)
    """Choice → file with a picture of it, shown beside its key."""

    @property
    def digest(self) -> str:
        """sha256 of pictures.json."""
        return hashlib.sha256((self.folder / FILE).read_bytes()).hexdigest()

    @classmethod
    def write(
        cls,
        folder: Path,
        images: np.ndarray,
        about: Sequence[Mapping[str, Any]],
        *,
        references: Mapping[str, np.ndarray] | None = None,
        **facts: Any,
    ) -> PictureSet:
        """Store images uint8 [n, h, w, 3] with the fields of each `Picture` except file and sha256.

        UserError for too many choices, or a picture that is in the set twice.
        """
        choices = tuple(facts["choices"])
        if not 1 <= len(choices) <= MOST_CHOICES:
            raise UserError(
                sentence(
                    f"{len(choices)} choices cannot be labelled with one key each.",
                    most=MOST_CHOICES,
                    do="Choose fewer concepts: --concepts FILE, one per line.",
                )
            )
        folder.mkdir(parents=True, exist_ok=True)
        shown_beside = {
            name: _save(folder, f"reference-{place}.png", image)[0]
            for place, (name, image) in enumerate((references or {}).items(), 1)
        }
        pictures = []
        for place, (image, one) in enumerate(zip(images, about, strict=True), 1):
            file, digest = _save(folder, f"{place:04d}.png", image)
            pictures.append(Picture(file=file, sha256=digest, **one))
        if len({picture.sha256 for picture in pictures}) < len(pictures):
            raise UserError(
                sentence("Two pictures of the set are the same.", do="Draw them with other seeds or prompts.")
            )
        made = cls(folder=folder, pictures=tuple(pictures), references=shown_beside, **facts)
        content = {one.name: getattr(made, one.name) for one in fields(made) if one.name != "folder"}
        content["pictures"] = [asdict(picture) for picture in pictures]
        draft = folder / f".{FILE}"
        draft.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(draft, folder / FILE)
        return made

    @classmethod
    def read(cls, folder: Path) -> PictureSet:
        """The set in a folder; UserError if there is none, or a picture is missing or changed."""
        try:
            content = json.loads((folder / FILE).read_text(encoding="utf-8"))
            pictures = tuple(Picture(**one) for one in content.pop("pictures"))
            content["choices"] = tuple(content["choices"])
            found = cls(folder=folder, pictures=pictures, **content)
            names = [*(picture.file for picture in pictures), *found.references.values()]
            if not pictures or any(name != Path(name).name for name in names):
                raise ValueError("it lists no pictures of its folder")
        except FileNotFoundError:
            raise UserError(
                sentence(
                    f"There are no pictures to label in {folder}.",
                    do="Draw them first: resurgence calibration draw, or resurgence setup.",
                )
            ) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
            raise UserError(
                sentence(f"{folder / FILE} cannot be read.", problem=problem, do="Draw the pictures again.")
            ) from None
        for picture in pictures:
            try:
                same = hashlib.sha256((folder / picture.file).read_bytes()).hexdigest() == picture.sha256
            except OSError:
                same = False
            if not same:
                raise UserError(
                    sentence(
                        f"The picture {shown(picture.file)} in {folder} is missing or has changed since it was drawn.",
                        do="Restore it, or draw the pictures again; labels belong to the pictures as they were.",
                    )
                )
        return found

    def images(self) -> np.ndarray:
        """All pictures, uint8 [n, h, w, 3]."""
        import numpy
        from PIL import Image

        found = []
        for picture in self.pictures:
            with Image.open(self.folder / picture.file) as image:
                found.append(numpy.asarray(image.convert("RGB")))
        return numpy.stack(found)


def _save(folder: Path, name: str, image: np.ndarray) -> tuple[str, str]:
    from PIL import Image

    Image.fromarray(image).save(folder / name)
    return name, hashlib.sha256((folder / name).read_bytes()).hexdigest()
