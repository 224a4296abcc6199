"""Plans and carries out a fetch: mirror, licence, space, files, hashes, the judge's place; resumable at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from resurgence_harness.diffusion.hub import locate
from resurgence_harness.diffusion.tensor_files import sha256_of
from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.fetching.agreements import UNSTATED, Agreements, unmet
from resurgence_harness.fetching.catalogue import Item
from resurgence_harness.fetching.hub_client import Hub, Listing, RemoteFile, Unavailable, check_space, put, put_folder
from resurgence_harness.judging.weights import digest_of

LOGIN = "`hf auth login`, or HF_TOKEN"


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is to be done for one item."""

    item: Item
    listing: Listing | None = None
    """The commit that is used; None if only a path can be given, or nothing is to be done."""
    files: tuple[RemoteFile, ...] = ()
    missing: int = 0
    """Bytes to download."""
    obstacle: str = ""
    """What the user must do first; empty if it can be fetched."""
    ready: Path | None = None
    """Where it is, if it is here already."""

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def source(self) -> str:
        """Where it comes from."""
        if self.listing is not None:
            return f"{self.listing.repo}@{self.listing.commit[:12]}"
        return self.item.mirrors[0].repo if self.item.mirrors else self.item.search

    @property
    def tag(self) -> str:
        """The licence that must be agreed to: the one that the repository states, else the known one."""
        stated = self.listing.licence if self.listing is not None else ""
        return stated or self.item.licence.tag or UNSTATED


def plan(items: Sequence[Item], hub: Hub) -> tuple[Step, ...]:
    """What has to be done for each item. Asks the hub for the lists of files, unless everything is here."""
    return tuple(_planned(item, hub) for item in items)


def fetch(
    steps: Sequence[Step],
    hub: Hub,
    *,
    agreements: Agreements,
    agreed: Sequence[str] = (),
    ask: Callable[[Step], bool] | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Download what is missing, check it, and put judges' weights where they are read.

    `agreed`: tags of licences that the user agrees to now; `ask(step)` asks for any other. UserError for the first
    item that cannot be fetched; what is complete stays.
    """
    for step in steps:
        if step.ready is None and step.obstacle:
            raise UserError(step.obstacle)
    _agree([step for step in steps if step.ready is None], agreements, agreed, ask)
    check_space(hub.cache, sum(step.missing for step in steps if step.ready is None))
    for step in steps:
        if step.ready is not None:
            tell(f"{shown(step.item.name)}: here already, {step.ready}")
            continue
        assert step.listing is not None
        paths = {file.name: hub.download(step.listing, file) for file in step.files}
        _check_pins(step, paths)
        tell(f"{shown(step.item.name)}: {_placed(step, paths, hub)}")


def _planned(item: Item, hub: Hub) -> Step:
    target = item.target
    if target is not None and target.exists():
        if item.weights is not None:
            item.weights.verified()
        return Step(item=item, ready=target)
    if target is None:
        try:
            return Step(item=item, ready=locate(item.name, cache=hub.cache).directory)
        except UserError:  # not on this machine, or incomplete
            pass
    if not item.mirrors:
        return Step(item=item, obstacle=_only_by_path(item))
    if hub.offline:
        return Step(item=item, obstacle=_offline(item))
    refused: dict[str, Unavailable] = {}
    for mirror in item.mirrors:
        try:
            listing = hub.listing(mirror.repo, mirror.revision, kind=item.kind)
        except Unavailable as reason:
            refused[f"{mirror.repo}{f'@{mirror.revision[:8]}' if mirror.revision else ''}"] = reason
            continue
        # The largest last: a base whose weights are complete is then complete.
        files = tuple(sorted((file for file in listing.files if item.wants(file.name)), key=lambda file: file.size))
        if wrong := _differing(item, files):
            refused[f"{mirror.repo}@{listing.commit[:8]}"] = Unavailable(wrong)
            continue
        missing = sum(hub.missing(listing, file) for file in files)
        step = Step(item=item, listing=listing, files=files, missing=missing)
        if not mirror.revision and not item.pins:
            return Step(item=item, listing=listing, files=files, missing=missing, obstacle=_unpinned(step))
        if not missing and target is None:
            return Step(item=item, listing=listing, files=files, ready=hub.snapshot(listing))
        return step
    return Step(item=item, obstacle=_nowhere(item, refused, hub))


def _differing(item: Item, files: Sequence[RemoteFile]) -> str:
    """Why the hub's list cannot be the pinned item; empty if it can."""
    by_name = {file.name: file for file in files}
    if not any(name.endswith((".safetensors", item.file or ".safetensors")) for name in by_name):
        return "lists no safetensors" if not item.file else f"lists no file {item.file}"
    for name, pin in item.pins.items():
        if name not in by_name:
            return f"lists no file {name}"
        if by_name[name].sha256 and by_name[name].sha256 != pin:
            return f"lists another {name}: {by_name[name].sha256[:16]}…, published {pin[:16]}…"
    return ""


def _agree(
    steps: Sequence[Step], agreements: Agreements, agreed: Sequence[str], ask: Callable[[Step], bool] | None
) -> None:
    """Record new agreements; UserError for the first licence that is not agreed to."""
    for step in steps:
        item, licence = step.item, step.item.licence
        if agreements.has(item.name, step.tag):
            continue
        if step.tag not in agreed and not (ask is not None and ask(step)):
            name = licence.name if step.tag == licence.tag else step.tag
            raise unmet(item.name, step.tag, name=name, text=licence.text, limits=licence.limits)
        agreements.add(item.name, step.tag, source=step.source)


def _check_pins(step: Step, paths: dict[str, Path]) -> None:
    for name, pin in step.item.pins.items():
        if (found := sha256_of(paths[name])) != pin:
            blob = paths[name].resolve()
            paths[name].unlink()
            blob.unlink(missing_ok=True)
            raise UserError(
                sentence(
                    f"{shown(name)} of {shown(step.item.name)} is not the published file, so it was removed.",
                    mirror=step.source,
                    found=found,
                    published=pin,
                    do="Run the command again; if it differs again, do not use this mirror.",
                )
            )


def _placed(step: Step, paths: dict[str, Path], hub: Hub) -> str:
    """Put the files where this package reads them; returns a description of the result."""
    item, target, listing = step.item, step.item.target, step.listing
    assert listing is not None
    pinned = "sha256 as published" if item.pins else "sha256 as the hub lists for this commit"
    if target is None:
        return f"{hub.snapshot(listing)}, {len(paths)} files, {pinned}"
    try:
        if item.folder:
            put_folder(paths, target)
        else:
            put(paths[item.file], target)
    except OSError as problem:
        raise UserError(
            sentence(f"{target} cannot be written.", problem=problem, do="Make room, or set RESURGENCE_WEIGHTS.")
        ) from None
    if item.weights is not None:
        item.weights.verified()
    return f"{target}, sha256 {digest_of(target)}, of {step.source}"


def _only_by_path(item: Item) -> str:
    if item.weights is not None and item.weights.package:
        return sentence(
            f"{item.name} is part of a package, which pip installs and this command does not.",
            sha256=item.weights.sha256,
            licence=item.licence.name,
            do=item.search,
        )
    return sentence(
        f"There is no mirror known for {item.name}, so it is prepared from files of yours.",
        look_for=item.search,
        sha256=_pin(item),
        licence=item.licence.name,
        do=f"resurgence fetch {item.name} --from {item.name}=PATH",
    )


def _pin(item: Item) -> str:
    pin = item.weights.sha256 if item.weights is not None else ""
    return f"{pin}, when converted" if pin else "none is published: the one found is recorded"


def _offline(item: Item) -> str:
    return sentence(
        f"{shown(item.name)} cannot be fetched, since the hub's offline mode is on.",
        do=f"HF_HUB_OFFLINE=0 resurgence fetch {quote(item.name)}",
    )


def _unpinned(step: Step) -> str:
    assert step.listing is not None
    file = step.files[-1]
    return sentence(
        f"No commit of {step.listing.repo} is pinned, so what the hub has today is not taken unseen.",
        commit=f"{step.listing.commit} today",
        files=f"{file.name}{' and others' if len(step.files) > 1 else ''}, {step.size:,} bytes",
        sha256=file.sha256 or "the hub lists none",
        do=f"Check it, then: resurgence fetch {step.item.name}@{step.listing.commit}",
    )


def _nowhere(item: Item, refused: dict[str, Unavailable], hub: Hub) -> str:
    facts = {mirror: str(reason) for mirror, reason in refused.items()}
    if not any(reason.reached for reason in refused.values()):
        return sentence(
            f"{shown(item.name)} cannot be fetched, since the hub cannot be reached.",
            hub=hub.address,
            **facts,
            do="Check the network and the proxy, or copy the files from another machine: --from NAME=PATH.",
        )
    login = any(reason.login for reason in refused.values())
    return sentence(
        f"No mirror has {shown(item.name)} as it was published.",
        **facts,
        do=f"Log in to the hub ({LOGIN}) and accept the licence on the repository's page, then run this again."
        if login
        else "If you have the files: --from NAME=PATH; a mirror of your own: owner/name@<commit>.",
    )
