"""Lists and downloads files of the hub with its own client: the only module that uses the network for models.

A download is kept beside its final place while it is incomplete, and continues there: within a run after a cut
connection (the client does that), and in a later run after a crash (done here, since the client's current releases
start a file again). A file gets its final name when its sha256, or git's sha1 for small files, is the one that the hub
states for the commit. The layout is that of the hub's cache, so `diffusion.hub.locate` and every other program find
the files. The token is the hub's own login; it is sent to the hub's host only, and appears in no message: nothing
that a server says is repeated in one, only its status.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from resurgence_harness.errors import UserError, sentence, shown

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk that takes no more bytes."""
SPARE = 200_000_000
"""Bytes that stay free on the disk."""


class Unavailable(Exception):
    """A mirror cannot be used; its text is the reason, as the end of a sentence."""

    def __init__(self, reason: str, *, login: bool = False, reached: bool = True) -> None:
        super().__init__(reason)
        self.login = login
        """Whether a login or an agreement on the hub's page would help."""
        self.reached = reached
        """Whether the hub answered at all."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a commit, as the hub states it."""

    name: str
    size: int
    sha256: str = ""
    """Empty for small files, which git keeps itself."""
    sha1: str = ""
    """Git's: sha1 of "blob <size>\\0" and the content."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a commit of a repository."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    licence: str = ""
    """The tag of its licence; empty if the repository states none."""
    kind: str = "model"


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A hub and the cache for its files; by default those that huggingface_hub is configured for."""

    endpoint: str = ""
    cache: Path = field(default_factory=lambda: _default_cache())

    @property
    def offline(self) -> bool:
        """Whether the hub's own offline mode is on."""
        from huggingface_hub import constants

        return bool(constants.is_offline_mode())

    @property
    def address(self) -> str:
        """Where the hub is."""
        from huggingface_hub import constants

        return (self.endpoint or constants.ENDPOINT).rstrip("/")

    def listing(self, repo: str, revision: str = "", *, kind: str = "model") -> Listing:
        """The files of a commit; of the main branch without one. Unavailable if the hub does not give them."""
        from huggingface_hub import HfApi

        try:
            info: Any = HfApi(endpoint=self.address).repo_info(
                repo, revision=revision or None, repo_type=kind, files_metadata=True, timeout=20
            )
        except Exception as error:
            raise _unavailable(error, revision) from None
        if not info.sha or (revision and info.sha != revision):
            raise Unavailable(f"answers with commit {shown(str(info.sha))[:12]}")
        files = tuple(
            RemoteFile(
                name=one.rfilename,
                size=int(one.size or 0),
                sha256=str(one.lfs.sha256) if one.lfs else "",
                sha1=str(one.blob_id or ""),
            )
            for one in info.siblings or ()
            if _plain(one.rfilename)
        )
        return Listing(repo=repo, commit=str(info.sha), files=files, licence=_licence(info), kind=kind)

    def snapshot(self, listing: Listing) -> Path:
        """The folder of the commit in the cache."""
        return self._folder(listing) / "snapshots" / listing.commit

    def path_of(self, listing: Listing, file: RemoteFile) -> Path:
        """Where the file is, or will be, in the cache."""
        return self.snapshot(listing) / file.name

    def has(self, listing: Listing, file: RemoteFile) -> bool:
        """Whether the whole file is in the cache; files get their names only when their content was checked."""
        path = self.path_of(listing, file)
        return path.is_file() and path.stat().st_size == file.size

    def missing(self, listing: Listing, file: RemoteFile) -> int:
        """Bytes still to be downloaded."""
        if self.has(listing, file):
            return 0
        part = self._part(listing, file)
        return file.size - (min(part.stat().st_size, file.size) if part.is_file() else 0)

    def download(self, listing: Listing, file: RemoteFile) -> Path:
        """The path of the file in the cache, downloaded if it is not there.

        UserError for a cut connection, a full disk, or content with another digest; what was downloaded is kept
        except in the last case.
        """
        from filelock import FileLock

        path, part = self.path_of(listing, file), self._part(listing, file)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{part}.lock"):
                if self.has(listing, file):
                    return path
                self._continue(listing, file, part)
                _check(listing, file, part)
                blob = part.with_name(_name(file))
                os.replace(part, blob)
                _link(blob, path)
            Path(f"{part}.lock").unlink(missing_ok=True)
        except OSError as problem:
            raise _stopped(listing, file, part, problem) from None
        return path

    def _continue(self, listing: Listing, file: RemoteFile, part: Path) -> None:
        """Download what `part` lacks."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        have = part.stat().st_size if part.is_file() else 0
        if have > file.size:
            part.unlink()
            have = 0
        if have == file.size and part.is_file():
            return
        url = hf_hub_url(
            listing.repo, file.name, repo_type=listing.kind, revision=listing.commit, endpoint=self.address
        )
        try:
            place = get_hf_file_metadata(url, endpoint=self.address, timeout=20).location
            headers = build_hf_headers()
            if urlsplit(place).netloc != urlsplit(self.address).netloc:
                headers.pop("authorization", None)
            with part.open("r+b" if have else "wb") as stream:
                stream.seek(have)
                http_get(
                    place,
                    stream,
                    resume_size=have,
                    headers=headers,
                    expected_size=file.size,
                    displayed_filename=file.name,
                )
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            found = _unavailable(error, listing.commit)
            raise UserError(
                sentence(
                    f"The download of {shown(file.name)} stopped.",
                    repository=f"{listing.repo}@{listing.commit[:8]}",
                    problem=f"the hub {found}",
                    downloaded=f"{part.stat().st_size if part.is_file() else 0:,} of {file.size:,} bytes",
                    do="Run the command again: it continues where it stopped.",
                )
            ) from None

    def _folder(self, listing: Listing) -> Path:
        return self.cache / f"{listing.kind}s--{listing.repo.replace('/', '--')}"

    def _part(self, listing: Listing, file: RemoteFile) -> Path:
        return self._folder(listing) / "blobs" / f"{_name(file)}.part"


def check_space(folder: Path, needed: int) -> None:
    """UserError unless the disk of `folder`, which may not exist yet, has room for this many bytes and `SPARE`."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed and needed + SPARE > free:
        raise UserError(
            sentence(
                "There is not enough space on the disk.",
                needed=f"{needed:,} bytes, and {SPARE:,} to spare",
                free=f"{free:,} bytes at {there}",
                do="Make room, or choose another disk: HF_HOME for bases, RESURGENCE_WEIGHTS for weights.",
            )
        )


def put(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link where that is possible, else a copy. Atomic."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        try:
            os.link(source.resolve(), draft)
        except OSError:
            shutil.copyfile(source, draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def put_folder(sources: Mapping[str, Path], target: Path) -> None:
    """Make `target` a folder with these files, by name; it gets its name when it is complete."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for name, source in sources.items():
            put(source, draft / name)
        os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _default_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _name(file: RemoteFile) -> str:
    return file.sha256 or file.sha1 or hashlib.sha256(file.name.encode()).hexdigest()


def _plain(name: str) -> bool:
    """Whether a name leads to a place inside the snapshot."""
    path = Path(name)
    return bool(name) and name.isprintable() and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _link(blob: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:  # a disk, or a system, without links
        shutil.copyfile(blob, path)


def _check(listing: Listing, file: RemoteFile, part: Path) -> None:
    """UserError, and the file removed, unless its digest is the one that the hub states for the commit."""
    wanted = file.sha256 or file.sha1
    with part.open("rb") as stream:
        if file.sha256:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        else:
            total = hashlib.sha1(f"blob {part.stat().st_size}\0".encode(), usedforsecurity=False)
            total.update(stream.read())
            found = total.hexdigest()
    if found != wanted:
        part.unlink()
        raise UserError(
            sentence(
                f"{shown(file.name)} is not the file that the hub lists for this commit, so it was removed.",
                repository=f"{listing.repo}@{listing.commit[:8]}",
                found=found,
                listed=wanted or "no digest",
                do="Run the command again; if it differs again, do not use this mirror.",
            )
        )


def _stopped(listing: Listing, file: RemoteFile, part: Path, problem: OSError) -> UserError:
    full = problem.errno in FULL
    return UserError(
        sentence(
            f"The disk took no more bytes of {shown(file.name)}."
            if full
            else f"{shown(file.name)} cannot be written into the cache.",
            repository=f"{listing.repo}@{listing.commit[:8]}",
            problem=problem.strerror or type(problem).__name__,
            downloaded=f"{part.stat().st_size if part.is_file() else 0:,} of {file.size:,} bytes",
            do="Make room and run the command again: it continues where it stopped."
            if full
            else "Check the cache's folder, or set HF_HOME to another one.",
        )
    )


def _unavailable(error: Exception, revision: str) -> Unavailable:
    """Why the hub does not give what was wanted; no text of a server, which could repeat what was sent to it."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return Unavailable("is not used, since its offline mode is on", reached=False)
    if isinstance(error, errors.GatedRepoError):
        return Unavailable(f"answers {status}: its page wants an agreement and a login first", login=True)
    if isinstance(error, errors.RevisionNotFoundError):
        return Unavailable(f"answers {status}: it has no commit {revision[:8]}")
    if isinstance(error, errors.RepositoryNotFoundError | errors.DisabledRepoError):
        return Unavailable(f"answers {status}: there is no such repository, or it wants a login", login=status == 401)
    if status is not None:
        return Unavailable(f"answers {status}", login=status in (401, 403))
    if isinstance(error, ValueError | TypeError):
        return Unavailable(f"gives an answer that cannot be read ({type(error).__name__})")
    return Unavailable(f"does not answer ({type(error).__name__})", reached=False)


def _licence(info: Any) -> str:
    """The licence that a repository states: in its card, else among its tags."""
    card = getattr(info, "card_data", None)
    stated = card.get("license") if card is not None else None
    if isinstance(stated, str) and stated and stated != "other":
        return shown(stated)
    tagged = [tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")]
    return shown(tagged[0]) if tagged else ""
