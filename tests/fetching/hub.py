"""A hub on this machine that speaks what huggingface_hub's client needs for listing and downloading, and can fail."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """A repository with one commit."""

    files: dict[str, bytes]
    commit: str = COMMIT
    licence: str = "creativeml-openrail-m"
    status: int = 0
    """The status with which it refuses everything; 0: it answers."""
    error: str = ""
    """The hub's X-Error-Code for it."""


@dataclass
class LocalHub:
    """Repositories by name, and what was asked."""

    repositories: dict[str, Repository]
    moved: dict[str, str] = field(default_factory=dict)
    """Old name → new name."""
    cuts: list[int] = field(default_factory=list)
    """After how many bytes the next downloads end; once used they are gone."""
    held: threading.Event | None = None
    """If given: a download is kept waiting in place of being cut, and this is set."""
    then: int = 0
    """The status of downloads after the last cut; 0: they go on."""
    sent: dict[str, bytes] = field(default_factory=dict)
    """File → other bytes than the listed ones."""
    unlisted: bool = False
    """Whether large files are listed without their sha256."""
    claimed: dict[str, int] = field(default_factory=dict)
    """File → another size than it has."""
    address: str = ""
    storage: str = ""
    """Where large files are: another host, by its port."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path, and the Range of every request."""
    tokens: dict[str, set[str]] = field(default_factory=lambda: {"hub": set(), "storage": set()})
    """Authorization headers that each host saw."""


@contextmanager
def serving(hub: LocalHub) -> Iterator[LocalHub]:
    """The hub and its storage at addresses of their own while the block runs."""
    servers = []
    for role in ("hub", "storage"):
        handler = type("Handler", (_Handler,), {"hub": hub, "role": role})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
    hub.address, hub.storage = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    role: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A repository's files, one of them, or where that is."""
        path = self.path.partition("?")[0]
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if token := self.headers.get("Authorization"):
            self.hub.tokens[self.role].add(token)
        api = re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/revision/(\w+))?", path)
        file = re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path)
        match = api or file
        name = match[1] if match else ""
        if name in self.hub.moved:
            return self._answer(307, {"Location": self.path.replace(name, self.hub.moved[name])})
        repository = self.hub.repositories.get(name)
        if match is None or repository is None:
            return self._answer(404, {"X-Error-Code": "RepoNotFound"})
        if repository.status:
            return self._answer(repository.status, {"X-Error-Code": repository.error} if repository.error else {})
        if match[2] not in (None, "main", repository.commit):
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        if api:
            return self._listing(name, repository)
        content = repository.files.get(match[3])
        if content is None:
            return self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit})
        return self._file(match[3], content, repository)

    do_HEAD = do_GET

    def log_message(self, *words: Any) -> None:
        """Say nothing."""

    def _listing(self, name: str, repository: Repository) -> None:
        files = []
        for file, content in repository.files.items():
            size = self.hub.claimed.get(file, len(content))
            one: dict[str, Any] = {"rfilename": file, "size": size, "blobId": _git(content)}
            if _large(file) and not self.hub.unlisted:
                one["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 134}
            files.append(one)
        tags = [f"license:{repository.licence}"] if repository.licence else []
        answer = {"id": name, "modelId": name, "sha": repository.commit, "siblings": files, "tags": tags}
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _file(self, name: str, content: bytes, repository: Repository) -> None:
        facts = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if _large(name) and self.role == "hub":
            facts |= {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
            return self._answer(302, {**facts, "Location": f"{self.hub.storage}{self.path}"})
        content = self.hub.sent.get(name, content)
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        if start:
            facts["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        facts["ETag"] = f'"{_git(content)}"'
        if self.command == "GET" and _large(name) and self.hub.then and not self.hub.cuts:
            return self._answer(self.hub.then, {})
        return self._answer(206 if start else 200, facts, content[start:], cut=_large(name))

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"", *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and self.hub.cuts:
            self.wfile.write(content[: self.hub.cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            if self.hub.held is not None:
                self.hub.held.set()
                time.sleep(5)
        else:
            self.wfile.write(content)


def _large(file: str) -> bool:
    return file.endswith(".safetensors")


def _git(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
