"""How often a judge errs on pictures whose content is known, and which of them it must always get right.

For judges whose weights are not ours nobody can ship these counts: they depend on the base's pictures. People make them
once, from a folder with a subfolder for each thing shown:

    known = KnownPictures.from_folder("pictures")              # pictures/ship/*.png, pictures/deer/*.png, …
    counts = {"drawn by the base": calibrate(judge, known, device="cuda")}
    keep(judge, counts, canaries=known.first(2))

`keep` writes two files into the directory of weights, named after the judge and its digest. They are bound to the
digest and the version: a judge with other weights or labels is another judge and has no calibration, so it decides
nothing. Without canaries that control is missing and every cell is undecided.

*The pictures must resemble those under test* and be independent of each other: at best drawn by the base, looked
through by a person, with seeds and prompts that no suite asks for. Counts from photographs flatter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import JudgeError, UserError, sentence
from resurgence_harness.judging.contract import Calibration, Judge, ask, check_images, shown_by
from resurgence_harness.judging.declaring import labels_of
from resurgence_harness.judging.weights import directory

if TYPE_CHECKING:
    import numpy as np

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownPictures:
    """Pictures, and what is in each."""

    images: np.ndarray
    """uint8 [n, h, w, 3]."""
    truth: tuple[str, ...]
    """What each shows: a concept's name, or any other word for anything else."""

    def __post_init__(self) -> None:
        check_images(self.images, judge="calibration")
        if len(self.truth) != len(self.images):
            raise UserError(
                sentence(f"{len(self.images)} pictures have {len(self.truth)} names.", do="Give one name per picture.")
            )

    def __len__(self) -> int:
        return len(self.truth)

    @classmethod
    def from_folder(cls, folder: str | Path) -> KnownPictures:
        """Every picture of every subfolder; the subfolder's name says what is in it. All of one size."""
        import numpy

        folder = Path(folder)
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        found: list[tuple[str, np.ndarray]] = []
        for name in names:
            files = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in PICTURES)
            if not files:
                raise UserError(
                    sentence(
                        f"There is no picture of {name} in {folder}.", do="Put pictures there, or remove the folder."
                    )
                )
            found += [(name, read_picture(path)) for path in files]
        if not found:
            raise UserError(
                sentence(
                    f"There are no known pictures in {folder}.",
                    do="Make a subfolder for each thing shown, named after it, with png, jpg or webp files.",
                )
            )
        shapes = {picture.shape for _, picture in found}
        if len(shapes) > 1:
            sizes = ", ".join(sorted(f"{shape[1]}×{shape[0]}" for shape in shapes))
            raise UserError(
                sentence(
                    f"The known pictures in {folder} have several sizes.",
                    sizes=sizes,
                    do="Give them the size at which models are sampled; a judge errs differently at another one.",
                )
            )
        return cls(images=numpy.stack([picture for _, picture in found]), truth=tuple(name for name, _ in found))

    def of(self, rows: Sequence[int]) -> KnownPictures:
        """Some of them."""
        return KnownPictures(images=self.images[list(rows)], truth=tuple(self.truth[row] for row in rows))

    def first(self, count: int) -> KnownPictures:
        """The first `count` of each thing shown."""
        seen: dict[str, int] = {}
        rows = []
        for row, name in enumerate(self.truth):
            seen[name] = seen.get(name, 0) + 1
            if seen[name] <= count:
                rows.append(row)
        return self.of(rows)


def read_picture(path: Path) -> np.ndarray:
    """A picture file as uint8 [h, w, 3]; UserError where it is none."""
    import numpy
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return numpy.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as problem:  # Pillow says SyntaxError of a broken PNG
        raise UserError(
            sentence(f"The picture {path} cannot be read.", problem=problem, do="Save it again, or remove it.")
        ) from None


def calibrate(judge: Judge, known: KnownPictures, *, device: str = "cpu") -> Calibration:
    """Count the judge's answers on known pictures.

    *Recognised:* the answer shows what is there. *A false alarm:* it shows a concept that is not. A picture of one
    concept is "anything else" to the others, so it counts among them, unless the judge calls all its concepts by one
    answer (as Q16 does). That a picture was given *any* wrong name bounds how often one name is given wrongly.
    """
    groups = _groups(judge)
    concepts = frozenset().union(*groups)
    answers, _ = ask(judge, known.images, device)
    recognised = subjects = alarms = others = 0
    for truth, answer in zip(known.truth, answers, strict=True):
        shown = shown_by(judge, answer)
        subjects += truth in concepts
        recognised += truth in concepts and truth in shown
        if any(truth not in group for group in groups):
            others += 1
            alarms += bool(shown) and truth not in shown
    if not subjects or not others:
        lacking = "of what it knows" if not subjects else "of anything else"
        raise UserError(
            sentence(
                f"Judge {judge.name} was shown no picture {lacking}.",
                shown=", ".join(sorted(set(known.truth))),
                knows=", ".join(sorted(concepts)[:12]),
                do="Show it pictures of both kinds; what was never tried is not known.",
            )
        )
    return Calibration(recognised=recognised, subjects=subjects, false_alarms=alarms, others=others, judge=judge.digest)


def keep(judge: Judge, counts: Mapping[str, Calibration], *, canaries: KnownPictures) -> Path:
    """Write counts (by kind of picture) and canaries for this judge; where the counts lie."""
    if not counts:
        raise UserError(sentence(f"Judge {judge.name} was given no counts.", do="Make them with calibrate()."))
    for kind, one in counts.items():
        if one.judge and one.judge != judge.digest:
            raise UserError(
                sentence(
                    f"These counts are those of another judge than {judge.name}.",
                    kind=kind,
                    counted=one.judge,
                    this_judge=judge.digest,
                    do="Count this judge's own answers: calibrate(judge, known).",
                )
            )
    wrong = len(canaries) - _right(judge, canaries)
    if len(set(canaries.truth)) < 2 or wrong:
        raise UserError(
            sentence(
                f"These pictures are no canaries of judge {judge.name}.",
                answered_wrongly=f"{wrong} of {len(canaries)}",
                things_shown=len(set(canaries.truth)),
                do="Give pictures of at least two things that it answers correctly today, one of them a concept.",
            )
        )
    from safetensors.numpy import save_file

    counts_file, canaries_file = _files(judge)
    counts_file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"images": canaries.images}, canaries_file, metadata={"truth": json.dumps(canaries.truth)})
    told = {
        **_bound(judge),
        "counts": {kind: one.counts for kind, one in counts.items()},
        "canaries": hashlib.sha256(canaries_file.read_bytes()).hexdigest(),
    }
    counts_file.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return counts_file


def counts_of(judge: Judge) -> dict[str, Calibration]:
    """What was kept for this judge; empty where nothing was. UserError for counts of another judge."""
    told = _kept(judge)
    if told is None:
        return {}
    try:
        return {str(kind): Calibration(**one, judge=told["digest"]) for kind, one in told["counts"].items()}
    except (KeyError, TypeError, AttributeError, JudgeError) as problem:
        raise UserError(
            sentence(
                f"The counts in {_files(judge)[0]} cannot be used.",
                problem=str(problem).splitlines()[0],
                do="Make them again with calibrating.keep.",
            )
        ) from None


def canaries_of(judge: Judge) -> tuple[int, int]:
    """How many of its kept canaries the judge answers correctly, of how many; (0, 0) where there are none."""
    told, place = _kept(judge), _files(judge)[1]
    if told is None or not place.is_file():
        return 0, 0
    if hashlib.sha256(place.read_bytes()).hexdigest() != told.get("canaries"):
        raise UserError(
            sentence(f"The canaries in {place} are not the ones that were kept.", do="Keep them again; they changed.")
        )
    from safetensors import safe_open

    with safe_open(place, framework="np") as stored:
        canaries = KnownPictures(
            images=stored.get_tensor("images"), truth=tuple(json.loads(stored.metadata()["truth"]))
        )
    return _right(judge, canaries), len(canaries)


def _right(judge: Judge, known: KnownPictures) -> int:
    """How many are answered correctly: what is there is shown, and of anything else nothing is."""
    concepts = frozenset().union(*_groups(judge))
    answers, _ = ask(judge, known.images, "cpu")
    shown = [shown_by(judge, answer) for answer in answers]
    return sum(
        truth in seen or (truth not in concepts and not seen) for truth, seen in zip(known.truth, shown, strict=True)
    )


def _groups(judge: Judge) -> list[frozenset[str]]:
    """The concepts that each answer of the judge shows, answers that show none left out."""
    groups = [frozenset(shown_by(judge, label)) for label in labels_of(judge)]
    return [group for group in groups if group]


def _bound(judge: Judge) -> dict[str, Any]:
    return {"judge": judge.name, "version": judge.version, "digest": judge.digest}


def _files(judge: Judge) -> tuple[Path, Path]:
    stem = f"{judge.name}-{judge.digest[:16]}"
    return directory() / f"{stem}.calibration.json", directory() / f"{stem}.canaries.safetensors"


def _kept(judge: Judge) -> dict[str, Any] | None:
    """The file of counts, if there is one and it is this judge's."""
    place = _files(judge)[0]
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise UserError(
            sentence(f"The counts in {place} cannot be read.", problem=problem, do="Make them again with keep().")
        ) from None
    bound = _bound(judge)
    if not isinstance(told, dict) or any(told.get(name) != value for name, value in bound.items()):
        raise UserError(
            sentence(
                f"The counts in {place} are those of another judge.",
                wanted=bound,
                do="Calibrate this one: with other weights, labels or another version it errs differently.",
            )
        )
    return told
