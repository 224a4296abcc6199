"""Serves the page of `resurgence label` on this machine's own address, to a browser that has the token.

    GET  /?token=…                  page.html
    GET  /state                     counts, choices, and the places of the next pictures
    GET  /picture/<place>           a picture by its place in this labeller's order
    GET  /reference/<number>        a picture of a choice
    POST /answer {place, label}     kept before it is answered
    POST /undo

Every request needs the token, and the page's own host; a POST needs the page's own origin, too. So no page of another
site, and nobody on the network, can read a picture or give an answer. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.labelling.session import Session

MOST_SENT = 10_000
"""Bytes of the longest answer."""
POLICY = (
    "default-src 'none'; img-src 'self' blob:; connect-src 'self'; style-src 'unsafe-inline'; script-src 'nonce-{}'"
)
"""Content security policy of the page: nothing from elsewhere."""


class Server(ThreadingHTTPServer):
    """A session on 127.0.0.1."""

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, session: Session, port: int = 0) -> None:
        """Port 0 takes any free one. UserError if the port cannot be used."""
        self.session = session
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as problem:
            raise UserError(
                sentence(f"Port {port} cannot be used.", problem=problem, do="Choose another, or 0 for any free one.")
            ) from None

    @property
    def address(self) -> str:
        """The page's address with its token."""
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    @cached_property
    def page(self) -> str:
        """The page without its nonce."""
        return (files("resurgence_harness.labelling") / "page.html").read_text(encoding="utf-8")


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The page, its state, a picture."""
        if not self._allowed(post=False):
            return
        path, _ = self._asked()
        session = self.server.session
        if path == "/":
            nonce = secrets.token_urlsafe(16)
            page = self.server.page.replace("NONCE", nonce)
            policy = {"Content-Security-Policy": POLICY.format(nonce)}
            self._send(200, page.encode(), "text/html; charset=utf-8", policy)
        elif path == "/state":
            self._json(200, session.state() | {"references": sorted(self._references)})
        elif (place := _number(path, "/picture/")) is not None and place < len(session.order):
            self._picture(session.pictures.folder / session.order[place].file)
        elif (place := _number(path, "/reference/")) is not None and place in self._references:
            self._picture(session.pictures.folder / self._references[place])
        else:
            self._json(404, {"error": "There is nothing here."})

    def do_POST(self) -> None:
        """An answer, or the last one undone."""
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > MOST_SENT:
            self.close_connection = True
            self._json(400, {"error": "This is no answer."})
            return
        sent = self.rfile.read(int(size))
        if not self._allowed(post=True):
            return
        path, _ = self._asked()
        if path == "/undo":
            self._kept(self.server.session.undo)
            return
        try:
            answer = json.loads(sent)
            place, label = answer["place"], answer["label"]
            if path != "/answer" or not isinstance(place, int) or not isinstance(label, str) or place < 0:
                raise ValueError
            self.server.session.order[place]
        except (ValueError, KeyError, TypeError, IndexError):
            self._json(400, {"error": "This is no answer."})
            return
        self._kept(lambda: self.server.session.answer(place, label))

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests: their addresses hold the token."""

    @property
    def _references(self) -> dict[int, str]:
        pictures = self.server.session.pictures
        return {
            place: pictures.references[name]
            for place, name in enumerate(pictures.choices, 1)
            if name in pictures.references
        }

    def _kept(self, change: Callable[[], dict[str, Any]]) -> None:
        try:
            self._json(200, change())
        except UserError as problem:
            self._json(507, {"error": str(problem)})

    def _allowed(self, *, post: bool) -> bool:
        """Whether the request is from the page itself; otherwise it is answered with 403."""
        hosts = {f"127.0.0.1:{self.server.server_port}", f"localhost:{self.server.server_port}"}
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        token = (self._asked()[1].get("token") or [self.headers.get("X-Token", "")])[0]
        own = origin == f"http://{host}" or (origin is None and not post)
        if host in hosts and own and hmac.compare_digest(token.encode(), self.server.token.encode()):
            return True
        self._json(403, {"error": "This page is opened by the address that `resurgence label` printed."})
        return False

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return parts.path, parse_qs(parts.query)

    def _picture(self, path: Path) -> None:
        try:
            self._send(200, path.read_bytes(), "image/png", {})
        except OSError:
            self._json(404, {"error": f"The picture {path.name} is missing."})

    def _json(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, json.dumps(content).encode(), "application/json", {})

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        always = {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store"}
        always |= {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        always |= {"Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY"}
        for name, value in {**always, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _number(path: str, before: str) -> int | None:
    rest = path.removeprefix(before)
    return int(rest) if rest != path and rest.isascii() and rest.isdecimal() and len(rest) < 8 else None
