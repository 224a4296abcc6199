"""Prepares files that a user has: bases and judges' weights, published pickles converted by the restricted loaders."""

from __future__ import annotations

from pathlib import Path

from resurgence_harness.diffusion import convert as models
from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.fetching.catalogue import Item
from resurgence_harness.fetching.hub_client import put
from resurgence_harness.judging import gcd_conversion, q16
from resurgence_harness.judging.weights import convert, digest_of, directory, is_pickle, read_tensors


def prepare(item: Item, source: Path) -> str:
    """Put an item that is on this machine where it is read; returns a sentence that describes the result.

    UserError for a missing or wrong file. No code in a pickle is run.
    """
    source = source.expanduser()
    if not source.exists():
        raise UserError(
            sentence(
                f"There is nothing at {source}, which was given for {shown(item.name)}.",
                **({"look_for": item.search} if item.search else {}),
                do="Give the path of the published file or folder.",
            )
        )
    if item.weights is None and item.place is None:
        return _base(item, source)
    target = item.target
    assert target is not None
    if item.weights is not None and item.weights.package:
        raise UserError(sentence(f"{item.name} is read in its package, so no file is prepared.", do=item.search))
    if item.name == "gcd" and source.is_dir():
        gcd_conversion.convert(source, target)
    elif item.name == "q16-prompts" and is_pickle(source):
        q16.convert_prompts(source, target)
    elif item.weights is not None and is_pickle(source):
        convert(source, target)
    else:
        put(source, target)
    if item.weights is not None:
        read_tensors(item.weights.verified())
    return f"Written: {target}, sha256 {digest_of(target)}."


def _base(item: Item, source: Path) -> str:
    """A base from a path: converted if it is pickled. It is used by its path from then on."""
    from resurgence_harness.diffusion.base_files import check_base
    from resurgence_harness.diffusion.tensor_files import PICKLES

    pickled = source.is_dir() and any(path.suffix in PICKLES for path in source.rglob("*"))
    if source.is_dir() and not pickled:
        check_base(source)
        return f"{source} is a complete base: use it with --base {source}."
    out = directory().parent / "bases" / item.name.replace("/", "--")
    out.parent.mkdir(parents=True, exist_ok=True)
    target = out if source.is_dir() else out.with_name(f"{out.name}.safetensors")
    return f"{models.convert(source, target)} Use it with --base {target}."
