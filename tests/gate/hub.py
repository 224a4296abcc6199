"""A hub on this machine: what huggingface_hub asks of the real one when a model's card gets a pull request."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

SHA = "5a" * 20


@dataclass
class Hub:
    """One model, and what was asked of it."""

    repo: str
    readme: str | None
    token: str
    refuses: int = 0
    """The status with which a commit is refused; 0: it is taken."""
    address: str = ""
    asked: list[str] = field(default_factory=list)
    """Method and path of every request."""
    commits: list[dict[str, Any]] = field(default_factory=list)
    """query, summary, parent, and the files with their texts."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at an address of its own while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The model, and its card."""
        path = self._noted()
        readme = None if self.hub.readme is None else self.hub.readme.encode()
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._answer(401, {"error": f"Invalid credentials {self.headers.get('Authorization')}"})
        elif re.fullmatch(rf"/api/models/{self.hub.repo}", path):
            self._answer(200, {"id": self.hub.repo, "modelId": self.hub.repo, "sha": SHA, "siblings": [], "tags": []})
        elif path == f"/{self.hub.repo}/resolve/{SHA}/README.md" and readme is not None:
            tag = hashlib.sha1(readme).hexdigest()
            self._send(200, readme, {"ETag": f'"{tag}"', "X-Repo-Commit": SHA, "Content-Type": "text/plain"})
        elif path.startswith(f"/{self.hub.repo}/resolve/"):
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA})
        else:
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Whether a file is large, and the commit."""
        path = self._noted()
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == f"/api/models/{self.hub.repo}/preupload/main":
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(sent)["files"]]
            self._answer(200, {"files": [{**one, "shouldIgnore": False} for one in files]})
        elif path == "/api/validate-yaml":
            front = yaml.safe_load(json.loads(sent)["content"].split("---\n")[1])
            errors = [] if isinstance(front, dict) else [{"message": "metadata is no mapping"}]
            self._answer(200, {"errors": errors, "warnings": []})
        elif path == f"/api/models/{self.hub.repo}/commit/main" and self.hub.refuses:
            self._answer(self.hub.refuses, {"error": f"Forbidden for {self.headers.get('Authorization')}"})
        elif path == f"/api/models/{self.hub.repo}/commit/main":
            lines = [json.loads(line) for line in sent.splitlines()]
            header = next(line["value"] for line in lines if line["key"] == "header")
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"]).decode()
                for line in lines
                if line["key"] == "file"
            }
            self.hub.commits.append({"query": self.path.partition("?")[2], **header, "files": files})
            address = f"{self.hub.address}/{self.hub.repo}"
            urls = {"commitUrl": f"{address}/commit/{SHA}", "pullRequestUrl": f"{address}/discussions/7"}
            self._answer(200, {"success": True, "commitOid": SHA, **urls})
        else:
            self._answer(404, {"error": "what?"})

    def log_message(self, *words: Any) -> None:
        """Say nothing."""

    def _noted(self) -> str:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        return path

    def _answer(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
