"""Calibration of a judge on pictures whose content is known, and its canaries: pictures it must always get right.

For judges whose weights do not ship with the package, neither do these counts: they depend on the base's pictures.
Users make them once, from a folder with a subfolder for each thing shown:

    known = KnownPictures.from_folder("pictures")              # pictures/ship/*.png, pictures/deer/*.png, …
    counts = {"drawn by the base": calibrate(judge, known, device="cuda")}
    keep(judge, counts, canaries=known.first(2))

`keep` writes two files into the directory of weights, named after the judge and its digest. They are bound to the
digest and the version: a judge with other weights or labels is a different judge without calibration, and gives no
verdict. Without canaries that control is missing and every cell is undecided.

*The pictures must resemble those under test* and be independent of each other: ideally drawn by the base, checked by a
person, with seeds and prompts that no suite uses. Counts from photographs overestimate the judge's accuracy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import JudgeError, ResurgenceError, UserError, sentence, visible
from resurgence_harness.judging.contract import Calibration, Judge, ask, check_images, shown_by
from resurgence_harness.judging.declaring import labels_of
from resurgence_harness.judging.weights import directory

if TYPE_CHECKING:
    import numpy as np

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownPictures:
    """Pictures with known content. UserError unless there is one name per picture."""

    images: np.ndarray
    """uint8 [n, h, w, 3]."""
    truth: tuple[str, ...]
    """What each shows: a concept's name, or any other label for anything else."""

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
        """Every picture of every subfolder, labelled with the subfolder's name.

        UserError for an empty folder or subfolder, an unreadable file, or pictures of different sizes.
        """
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
                    do="Give them the size at which models are sampled; a judge's error rates depend on the size.",
                )
            )
        return cls(images=numpy.stack([picture for _, picture in found]), truth=tuple(name for name, _ in found))

    def of(self, rows: Sequence[int]) -> KnownPictures:
        """The pictures at these rows."""
        return KnownPictures(images=self.images[list(rows)], truth=tuple(self.truth[row] for row in rows))

    def first(self, count: int) -> KnownPictures:
        """The first `count` pictures of each label."""
        seen: dict[str, int] = {}
        rows = []
        for row, name in enumerate(self.truth):
            seen[name] = seen.get(name, 0) + 1
            if seen[name] <= count:
                rows.append(row)
        return self.of(rows)


def read_picture(path: Path) -> np.ndarray:
    """A picture file as uint8 [h, w, 3]; UserError if it cannot be read."""
    import numpy
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return numpy.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as problem:  # Pillow raises SyntaxError for a broken PNG
        raise UserError(
            sentence(f"The picture {path} cannot be read.", problem=problem, do="Save it again, or remove it.")
        ) from None


def calibrate(judge: Judge, known: KnownPictures, *, device: str = "cpu") -> Calibration:
    """Count the judge's answers on known pictures.

    *Recognised:* the answer stands for what the picture shows. *False alarm:* it stands for a concept that is not
    there. A picture of one concept is "anything else" for the other concepts, so it also counts among `others`, unless
    the judge has one answer for all its concepts (as Q16). The rate of *any* wrong name is an upper bound on the rate
    of one wrong name.

    UserError unless there are pictures of the judge's concepts and of anything else.
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
        missing = "of its concepts" if not subjects else "of anything else"
        raise UserError(
            sentence(
                f"The calibration of judge {judge.name} has no picture {missing}.",
                shown=", ".join(sorted(set(known.truth))),
                concepts=", ".join(sorted(concepts)[:12]),
                do="Give pictures of both kinds; otherwise one of the two error rates is unknown.",
            )
        )
    return Calibration(recognised=recognised, subjects=subjects, false_alarms=alarms, others=others, judge=judge.digest)


def keep(
    judge: Judge,
    counts: Mapping[str, Calibration],
    *,
    canaries: KnownPictures,
    made: Mapping[str, Any] | None = None,
) -> Path:
    """Write counts (by kind of picture) and canaries for this judge; returns the path of the counts.

    `made`: by whom (roles), when and on which pictures, as `resurgence calibration count` records it.

    UserError for no counts, counts of another judge, or canaries that the judge does not all answer correctly.
    """
    if not counts:
        raise UserError(sentence(f"No counts were given for judge {judge.name}.", do="Make them with calibrate()."))
    for kind, one in counts.items():
        if one.judge and one.judge != judge.digest:
            raise UserError(
                sentence(
                    f"These counts belong to another judge than {judge.name}.",
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
                f"These pictures cannot be canaries of judge {judge.name}.",
                answered_wrongly=f"{wrong} of {len(canaries)}",
                things_shown=len(set(canaries.truth)),
                do="Give pictures of at least two things that it answers correctly now, one of them a concept.",
            )
        )
    from safetensors.numpy import save_file

    counts_file, canaries_file = _files(judge)
    counts_file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"images": canaries.images}, canaries_file, metadata={"truth": json.dumps(canaries.truth)})
    content = {
        **_bound(judge),
        "counts": {kind: one.counts for kind, one in counts.items()},
        "canaries": hashlib.sha256(canaries_file.read_bytes()).hexdigest(),
        **({"made": made} if made else {}),
    }
    counts_file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return counts_file


def counts_of(judge: Judge) -> dict[str, Calibration]:
    """The stored counts of this judge; empty if there are none. UserError for counts of another judge."""
    content = _kept(judge)
    if content is None:
        return {}
    try:
        return {str(kind): Calibration(**one, judge=content["digest"]) for kind, one in content["counts"].items()}
    except (KeyError, TypeError, AttributeError, JudgeError) as problem:
        raise UserError(
            sentence(
                f"The counts in {_files(judge)[0]} cannot be used.",
                problem=str(problem).splitlines()[0],
                do="Make them again with calibrating.keep.",
            )
        ) from None


def parts_of(judge: Judge) -> tuple[Judge, ...]:
    """The judges whose counts decide: those that a judge combines, else itself."""
    return tuple(part for one in getattr(judge, "parts", ()) for part in parts_of(one)) or (judge,)


def origin_of(judge: Judge) -> str:
    """By whom and when the stored counts of this judge were made, for reports.

    Empty if that is not recorded, or if the judge decides by other counts, as those that ship with this package do.
    """
    try:
        made = (_kept(judge) or {}).get("made")
        if not isinstance(made, dict) or judge.calibration() != counts_of(judge):
            return ""
    except (ResurgenceError, AttributeError):  # reported where the judge is used
        return ""
    try:
        kappa = f", Cohen's kappa {made['kappa']:.2f}" if made.get("kappa") is not None else ""
        return visible(
            f"{len(made['pictures'])} pictures of {len(made['concepts'])} concepts, labelled by"
            f" {' and '.join(made['by'])} on {made['when']}{kappa}"
        )
    except (KeyError, TypeError, ValueError):
        return "by somebody who is not recorded"


def origins_of(judges: Sequence[Judge]) -> list[tuple[str, str]]:
    """Name and recorded origin of every calibration that decides by these judges, each once."""
    parts = dict.fromkeys((part.name, origin_of(part)) for judge in judges for part in parts_of(judge))
    return [(name, made) for name, made in parts if made]


def origin_notes(judges: Sequence[Judge]) -> list[str]:
    """A sentence on each of these, for a run's notes."""
    return [f"Judge {name} was calibrated on {made}." for name, made in origins_of(judges)]


def calibration_files(judge: Judge) -> tuple[Path, Path]:
    """Where counts and canaries of this judge are stored."""
    return _files(judge)


def canaries_of(judge: Judge) -> tuple[int, int]:
    """(answered correctly, total) of the judge's stored canaries; (0, 0) if there are none.

    UserError if the file has changed since it was written.
    """
    content, path = _kept(judge), _files(judge)[1]
    if content is None or not path.is_file():
        return 0, 0
    if hashlib.sha256(path.read_bytes()).hexdigest() != content.get("canaries"):
        raise UserError(
            sentence(
                f"The canaries in {path} have changed since they were written.", do="Write them again with keep()."
            )
        )
    from safetensors import safe_open

    with safe_open(path, framework="np") as stored:
        canaries = KnownPictures(
            images=stored.get_tensor("images"), truth=tuple(json.loads(stored.metadata()["truth"]))
        )
    return _right(judge, canaries), len(canaries)


def _right(judge: Judge, known: KnownPictures) -> int:
    """Number of correct answers: the concept shown is recognised, or nothing is recognised in anything else."""
    concepts = frozenset().union(*_groups(judge))
    answers, _ = ask(judge, known.images, "cpu")
    shown = [shown_by(judge, answer) for answer in answers]
    return sum(
        truth in seen or (truth not in concepts and not seen) for truth, seen in zip(known.truth, shown, strict=True)
    )


def _groups(judge: Judge) -> list[frozenset[str]]:
    """The concepts that each answer of the judge stands for, without answers that stand for none."""
    groups = [frozenset(shown_by(judge, label)) for label in labels_of(judge)]
    return [group for group in groups if group]


def _bound(judge: Judge) -> dict[str, Any]:
    return {"judge": judge.name, "version": judge.version, "digest": judge.digest}


def _files(judge: Judge) -> tuple[Path, Path]:
    stem = f"{judge.name}-{judge.digest[:16]}"
    return directory() / f"{stem}.calibration.json", directory() / f"{stem}.canaries.safetensors"


def _kept(judge: Judge) -> dict[str, Any] | None:
    """The content of the file of counts; None if there is none, UserError if it belongs to another judge."""
    path = _files(judge)[0]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise UserError(
            sentence(f"The counts in {path} cannot be read.", problem=problem, do="Make them again with keep().")
        ) from None
    bound = _bound(judge)
    if not isinstance(content, dict) or any(content.get(name) != value for name, value in bound.items()):
        raise UserError(
            sentence(
                f"The counts in {path} belong to another judge.",
                expected=bound,
                do="Calibrate this one: error rates change with weights, labels and version.",
            )
        )
    return content
