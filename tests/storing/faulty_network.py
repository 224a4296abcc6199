"""A proxy before an S3 server that misbehaves as told: late, busy, cut off, damaged, or answering in its place."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to one request."""

    late: float = 0.0
    """Seconds before it is passed on."""
    status: int = 0
    """Answered with this HTTP status, and `code` if it is an error, without asking the server."""
    code: str = "SlowDown"
    cut: bool = False
    """Passed on; of the answer only half arrives, then the connection is reset."""
    flip: bool = False
    """Passed on; one bit of the answer's body is another."""


class FaultyNetwork:
    """A proxy on the loopback interface; a context manager."""

    def __init__(self, port: int) -> None:
        """Pass everything on to this port of the loopback interface."""
        self.upstream = port
        self.fault: Callable[[str, str], Fault | None] = lambda method, path: None
        """Called with method and path of each request."""
        self.requests: list[tuple[str, str]] = []
        network = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(OSError, http.client.HTTPException):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def _pass(self) -> None:
                network._pass(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is nobody's error."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyNetwork:
        threading.Thread(target=lambda: self._server.serve_forever(0.05), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def first(self, count: int, fault: Fault, *, method: str = "", part: str = "") -> None:
        """Let this happen to the first `count` requests of a method whose path has this part; then nothing."""
        left = [count]

        def chosen(method_: str, path: str) -> Fault | None:
            if left[0] > 0 and method in ("", method_) and part in path:
                left[0] -= 1
                return fault
            return None

        self.fault = chosen

    def _pass(self, client: BaseHTTPRequestHandler) -> None:
        body = client.rfile.read(int(client.headers.get("Content-Length") or 0))
        self.requests.append((client.command, client.path))
        fault = self.fault(client.command, client.path) or Fault()
        time.sleep(fault.late)
        if fault.status:
            text = (
                b""
                if fault.status < 300
                else f"<Error><Code>{fault.code}</Code><Message>{fault.code}</Message></Error>".encode()
            )
            _answer(client, fault.status, [("Content-Type", "application/xml")], text)
            return
        try:
            upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
            upstream.putrequest(client.command, client.path, skip_host=True, skip_accept_encoding=True)
            for name, value in client.headers.items():
                if name.lower() not in _HOP:
                    upstream.putheader(name, value)
            if body or client.command in ("PUT", "POST"):
                upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
        except OSError:  # the server is gone: so is the connection
            _reset(client)
            return
        if fault.flip and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        if client.command == "HEAD":
            headers.append(("Content-Length", answer.getheader("Content-Length") or "0"))
        _answer(client, answer.status, headers, content, cut=fault.cut)


def _answer(
    client: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False
) -> None:
    client.send_response_only(status)
    for name, value in headers:
        client.send_header(name, value)
    if client.command != "HEAD":
        client.send_header("Content-Length", str(len(body)))
    if cut and not body:
        _reset(client)  # not even the status
        return
    client.end_headers()
    client.wfile.write(body[: len(body) // 2] if cut else body)
    if cut:
        client.wfile.flush()
        _reset(client)


def _reset(client: BaseHTTPRequestHandler) -> None:
    client.close_connection = True
    with suppress(OSError):
        client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with suppress(OSError):
        client.connection.shutdown(socket.SHUT_RDWR)
