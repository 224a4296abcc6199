"""Convert GCD's published files to the one safetensors file that the judge reads.

    python -m resurgence_harness.judging gcd resources gcd.safetensors

`resources` is Giphy's unpacked archive, or any directory with the same files:

    face_recognition/best_model_states.pkl   a torch pickle: {"model_state": …, "optimizer_state": …, "epoch", "loss"}
    face_recognition/labels.csv              2306 labels such as First_Last_[m.xxxx], sorted: the row is the class
    face_detection/det1.npy det2.npy det3.npy

No pickle is executed: the recogniser's is read by torch's loader for tensors, the detector's three (pickled by numpy)
by an unpickler that admits only numpy arrays, and only if their sha256 is the one below. The optimiser's tensors are
left out.

*Names* (from the public code):

    model.stem.0 · 1 · 4 … 7 · model.fc1 · model.fc2 · center_loss_criterion.centers
    → conv1 · bn1 · layer1 … layer4 · embed · classify · centres         (within a stage: torchvision's names)

*Sources*: Giphy's own address has returned 403 since March 2024. MACE's metrics/README.md and HUB's README name
mirrors. The detector's files are in davidsandberg/facenet, src/align (MIT), where their sha256 were taken.
*Not verified*: the recogniser's real weights were not available, so their tensor names and sha256 (none is published)
were not compared with a file. The conversion refuses unknown names and prints the sha256 it found. That the detector
files in Giphy's archive are identical to davidsandberg/facenet's is likewise inferred from the code.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import ResurgenceError, UserError, sentence
from resurgence_harness.judging.weights import convert as converted_pickle
from resurgence_harness.judging.weights import digest_of, read_tensors

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

RECOGNISER = "face_recognition/best_model_states.pkl"
LABELS = "face_recognition/labels.csv"
DETECTOR = {
    "face_detection/det1.npy": "3285cf7a3de2651c5784cb9e32013f5919aae95fd1ed1bc371dd9691affb39af",
    "face_detection/det2.npy": "716b8b83e42476791c9096f14dbb09fefc88bf5c7ec876b1683f9acd52b3f39c",
    "face_detection/det3.npy": "396ead803d85d3443307ff8f45fb6aed2536579b415a4f4d4cb8f93ea6b1476a",
}
"""The detector's three files and their sha256."""
_NETWORKS = dict(zip(DETECTOR, ("pnet", "rnet", "onet"), strict=True))
_STEM = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_HEADS = {"model.fc1.": "embed.", "model.fc2.": "classify.", "center_loss_criterion.centers": "centres"}
USAGE = "usage: python -m resurgence_harness.judging gcd RESOURCES TARGET.safetensors [SHA256 OF THE PICKLE]"


def convert(
    resources: str | Path, target: str | Path, *, sha256: str = "", detector: Mapping[str, str] = DETECTOR
) -> dict[str, str]:
    """Write the judge's file; returns the sha256 of every source. `sha256`: required of the recogniser's pickle.

    UserError for a missing or wrong file, or labels that do not match the weights.
    """
    from safetensors.torch import save_file

    resources, target = Path(resources), Path(target)
    sources = {file: _source(resources, file, detector.get(file, "")) for file in detector}
    sources |= {RECOGNISER: _source(resources, RECOGNISER, sha256), LABELS: _source(resources, LABELS, "")}
    labels = read_labels(resources / LABELS)
    with tempfile.TemporaryDirectory() as folder:
        flat = Path(folder) / "flat.safetensors"
        converted_pickle(resources / RECOGNISER, flat)
        published = read_tensors(flat)
    recogniser = recogniser_tensors(published)
    if (rows := len(recogniser["classify.weight"])) != len(labels):
        raise UserError(
            sentence(
                "The numbers of GCD's labels and of its weights' classes differ.",
                labels=f"{len(labels)} in {resources / LABELS}",
                weights=f"{rows} classes in {RECOGNISER}",
                do="Give both files from the same release.",
            )
        )
    tensors = {f"recogniser.{name}": value for name, value in recogniser.items()}
    for file, network in _NETWORKS.items():
        tensors |= {f"{network}.{name}": value for name, value in detector_tensors(resources / file).items()}
    fitted(tensors)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A single entry: safetensors writes several in varying order, and the file's sha256 is the judge's digest.
    save_file(tensors, target, metadata={"gcd": json.dumps({"labels": labels, "sources": sources}, sort_keys=True)})
    return sources


def recogniser_tensors(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The recogniser's tensors under this package's names, float32; UserError for unknown or missing names."""
    found: dict[str, Tensor] = {}
    for name, value in published.items():
        inner = name.removeprefix("model_state.")
        if inner == name or inner.endswith("num_batches_tracked"):
            continue
        stem = re.match(r"model\.stem\.(\d)\.", inner)
        place = _STEM.get(stem[1]) if stem else None
        head = next((old for old in _HEADS if inner.startswith(old)), None)
        if stem and place:
            found[f"{place}.{inner[stem.end() :]}"] = value.float()
        elif head:
            found[_HEADS[head] + inner.removeprefix(head)] = value.float()
        else:
            raise UserError(
                sentence(
                    "The pickle is not GCD's recogniser.",
                    unknown=inner,
                    expected="model.stem.*, model.fc1.*, model.fc2.*, center_loss_criterion.centers",
                    do="Give best_model_states.pkl as Giphy published it.",
                )
            )
    missing = [name for name in ("conv1.weight", "embed.weight", "classify.weight", "centres") if name not in found]
    if missing:
        raise UserError(
            sentence(
                "The pickle is not GCD's recogniser.",
                missing=", ".join(missing),
                expected="a table model_state with model.stem.0.weight and so on",
                do="Give best_model_states.pkl as Giphy published it.",
            )
        )
    return found


def detector_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of one detector network: kernels [x, y, in, out] → [out, in, y, x], matrices [in, out] → [out, in]."""
    import torch

    found = {}
    for layer, values in _numpy_table(path).items():
        if layer == "conv6-3":  # the landmarks, which GCD does not use
            continue
        for kind, value in values.items():
            dense = layer.startswith("conv") and values["weights"].ndim == 2
            name = layer.lower().replace("-", "_").replace("conv", "dense" if dense else "conv")
            array = value.transpose(3, 2, 1, 0) if value.ndim == 4 else value.T
            found[f"{name}.{'bias' if kind == 'biases' else 'weight'}"] = torch.tensor(array.copy()).float()
    return found


def fitted(tensors: Mapping[str, Tensor]) -> tuple[Any, Any]:
    """(detector, recogniser) with these weights loaded; UserError if a tensor is missing or left over."""
    from resurgence_harness.judging.gcd_networks import Recogniser
    from resurgence_harness.judging.mtcnn import FaceDetector

    parts = {name: value for name, value in tensors.items() if name.startswith("recogniser.")}
    inner = {name.removeprefix("recogniser."): value for name, value in parts.items()}
    try:
        recogniser, detector = Recogniser.shaped_as(inner), FaceDetector()
        # BatchNorm's batch counters are not in the file; all other tensors must match exactly.
        for network, given in ((recogniser, inner), (detector, {k: v for k, v in tensors.items() if k not in parts})):
            missing, unexpected = network.load_state_dict(given, strict=False)
            missing = [name for name in missing if not name.endswith("num_batches_tracked")]
            if missing or unexpected:
                raise RuntimeError(f"missing {missing[:3]}, unexpected {unexpected[:3]}")
    except (RuntimeError, KeyError, ValueError) as problem:
        raise UserError(
            sentence(
                "The weights do not fit GCD's networks.",
                problem=str(problem).strip().splitlines()[-1].strip(),
                do="Convert the published files again: python -m resurgence_harness.judging gcd RESOURCES TARGET.",
            )
        ) from None
    return detector.eval(), recogniser.eval()


def read_labels(path: Path) -> list[str]:
    """The names in the order of the classes: rows sorted by label, "First_Last_[m.xxxx]" becomes "First Last".

    UserError for a file that is not GCD's list of labels.
    """
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))[1:]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise UserError(sentence(f"GCD's labels {path} cannot be read.", problem=problem)) from None
    wrong = next((row for row in rows if len(row) != 2 or "_[" not in row[0] or not row[1].isdigit()), None)
    if wrong is not None or not rows:
        raise UserError(
            sentence(
                f"{path} is not GCD's list of labels.",
                row=",".join(wrong or ["none"]),
                expected="Label,Index with labels such as First_Last_[m.xxxx]",
                do="Give face_recognition/labels.csv as Giphy published it.",
            )
        )
    rows.sort(key=lambda row: row[0])
    if [int(index) for _, index in rows] != list(range(len(rows))):
        raise UserError(
            sentence(
                f"The labels in {path} are not numbered in their order.",
                do="Give face_recognition/labels.csv as Giphy published it; a line is missing or was added.",
            )
        )
    return [label[: label.rindex("_[")].replace("_", " ") for label, _ in rows]


def _source(resources: Path, file: str, pin: str) -> str:
    """The sha256 of a published file; UserError if it is missing or differs from `pin`."""
    path = resources / file
    if not path.is_file():
        raise UserError(
            sentence(
                f"GCD's file {file} is missing.",
                expected_at=path,
                sha256=pin or "none is published; the one found is printed",
                source="Giphy's resources.tar.gz or a mirror of it" if "recog" in file else "davidsandberg/facenet",
                do="Put the file there; nothing is downloaded.",
            )
        )
    if pin and (found := digest_of(path)) != pin:
        raise UserError(
            sentence(f"GCD's file {path} is not the pinned one.", found=found, pinned=pin, do="Get the file again.")
        )
    return digest_of(path)


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of numpy arrays; any other name in it is refused before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy

        known = {
            "_reconstruct": numpy._core.multiarray._reconstruct,  # type: ignore[attr-defined]
            "ndarray": numpy.ndarray,
            "dtype": numpy.dtype,
        }
        if module.split(".")[0] != "numpy" or name not in known:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return known[name]


def _numpy_table(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """{layer: {"weights" | "biases" | "alpha": array}} of a .npy file that holds one pickled table."""
    import numpy

    try:
        with path.open("rb") as stream:
            version = numpy.lib.format.read_magic(stream)
            if version != (1, 0):
                raise ValueError(f"its format version is {version}")
            numpy.lib.format.read_array_header_1_0(stream)
            table = _ArraysOnly(stream, encoding="latin1").load()
        table = table.item() if isinstance(table, numpy.ndarray) else table
        for array in (array for row in table.values() for array in row.values()):
            if not isinstance(array, numpy.ndarray) or array.dtype.kind != "f" or not numpy.isfinite(array).all():
                raise ValueError("it holds something other than finite numbers")
    except (OSError, ValueError, AttributeError, EOFError, IndexError, TypeError, pickle.UnpicklingError) as problem:
        raise UserError(
            sentence(
                f"The detector's file {path} is not a table of arrays, so it was not used.",
                problem=problem,
                do="Get det1.npy, det2.npy and det3.npy of davidsandberg/facenet, src/align.",
            )
        ) from None
    return dict(table)


def main(arguments: list[str]) -> int:
    """Convert; returns 0 on success, else 4 with one sentence on stderr."""
    if len(arguments) not in (2, 3) or not arguments[1].endswith(".safetensors"):
        print(USAGE, file=sys.stderr)
        return 4
    try:
        sources = convert(arguments[0], arguments[1], sha256=(*arguments[2:], "")[0])
    except ResurgenceError as problem:
        print(problem, file=sys.stderr)
        return 4
    for file, digest in sources.items():
        print(f"{file}  sha256 {digest}")
    print(f"{arguments[1]}  sha256 {digest_of(arguments[1])}")
    return 0


if __name__ == "__main__":
    from resurgence_harness.process import ExitCode, guarded

    guarded(lambda: ExitCode(main(sys.argv[1:])))
